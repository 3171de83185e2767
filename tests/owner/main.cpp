// A program that uses the guard, for tests: it starts children in every way, and ends in every
// way.
//
//   instance_guard_test_owner guard=NAME grace=300 child="setsid ignore sleep" end=kill
//
// Arguments are read in order; each "key=value" does one thing. It prints one line per thing a
// test waits for. Children inherit stdout, so that their "ready" lines come there as well.
#include <instance_guard/process_group.hpp>
#include <instance_guard/single_instance.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <optional>
#include <spawn.h>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <vector>

extern char** environ;

namespace {

using namespace instance_guard;
using std::chrono::milliseconds;

void say(const std::string& line) {
  const std::string text = line + "\n";
  [[maybe_unused]] const ssize_t size = ::write(1, text.data(), text.size());
}

/// What it has, and how it was told to get it.
struct state {
  single_instance_options options = {};
  std::optional<single_instance> guard = {};
  std::optional<process_group> group = {};
  std::string helper = {};
  std::vector<child> children = {};
};

std::vector<std::string> split(std::string_view words) {
  std::vector<std::string> result;
  while (!words.empty()) {
    const std::size_t space = words.find(' ');
    result.emplace_back(words.substr(0, space));
    words = space == words.npos ? std::string_view() : words.substr(space + 1);
  }
  return result;
}

std::vector<std::string> command(const state& s, std::string_view words) {
  std::vector<std::string> list = split(words);
  list.insert(list.begin(), s.helper);
  return list;
}

void spawn(state& s, std::string_view words, const spawn_options& options = {}) {
  if (s.guard) s.children.push_back(s.guard->spawn(command(s, words), options));
  else if (s.group) s.children.push_back(s.group->spawn(command(s, words), options));
  else throw std::runtime_error("neither guard nor group");
}

/// What a forked copy does that never executes: "setsid", "ignore", "stopped", "daemon", "daemon3", or just stays.
[[noreturn]] void behave_as_copy(const std::string& words) {
  ::alarm(60);
  ::prctl(PR_SET_NAME, "stray", 0, 0, 0);
  for (const std::string& each : split(words)) {
    if (each == "setsid") ::setsid();
    if (each == "daemon3" && ::daemon(0, 1) != 0) ::_exit(71);
    if (each == "daemon" && (::fork() != 0 || ::setsid() < 0 || ::fork() != 0)) ::_exit(0);
    if (each == "ignore")
      for (int number = 1; number <= SIGRTMAX; ++number)
        if (number != SIGALRM) std::signal(number, SIG_IGN);
  }
  ::alarm(60);  // a child does not inherit it
  say("ready pid=" + std::to_string(::getpid()) + " end=fork");
  if (words.ends_with("stopped")) ::raise(SIGSTOP);
  for (;;) ::pause();
}

/// A child that the program starts by itself, as a library might.
void stray(state& s, std::string_view how, const std::string& words) {
  const std::string line = s.helper + " " + words;
  if (how == "system") {
    if (std::system(("exec " + line + " &").c_str()) != 0) throw std::runtime_error("system");
  } else if (how == "setsid") {
    if (std::system(("setsid " + line + " &").c_str()) != 0) throw std::runtime_error("system");
  } else if (how == "popen") {
    if (::popen(line.c_str(), "w") == nullptr) throw std::runtime_error("popen");
  } else if (how == "spawn") {
    std::vector<std::string> list = command(s, words);
    std::vector<char*> arguments;
    for (std::string& each : list) arguments.push_back(each.data());
    arguments.push_back(nullptr);
    pid_t pid = 0;
    if (::posix_spawn(&pid, arguments[0], nullptr, nullptr, arguments.data(), environ) != 0)
      throw std::runtime_error("posix_spawn");
  } else if (how == "fork-exec") {
    if (::fork() == 0) {
      ::execl("/bin/sh", "sh", "-c", ("exec " + line).c_str(), nullptr);
      ::_exit(127);
    }
  } else if (how == "fork") {  // without exec: a copy of this program, with all that it has
    if (::fork() == 0) behave_as_copy(words);
  } else {
    throw std::runtime_error("unknown way");
  }
}

/// Hands this program's environment to a broker (see helper/broker.cpp).
void ask_broker(const char* fifo) {
  const int file = ::open(fifo, O_WRONLY | O_CLOEXEC);
  std::string text;
  for (char** each = environ; *each != nullptr; ++each) (text += *each) += '\n';
  if (file < 0 || ::write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw std::runtime_error("broker");
  ::close(file);
}

/// Ends the program; "return" comes back.
void end(state& s, const std::string& how) {
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  if (how == "exit") std::exit(22);
  if (how == "free") std::exit(0);
  if (how == "refused") std::exit(75);
  if (how == "_exit") ::_exit(23);
  if (how == "quick_exit") std::quick_exit(24);
  if (how == "abort") std::abort();
  if (how == "terminate") std::terminate();
  if (how == "exec") {
    ::execl(s.helper.c_str(), s.helper.c_str(), "exit=25", nullptr);
    ::_exit(126);
  }
  if (how == "throw") throw std::runtime_error("uncaught");
  const struct {
    const char* name;
    int number;
  } signals[] = {{"segv", SIGSEGV}, {"term", SIGTERM}, {"int", SIGINT},
                 {"hup", SIGHUP},   {"quit", SIGQUIT}, {"kill", SIGKILL}};
  for (const auto& each : signals)
    if (how == each.name) {
      ::kill(::getpid(), each.number);
      for (;;) ::pause();
    }
}

/// False when main is to return.
bool act(state& s, std::string_view key, const std::string& value) {
  if (key == "helper") s.helper = value;
  else if (key == "grace") s.options.children.grace = milliseconds(std::stoi(value));
  else if (key == "wait") s.options.lock.wait = milliseconds(std::stoi(value));
  else if (key == "cleanup-wait") s.options.lock.cleanup_wait = milliseconds(std::stoi(value));
  else if (key == "directory") s.options.lock.directory = value;
  else if (key == "graceful") s.options.signals.graceful = value == "1";
  else if (key == "also") s.options.also_hold.push_back(value);
  else if (key == "reach" && value == "spawned") s.options.ends = reach::spawned;
  else if (key == "reach" && value == "strays") s.options.ends = reach::strays;
  else if (key == "reach" && value == "everything") s.options.ends = reach::everything;
  else if (key == "guard" || key == "guard-or-exit") {
    s.guard = key == "guard" ? single_instance::acquire(value, s.options)
                             : single_instance::acquire_or_exit(value, s.options);
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    say("acquired pid=" + std::to_string(::getpid()) + " recovered=" + (s.guard->recovered_from() ? "1" : "0") +
        " at=" + std::to_string(now.tv_sec * 1'000'000'000 + now.tv_nsec));
  } else if (key == "try-guard") {  // 0: got it, 75: refused
    std::error_code ec;
    s.guard = single_instance::acquire(value, s.options, ec);
    say(ec ? ec.message() : "acquired");
    end(s, ec ? "refused" : "free");
  } else if (key == "try-group") {  // goes on with one, or says why not and exits 69
    std::error_code ec;
    s.group.emplace(s.options.children, ec);
    say(ec ? "no group: " + ec.message() : "group");
    if (ec) std::exit(69);
  } else if (key == "group") s.group.emplace(s.options.children);
  else if (key == "child") spawn(s, value);
  else if (key == "try-child") {
    std::error_code ec;
    s.children.push_back(s.guard->spawn(command(s, value), ec));
    say(ec ? "no child: " + ec.message() : "child");
  } else if (key == "daemon3") {  // what goes on is a copy
    if (::daemon(0, 1) != 0) throw std::runtime_error("daemon");
    say("daemon pid=" + std::to_string(::getpid()));
  } else if (key == "outlives") spawn(s, value, {.outlives = true});
  else if (key == "keep") spawn(s, value, {.environment = {"INSTANCE_GUARD_KEEP=1"}});
  else if (key.starts_with("stray.")) stray(s, key.substr(6), value);
  else if (key == "warden")  // says who it is
    say("warden pid=" + std::to_string((s.guard ? s.guard->children() : *s.group).warden().pid));
  else if (key == "run") {
    const run_result result = s.guard ? s.guard->run(command(s, value)) : s.group->run(command(s, value));
    say("ran: " + result.status.str() + ", " + result.out.substr(0, result.out.find('\n')) + ", " + result.ended.str());
  } else if (key == "delay") ::usleep(static_cast<useconds_t>(std::stoi(value) * 1000));
  else if (key == "shell") {  // and waits for it
    if (std::system(value.c_str()) != 0) throw std::runtime_error("shell");
  } else if (key == "broker") ask_broker(value.c_str());
  else if (key == "say") say(value);
  else if (key == "block-signals") {
    sigset_t all;
    ::sigfillset(&all);
    ::sigprocmask(SIG_BLOCK, &all, nullptr);
  } else if (key == "tell-signals") {  // one line for each that arrives, but SIGCONT, until SIGTERM
    sigset_t wanted;
    ::sigfillset(&wanted);
    ::sigdelset(&wanted, SIGCONT);
    const int file = ::open(value.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    say("telling");
    for (int number = 0; number != SIGTERM;) {
      number = ::sigwaitinfo(&wanted, nullptr);
      const std::string text = std::to_string(number) + "\n";
      if (number > 0 && ::write(file, text.data(), text.size()) < 0) throw std::runtime_error("tell-signals");
    }
    ::close(file);
  } else if (key == "release") {
    s.guard->release();
    say("released");
  } else if (key == "verify") {
    std::error_code ec;
    s.guard->verify(ec);
    say("verify=" + (ec ? ec.message() : std::string("fine")));
  } else if (key == "wait-line") {  // until the test writes a line, or closes
    char letter = 0;
    while (::read(0, &letter, 1) == 1 && letter != '\n') {
    }
  } else if (key == "pause") {
    for (;;) ::pause();
  } else if (key == "end") {
    end(s, value);
    return false;
  } else throw std::runtime_error("unknown key " + std::string(key));
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  state s;
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    const std::size_t equals = argument.find('=');
    const std::string value(equals == argument.npos ? "" : argument.substr(equals + 1));
    if (!act(s, argument.substr(0, equals), value)) break;
  }
  return 21;
}
