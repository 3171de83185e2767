// layer 3: the text of a lock file: written without allocation, read without trust.
//
//   51877                                the pid alone, for pgrep -F and PIDFile=
//   boot=…  pid_namespace=…  start=…     key=value lines; control characters and % as %XX
//   …
//   check=612:9a3f…                      length and checksum of what is above
//
// At most 4 KiB. A reader may meet a record half written: the last line tells. What follows it
// (the tail of a longer record that was there before) does not count.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../pid_lockfile_types.hpp"
#include "text.hpp"
#include "unix_time.hpp"

namespace instance_guard::detail {

inline constexpr std::size_t max_record = 4096;

/// Room for a record, and one byte more to see that a file is longer.
struct record_text {
  char bytes[max_record + 1];
  std::size_t size = 0;
  uid_t user = static_cast<uid_t>(-1);  ///< who owns the file it was read from
  std::string_view view() const noexcept { return {bytes, size}; }
};

inline std::uint64_t record_checksum(std::string_view text) noexcept {  // FNV-1a
  std::uint64_t sum = 14695981039346656037ULL;
  for (const char c : text) sum = (sum ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return sum;
}

/// Adds to a record_text; what does not fit is left out whole.
class record_writer {
 public:
  /// `reserve` bytes stay free for what must come last.
  record_writer(record_text& out, std::size_t reserve) noexcept : out_(out), limit_(max_record - reserve) {
    out_.size = 0;
  }

  void number(std::uint64_t value, unsigned base = 10, int width = 1) noexcept {
    char digits[24];
    int count = 0;
    do {
      digits[count++] = "0123456789abcdef"[value % base];
      value /= base;
    } while (value != 0);
    while (count < width) digits[count++] = '0';
    while (count > 0) put(digits[--count]);
  }
  void text(std::string_view part) noexcept {
    for (const char c : part) put(c);
  }
  void line_end() noexcept { put('\n'); }

  /// A whole "key=value" line, the value escaped and cut at `most` bytes.
  bool field(std::string_view key, std::string_view value, std::size_t most) noexcept {
    const std::size_t start = out_.size;
    full_ = false;
    text(key);
    put('=');
    const std::size_t first = out_.size;
    for (const char c : value) {
      const auto byte = static_cast<unsigned char>(c);
      const bool plain = byte >= 0x20 && byte != 0x7f && byte != '%';
      if (out_.size - first + (plain ? 1 : 3) > most) break;
      if (plain) {
        put(c);
      } else {
        put('%');
        number(byte, 16, 2);
      }
    }
    line_end();
    if (full_) out_.size = start;
    return !full_;
  }
  void number_field(std::string_view key, std::uint64_t value) noexcept {
    text(key);
    put('=');
    number(value);
    line_end();
  }
  void final_room() noexcept { limit_ = max_record; }

 private:
  void put(char c) noexcept {
    if (out_.size < limit_) out_.bytes[out_.size++] = c;
    else full_ = true;
  }

  record_text& out_;
  std::size_t limit_;
  bool full_ = false;
};

/// One line about whom the next holder has to end the strays of.
inline void write_unswept(record_writer& to, const process_identity& process, std::chrono::milliseconds grace,
                          std::string_view mark, const killed_holder& rest) noexcept {
  to.text("unswept=");
  for (const std::uint64_t part : {static_cast<std::uint64_t>(process.pid), process.start_time,
                                   static_cast<std::uint64_t>(rest.user), static_cast<std::uint64_t>(grace.count())}) {
    to.number(part);
    to.text(":");
  }
  to.text(mark);
  if (!rest.control_group.empty()) {
    to.text(":");
    to.number(static_cast<std::uint64_t>(rest.warden.pid));
    to.text(":");
    to.number(rest.warden.start_time);
    to.text(":");
    to.text(rest.control_group);
  }
  to.line_end();
}

/// Writes the text of `record`. `further`: wardens that the holder has besides the one in it.
inline void format_record(const lock_record& record, record_text& out,
                          const std::array<killed_holder, 4>* further = nullptr) noexcept {
  record_writer to(out, 48);
  to.number(static_cast<std::uint64_t>(record.process.pid > 0 ? record.process.pid : 0));
  to.line_end();
  to.text("boot=");
  for (const unsigned char byte : record.process.boot) to.number(byte, 16, 2);
  to.line_end();
  to.number_field("pid_namespace", record.process.pid_namespace);
  to.number_field("start", record.process.start_time);
  if (record.warden.pid > 0) {
    to.text("warden=");
    to.number(static_cast<std::uint64_t>(record.warden.pid));
    to.text(":");
    to.number(record.warden.start_time);
    to.line_end();
  }
  const std::int64_t at = unix_milliseconds(record.acquired_at);
  to.number_field("acquired_at", at > 0 ? static_cast<std::uint64_t>(at) : 0);
  to.number_field("grace", record.grace.count() > 0 ? static_cast<std::uint64_t>(record.grace.count()) : 0);
  to.number_field("uid", record.uid);
  to.text("executable_file=");
  to.number(record.executable_device);
  to.text(":");
  to.number(record.executable_inode);
  to.line_end();
  if (!record.mark.empty()) to.field("mark", record.mark, 320);
  if (!record.control_group.empty() && record.control_group.size() <= 512)
    to.field("control_group", record.control_group, 3 * 512);
  std::size_t lines = 0;
  for (const killed_holder& each : record.unswept) {
    if (each.process.pid <= 0) break;
    write_unswept(to, each.process, each.grace, each.mark, each);
    ++lines;
  }
  if (further != nullptr && !record.mark.empty())
    for (const killed_holder& each : *further)
      if (each.warden.pid > 0 && lines++ < further->size())
        write_unswept(to, record.process, record.grace, record.mark, each);
  to.field("name", record.name, 64);
  to.field("user", record.user, 64);
  to.field("host", record.host, 128);
  if (!record.version.empty()) to.field("version", record.version, 192);
  to.field("started_from", record.started_from, 256);
  to.field("executable", record.executable, 1024);
  to.field("directory", record.working_directory.native(), 1024);
  for (const std::string& argument : record.arguments)
    if (!to.field("argument", argument, 512)) break;
  const std::uint64_t sum = record_checksum(out.view());
  const std::size_t length = out.size;
  to.final_room();
  to.text("check=");
  to.number(length);
  to.text(":");
  to.number(sum, 16, 16);
  to.line_end();
}

/// A whole decimal number, nothing else. False when it is not, or exceeds `most`.
inline bool parse_number(std::string_view text, std::uint64_t most, std::uint64_t& number) noexcept {
  if (text.empty() || text.size() > 20) return false;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    const auto digit = static_cast<std::uint64_t>(c - '0');
    if (value > (most - digit) / 10) return false;
    value = value * 10 + digit;
  }
  number = value;
  return true;
}

/// The same, or `otherwise`.
inline std::uint64_t number_or(std::string_view text, std::uint64_t most, std::uint64_t otherwise) noexcept {
  parse_number(text, most, otherwise);
  return otherwise;
}

inline int hex_digit(char c) noexcept {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

inline std::string unescape(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
      result += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

/// The part of `text` that the check line vouches for; empty: none.
inline std::string_view checked_record(std::string_view text) noexcept {
  constexpr std::string_view key = "\ncheck=";
  const std::size_t found = text.find(key);
  if (found == std::string_view::npos) return {};
  const std::string_view body = text.substr(0, found + 1);
  const std::size_t from = found + key.size();
  const std::size_t end = text.find('\n', from);
  if (end == std::string_view::npos) return {};
  const std::string_view value = text.substr(from, end - from);
  const std::size_t colon = value.find(':');
  if (colon == std::string_view::npos || value.size() != colon + 17) return {};
  std::uint64_t length = 0;
  if (!parse_number(value.substr(0, colon), max_record, length) || length != body.size()) return {};
  std::uint64_t sum = 0;
  for (const char c : value.substr(colon + 1)) {
    if (hex_digit(c) < 0) return {};
    sum = sum << 4 | static_cast<std::uint64_t>(hex_digit(c));
  }
  return sum == record_checksum(body) ? body : std::string_view{};
}

/// As stray_sweep.hpp writes it.
inline bool is_mark_text(std::string_view value) noexcept {
  bool good = value.size() >= 32 && value.size() <= 320;
  for (const char c : value) good = good && (hex_digit(c) >= 0 || c == '-');
  return good;
}

/// "pid:start:uid:grace:mark", of the record's own boot and namespace.
inline bool parse_unswept(std::string_view value, killed_holder& result) {
  std::uint64_t part[4] = {};
  constexpr std::uint64_t most[4] = {2147483647, UINT64_MAX, UINT32_MAX, INT64_MAX};
  for (int i = 0; i < 4; ++i) {
    const std::size_t colon = value.find(':');
    if (colon == std::string_view::npos || !parse_number(value.substr(0, colon), most[i], part[i])) return false;
    value.remove_prefix(colon + 1);
  }
  const std::string_view mark = value.substr(0, value.find(':'));
  if (!is_mark_text(mark)) return false;
  value.remove_prefix(mark.size());
  std::uint64_t warden[2] = {};
  for (int i = 0; i < 2 && !value.empty(); ++i) {
    const std::size_t colon = value.find(':', 1);
    if (colon == std::string_view::npos || !parse_number(value.substr(1, colon - 1), most[i], warden[i])) return false;
    value.remove_prefix(colon);
  }
  if (!value.empty()) {
    result.warden.pid = static_cast<pid_t>(warden[0]);
    result.warden.start_time = warden[1];
    result.control_group = value.substr(1);
  }
  result.process.pid = static_cast<pid_t>(part[0]);
  result.process.start_time = part[1];
  result.user = static_cast<uid_t>(part[2]);
  result.grace = std::chrono::milliseconds(static_cast<std::int64_t>(part[3]));
  result.mark = mark;
  return true;
}

/// True if it can stand in a line of a record as it is, and leaves room for others.
inline bool is_plain_path(std::string_view path) noexcept {
  bool good = !path.empty() && path.size() <= 320;
  for (const char c : path) good = good && c > ' ' && c < 127;
  return good;
}

/// What the next holder has to end the strays of: the dead one's, and what that one had not done. The
/// oldest are dropped where there are too many. Who owns the file may have written anything: only root's speaks for
/// others' processes.
inline std::array<killed_holder, 4> unswept_after(const lock_record& dead, uid_t file_owner) {
  std::array<killed_holder, 4> result;
  std::size_t last = 0;
  for (const killed_holder& each : dead.unswept)
    if (each.process.pid > 0 && (each.user == file_owner || file_owner == 0)) result[last++] = each;
  if (dead.mark.empty()) return result;
  if (last == result.size()) {
    for (std::size_t i = 1; i < result.size(); ++i) result[i - 1] = std::move(result[i]);
    --last;
  }
  result[last] = {dead.process, file_owner, dead.grace, dead.mark};
  if (is_plain_path(dead.control_group)) {
    result[last].warden = dead.warden;
    result[last].control_group = dead.control_group;
  }
  return result;
}

/// Reads any bytes; empty unless they are a whole, undamaged record. Only memory can fail.
inline std::optional<lock_record> parse_record(std::string_view text) {
  constexpr std::uint64_t max_pid = 2147483647;
  std::string_view body = checked_record(text);
  if (body.empty()) return {};
  lock_record record;
  std::size_t unswept = 0;
  const std::size_t first = body.find('\n');
  const std::uint64_t pid = number_or(body.substr(0, first), max_pid, 0);
  if (pid == 0) return {};
  record.process.pid = static_cast<pid_t>(pid);
  body.remove_prefix(first + 1);
  while (!body.empty()) {
    const std::size_t end = body.find('\n');
    const std::string_view line = body.substr(0, end);
    body.remove_prefix(end == std::string_view::npos ? body.size() : end + 1);
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = line.substr(0, equals);
    const std::string_view value = line.substr(equals + 1);
    const auto count = [](std::string_view digits) { return number_or(digits, UINT64_MAX, 0); };
    const std::size_t colon = value.find(':');
    const std::string_view left = value.substr(0, colon);
    const std::string_view right = colon == std::string_view::npos ? std::string_view{} : value.substr(colon + 1);
    if (same(key, "boot")) {
      if (value.size() != 32) continue;
      for (std::size_t i = 0; i < 16; ++i) {
        const int high = hex_digit(value[2 * i]);
        const int low = hex_digit(value[2 * i + 1]);
        if (high < 0 || low < 0) return {};
        record.process.boot[i] = static_cast<unsigned char>(high * 16 + low);
      }
    } else if (same(key, "pid_namespace")) {
      record.process.pid_namespace = count(value);
    } else if (same(key, "start")) {
      record.process.start_time = count(value);
    } else if (same(key, "warden")) {
      record.warden.pid = static_cast<pid_t>(number_or(left, max_pid, 0));
      record.warden.start_time = count(right);
    } else if (same(key, "acquired_at")) {
      // Further than the clock can count is nonsense; it only informs.
      const std::uint64_t ms = count(value);
      if (ms < 253'402'300'800'000) record.acquired_at = from_unix_milliseconds(static_cast<std::int64_t>(ms));
    } else if (same(key, "grace")) {
      const std::uint64_t ms = count(value);
      record.grace = std::chrono::milliseconds(ms > INT64_MAX ? INT64_MAX : static_cast<std::int64_t>(ms));
    } else if (same(key, "uid")) {
      record.uid = static_cast<uid_t>(number_or(value, UINT32_MAX, UINT32_MAX));
    } else if (same(key, "executable_file")) {
      record.executable_device = count(left);
      record.executable_inode = count(right);
    } else if (same(key, "mark")) {
      if (is_mark_text(value)) record.mark = value;
    } else if (same(key, "control_group")) {
      record.control_group = unescape(value);
    } else if (same(key, "unswept")) {
      if (unswept < record.unswept.size() && parse_unswept(value, record.unswept[unswept])) ++unswept;
    } else if (same(key, "name")) {
      record.name = unescape(value);
    } else if (same(key, "user")) {
      record.user = unescape(value);
    } else if (same(key, "host")) {
      record.host = unescape(value);
    } else if (same(key, "version")) {
      record.version = unescape(value);
    } else if (same(key, "started_from")) {
      record.started_from = unescape(value);
    } else if (same(key, "executable")) {
      record.executable = unescape(value);
    } else if (same(key, "directory")) {
      record.working_directory = unescape(value);
    } else if (same(key, "argument")) {
      record.arguments.push_back(unescape(value));
    }
  }
  for (std::size_t i = 0; i < unswept; ++i) {
    record.unswept[i].process.boot = record.process.boot;
    record.unswept[i].process.pid_namespace = record.process.pid_namespace;
    if (record.unswept[i].warden.pid <= 0) continue;
    record.unswept[i].warden.boot = record.process.boot;
    record.unswept[i].warden.pid_namespace = record.process.pid_namespace;
  }
  if (record.warden.pid > 0) {  // the warden runs beside its owner: same boot, same namespace
    record.warden.boot = record.process.boot;
    record.warden.pid_namespace = record.process.pid_namespace;
  }
  return record;
}

}  // namespace instance_guard::detail
