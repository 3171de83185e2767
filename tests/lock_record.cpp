// The text of a lock file: what is written is read back; anything else is never believed.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <string_view>

#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using detail::parse_record;

namespace {

lock_record sample() {
  lock_record record;
  record.process = process_identity::self();
  record.warden = record.process;
  record.warden.pid += 1;
  record.name = "shiva";
  record.version = "1.4.2-rc1 100%\n";
  record.user = "knox";
  record.host = "tesseract";
  record.executable = "/opt/a b/shiva\tbot";
  record.started_from = "systemd unit shiva.service";
  record.arguments = {"shiva", "", "--key=a=b", "two\nlines", "\xc3\xa4\xff", std::string("nul\0nul", 7), "%41"};
  record.working_directory = "/home/knox/shiva";
  record.acquired_at += std::chrono::milliseconds(1'774'141'080'123);
  record.grace = std::chrono::milliseconds(5000);
  record.mark = "0123456789abcdef0123456789abcdef";
  record.control_group = "/system.slice/two words\n.service/instance-guard.7-99";
  killed_holder killed;
  killed.process = killed.warden = record.process;
  killed.warden.pid = 7;
  killed.warden.start_time = 99;
  killed.user = 501;
  killed.grace = std::chrono::milliseconds(70);
  killed.mark = record.mark + "-0123456789abcdef";
  killed.control_group = "/user.slice/dbus-:1.2-x.service/instance-guard.7-99";
  record.unswept = {killed, killed};
  record.unswept[1].warden = {};
  record.unswept[1].control_group.clear();
  record.uid = 501;
  record.executable_device = 42;
  record.executable_inode = UINT64_MAX;
  return record;
}

std::string text_of(const lock_record& record) {
  detail::record_text text;
  detail::format_record(record, text);
  return std::string(text.view());
}

void check_same(const lock_record& a, const lock_record& b) {
  CHECK(a.process == b.process);
  CHECK(a.warden == b.warden);
  CHECK(a.name == b.name);
  CHECK(a.version == b.version);
  CHECK(a.user == b.user);
  CHECK(a.host == b.host);
  CHECK(a.executable == b.executable);
  CHECK(a.started_from == b.started_from);
  CHECK(a.arguments == b.arguments);
  CHECK(a.working_directory == b.working_directory);
  CHECK(a.acquired_at == b.acquired_at);
  CHECK(a.grace == b.grace);
  CHECK(a.mark == b.mark);
  CHECK(a.control_group == b.control_group);
  for (std::size_t i = 0; i < a.unswept.size(); ++i) {
    const killed_holder &one = a.unswept[i], &other = b.unswept[i];
    CHECK(one.process == other.process);
    CHECK(one.user == other.user);
    CHECK(one.grace == other.grace);
    CHECK(one.mark == other.mark);
    CHECK(one.warden == other.warden);
    CHECK(one.control_group == other.control_group);
  }
  CHECK(a.uid == b.uid);
  CHECK(a.executable_device == b.executable_device);
  CHECK(a.executable_inode == b.executable_inode);
}

/// A text whose check line is right, whatever the rest says.
std::string signed_text(std::string body) {
  char check[64];
  std::snprintf(check, sizeof check, "check=%zu:%016llx\n", body.size(),
                static_cast<unsigned long long>(detail::record_checksum(body)));
  return body + check;
}

}  // namespace

TEST_CASE("a record is read back as it was written, whatever bytes are in it") {
  const auto read = parse_record(text_of(sample()));
  REQUIRE(read);
  check_same(*read, sample());
}

TEST_CASE("who was killed hands on what it had not done, the last four, oldest first") {
  lock_record dead;
  for (int round = 1; round <= 6; ++round) {
    dead.process.pid = round;
    dead.mark = sample().mark;
    lock_record next;
    next.unswept = detail::unswept_after(dead, 501);
    std::vector<pid_t> pids;
    for (const killed_holder& each : next.unswept) pids.push_back(each.process.pid);
    const std::vector<std::vector<pid_t>> wanted = {{1, 0, 0, 0}, {1, 2, 0, 0}, {1, 2, 3, 0},
                                                    {1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}};
    CHECK(pids == wanted[static_cast<std::size_t>(round - 1)]);
    dead = next;
  }
  // Who had no mark left nothing that could be looked for.
  dead.process.pid = 7;
  dead.mark.clear();
  CHECK(detail::unswept_after(dead, 501)[3].process.pid == dead.unswept[3].process.pid);
}

