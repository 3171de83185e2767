// Hostile surroundings: file systems, limits, other users' sockets, refused system calls, /proc. Each
// is a clear error that names the cure, or is got over; nobody is let in beside a holder.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <instance_guard/pid_lockfile.hpp>
#include <set>
#include <string>

#include "support/deny_system_calls.hpp"
#include "support/odd_place.hpp"
#include "support/other_user.hpp"
#include "support/program.hpp"

using namespace instance_guard;
using support::in_child;
using support::own_mounts;
using support::root_only;
using support::stranger;
using place = support::odd_place;

namespace {

int listen_on(const std::string& name, int backlog) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
  const int made = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (::bind(made, reinterpret_cast<sockaddr*>(&address), size) != 0) return -1;
  if (backlog >= 0 && ::listen(made, backlog) != 0) return -1;
  return made;
}

int connect_to(const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
  const int made = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return ::connect(made, reinterpret_cast<sockaddr*>(&address), size) == 0 ? made : -1;
}

}  // namespace

TEST_SUITE("file system") {
  TEST_CASE("a read-only one is named, with the cure") {
    if (!support::may_mount()) return;
    place here;
    CHECK(in_child([&] {
            if (!own_mounts() || ::mount("none", here.locks().c_str(), "tmpfs", MS_RDONLY, "size=64k,mode=700") != 0)
              return 77;
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            if (ec != std::errc::read_only_file_system) return 1;
            if (lock.explanation().find(here.file()) == std::string::npos) return 2;
            return lock.explanation().find("cure") == std::string::npos ? 3 : 0;
          }) == 0);
  }
  TEST_CASE("a full one is named, with the cure; what was there stays as it was") {
    if (!support::may_mount()) return;
    place here;
    CHECK(in_child([&] {
            if (!own_mounts() || ::mount("none", here.locks().c_str(), "tmpfs", 0, "size=64k,mode=700") != 0) return 77;
            const auto fill = [&](const std::string& path) {
              std::ofstream out(path, std::ios::binary);
              const std::string block(1024, 'x');
              while (out.write(block.data(), 1024).flush()) {
              }
            };
            fill(here.locks() + "/fill");
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            if (ec != std::errc::no_space_on_device) return 1;
            if (lock.explanation().find(here.file()) == std::string::npos) return 2;
            if (lock.explanation().find("cure") == std::string::npos) return 3;
            if (std::filesystem::exists(here.file())) return 4;
            // The file of a dead holder with a short record that has no room to grow.
            std::filesystem::remove(here.locks() + "/fill");
            std::ofstream(here.file()) << "";
            ::chmod(here.file().c_str(), 0600);
            fill(here.locks() + "/fill");
            pid_lockfile again(here.name, here.options(), ec);
            if (ec != std::errc::no_space_on_device) return 5;
            std::filesystem::remove(here.locks() + "/fill");
            pid_lockfile fits(here.name, here.options(), ec);
            return ec ? 6 : 0;
          }) == 0);
  }
  TEST_CASE(
      "a limit of file sizes (ulimit -f 0) is named, and SIGXFSZ does not end the program, now or "
      "later") {
    place here;
    CHECK(in_child([&] {
            const rlimit none = {0, 0};
            ::setrlimit(RLIMIT_FSIZE, &none);
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            if (ec != std::errc::file_too_large) return 1;
            if (lock.explanation().find(here.file()) == std::string::npos) return 2;
            if (lock.explanation().find("ulimit -f") == std::string::npos) return 3;
            sigset_t pending;
            ::sigpending(&pending);
            return ::sigismember(&pending, SIGXFSZ) ? 4 : 0;
          }) == 0);
    CHECK(std::filesystem::is_empty(here.locks()));
    // The record of a holder that was killed outlives a start that can write only half of its own.
    CHECK(in_child([&] {
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            ::_exit(ec ? 1 : 0);
            return 0;
          }) == 0);
    CHECK(in_child([&] {
            const rlimit some = {100, 100};
            ::setrlimit(RLIMIT_FSIZE, &some);
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            return ec == std::errc::file_too_large ? 0 : 1;
          }) == 0);
    CHECK(query_lock(here.name, here.options()).state == lock_state::abandoned);
    CHECK(query_lock(here.name, here.options()).holder.has_value());
    // A refused start under that limit is refused all the same.
    pid_lockfile lock(here.name, here.options());
    CHECK(in_child([&] {
            const rlimit none = {0, 0};
            ::setrlimit(RLIMIT_FSIZE, &none);
            std::error_code ec;
            pid_lockfile second(here.name, here.options(), ec);
            return ec == errc::already_running ? 0 : 1;
          }) == 0);
  }
}

