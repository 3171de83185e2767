// The incident that instance-guard exists for, replayed with real processes: a bot from the
// service manager, the same bot from a forgotten terminal, test runners that outlive it, kill -9,
// a restart. Then the same without a guard. Ends with what was expected and what was seen.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "actors.hpp"
#include "stage.hpp"

using namespace std::chrono_literals;
namespace ig = instance_guard;

namespace demo {

std::string own_path() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

namespace {

const char* yes_no(bool value) { return value ? "yes" : "no"; }

/// True if a refusal says that the holder was started from exactly this place.
bool says_from(const std::string& text, const std::string& place) {
  const std::string words = "from " + place;
  const std::size_t at = text.find(words);
  if (place.empty() || at == std::string::npos) return false;
  const std::size_t end = at + words.size();  // "/dev/pts/1" is no beginning of "/dev/pts/12"
  return end == text.size() || std::string("\r\n:, ").find(text[end]) != std::string::npos;
}

struct director {
  stage_directory place;
  report log;
  ig::process_group cast{{.grace = 0ms}};  // everything that the demo starts ends with it
  std::string name = "demo-shiva-" + std::to_string(getpid());
  std::string wallet = "demo-wallet-" + std::to_string(getpid());

  ig::child start(const std::vector<std::string>& actor, const std::vector<std::string>& environment = {}) {
    std::vector<std::string> arguments{own_path()};
    arguments.insert(arguments.end(), actor.begin(), actor.end());
    return cast.spawn(arguments, {.environment = environment, .out = ig::stdio::pipe(), .err = ig::stdio::join_out()});
  }

  std::string stage(const std::string& scene) {
    const auto path = place.path() / scene;
    std::filesystem::create_directories(path);
    return path.string();
  }

  void kill_hard(const ig::process_identity& who) { ig::process_handle::open(who).signal(SIGKILL); }

  /// The same bot from another terminal, in another environment.
  void refused_in_terminal(const std::string& title, const std::string& as, const std::string& what,
                           const std::string& holder, const std::string& from) {
    const std::string other = stage("other-home");
    auto shell = start({"terminal", own_path(), "bot", stage("guarded"), as, wallet, "alone"},
                       {"HOME=" + other, "TMPDIR=" + other, "XDG_RUNTIME_DIR=" + other});
    const std::string text = reader(shell.out().get()).all(10s);
    const ig::exit_status status = shell.wait();
    log.line(title + ": " + status.str());
    log.quote(text);
    log.check(what + ": refused", "exit 75", "exit " + std::to_string(status.code()));
    log.check(what + ": names the holder", "yes", yes_no(text.find("pid " + holder + " on ") != std::string::npos));
    const std::size_t age = text.find(", for ");
    log.check(what + ": says since when", "yes",
              yes_no(age != std::string::npos && text.find_first_of("0123456789", age) == age + 6));
    log.check(what + ": says where it was started", "yes", yes_no(says_from(text, from)));
  }

  void with_guard() {
    log.scene("With a guard");
    const std::string here = stage("guarded");
    auto bot = start({"bot", here, name, wallet, "guarded"});
    reader words(bot.out().get());
    const std::string trading = words.wait_for("trading pid=", 5s);
    const std::string pid = std::to_string(bot.id().pid);
    log.line("the service manager starts the bot: pid " + pid + " trades");
    log.check("the managed bot runs", "yes", yes_no(!trading.empty()));

    const auto held = ig::query_lock(name);
    const std::string from = held.holder ? held.holder->started_from : "";
    refused_in_terminal("a forgotten terminal starts it again", name, "second start", pid, from);
    refused_in_terminal("another bot, the same wallet", name + "-other", "same wallet", pid, from);

    const auto session = wait_for_runner(here, "session");
    const auto library = wait_for_runner(here, "library");
    log.line("two test runners: pid " + std::to_string(session.pid) + " from the bot, pid " +
             std::to_string(library.pid) + " from a library; both daemonized, both ignore SIGTERM");
    log.check("both runners run", "yes", yes_no(ig::is_alive(session) && ig::is_alive(library)));

    kill_hard(bot.id());
    const long long killed = now();
    const ig::exit_status ended = bot.wait();  // as a service manager does
    log.line("kill -9 " + pid + ", and the service manager starts the next one at once");
    auto next = start({"bot", here, name, wallet, "alone"});
    reader next_words(next.out().get());
    const std::string acquired = next_words.wait_for("acquired at=", 15s);
    log.check("the next start gets the name", "yes", yes_no(!acquired.empty()));
    log.check("runners left when it does", "0",
              std::to_string(int{ig::is_alive(session)} + int{ig::is_alive(library)}));
    const long long at = std::atoll(acquired.c_str());
    const long long last = std::max(last_stamp(here, "session"), last_stamp(here, "library"));
    log.line("it has the name " + std::to_string((at - killed) / 1'000'000) +
             " ms after the kill, the last sign of an old runner was " + std::to_string((at - last) / 1'000'000) +
             " ms before that");
    log.check("old children and new bot overlap", "no", yes_no(last >= at));
    log.check("it knows that the last one was killed", "pid=" + pid,
              "pid=" + next_words.wait_for("recovered from pid=", 5s));
    log.check("the old bot's exit status", "SIGKILL", ended.signal() == SIGKILL ? "SIGKILL" : "other");

    ig::process_handle::open(next.id()).signal(SIGTERM);
    log.check("a stop ends it by that signal", "SIGTERM", next.wait().signal() == SIGTERM ? "SIGTERM" : "other");
    log.check("the name afterwards", "free", ig::query_lock(name).state == ig::lock_state::free ? "free" : "taken");
    log.line("systemctl stop: the bot ends, its name is free, its file is gone");
  }

