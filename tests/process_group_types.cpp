#include <instance_guard/process_group_types.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <type_traits>

using namespace instance_guard;
using namespace std::chrono_literals;

TEST_CASE("options are set by name and leave the rest alone") {
  const spawn_options spawn{.environment = {"A=B"}, .err = stdio::join_out()};
  CHECK(spawn.in.to == stdio::target::inherit);
  CHECK(spawn.err.to == stdio::target::join_out);
  CHECK_FALSE(spawn.outlives);
  const run_options run{.timeout = 5s, .process = {.working_directory = "/"}};
  CHECK(run.max_output == 64u << 20);
  const group_options group{.no_new_privileges = true};
  CHECK(group.grace == 5s);
  CHECK(group.stop_signal == SIGTERM);
}

TEST_CASE("a stream says where it leads") {
  CHECK(stdio{}.to == stdio::target::inherit);
  CHECK(stdio::null().to == stdio::target::null);
  CHECK(stdio::pipe().to == stdio::target::pipe);
  CHECK(stdio::descriptor(7).number == 7);
  const stdio file = stdio::file("/tmp/x", file_mode::append);
  CHECK(file.to == stdio::target::file);
  CHECK(file.path == "/tmp/x");
  CHECK(file.mode == file_mode::append);
}

TEST_CASE("an exit status is one of three, never two") {
  const exit_status none;
  CHECK_FALSE(none.exited());
  CHECK_FALSE(none.signalled());
  CHECK(none.code() == -1);
  CHECK(none.signal() == 0);
  CHECK(none.shell_code() == -1);
  CHECK(none.str() == "not ended");

  const exit_status three(CLD_EXITED, 3);
  CHECK(three.exited());
  CHECK_FALSE(three.signalled());
  CHECK_FALSE(three.success());
  CHECK(three.code() == 3);
  CHECK(three.signal() == 0);
  CHECK(three.shell_code() == 3);
  CHECK(three.str() == "exit code 3");
  CHECK(exit_status(CLD_EXITED, 0).success());

  const exit_status killed(CLD_KILLED, SIGKILL);
  CHECK_FALSE(killed.exited());
  CHECK(killed.signalled());
  CHECK_FALSE(killed.core_dumped());
  CHECK(killed.code() == -1);
  CHECK(killed.signal() == SIGKILL);
  CHECK(killed.shell_code() == 128 + SIGKILL);
  CHECK(killed.str() == "ended by SIGKILL");

  CHECK(exit_status(CLD_DUMPED, SIGSEGV).core_dumped());
  CHECK(exit_status(CLD_DUMPED, SIGSEGV).str() == "ended by SIGSEGV (core dumped)");
  CHECK(exit_status(CLD_KILLED, SIGRTMIN).str() == "ended by signal " + std::to_string(SIGRTMIN));
  CHECK(three == exit_status(CLD_EXITED, 3));
  CHECK_FALSE(three == none);
}

TEST_CASE("a report says what is proven and who is left") {
  termination_report report;
  CHECK(report.str() == "not proven empty (process groups)");
  report = {.proven_empty = true, .mechanism = containment::subreaper};
  CHECK(report.str() == "empty (subreaper)");
  report.proven_empty = false;
  report.survivors = {{{.pid = 712}, "sudo", survival::other_user}, {{.pid = 713}, "gdb", survival::traced}};
  CHECK(report.str() ==
        "2 left (subreaper): pid 712 (sudo) belongs to another user, "
        "pid 713 (gdb) held by a debugger");
}

TEST_CASE("a result starts as nothing") {
  const run_result result;
  CHECK(result.out.empty());
  CHECK_FALSE(result.timed_out);
  CHECK_FALSE(result.truncated);
  CHECK_FALSE(result.ended.proven_empty);
}
