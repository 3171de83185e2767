// Hostile surroundings: each is a clear error that names the path and the cure, or is got over;
// nothing is changed, and nobody is let in beside a holder.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <thread>

#include "support/deny_system_calls.hpp"
#include "support/other_user.hpp"
#include "support/program.hpp"
#include "support/stepped_process.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;

namespace {

struct place {
  support::temporary_directory directory = {};
  std::string name = support::unique_name("odd");
  lock_options options() const {
    lock_options result;
    result.directory = directory.path() / "locks";
    return result;
  }
  std::string locks() const { return options().directory.string(); }
  std::string file() const { return locks() + "/" + name + ".lock"; }
  place() {
    directory.open_to_all();
    std::filesystem::create_directory(locks());
    ::chmod(locks().c_str(), 0700);
  }
};

/// What a start says of a place that it can't use.
void check_refused(const place& here, std::error_code expected, const std::string& path,
                   const std::string& cure, const lock_options& options) {
  std::error_code ec;
  pid_lockfile lock(here.name, options, ec);
  CAPTURE(lock.explanation());
  CHECK(!lock);
  CHECK(ec.default_error_condition() == expected.default_error_condition());
  CHECK(lock.explanation().find(path) != std::string::npos);
  CHECK(lock.explanation().find("cure") != std::string::npos);
  CHECK(lock.explanation().find(cure) != std::string::npos);
}
void check_refused(const place& here, std::error_code expected, const std::string& path,
                   const std::string& cure) {
  check_refused(here, expected, path, cure, here.options());
}
std::error_code of(errc code) { return make_error_code(code); }
std::error_code of(std::errc code) {
  return std::error_code(static_cast<int>(code), std::system_category());
}

/// Runs in a forked child, since it changes the process; 0: as promised, 77: not possible here.
int in_child(const std::function<int()>& work) {
  const pid_t pid = ::fork();
  // A sanitizer's _exit would write out what stdio holds, under the limits that are set in there.
  if (pid == 0) ::syscall(SYS_exit_group, work());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool root_only(const char* what) {
  if (support::is_root()) return true;
  MESSAGE("skipped: " << std::string(what) << " needs root");
  return false;
}

bool own_mounts() {
  return ::unshare(CLONE_NEWNS) == 0 &&
         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

const uid_t stranger = 1'000'000'000u + static_cast<uid_t>(::getpid());

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

TEST_SUITE("directory") {
  TEST_CASE("one of another user is refused") {
    if (!root_only("giving a directory away")) return;
    place here;
    REQUIRE(::chown(here.locks().c_str(), support::nobody, support::nobody) == 0);
    check_refused(here, of(errc::unsafe_directory), here.locks() + " belongs to user nobody",
                  "rm -r " + here.locks());
    CHECK(std::filesystem::is_empty(here.locks()));
  }
  TEST_CASE("a symbolic link is refused") {
    place here;
    const std::string real = here.directory / "real";
    std::filesystem::rename(here.locks(), real);
    std::filesystem::create_directory_symlink(real, here.locks());
    check_refused(here, of(errc::unsafe_directory), here.locks() + " is a symbolic link",
                  "name its target");
    lock_options options = here.options();
    options.directory += "/";
    check_refused(here, of(errc::unsafe_directory), here.locks() + " is a symbolic link",
                  "name its target", options);
    CHECK(std::filesystem::is_empty(real));
  }
  TEST_CASE("a file in its place is refused") {
    place here;
    std::filesystem::remove(here.locks());
    std::ofstream(here.locks()) << "mine";
    check_refused(here, of(errc::unsafe_directory), here.locks() + " is no directory",
                  "rm " + here.locks());
    CHECK(std::filesystem::file_size(here.locks()) == 4);
  }
  TEST_CASE("one that others can write is refused") {
    for (const mode_t mode : {0770, 0702, 0777}) {
      place here;
      ::chmod(here.locks().c_str(), mode);
      check_refused(here, of(errc::unsafe_directory), here.locks() + " can be written by others",
                    "chmod go-w");
      struct stat facts = {};
      ::stat(here.locks().c_str(), &facts);
      CHECK((facts.st_mode & 07777) == mode);
    }
  }
  TEST_CASE("a sticky one that all can write is fine, like /tmp") {
    place here;
    ::chmod(here.locks().c_str(), 01777);
    std::error_code ec;
    pid_lockfile lock(here.name, here.options(), ec);
    CHECK(!ec);
  }
  TEST_CASE("a missing parent is named") {
    place here;
    lock_options options = here.options();
    options.directory = here.locks() + "/a/b";
    check_refused(here, of(std::errc::no_such_file_or_directory), options.directory.string(),
                  "make the directory above", options);
    CHECK(std::filesystem::is_empty(here.locks()));
  }
  TEST_CASE("one without access is named") {
    place here;
    CHECK(in_child([&] {
            if (support::is_root()) {
              ::chown(here.directory.path().c_str(), support::nobody, support::nobody);
              ::chown(here.locks().c_str(), support::nobody, support::nobody);
              if (!support::become(support::nobody)) return 77;
            }
            for (const mode_t mode : {0500, 0000}) {
              ::chmod(here.locks().c_str(), mode);
              std::error_code ec;
              pid_lockfile lock(here.name, here.options(), ec);
              if (ec != std::errc::permission_denied) return 1;
              if (lock.explanation().find(here.locks()) == std::string::npos) return 2;
              if (lock.explanation().find("cure") == std::string::npos) return 3;
            }
            ::chmod(here.locks().c_str(), 0700);
            return 0;
          }) == 0);
    CHECK(std::filesystem::is_empty(here.locks()));
  }
  TEST_CASE("on a network file system it is refused, unless that is allowed") {
    for (const bool allowed : {false, true}) {
      place here;
      support::stepped_process one([&] {
        lock_options options = here.options();
        options.allow_network_file_system = allowed;
        std::error_code ec;
        pid_lockfile lock(here.name, options, ec);
        if (ec == errc::network_file_system && lock.explanation().find("cure") != std::string::npos)
          return 3;
        return ec ? 1 : 0;
      });
      if (!one.possible()) return;
      if (allowed) {
        CHECK(!one.run_to(SYS_fstatfs));
        CHECK(one.status() == 0);
      } else {
        REQUIRE(one.run_to(SYS_fstatfs));
        REQUIRE(one.finish_call());
        REQUIRE(one.poke(one.second_argument(), 0x6969));  // NFS
        CHECK(one.finish() == 3 << 8);
      }
      CHECK(std::filesystem::is_empty(here.locks()));
    }
  }
  TEST_CASE("the default one does not depend on the environment") {
    const auto before = default_lock_directory(lock_scope::user);
    CHECK(in_child([&] {
            ::setenv("HOME", "/elsewhere", 1);
            ::setenv("TMPDIR", "/elsewhere", 1);
            ::setenv("XDG_RUNTIME_DIR", "/elsewhere", 1);
            return default_lock_directory(lock_scope::user) == before ? 0 : 1;
          }) == 0);
  }
  TEST_CASE(
      "the default one, made first by a stranger, is passed over; if all are, it is refused with "
      "the cure") {
    if (!root_only("being several users")) return;
    const std::string base = "/tmp/instance_guard-" + std::to_string(stranger);
    const auto path = [&](int n) { return n == 0 ? base : base + "." + std::to_string(n); };
    std::filesystem::create_directory(base);
    std::filesystem::create_directory_symlink("/tmp", path(1));
    for (int n = 3; n <= 9; ++n) std::filesystem::create_directory(path(n));
    const std::string name = support::unique_name("first");
    const auto as_the_user = [&](const std::function<int()>& work) {
      return in_child([&] { return support::become(stranger) ? work() : 77; });
    };
    CHECK(as_the_user([&] {
            std::error_code ec;
            pid_lockfile lock(name, ec);
            if (ec) return 1;
            return lock.path().parent_path() == path(2) ? 0 : 2;
          }) == 0);
    std::filesystem::remove(path(2));
    std::filesystem::create_directory(path(2));
    CHECK(as_the_user([&] {
            std::error_code ec;
            pid_lockfile lock(name, ec);
            if (ec != errc::unsafe_directory) return 1;
            if (lock.explanation().find(base + " belongs to user root") == std::string::npos)
              return 2;
            if (lock.explanation().find("cure     rm -r " + base) == std::string::npos) return 3;
            return 0;
          }) == 0);
    for (int n = 0; n <= 9; ++n) std::filesystem::remove(path(n));
  }
  TEST_CASE("two starts that end up in different directories are still one") {
    place here;
    pid_lockfile lock(here.name, here.options());
    CHECK(in_child([&] {
            lock_options other = here.options();
            other.directory = here.directory.path() / "other";
            std::error_code ec;
            pid_lockfile second(here.name, other, ec);
            if (ec != errc::already_running) return 1;
            if (!second.holder() || second.holder()->process.pid != ::getppid()) return 2;
            return std::filesystem::exists(other.directory / (here.name + ".lock")) ? 3 : 0;
          }) == 0);
  }
}

TEST_SUITE("lock file") {
  TEST_CASE("a symbolic link is refused, its target untouched") {
    place here;
    const std::string victim = here.directory / "victim";
    std::ofstream(victim) << "precious";
    SUBCASE("to a file") { std::filesystem::create_symlink(victim, here.file()); }
    SUBCASE("dangling") {
      std::filesystem::create_symlink(here.directory / "missing", here.file());
    }
    check_refused(here, of(std::errc::invalid_argument), here.file() + " is a symbolic link",
                  "remove it");
    CHECK(std::filesystem::file_size(victim) == 8);
    CHECK(!std::filesystem::exists(here.directory / "missing"));
  }
  TEST_CASE("anything that is no file is refused, and does not block") {
    place here;
    std::string kind;
    int listener = -1;
    SUBCASE("FIFO") {
      kind = "a FIFO";
      REQUIRE(::mkfifo(here.file().c_str(), 0600) == 0);
    }
    SUBCASE("directory") {
      kind = "a directory";
      std::filesystem::create_directory(here.file());
    }
    SUBCASE("socket") {
      kind = "a socket";
      sockaddr_un address = {};
      address.sun_family = AF_UNIX;
      here.file().copy(address.sun_path, sizeof address.sun_path - 1);
      listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    }
    SUBCASE("device") {
      kind = "a device";
      if (!root_only("making a device")) return;
      if (::mknod(here.file().c_str(), S_IFCHR | 0666, makedev(1, 3)) != 0) return;
    }
    check_refused(here, of(std::errc::invalid_argument), here.file() + " is " + kind, "remove it");
    CHECK(std::filesystem::exists(here.file()));
    if (listener >= 0) ::close(listener);
  }
  TEST_CASE("a hard link is refused, its other name untouched") {
    place here;
    const std::string victim = here.directory / "victim";
    std::ofstream(victim) << "precious";
    std::filesystem::create_hard_link(victim, here.file());
    check_refused(here, of(std::errc::too_many_links), here.file() + " has a second name",
                  "rm " + here.file());
    CHECK(std::filesystem::file_size(victim) == 8);
  }
  TEST_CASE(
      "a file that is replaced all the time gives the lock or an error, soon, and never two "
      "holders") {
    place here;
    std::atomic<bool> stop{false};
    std::thread swapper([&] {
      const std::string fresh = here.directory / "fresh";
      while (!stop) {
        ::close(::open(fresh.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        ::rename(fresh.c_str(), here.file().c_str());
      }
    });
    int taken = 0, twice = 0;
    for (int i = 0; i < 200; ++i) {
      std::error_code ec;
      pid_lockfile lock(here.name, here.options(), ec);
      CHECK((!ec || ec == std::errc::resource_unavailable_try_again));
      if (ec) continue;
      ++taken;
      pid_lockfile second(here.name, here.options(), ec);
      if (!ec) ++twice;
    }
    stop = true;
    swapper.join();
    CHECK(taken > 0);
    CHECK(twice == 0);
  }
  TEST_CASE("a file of another user is refused") {
    if (!root_only("giving a file away")) return;
    place here;
    ::chmod(here.locks().c_str(), 01777);
    std::ofstream(here.file()) << "theirs";
    REQUIRE(::chown(here.file().c_str(), support::nobody, support::nobody) == 0);
    check_refused(here, of(std::errc::operation_not_permitted),
                  here.file() + " belongs to user nobody", "rm " + here.file());
    CHECK(std::filesystem::file_size(here.file()) == 6);
    // ... also where the kernel protects it (fs.protected_regular) from being opened.
    CHECK(in_child([&] {
            if (!support::become(stranger)) return 77;
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            return ec && lock.explanation().find("belongs to user nobody") != std::string::npos ? 0
                                                                                                : 1;
          }) == 0);
  }
  TEST_CASE("a file of one's own that can't be opened is named") {
    place here;
    std::ofstream(here.file()) << "x";
    ::chmod(here.file().c_str(), 0);
    CHECK(in_child([&] {
            if (support::is_root()) {
              for (const std::string& each :
                   {here.directory.path().string(), here.locks(), here.file()})
                ::chown(each.c_str(), support::nobody, support::nobody);
              if (!support::become(support::nobody)) return 77;
            }
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            return ec == std::errc::permission_denied &&
                           lock.explanation().find(here.file()) != std::string::npos
                       ? 0
                       : 1;
          }) == 0);
  }
}

TEST_SUITE("file system") {
  TEST_CASE("a read-only one is named, with the cure") {
    if (!root_only("mounting")) return;
    place here;
    CHECK(in_child([&] {
            if (!own_mounts() ||
                ::mount("none", here.locks().c_str(), "tmpfs", MS_RDONLY, "size=64k,mode=700") != 0)
              return 77;
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            if (ec != std::errc::read_only_file_system) return 1;
            if (lock.explanation().find(here.file()) == std::string::npos) return 2;
            return lock.explanation().find("cure") == std::string::npos ? 3 : 0;
          }) == 0);
  }
  TEST_CASE("a full one is named, with the cure; what was there stays as it was") {
    if (!root_only("mounting")) return;
    place here;
    CHECK(in_child([&] {
            if (!own_mounts() ||
                ::mount("none", here.locks().c_str(), "tmpfs", 0, "size=64k,mode=700") != 0)
              return 77;
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
        char ok = support::become(stranger) && listen_on(socket_of(0, here.name), backlog) >= 0
                      ? 'y'
                      : 'n';
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
              return why == errc::already_running && second.holder() &&
                             second.holder()->process.pid == ::getppid()
                         ? 0
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
      char ok = support::become(stranger) && listen_on("instance_guard/host/" + here.name, 10) >= 0
                    ? 'y'
                    : 'n';
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
  TEST_CASE(
      "a process of the same user that has it, without a file, is a holder that can be named") {
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
    for (const long denied :
         {long{SYS_socket}, long{SYS_bind}, long{SYS_listen}, long{SYS_getsockopt}}) {
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
                return why == errc::already_running && second.holder() &&
                               second.holder()->process.pid == ::getppid()
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
    if (!root_only("mounting")) return;
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
            const auto written = [&] {
              return std::filesystem::file_size(here.file(), ec) > 0 && !ec;
            };
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
    if (!root_only("mounting")) return;
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
