// Directories and files in which no lock can be: each is a clear error that names the path and the
// cure, or is got over; nothing is changed.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <instance_guard/pid_lockfile.hpp>
#include <string>
#include <thread>

#include "support/odd_place.hpp"
#include "support/other_user.hpp"
#include "support/program.hpp"
#include "support/stepped_process.hpp"

using namespace instance_guard;
using support::in_child;
using support::root_only;
using support::stranger;
using place = support::odd_place;

namespace {

/// What a start says of a place that it can't use.
void check_refused(const place& here, std::error_code expected, const std::string& path, const std::string& cure,
                   const lock_options& options) {
  std::error_code ec;
  pid_lockfile lock(here.name, options, ec);
  CAPTURE(lock.explanation());
  CHECK(!lock);
  CHECK(ec.default_error_condition() == expected.default_error_condition());
  CHECK(lock.explanation().find(path) != std::string::npos);
  CHECK(lock.explanation().find("cure") != std::string::npos);
  CHECK(lock.explanation().find(cure) != std::string::npos);
}
void check_refused(const place& here, std::error_code expected, const std::string& path, const std::string& cure) {
  check_refused(here, expected, path, cure, here.options());
}
/// A directory that the program named may be anything: nobody is told to remove it.
void check_no_removal(const place& here) {
  std::error_code ec;
  CHECK(pid_lockfile(here.name, here.options(), ec).explanation().find("rm ") == std::string::npos);
}
std::error_code of(errc code) { return make_error_code(code); }
std::error_code of(std::errc code) { return std::error_code(static_cast<int>(code), std::system_category()); }

}  // namespace

TEST_SUITE("directory") {
  TEST_CASE("one of another user is refused") {
    if (!root_only("giving a directory away")) return;
    place here;
    REQUIRE(::chown(here.locks().c_str(), support::nobody, support::nobody) == 0);
    check_refused(here, of(errc::unsafe_directory), here.locks() + " belongs to user nobody",
                  "lock_options.directory elsewhere");
    check_no_removal(here);
    CHECK(std::filesystem::is_empty(here.locks()));
  }
  TEST_CASE("a symbolic link is refused") {
    place here;
    const std::string real = here.directory / "real";
    std::filesystem::rename(here.locks(), real);
    std::filesystem::create_directory_symlink(real, here.locks());
    check_refused(here, of(errc::unsafe_directory), here.locks() + " is a symbolic link", "name its target");
    lock_options options = here.options();
    options.directory += "/";
    check_refused(here, of(errc::unsafe_directory), here.locks() + " is a symbolic link", "name its target", options);
    CHECK(std::filesystem::is_empty(real));
  }
  TEST_CASE("a file in its place is refused") {
    place here;
    std::filesystem::remove(here.locks());
    std::ofstream(here.locks()) << "mine";
    check_refused(here, of(errc::unsafe_directory), here.locks() + " is no directory",
                  "lock_options.directory elsewhere");
    check_no_removal(here);
    CHECK(std::filesystem::file_size(here.locks()) == 4);
  }
  TEST_CASE("one that others can write is refused") {
    for (const mode_t mode : {mode_t{0770}, mode_t{0702}, mode_t{0777}}) {
      place here;
      ::chmod(here.locks().c_str(), mode);
      check_refused(here, of(errc::unsafe_directory), here.locks() + " can be written by others", "chmod go-w");
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
  TEST_CASE("one with a NUL in its name is refused, and what stands before the NUL is not made") {
    place here;
    lock_options options = here.options();
    options.directory = here.locks() + std::string("/a\0b", 4);
    check_refused(here, of(std::errc::invalid_argument), "lock_options.directory", "elsewhere", options);
    CHECK(std::filesystem::is_empty(here.locks()));
  }
  TEST_CASE("a relative one is refused where the working directory is gone, with the cure") {
    place here;
    CHECK(in_child([&] {
            const std::string gone = here.locks() + "/gone";
            if (::mkdir(gone.c_str(), 0700) != 0 || ::chdir(gone.c_str()) != 0 || ::rmdir(gone.c_str()) != 0) return 1;
            lock_options options = here.options();
            options.directory = "mine";
            std::error_code ec;
            pid_lockfile lock(here.name, options, ec);
            if (ec != std::errc::no_such_file_or_directory) return 2;
            return lock.explanation().starts_with("mine is relative") &&
                           lock.explanation().find("absolute path") != std::string::npos
                       ? 0
                       : 3;
          }) == 0);
  }
  TEST_CASE("one without access is named") {
    place here;
    CHECK(in_child([&] {
            if (support::is_root()) {
              ::chown(here.directory.path().c_str(), support::nobody, support::nobody);
              ::chown(here.locks().c_str(), support::nobody, support::nobody);
              if (!support::become(support::nobody)) return 77;
            }
            for (const mode_t mode : {mode_t{0500}, mode_t{0000}}) {
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
        if (ec == errc::network_file_system && lock.explanation().find("cure") != std::string::npos) return 3;
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
            if (lock.explanation().find(base + " belongs to user root") == std::string::npos) return 2;
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
    SUBCASE("dangling") { std::filesystem::create_symlink(here.directory / "missing", here.file()); }
    check_refused(here, of(std::errc::invalid_argument), here.file() + " is a symbolic link", "remove it");
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
    check_refused(here, of(std::errc::too_many_links), here.file() + " has a second name", "rm " + here.file());
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
    check_refused(here, of(std::errc::operation_not_permitted), here.file() + " belongs to user nobody",
                  "rm " + here.file());
    CHECK(std::filesystem::file_size(here.file()) == 6);
    // ... also where the kernel protects it (fs.protected_regular) from being opened.
    CHECK(in_child([&] {
            if (!support::become(stranger)) return 77;
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            return ec && lock.explanation().find("belongs to user nobody") != std::string::npos ? 0 : 1;
          }) == 0);
  }
  TEST_CASE("a file of one's own that can't be opened is named") {
    place here;
    std::ofstream(here.file()) << "x";
    ::chmod(here.file().c_str(), 0);
    CHECK(in_child([&] {
            if (support::is_root()) {
              for (const std::string& each : {here.directory.path().string(), here.locks(), here.file()})
                ::chown(each.c_str(), support::nobody, support::nobody);
              if (!support::become(support::nobody)) return 77;
            }
            std::error_code ec;
            pid_lockfile lock(here.name, here.options(), ec);
            return ec == std::errc::permission_denied && lock.explanation().find(here.file()) != std::string::npos ? 0
                                                                                                                   : 1;
          }) == 0);
  }
}
