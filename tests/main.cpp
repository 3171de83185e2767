// The main() of every test program.
//
// doctest must not catch signals: it would take SIGINT, SIGTERM, SIGABRT and SIGSEGV over and
// install a signal stack of its own, and the tests are about exactly these.
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

int main(int count, char** arguments) {
  // A job of its own, unless somebody sits before it: the kernel hangs a whole job up that loses its last
  // tie to the session while one of it is stopped, and tests stop processes and cut ties, several at once.
  if (::isatty(STDIN_FILENO) == 0 && ::setpgid(0, 0) == 0) {
#ifdef __linux__
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // an interrupt of what runs the tests does not reach it any more
#endif
  }
  return doctest::Context(count, arguments).run();
}
