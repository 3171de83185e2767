// Reflogs and repositories that are as they should be, and those that are not.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <instance_guard/detail/census_duplicate.hpp>
#include <instance_guard/detail/census_git.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/other_user.hpp"
#include "support/program.hpp"
#include "support/temporary_directory.hpp"

using namespace instance_guard::detail;
namespace fs = std::filesystem;
using reading = git_move::reading;

namespace {

constexpr long start = 1'000'000;

std::string line(char from, char to, long at, const std::string& message = "pull: Fast-forward") {
  return std::string(40, from) + " " + std::string(40, to) + " Knox > K <knox@example.org> " + std::to_string(at) +
         " +0200\t" + message + "\n";
}

struct repository {
  support::temporary_directory directory = {};
  std::string root = directory / "repo";
  std::string log = root + "/.git/logs/HEAD";
  slow_places slow = {};

  explicit repository(const std::string& reflog = "") {
    fs::create_directories(root + "/.git/logs");
    if (!reflog.empty()) std::ofstream(log) << reflog;
  }
  git_move moved() const {
    return moved_since(find_checkout(root + "/src/main.py", ::geteuid(), slow),
                       std::chrono::system_clock::time_point(std::chrono::seconds(start)), ::geteuid());
  }
};

}  // namespace

TEST_CASE("a reflog tells the commit at the start, the commit now, and the updates between") {
  const repository one(line('0', 'a', start - 500, "clone: from x") + line('a', 'b', start - 50) +
                       line('b', 'c', start + 100) + line('c', 'c', start + 150, "checkout: moving") +
                       line('c', 'd', start + 200));
  const git_move found = one.moved();
  REQUIRE(found.how == reading::moved);
  CHECK(found.from == std::string(40, 'b'));
  CHECK(found.to == std::string(40, 'd'));
  CHECK(found.updates == 2);
  CHECK(found.newest.time_since_epoch() == std::chrono::seconds(start + 200));
}

TEST_CASE("a checkout that did not move, or came back, is not called moved") {
  CHECK(repository(line('0', 'a', start - 50)).moved().how == reading::nothing);
  CHECK(repository(line('0', 'a', start - 50) + line('a', 'b', start + 50) + line('b', 'a', start + 60)).moved().how ==
        reading::nothing);
  // Within the second of the start nobody can tell which was first.
  CHECK(repository(line('0', 'a', start - 50) + line('a', 'b', start)).moved().how == reading::nothing);
  CHECK(repository(line('0', 'a', start - 50)).moved().to == std::string(40, 'a'));
  // Cloned since: what was there before is not known.
  CHECK(repository(line('0', 'a', start + 50, "clone: from x") + line('a', 'b', start + 90)).moved().how ==
        reading::nothing);
  CHECK(repository("").moved().how == reading::nothing);
}

TEST_CASE("where the reflog does not reach the start, no commit is said to be what runs") {
  const std::string expired = line('b', 'c', start + 50) + line('c', 'c', start + 90, "checkout: moving");
  for (const std::string& text : {line('0', 'a', start + 50, "clone: from x"), expired, std::string("\n")}) {
    CAPTURE(text);
    CHECK(repository(text).moved().how == reading::nothing);
    CHECK(repository(text).moved().to.empty());
  }
}

TEST_CASE("what changes no file is no update: a commit, the steps of a rebase") {
  const repository one(line('0', 'a', start - 50) + line('a', 'b', start + 50, "commit: x") +
                       line('b', 'c', start + 60, "commit (amend): x"));
  CHECK(one.moved().how == reading::nothing);
  const repository rebased(line('0', 'a', start - 50) + line('a', 'b', start + 50, "rebase (start): checkout x") +
                           line('b', 'c', start + 51, "rebase (pick): y") +
                           line('c', 'c', start + 52, "rebase (finish): returning") +
                           line('c', 'd', start + 53, "rebase (finish): returning"));
  CHECK(rebased.moved().updates == 1);
  CHECK(rebased.moved().from == std::string(40, 'a'));
}