  /// The incident inside out: the forgotten copy has the name, and the service manager's is refused.
  void other_way_round() {
    log.scene("The other way round");
    auto shell = start({"terminal", own_path(), "bot", stage("by-hand"), name, wallet, "alone"});
    reader words(shell.out().get());
    const std::string terminal = words.wait_for("terminal ", 5s);
    const int pid = std::atoi(words.wait_for("trading pid=", 5s).c_str());
    log.line("somebody starts the bot by hand on " + terminal + ": pid " + std::to_string(pid) + " trades");
    auto managed = start({"bot", stage("managed"), name, wallet, "alone"});
    const std::string text = reader(managed.out().get()).all(10s);
    const ig::exit_status status = managed.wait();
    log.line("the service manager starts it: " + status.str());
    log.quote(text);
    log.check("after one by hand: refused", "exit 75", "exit " + std::to_string(status.code()));
    log.check("after one by hand: names the holder", "yes",
              yes_no(text.find("pid " + std::to_string(pid) + ",") != std::string::npos));
    // Under tmux or ssh that is said before the terminal.
    const std::size_t at = text.find("from ");
    const std::size_t line = text.find("terminal ", at);
    log.check("after one by hand: names its terminal", "yes",
              yes_no(at != std::string::npos && line != std::string::npos &&
                     says_from("from " + text.substr(line), "terminal " + terminal)));
    if (pid > 0) ig::process_handle::open(ig::process_identity::of(pid)).signal(SIGTERM);
    log.check("a stop ends that one too", "exit 143", "exit " + std::to_string(shell.wait().code()));
  }

  void without_guard() {
    log.scene("The same without a guard");
    const std::string here = stage("bare");
    auto managed = start({"bot", here, name, wallet, "bare"});
    reader managed_words(managed.out().get());
    const bool first = !managed_words.wait_for("trading pid=", 5s).empty();
    const auto session = wait_for_runner(here, "session");
    const auto library = wait_for_runner(here, "library");
    auto manual = start({"bot", stage("bare-terminal"), name, wallet, "bare"});
    reader manual_words(manual.out().get());
    const bool second = !manual_words.wait_for("trading pid=", 5s).empty();
    log.line("pid " + std::to_string(managed.id().pid) + " and pid " + std::to_string(manual.id().pid) +
             " trade with the same wallet");
    log.check("without: bots on one wallet", "2", std::to_string(int{first} + int{second}));

    kill_hard(managed.id());
    managed.wait();
    const long long killed = now();
    const long long until = killed + 3'000'000'000;
    while (now() < until && (last_stamp(here, "session") <= killed || last_stamp(here, "library") <= killed))
      usleep(1000);
    const int left = int{last_stamp(here, "session") > killed} + int{last_stamp(here, "library") > killed};
    log.line("kill -9: " + std::to_string(left) + " test runners go on, nobody's child");
    log.check("without: runners left behind", "2", std::to_string(left));

    const ig::termination_report end = cast.terminate(0ms);
    log.line("the demo cleans up after it: " + end.str());
    log.check("runners left by the demo", "0", std::to_string(int{ig::is_alive(session)} + int{ig::is_alive(library)}));
  }
};

int direct() {
  director scene;
  const long long start = now();
  scene.with_guard();
  scene.other_way_round();
  scene.without_guard();
  const bool good = scene.log.table();
  std::printf("\n%s It took %.1f s of the 15 s that it may take.\n", good ? "All as expected." : "NOT as expected.",
              static_cast<double>(now() - start) / 1e9);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace demo

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.empty()) return demo::direct();
    const std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
    if (arguments[0] == "bot") return demo::bot(rest);
    if (arguments[0] == "runner") return demo::runner(rest);
    if (arguments[0] == "terminal") return demo::terminal(rest);
    std::fprintf(stderr, "usage: demo   (without arguments)\n");
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "demo: %s\n", error.what());
    return 1;
  }
}