TEST_SUITE("descriptors") {
  TEST_CASE("any limit of descriptors gives the lock or a clear error, and leaves nothing") {
    std::set<int> seen;
    for (rlim_t limit = 3; limit < 24; ++limit) {
      place here;
      const int code = in_child([&] {
        for (int descriptor = 3; descriptor < 64; ++descriptor) ::close(descriptor);
        const rlimit few = {limit, limit};
        ::setrlimit(RLIMIT_NOFILE, &few);
        std::error_code ec;
        pid_lockfile lock(here.name, here.options(), ec);
        if (!ec) {
          lock.verify(ec);
          return ec ? 2 : 0;
        }
        if (ec != std::errc::too_many_files_open) return 3;
        if (lock.explanation().find(here.locks()) == std::string::npos) return 5;
        return lock.explanation().find("ulimit -n") != std::string::npos ? 1 : 4;
      });
      CAPTURE(limit);
      CHECK(code <= 1);
      seen.insert(code);
      CHECK(std::filesystem::is_empty(here.locks()));
    }
    CHECK(seen == std::set<int>{0, 1});
  }
}

TEST_SUITE("socket lock") {
  // The names that the library uses, spelled out: they are an interface between its versions.
  std::string socket_of(uid_t uid, const std::string& name) {
    return "instance_guard/user/" + std::to_string(uid) + "/" + name;
  }

  TEST_CASE("a stranger who binds the name can't lock anybody out, whether it listens or not") {
    if (!root_only("being several users")) return;
    for (const int backlog : {-1, 0, 100}) {
      CAPTURE(backlog);
      place here;
      int ready[2], stop[2];
      REQUIRE(::pipe(ready) == 0);
      REQUIRE(::pipe(stop) == 0);
      const pid_t squatter = ::fork();
      if (squatter == 0) {
        ::alarm(120);  // ends by itself, whatever becomes of the test
        ::close(stop[1]);
        char ok = support::become(stranger) && listen_on(socket_of(0, here.name), backlog) >= 0 ? 'y' : 'n';
        if (backlog == 0)
          while (connect_to(socket_of(0, here.name)) >= 0) {
          }
        if (::write(ready[1], &ok, 1) < 0 || ::read(stop[0], &ok, 1) < 0) ::_exit(1);
        ::_exit(0);
      }
      char ok = 0;
      REQUIRE(::read(ready[0], &ok, 1) == 1);
      CHECK(ok == 'y');
      std::error_code ec;
      pid_lockfile lock(here.name, here.options(), ec);
      CHECK(!ec);
      lock.verify(ec);
      CHECK(!ec);
      // ... and a second start is refused by the file, by name, whatever the socket says.
      CHECK(in_child([&] {
              std::error_code why;
              pid_lockfile second(here.name, here.options(), why);
              return why == errc::already_running && second.holder() && second.holder()->process.pid == ::getppid() ? 0
                                                                                                                    : 1;
            }) == 0);
      CHECK(query_lock(here.name, here.options()).state == lock_state::held);
      lock.release();
      CHECK(query_lock(here.name, here.options()).state == lock_state::free);
      for (const int end : {ready[0], ready[1], stop[0], stop[1]}) ::close(end);
      ::waitpid(squatter, nullptr, 0);
    }
  }
  TEST_CASE("in scope host everybody counts") {
    if (!root_only("being several users")) return;
    place here;
    lock_options options = here.options();
    options.scope = lock_scope::host;
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t other = ::fork();
    if (other == 0) {
      ::alarm(120);  // ends by itself, whatever becomes of the test
      char ok = support::become(stranger) && listen_on("instance_guard/host/" + here.name, 10) >= 0 ? 'y' : 'n';
      if (::write(ready[1], &ok, 1) < 0) ::_exit(1);
      ::pause();
    }
    char ok = 0;
    REQUIRE(::read(ready[0], &ok, 1) == 1);
    std::error_code ec;
    pid_lockfile lock(here.name, options, ec);
    CHECK(ec == errc::already_running);
    if (lock.holder()) CHECK(lock.holder()->process.pid == other);
    ::kill(other, SIGKILL);
    ::waitpid(other, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
    CHECK(std::filesystem::is_empty(here.locks()) == false);  // its refusal
    CHECK(!std::filesystem::exists(here.file()));
  }
  TEST_CASE("a process of the same user that has it, without a file, is a holder that can be named") {
    place here;
    const int bound = listen_on(socket_of(::geteuid(), here.name), 10);
    REQUIRE(bound >= 0);
    CHECK(query_lock(here.name, here.options()).state == lock_state::held);
    CHECK(in_child([&] {
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            if (ec != errc::already_running) return 1;
            return lock.holder() && lock.holder()->process.pid != ::getppid() ? 2 : 0;
          }) == 0);
    ::close(bound);
    CHECK(!std::filesystem::exists(here.file()));
  }
}

TEST_SUITE("kernel") {
  TEST_CASE("without sockets, or without their listing, the file lock does alone") {
    for (const long denied : {long{SYS_socket}, long{SYS_bind}, long{SYS_listen}, long{SYS_getsockopt}}) {
      CAPTURE(denied);
      place here;
      pid_lockfile other(here.name + "-other", here.options());
      CHECK(in_child([&] {
              if (!support::deny_system_calls({denied}, EPERM)) return 77;
              std::error_code ec;
              pid_lockfile lock(here.name, here.options(), ec);
              if (ec) return 1;
              lock.verify(ec);
              if (ec) return 2;
              return in_child([&] {
                std::error_code why;
                pid_lockfile second(here.name, here.options(), why);
                return why == errc::already_running && second.holder() && second.holder()->process.pid == ::getppid()
                           ? 0
                           : 3;
              });
            }) % 77 ==
            0);
    }
  }
  TEST_CASE("without flock nothing is promised") {
    for (const int error : {ENOLCK, ENOSYS, EOPNOTSUPP, EIO}) {
      CAPTURE(error);
      place here;
      CHECK(in_child([&] {
              if (!support::deny_system_calls({SYS_flock}, error)) return 77;
              std::error_code ec;
              pid_lockfile lock(here.name, here.options(), ec);
              if (ec.value() != error || lock) return 1;
              return lock.explanation().find(here.file()) == std::string::npos ? 2 : 0;
            }) % 77 ==
            0);
      // What could not be locked was not removed either: somebody may have it.
      std::error_code ec;
      pid_lockfile lock(here.name, here.options(), ec);
      CHECK(!ec);
      CHECK(!lock.recovered_from());
    }
  }
  TEST_CASE("without pidfd_open, getpid's namespace or madvise it goes on") {
    for (const long denied : {long{SYS_pidfd_open}, long{SYS_madvise}}) {
      place here;
      CHECK(in_child([&] {
              if (!support::deny_system_calls({denied}, ENOSYS)) return 77;
              std::error_code ec;
              pid_lockfile lock(here.name, here.options(), ec);
              if (ec) return 1;
              lock.verify(ec);
              if (ec) return 2;
              if (in_child([&] { return lock.owns_lock() ? 1 : 0; }) != 0) return 3;
              lock.release();
              return std::filesystem::exists(here.file()) ? 4 : 0;
            }) % 77 ==
            0);
    }
  }
  TEST_CASE("without /proc a name is held, refused with its pid, and taken over") {
    if (!support::may_mount()) return;
    place here;
    CHECK(in_child([&] {
            if (!own_mounts() || ::mount("none", "/proc", "tmpfs", 0, "size=4k") != 0) return 77;
            const pid_t holder = ::fork();
            if (holder == 0) {
              ::alarm(120);  // ends by itself, whatever becomes of the test
              std::error_code ec;
              pid_lockfile lock(here.name, here.options(), ec);
              if (ec) ::_exit(1);
              ::pause();
            }
            const auto end = std::chrono::steady_clock::now() + support::patience;
            std::error_code ec;
            const auto written = [&] { return std::filesystem::file_size(here.file(), ec) > 0 && !ec; };
            while (!written() && std::chrono::steady_clock::now() < end) ::usleep(1000);
            pid_lockfile refused(here.name, here.options(), ec);
            if (ec != errc::already_running) return 1;
            if (!refused.holder() || refused.holder()->process.pid != holder) return 2;
            ::kill(holder, SIGKILL);
            ::waitpid(holder, nullptr, 0);
            pid_lockfile lock(here.name, here.options(), ec);
            if (ec) return 3;
            lock.verify(ec);
            if (ec) return 4;
            return lock.recovered_from() && lock.recovered_from()->process.pid == holder ? 0 : 5;
          }) == 0);
  }
  TEST_CASE("with /proc hiding others' processes (hidepid=2) a holder of another user is alive") {
    if (!support::may_mount()) return;
    place here;
    ::chmod(here.locks().c_str(), 01777);
    lock_options options = here.options();
    options.scope = lock_scope::host;
    pid_lockfile lock(here.name, options);
    CHECK(in_child([&] {
            if (!own_mounts() || ::mount("none", "/proc", "proc", 0, "hidepid=2") != 0) return 77;
            if (!support::become(stranger)) return 77;
            std::error_code ec;
            pid_lockfile second(here.name, options, ec);
            if (ec != errc::already_running) return 1;
            return second.holder() && second.holder()->process.pid == ::getppid() ? 0 : 2;
          }) % 77 ==
          0);
  }
  TEST_CASE("a host-wide name that another user left abandoned can be taken, refused and let go") {
    if (!root_only("being several users")) return;
    place here;
    ::chmod(here.locks().c_str(), 01777);
    lock_options options = here.options();
    options.scope = lock_scope::host;
    CHECK(in_child([&] {
            if (!support::become(support::nobody)) return 77;
            std::error_code ec;
            pid_lockfile lock(here.name, options, ec);
            ::_exit(ec ? 1 : 0);  // leaves the file
            return 0;
          }) == 0);
    CHECK(std::filesystem::exists(here.file()));
    CHECK(in_child([&] {
            if (!support::become(stranger)) return 77;
            std::error_code ec;
            pid_lockfile lock(here.name, options, ec);
            if (ec) return 1;
            lock.verify(ec);
            if (ec) return 2;
            const int refused = in_child([&] {
              std::error_code why;
              pid_lockfile second(here.name, options, why);
              if (why != errc::already_running) return 3;
              return second.holder() && second.holder()->process.pid != ::getppid() ? 4 : 0;
            });
            return refused;
          }) == 0);
  }
}