TEST_CASE("a file hands on only what its owner could have left, but for root's") {
  lock_record dead = sample();
  dead.unswept[0].user = 0;
  const auto of_501 = detail::unswept_after(dead, 501);
  CHECK(of_501[0].user == 501);
  CHECK(of_501[0].control_group.empty());
  CHECK(of_501[1].process == dead.process);
  CHECK(of_501[2].process.pid == 0);
  const auto of_root = detail::unswept_after(dead, 0);
  CHECK(of_root[0].user == 0);
  CHECK(of_root[1].user == 501);
  CHECK(of_root[2].process == dead.process);
}

TEST_CASE("each further warden of the holder is a line of its own, as long as there is room") {
  lock_record record = sample();
  record.unswept[1] = {};
  std::array<killed_holder, 4> further;
  for (std::size_t i = 0; i < further.size(); ++i) {
    further[i].user = static_cast<uid_t>(600 + i);
    further[i].warden.pid = static_cast<pid_t>(70 + i);
    further[i].control_group = "/a.service/instance-guard." + std::to_string(70 + i) + "-0";
  }
  detail::record_text text;
  detail::format_record(record, text, &further);
  const auto read = parse_record(text.view());
  REQUIRE(read);
  CHECK(read->unswept[0].mark == record.unswept[0].mark);
  for (std::size_t i = 1; i < read->unswept.size(); ++i) {
    const killed_holder& each = read->unswept[i];
    CHECK(each.process == record.process);
    CHECK(each.mark == record.mark);
    CHECK(each.grace == record.grace);
    CHECK(each.user == further[i - 1].user);
    CHECK(each.warden.pid == further[i - 1].warden.pid);
    CHECK(each.control_group == further[i - 1].control_group);
  }
  record.unswept = {};
  record.mark.clear();  // nothing could be proven of them
  detail::format_record(record, text, &further);
  CHECK(text.view() == text_of(record));
}

TEST_CASE("a record never exceeds 4 KiB; arguments are what is left out") {
  lock_record record = sample();
  record.control_group = std::string(320, '/');
  record.unswept.fill(killed_holder(record.unswept[0]));
  for (killed_holder& each : record.unswept) each.control_group = record.control_group;
  record.arguments.assign(1000, std::string(300, '\n'));
  record.executable = std::string(5000, 'e');
  record.working_directory = std::string(5000, 'd');
  record.version = std::string(5000, '%');
  record.started_from = std::string(5000, 's');
  const std::string text = text_of(record);
  CHECK(text.size() <= 4096);
  const auto read = parse_record(text);
  REQUIRE(read);
  CHECK(read->process == record.process);
  CHECK(read->mark == record.mark);
  CHECK(read->executable.substr(0, 100) == record.executable.substr(0, 100));
  CHECK(read->arguments.size() < 1000);
}

TEST_CASE("a record cut anywhere, or with any byte changed, is no record") {
  const std::string text = text_of(sample());
  for (std::size_t size = 0; size < text.size(); ++size) {
    CAPTURE(size);
    CHECK(!parse_record(text.substr(0, size)));
  }
  for (std::size_t at = 0; at < text.size(); ++at) {
    CAPTURE(at);
    std::string changed = text;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    CHECK(!parse_record(changed));
  }
}

TEST_CASE("a short record over the tail of a longer one is read as the short one") {
  lock_record longer = sample(), shorter = sample();
  shorter.arguments = {"x"};
  shorter.process.pid = 99;
  shorter.warden = {};
  const std::string below = text_of(longer);
  const std::string above = text_of(shorter);
  REQUIRE(above.size() < below.size());
  const auto read = parse_record(above + below.substr(above.size()));
  REQUIRE(read);
  CHECK(read->process.pid == 99);
  CHECK(read->arguments.size() == 1);
  // ... and half of it over the longer one is neither.
  for (std::size_t half = 1; half < above.size(); ++half) {
    const std::string mixed = above.substr(0, half) + below.substr(half);
    CHECK((mixed == below || mixed.starts_with(above) || !parse_record(mixed)));
  }
}

