// The main() of every test program.
//
// doctest must not catch signals: it would take SIGINT, SIGTERM, SIGABRT and SIGSEGV over and
// install a signal stack of its own, and the tests are about exactly these.
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
