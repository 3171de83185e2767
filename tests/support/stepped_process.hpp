// A process that is stopped at each of its system calls (ptrace(2)): to kill it at any
// point, to let others act while it stands there, and to count its calls.
#pragma once

#include <cerrno>
#include <functional>
#include <optional>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace support {

class [[nodiscard]] stepped_process {
 public:
  /// Runs `work` in a forked child, which is stopped before it begins; its result is the exit
  /// status. It must make no threads.
  explicit stepped_process(const std::function<int()>& work) {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::raise(SIGSTOP);
      ::_exit(work());
    }
    int status = 0;
    if (pid_ < 0 || ::waitpid(pid_, &status, 0) != pid_ || !WIFSTOPPED(status)) {
      possible_ = false;
      return;
    }
    possible_ = ::ptrace(PTRACE_SETOPTIONS, pid_, nullptr,
                         reinterpret_cast<void*>(long{PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL})) == 0;
  }
  /// A process that runs already, with one thread, and ends with the test if not before. It need not be a child.
  explicit stepped_process(pid_t running) : pid_(running) {
    const auto options = reinterpret_cast<void*>(long{PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL});
    int status = 0;
    possible_ = running > 1 && ::ptrace(PTRACE_SEIZE, pid_, nullptr, options) == 0 &&
                ::ptrace(PTRACE_INTERRUPT, pid_, nullptr, nullptr) == 0 && ::waitpid(pid_, &status, __WALL) == pid_ &&
                WIFSTOPPED(status);
    ended_ = !possible_;
  }
  stepped_process(const stepped_process&) = delete;
  stepped_process& operator=(const stepped_process&) = delete;
  ~stepped_process() { kill(); }

  bool possible() const noexcept { return possible_; }
  pid_t pid() const noexcept { return pid_; }

  /// Goes on to the entry of its next call: the number, or nothing once it has ended.
  std::optional<long> next() {
    if (ended_) return std::nullopt;
    for (;;) {
      const auto signal = reinterpret_cast<void*>(long{pending_signal_});
      pending_signal_ = 0;
      int status = 0;
      if (::ptrace(PTRACE_SYSCALL, pid_, nullptr, signal) != 0 || ::waitpid(pid_, &status, 0) != pid_) {
        ended_ = true;
        return std::nullopt;
      }
      if (!WIFSTOPPED(status)) {
        ended_ = true;
        status_ = status;
        return std::nullopt;
      }
      if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
        if (WSTOPSIG(status) != SIGSTOP) pending_signal_ = WSTOPSIG(status);
        continue;
      }
      __ptrace_syscall_info info = {};
      ::ptrace(PTRACE_GET_SYSCALL_INFO, pid_, sizeof info, &info);
      if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
      number_ = static_cast<long>(info.entry.nr);
      first_ = static_cast<long>(info.entry.args[0]);
      second_ = static_cast<long>(info.entry.args[1]);
      ++calls_;
      if (number_ == SYS_getppid) ++marks_;
      return number_;
    }
  }

  /// Goes on to the entry of the next call of that number; false: it ended before.
  bool run_to(long number) {
    while (const auto at = next())
      if (*at == number) return true;
    return false;
  }

  /// The call it stands before is not made; it fails with `error`. False: not on this machine.
  bool fail_call(int error) {
#if defined(__x86_64__)
    user_regs_struct registers = {};
    if (::ptrace(PTRACE_GETREGS, pid_, nullptr, &registers) != 0) return false;
    registers.orig_rax = static_cast<unsigned long long>(-1);
    if (::ptrace(PTRACE_SETREGS, pid_, nullptr, &registers) != 0 || !finish_call()) return false;
    ::ptrace(PTRACE_GETREGS, pid_, nullptr, &registers);
    registers.rax = static_cast<unsigned long long>(-static_cast<long long>(error));
    return ::ptrace(PTRACE_SETREGS, pid_, nullptr, &registers) == 0;
#else
    (void)error;
    return false;
#endif
  }

  /// Lets the call it stands before be made, and stops before it sees the answer.
  bool finish_call() {
    int status = 0;
    return ::ptrace(PTRACE_SYSCALL, pid_, nullptr, nullptr) == 0 && ::waitpid(pid_, &status, 0) == pid_ &&
           WIFSTOPPED(status);
  }

  /// Changes a word of its memory.
  bool poke(long address, long value) { return ::ptrace(PTRACE_POKEDATA, pid_, address, value) == 0; }

  /// Lets it run without further stops until it ends: its status as waitpid(2) gives it.
  int finish() {
    while (!ended_) {
      int status = 0;
      ::ptrace(PTRACE_CONT, pid_, nullptr, nullptr);
      if (::waitpid(pid_, &status, 0) != pid_) break;
      if (!WIFSTOPPED(status)) status_ = status, ended_ = true;
    }
    return status_;
  }

  /// Goes on until the child calls getppid(2), which the library does not use.
  bool run_to_mark() { return run_to(SYS_getppid); }
  static void mark() { ::syscall(SYS_getppid); }

  void kill() {
    if (ended_ || pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status_, 0);
    ended_ = true;
  }

  bool ended() const noexcept { return ended_; }
  int status() const noexcept { return status_; }
  int calls() const noexcept { return calls_; }
  int marks() const noexcept { return marks_; }
  long number() const noexcept { return number_; }
  long first_argument() const noexcept { return first_; }
  long second_argument() const noexcept { return second_; }

 private:
  pid_t pid_ = -1;
  bool possible_ = false;
  bool ended_ = false;
  int status_ = 0;
  int calls_ = 0;
  int marks_ = 0;
  int pending_signal_ = 0;
  long number_ = -1;
  long first_ = 0;
  long second_ = 0;
};

}  // namespace support
