// What audit asks of the programs beside it: a webhook, and the commits between two.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <instance_guard/file_descriptor.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/other_user.hpp"
#include "support/process_census.hpp"
#include "support/scene.hpp"
#include "support/tool_result.hpp"

using namespace support;
using instance_guard::file_descriptor;

namespace {

const std::string secret = "secret-" + std::to_string(::getpid());

/// A web server for one test, on this machine only.
class server {
 public:
  server() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(::bind(listener_.get(), generic, size) == 0);
    REQUIRE(::listen(listener_.get(), 8) == 0);
    REQUIRE(::getsockname(listener_.get(), generic, &size) == 0);
    port_ = ntohs(address.sin_port);
  }
  std::string address() const { return "http://127.0.0.1:" + std::to_string(port_) + "/api/webhooks/1/" + secret; }
  /// Takes one request, and answers with this line and headers. Its body; empty: nobody came.
  std::string answer(const std::string& with) const {
    pollfd entry{listener_.get(), POLLIN, 0};
    if (::poll(&entry, 1, 20'000) <= 0) return {};
    const file_descriptor peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::string text;
    char block[4096];
    std::size_t body = std::string::npos;
    std::size_t length = 0;
    while (body == std::string::npos || text.size() < body + length) {
      const ssize_t size = ::read(peer.get(), block, sizeof block);
      if (size <= 0) break;
      text.append(block, static_cast<std::size_t>(size));
      const std::size_t end = text.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      body = end + 4;
      const std::size_t at = text.find("Content-Length: ");
      if (at != std::string::npos) length = std::strtoul(text.c_str() + at + 16, nullptr, 10);
    }
    const std::string reply = "HTTP/1.1 " + with + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    [[maybe_unused]] const ssize_t wrote = ::write(peer.get(), reply.data(), reply.size());
    return body == std::string::npos ? std::string() : text.substr(body);
  }
  /// Whoever connects within a moment; it is never answered.
  file_descriptor take_without_answer() const {
    pollfd entry{listener_.get(), POLLIN, 0};
    if (::poll(&entry, 1, 100) <= 0) return file_descriptor();
    return file_descriptor(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  bool nobody_waits() const {
    pollfd entry{listener_.get(), POLLIN, 0};
    return ::poll(&entry, 1, 0) == 0;
  }

 private:
  file_descriptor listener_;
  int port_ = 0;
};

bool can_post() {
  if (::access((std::filesystem::path(INSTANCE_GUARD_TOOL).parent_path() / "instance-guard-post").c_str(), X_OK) == 0)
    return true;
  MESSAGE("skipped: built without libcurl");
  return false;
}

/// True if the command line of any process has it.
bool is_on_a_command_line(const std::string& text) {
  for (const pid_t pid : detail::numbers_in("/proc"))
    if (detail::contents("/proc/" + std::to_string(pid) + "/cmdline").find(text) != std::string::npos) return true;
  return false;
}

struct posting {
  scene s;
  program tool;
  posting(std::vector<std::string> more, std::vector<std::string> environment)
      : tool(s.start(words(std::move(more)), {.environment = std::move(environment), .merge_err = true})) {}
  static std::vector<std::string> words(std::vector<std::string> more) {
    more.insert(more.begin(), {INSTANCE_GUARD_TOOL, "audit", "--discord", "--kind", "stale", "--ignore", "."});
    return more;
  }
};

std::string webhook_file(const scene& s, const std::string& address, mode_t mode) {
  const std::string path = s / "webhook";
  std::ofstream(path) << address << "\n";
  ::chmod(path.c_str(), mode);
  return path;
}

}  // namespace

TEST_CASE("a message is posted, and its address is on no command line") {
  if (!can_post()) return;
  const server web;
  const scene files;
  const bool by_file = true;
  for (const bool file : {by_file, !by_file}) {
    posting one(
        file ? std::vector<std::string>{"--webhook-file", webhook_file(files, web.address(), 0600)}
             : std::vector<std::string>{},
        file ? std::vector<std::string>{} : std::vector<std::string>{"INSTANCE_GUARD_WEBHOOK=" + web.address()});
    // While it waits for the answer.
    CHECK(wait_until([&] { return !web.nobody_waits(); }));
    CHECK(!is_on_a_command_line(secret));
    const std::string body = web.answer("204 No Content");
    const auto message = nlohmann::json::parse(body);
    CHECK(message["content"].get<std::string>().size() > 10);
    CHECK(message["allowed_mentions"]["parse"].empty());
    const std::string said = one.tool.read_all();
    CHECK(said == "posted 1 message\n");
    CHECK(one.tool.wait()->code() == 0);
  }
}

TEST_CASE("a server that is busy is asked again; one that refuses is not") {
  if (!can_post()) return;
  const server web;
  SUBCASE("busy, then well") {
    posting one({}, {"INSTANCE_GUARD_WEBHOOK=" + web.address()});
    const std::string first = web.answer("503 Busy");
    CHECK(!first.empty());
    CHECK(web.answer("204 No Content") == first);
    CHECK(one.tool.wait()->code() == 0);
  }
  SUBCASE("too many, with a time to wait") {
    posting one({}, {"INSTANCE_GUARD_WEBHOOK=" + web.address()});
    CHECK(!web.answer("429 Slow\r\nRetry-After: 1").empty());
    CHECK(!web.answer("204 No Content").empty());
    CHECK(one.tool.wait()->code() == 0);
  }
  SUBCASE("gone: a fault, told without the address") {
    posting one({}, {"INSTANCE_GUARD_WEBHOOK=" + web.address()});
    CHECK(!web.answer("404 Not Found").empty());
    const std::string said = one.tool.read_all();
    CHECK(one.tool.wait()->code() == 125);
    CHECK(said.find("not posted: the server answered 404") != std::string::npos);
    CHECK(said.find(secret) == std::string::npos);
    CHECK(web.nobody_waits());
  }
}

TEST_CASE("a server that takes connections and never answers: asked three times, then a fault, and nothing stays") {
  if (!can_post()) return;
  const server web;
  posting one({}, {"INSTANCE_GUARD_WEBHOOK=" + web.address()});
  std::vector<file_descriptor> peers;
  // It ends by its own limits, far below the patience for a test.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (!one.tool.ended()) {
    if (std::chrono::steady_clock::now() > deadline) FAIL("it still waits for an answer");
    if (file_descriptor peer = web.take_without_answer(); peer) peers.push_back(std::move(peer));
  }
  const std::string said = one.tool.read_all();
  CHECK(peers.size() == 3);
  CHECK(one.tool.wait()->code() == 125);
  CHECK(said.find("not posted: ") != std::string::npos);
  CHECK(lines_of(said).size() == 1);
  CHECK(said.find(secret) == std::string::npos);
}

TEST_CASE("an address that would travel in the clear, or be a file, is refused") {
  if (!can_post()) return;
  const std::vector<std::string> addresses = {"http://192.0.2.1/" + secret, "file:///etc/passwd", "not an address"};
  for (const std::string& address : addresses) {
    posting one({}, {"INSTANCE_GUARD_WEBHOOK=" + address});
    const std::string said = one.tool.read_all();
    CHECK(one.tool.wait()->code() == 125);
    CHECK(said.find("not posted") != std::string::npos);
    CHECK(said.find(secret) == std::string::npos);
  }
}

TEST_CASE("a file of an address that others can read is refused, and a fifo does not hang") {
  const scene files;
  const std::string path = webhook_file(files, "http://127.0.0.1:1/" + secret, 0644);
  posting open({"--webhook-file", path}, {});
  const std::string said = open.tool.read_all();
  CHECK(open.tool.wait()->code() == 125);
  CHECK(said.find("can be read by others") != std::string::npos);
  const std::string fifo = files / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  posting blocked({"--webhook-file", fifo}, {});
  CHECK(blocked.tool.read_all().find("is no file") != std::string::npos);
  CHECK(blocked.tool.wait()->code() == 125);
}

TEST_CASE("without an address the payloads are printed; with --only-ghosts not when all is well") {
  posting print({}, {});
  const auto message = nlohmann::json::parse(print.tool.read_all());
  CHECK(message["content"].is_string());
  posting quiet({"--only-ghosts"}, {});
  CHECK(quiet.tool.read_all().empty());
  CHECK(quiet.tool.wait()->code() == 0);
}

TEST_CASE("the commits between two are counted; a stranger's repository is not read") {
  const std::string counter =
      (std::filesystem::path(INSTANCE_GUARD_TOOL).parent_path() / "instance-guard-commits").string();
  const bool has_git = std::system("git --version >/dev/null 2>&1") == 0;
  if (::access(counter.c_str(), X_OK) != 0 || !has_git) {
    MESSAGE("skipped: built without libgit2, or no git here to make a repository");
    return;
  }
  const scene s;
  const std::string repository = s / "repository";
  const std::string make =
      "set -e; unset GIT_DIR; export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b "
      "GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; git init -q '" +
      repository + "'; cd '" + repository +
      "'; "
      "for i in 0 1 2 3 4 5 6 7 8 9 10 11 12; do git commit -q --allow-empty -m $i; done; "
      "git rev-parse HEAD~12 HEAD";
  program maker = s.start({"sh", "-c", make});
  const std::vector<std::string> hashes = lines_of(maker.read_all());
  REQUIRE(hashes.size() == 2);
  const auto count = [&](const std::string& from, const std::string& to) {
    program one = s.start({counter, repository, from, to});
    std::string text = one.read_all();
    one.wait();
    return text;
  };
  CHECK(count(hashes[0], hashes[1]) == "12\n");
  CHECK(count(hashes[1], hashes[0]) == "0\n");
  CHECK(count(std::string(40, '1'), hashes[1]).empty());
  CHECK(count("HEAD", hashes[1]).empty());
  if (!is_root()) return;
  for (const auto& each : std::filesystem::recursive_directory_iterator(repository))
    ::lchown(each.path().c_str(), nobody, nobody);
  REQUIRE(::chown(repository.c_str(), nobody, nobody) == 0);
  CHECK(count(hashes[0], hashes[1]).empty());
}