TEST_CASE("a pid that can't be one is refused, also in a text that is otherwise whole") {
  for (const char* pid : {"", "0", "-1", "-0", "+1", " 1", "1 ", "0x10", "2147483648", "99999999999999999999999", "1\r",
                          "12abc", "1.0", "\xd9\xa1"}) {
    CAPTURE(pid);
    CHECK(!parse_record(signed_text(std::string(pid) + "\nname=x\n")));
  }
  CHECK(parse_record(signed_text("1\nname=x\n")));
  CHECK(parse_record(signed_text("2147483647\nname=x\n")));
}

TEST_CASE("nonsense in single fields is passed over") {
  const auto read =
      parse_record(signed_text("77\nboot=xyz\nstart=-5\nacquired_at=99999999999999999999\ngrace="
                               "18446744073709551615\nwarden=-1:7\nmark=no\n"
                               "executable_file=1\nuid=99999999999\nno equals "
                               "sign\n=\nunknown=1\nname=%\nargument=%zz%4\n"));
  REQUIRE(read);
  CHECK(read->process.pid == 77);
  CHECK(!read->process.complete());
  CHECK(!read->warden);
  CHECK(read->mark.empty());
  CHECK(read->name == "%");
  CHECK(read->arguments == std::vector<std::string>{"%zz%4"});
  CHECK(read->acquired_at == std::chrono::system_clock::time_point{});
}

TEST_CASE("a time that the clock can't count is the last that it can") {
  const auto read = parse_record(signed_text("77\nacquired_at=253402300799999\n"));
  REQUIRE(read);
  CHECK(read->acquired_at > std::chrono::system_clock::now() + std::chrono::hours(24 * 365 * 200));
}

TEST_CASE("any bytes at all can be parsed") {
  std::mt19937 random(12345);
  const std::string base = text_of(sample());
  for (int i = 0; i < 20'000; ++i) {
    std::string text = i % 2 == 0 ? base : std::string(random() % 600, '\0');
    const auto changes = i % 2 == 0 ? random() % 8 : text.size();
    for (std::size_t n = 0; n < changes && !text.empty(); ++n)
      text[random() % text.size()] = "\0\n=:%0123456789abcheck\xff"[random() % 24];
    parse_record(text);
    parse_record(signed_text(text));
  }
}

TEST_CASE(
    "whatever is in a lock file that nobody holds, the name is free, and the file is written "
    "anew") {
  const std::string whole = text_of(sample());
  lock_record living = sample();
  living.process.pid = ::getppid();
  const std::string contents[] = {"",
                                  "\n",
                                  "0\n",
                                  "-1\n",
                                  "1\n",
                                  "99999999999999\n",
                                  "12abc\n",
                                  "77\r\nname=x\r\n",
                                  std::string(1, '\0'),
                                  std::string(1 << 20, '\xff'),
                                  std::string(5000, '1'),
                                  whole.substr(0, whole.size() / 2),
                                  std::to_string(::getpid()) + "\n",
                                  std::to_string(::getppid()) + "\n"};
  for (const std::string& content : contents) {
    CAPTURE(content.substr(0, 40));
    support::temporary_directory directory;
    const std::string name = support::unique_name("content");
    std::ofstream(directory / (name + ".lock"), std::ios::binary) << content;
    std::error_code ec;
    pid_lockfile lock(name, {.directory = directory.path()}, ec);
    CHECK(!ec);
    CHECK(!lock.recovered_from().has_value());
    CHECK(std::filesystem::file_size(lock.path()) <= 4096);
    lock.verify(ec);
    CHECK(!ec);
  }
  // A record of a process that lives, but does not hold: it is what was left, it decides nothing.
  support::temporary_directory directory;
  const std::string name = support::unique_name("content");
  std::error_code ec;
  living.process = process_identity::of(::getppid(), ec);
  std::ofstream(directory / (name + ".lock"), std::ios::binary) << text_of(living);
  pid_lockfile lock(name, {.directory = directory.path()}, ec);
  CHECK(!ec);
  REQUIRE(lock.recovered_from());
  CHECK(lock.recovered_from()->process.pid == ::getppid());
}