TEST_CASE("lines that are none are passed over") {
  const std::string noise = "\n\n" + std::string(70'000, 'x') + "\nshort\n" + std::string(40, 'g') + " " +
                            std::string(40, 'a') + " x <y> 99 +0\n" + std::string(40, 'a') + " " +
                            std::string(40, 'b') + " no time\n" + std::string("\0\1\2\n", 4);
  const repository one(line('0', 'a', start - 500) + noise + line('a', 'b', start + 9) + noise);
  const git_move found = one.moved();
  CHECK(found.how == reading::moved);
  CHECK(found.from == std::string(40, 'a'));
  CHECK(found.updates == 1);
}

TEST_CASE("a reflog without a newline at its end, or of nothing but newlines, is read") {
  std::string text = line('0', 'a', start - 500) + line('a', 'b', start + 9);
  text.pop_back();
  CHECK(repository(text).moved().how == reading::moved);
  CHECK(repository(std::string(300'000, '\n')).moved().how == reading::nothing);
}

TEST_CASE("a long reflog is read from its end") {
  std::string text;
  while (text.size() < 3'000'000) text += line('e', 'f', start - 500);
  const repository one(text + line('f', 'c', start + 9));
  CHECK(one.moved().how == reading::moved);
  CHECK(one.moved().from == std::string(40, 'f'));
}

TEST_CASE("a reflog of ten gigabytes is not read") {
  const repository one("x\n");
  REQUIRE(::truncate(one.log.c_str(), off_t{10} << 30) == 0);
  CHECK(one.moved().how == reading::too_long);
}

TEST_CASE("a fifo, a directory, a link or a loop as reflog is not waited for, not followed") {
  SUBCASE("fifo") {
    const repository one;
    REQUIRE(::mkfifo(one.log.c_str(), 0600) == 0);
    CHECK(one.moved().how == reading::unreadable);
  }
  SUBCASE("directory") {
    const repository one;
    fs::create_directory(one.log);
    CHECK(one.moved().how == reading::unreadable);
  }
  SUBCASE("link") {
    const repository one;
    std::ofstream(one.directory / "elsewhere") << line('0', 'a', start - 5) << line('a', 'b', start + 5);
    fs::create_symlink(one.directory / "elsewhere", one.log);
    CHECK(one.moved().how == reading::unreadable);
  }
  SUBCASE("loop") {
    const repository one;
    fs::remove(one.root + "/.git/logs");
    fs::create_symlink("logs", one.root + "/.git/logs");
    CHECK(one.moved().how == reading::unreadable);
  }
  SUBCASE("device") {
    const repository one;
    fs::create_symlink("/dev/zero", one.log);
    CHECK(one.moved().how == reading::unreadable);
  }
}

TEST_CASE("a .git that is no directory and no file is not read") {
  const support::temporary_directory directory;
  const slow_places slow;
  REQUIRE(::mkfifo((directory / ".git").c_str(), 0600) == 0);
  CHECK(find_checkout(directory / "main.py", ::geteuid(), slow).root.empty());
}

TEST_CASE("a .git file that leads nowhere, to itself or round in a loop has no reflog") {
  for (const std::string target :
       {"", "gitdir: ", "gitdir: nowhere", "gitdir: .git", "gitdir: loop", "gitdir: /dev/zero"}) {
    const support::temporary_directory directory;
    const slow_places slow;
    fs::create_symlink("loop", directory / "loop");
    std::ofstream(directory / ".git") << target << "\n";
    const git_checkout found = find_checkout(directory / "main.py", ::geteuid(), slow);
    const git_move move = moved_since(found, std::chrono::system_clock::time_point(), ::geteuid());
    CHECK_MESSAGE((move.how == reading::nothing || move.how == reading::unreadable), target);
    CHECK(repository_of(found, ::geteuid(), slow).find("zero") == std::string::npos);
  }
}

TEST_CASE("a stranger's repository is not believed") {
  if (!support::is_root()) {
    MESSAGE("skipped: needs root, to have a file of somebody else");
    return;
  }
  const std::string text = line('0', 'a', start - 5) + line('a', 'b', start + 5);
  SUBCASE("its directory") {
    const repository one(text);
    REQUIRE(::chown((one.root + "/.git").c_str(), support::nobody, support::nobody) == 0);
    CHECK(one.moved().how == reading::foreign);
    CHECK(repository_of(find_checkout(one.root + "/main.py", 0, one.slow), 0, one.slow).empty());
  }
  SUBCASE("its reflog") {
    const repository one(text);
    REQUIRE(::chown(one.log.c_str(), support::nobody, support::nobody) == 0);
    CHECK(one.moved().how == reading::foreign);
  }
  SUBCASE("but that of the process's user is") {
    const repository one(text);
    for (const auto& each : fs::recursive_directory_iterator(one.root))
      REQUIRE(::chown(each.path().c_str(), support::nobody, support::nobody) == 0);
    const git_checkout found = find_checkout(one.root + "/main.py", support::nobody, one.slow);
    CHECK(moved_since(found, std::chrono::system_clock::time_point(std::chrono::seconds(start)), support::nobody).how ==
          reading::moved);
  }
}

TEST_CASE("an address is the same however it is spelled") {
  for (const char* each :
       {"https://github.com/knox/shiva", "https://github.com/knox/shiva.git", "https://knox@github.com/knox/shiva/",
        "git@github.com:knox/shiva.git", "ssh://git@github.com/knox/shiva"})
    CHECK(plain_address(each) == "github.com/knox/shiva");
  CHECK(plain_address("") == "");
  CHECK(plain_address("https://github.com/other/shiva") != "github.com/knox/shiva");
}

TEST_CASE("the remote is read from the config, whatever else is in there") {
  CHECK(origin_of_config("[remote \"origin\"]\n\turl = a\n") == "a");
  CHECK(origin_of_config("[remote \"other\"]\n\turl = b\n[core]\nx=1\n[remote \"origin\"]\n  fetch "
                         "= x\n  url=c \r\n") == "c");
  CHECK(origin_of_config("url = a\n").empty());
  CHECK(origin_of_config("[remote \"origin\"]\n\turl\n").empty());
  CHECK(origin_of_config("").empty());
}

TEST_CASE("a clone of a clone is of the same repository; clones of each other end") {
  const support::temporary_directory directory;
  const slow_places slow;
  const auto make = [&](const std::string& name, const std::string& origin) {
    fs::create_directories(directory / (name + "/.git"));
    std::ofstream(directory / (name + "/.git/config")) << "[remote \"origin\"]\n\turl = " << origin << "\n";
    return find_checkout(directory / (name + "/main.py"), ::geteuid(), slow);
  };
  const git_checkout first = make("first", "https://github.com/knox/shiva");
  const git_checkout second = make("second", directory / "first");
  CHECK(repository_of(first, ::geteuid(), slow) == repository_of(second, ::geteuid(), slow));
  const git_checkout one = make("one", directory / "other");
  make("other", directory / "one");
  CHECK(!repository_of(one, ::geteuid(), slow).empty());
}

TEST_CASE("a path through forty links is followed, a loop is not") {
  const support::temporary_directory directory;
  const slow_places slow;
  std::ofstream(directory / "file") << "x";
  std::string last = directory / "file";
  for (int i = 0; i < 40; ++i) {
    fs::create_symlink(last, directory / ("l" + std::to_string(i)));
    last = directory / ("l" + std::to_string(i));
  }
  CHECK(follow_path(last, slow).path == fs::canonical(directory / "file"));
  CHECK(follow_path(last, slow).links.size() == 40);
  fs::create_symlink(last, directory / "one-too-many");
  CHECK(follow_path(directory / "one-too-many", slow).path.empty());
  fs::create_symlink("loop", directory / "loop");
  CHECK(follow_path(directory / "loop", slow).path.empty());
  CHECK(follow_path(directory / "./../" + directory.path().filename().string() + "//file", slow).path ==
        fs::canonical(directory / "file"));
  CHECK(follow_path("relative", slow).path.empty());
  CHECK(follow_path("/", slow).path == "/");
}

namespace {

/// The text of an index with these paths, sorted.
std::string index_of(int version, const std::vector<std::string>& paths, const std::string& extension = "") {
  const auto number = [](std::size_t value) {
    std::string text;
    for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift & 0xffU);
    return text;
  };
  std::string text = "DIRC" + number(static_cast<std::size_t>(version)) + number(paths.size());
  std::string before;
  for (const std::string& each : paths) {
    std::string entry(60, '\1');
    entry += std::string("\0\4", 2);
    if (version == 4) {
      std::size_t same = 0;
      while (same < before.size() && same < each.size() && before[same] == each[same]) ++same;
      std::size_t cut = before.size() - same;
      std::string number_text(1, static_cast<char>(cut & 0x7fU));
      while ((cut >>= 7) != 0) number_text.insert(0, 1, static_cast<char>((--cut & 0x7fU) | 0x80U));
      entry += number_text + each.substr(same) + std::string(1, '\0');
    } else {
      entry += each;
      entry.append(8 - entry.size() % 8, '\0');
    }
    text += entry;
    before = each;
  }
  return text + extension + std::string(20, 'h');
}

}  // namespace

TEST_CASE("an index tells whether a path is one of the checkout's") {
  const std::vector<std::string> paths = {".bashrc", "bot/main.py", "bot/" + std::string(300, 'x') + "/deep.py", "z"};
  for (const int version : {2, 3, 4}) {
    CAPTURE(version);
    const std::string text = index_of(version, paths);
    for (const std::string& each : paths) CHECK(find_in_index(text, each, 20) == is_tracked::yes);
    CHECK(find_in_index(text, "bot", 20) == is_tracked::yes);
    CHECK(find_in_index(text, "", 20) == is_tracked::yes);
    CHECK(find_in_index(text, "bo", 20) == is_tracked::no);
    CHECK(find_in_index(text, "shiva/main.py", 20) == is_tracked::no);
  }
}

TEST_CASE("an index tells when the last of its files was written, or nothing") {
  // Its entries are of ones.
  CHECK(newest_in_index(index_of(4, {"a", "b"}), 20) == 0x01010101);
  CHECK(newest_in_index(index_of(2, {}), 20) == 0);
  CHECK(newest_in_index("", 20) == INT64_MAX);
  CHECK(newest_in_index(index_of(2, {"a", "b"}).substr(0, 100), 20) == INT64_MAX);
}

TEST_CASE("a reflog of nothing but resets beside a large index is read in a moment") {
  std::string text = line('0', 'a', start - 50);
  while (text.size() < 4'000'000)
    text += line('a', 'b', start + 50, "reset: x") + line('b', 'a', start + 50, "reset: x");
  const repository one(text + line('a', 'c', start + 60, "reset: x"));
  std::vector<std::string> paths;
  for (int i = 100'000; i < 130'000; ++i) paths.push_back(std::to_string(i));
  std::ofstream(one.root + "/.git/index") << index_of(2, paths);
  const auto begun = std::chrono::steady_clock::now();
  CHECK(one.moved().how == reading::moved);
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(20));
}

TEST_CASE("a duplicate's commit is told where it is what runs: not of a process that is stale otherwise") {
  const repository one(line('0', 'a', start - 50));
  std::ofstream(one.root + "/.git/index") << index_of(2, {"main.py"});
  instance_guard::process_info info;
  info.user = ::geteuid();
  census_process of;
  of.info = &info;
  of.same_root = true;
  of.program.interpreter = language::python;
  of.program.path = of.program.key = one.root + "/main.py";
  stale_code code;
  code.checkout = find_checkout(of.program.path, info.user, one.slow);
  code.git = one.moved();
  instance_guard::census_entry plain, replaced, unknown;
  add_commits(of, code, plain);
  REQUIRE(plain.proof.size() == 1);
  CHECK(plain.proof[0].key == "commit_now");
  CHECK(plain.proof[0].value == std::string(40, 'a'));
  code.changes.push_back({"script_newer", of.program.path, {}, {}});
  add_commits(of, code, replaced);
  CHECK(replaced.proof.empty());
  code.changes.clear();
  std::ofstream(one.log) << line('0', 'a', start + 50, "clone: from x");
  code.git = one.moved();
  add_commits(of, code, unknown);
  CHECK(unknown.proof.empty());
}

TEST_CASE("an index that is cut, split, of another version or no index tells nothing") {
  const std::vector<std::string> paths = {"a", "b/c"};
  for (const int version : {2, 4}) {
    const std::string text = index_of(version, paths);
    // Cut within the entries; what is behind them is not needed.
    for (std::size_t size = 0; size < text.size() - 30; ++size)
      CHECK(find_in_index(text.substr(0, size), "nowhere", 20) == is_tracked::unknown);
  }
  CHECK(find_in_index(index_of(2, paths, std::string("link\0\0\0\4abcd", 12)), "x", 20) == is_tracked::unknown);
  CHECK(find_in_index(index_of(2, paths, std::string("TREE\0\0\0\4abcd", 12)), "x", 20) == is_tracked::no);
  CHECK(find_in_index(index_of(5, paths), "a", 20) == is_tracked::unknown);
  std::string many = index_of(4, paths);
  many[8] = '\x7f';
  CHECK(find_in_index(many, "nowhere", 20) == is_tracked::unknown);
  CHECK(find_in_index("", "a", 20) == is_tracked::unknown);
}

TEST_CASE("what git itself writes: twelve commits in one pull") {
  const auto git = [](std::vector<std::string> words) {
    words.insert(words.begin(),
                 {"git", "-c", "user.name=Knox", "-c", "user.email=knox@example.org", "-c", "init.defaultBranch=main"});
    support::program run(words, {.merge_err = true});
    const std::string said = run.read_all();
    const auto status = run.wait();
    return status && status->exited() ? std::pair(status->code(), said) : std::pair(-1, said);
  };
  if (git({"--version"}).first != 0) {
    MESSAGE("skipped: there is no git");
    return;
  }
  const support::temporary_directory directory;
  const slow_places slow;
  const std::string origin = directory / "origin", work = directory / "work";
  const auto commit = [&](int number) {
    std::ofstream(origin + "/main.py") << number << "\n";
    REQUIRE(git({"-C", origin, "add", "."}).first == 0);
    REQUIRE(git({"-C", origin, "commit", "-q", "-m", std::to_string(number)}).first == 0);
  };
  REQUIRE(git({"init", "-q", origin}).first == 0);
  commit(0);
  REQUIRE(git({"clone", "-q", origin, work}).first == 0);
  std::ofstream(work + "/untracked.py") << "x";
  // The start of a process between clone and pull: a second apart from both.
  const auto begun = std::chrono::system_clock::now();
  REQUIRE(
      support::wait_until([&] { return std::chrono::system_clock::now() > begun + std::chrono::milliseconds(2100); }));
  for (int i = 1; i <= 12; ++i) commit(i);
  REQUIRE(git({"-C", work, "pull", "-q"}).first == 0);
  const git_checkout found = find_checkout(fs::canonical(work).string() + "/main.py", ::geteuid(), slow);
  const git_move move = moved_since(found, begun, ::geteuid());
  REQUIRE(move.how == reading::moved);
  CHECK(move.updates == 1);
  const std::string range = move.from + ".." + move.to;
  CHECK(git({"-C", work, "rev-list", "--count", range}).second == "12\n");
  for (const char* version : {"2", "4"}) {
    REQUIRE(git({"-C", work, "update-index", "--index-version", version}).first == 0);
    CHECK(is_of_checkout(found, found.root + "/main.py", move.to, ::geteuid()) == is_tracked::yes);
    CHECK(is_of_checkout(found, found.root + "/untracked.py", move.to, ::geteuid()) == is_tracked::no);
  }
  CHECK(
      repository_of(found, ::geteuid(), slow) ==
      repository_of(find_checkout(fs::canonical(origin).string() + "/main.py", ::geteuid(), slow), ::geteuid(), slow));
}

TEST_CASE("noise is no index, no reflog and no config, and does no harm") {
  std::mt19937 random(7);
  const auto any = [&](std::size_t size) {
    std::string text(size, '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
  };
  const std::string whole = index_of(4, {"a", "bot/main.py", "bot/other.py", "z"});
  const std::string log = line('0', 'a', start - 5) + line('a', 'b', start + 5);
  for (int round = 0; round < 20'000; ++round) {
    std::string text = round % 2 == 0 ? whole : log;
    for (int i = 0; i < 1 + round % 4; ++i) text[random() % text.size()] = static_cast<char>(random());
    find_in_index(text, "bot/main.py", 20);
    find_in_index(text, "nowhere", 32);
    newest_in_index(text, 20);
    git_move move;
    read_reflog_back(
        text, start, [] { return INT64_MAX; }, move);
    CHECK(move.updates <= 2);
    const std::string noise = any(static_cast<std::size_t>(round) % 300);
    read_reflog_back(
        noise, start, [] { return INT64_MAX; }, move);
    origin_of_config("[remote \"origin\"]\n" + noise);
    plain_address(noise);
    CHECK(find_in_index(noise, "x", 20) == is_tracked::unknown);
  }
}
