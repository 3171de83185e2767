// layer 3: what a name is, found out without taking or disturbing anything.
//
// A reader that takes the lock for a moment makes a start fail. So: the mark on the file
// (F_OFD_GETLK), the list of bound sockets, the record. Held by the socket alone is held, never
// free.
#pragma once

#include <dirent.h>

#include <cerrno>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../file_descriptor.hpp"
#include "../lock_status_types.hpp"
#include "lock_code.hpp"
#include "lock_directory.hpp"
#include "lock_file.hpp"
#include "lock_holder.hpp"
#include "lock_refusals.hpp"
#include "lock_session.hpp"
#include "process_descendants.hpp"

namespace instance_guard::detail {

/// Reads the lines back; anything else in the file is passed over.
inline std::vector<refusal> read_refusals(int directory, const lock_name& name) {
  namespace sys = platform::sys;
  std::vector<refusal> result;
  const lock_file_name file(name.view(), refused_suffix);
  const file_descriptor log(sys::openat(directory, file.text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat facts = {};
  if (!log || sys::fstat(log.get(), &facts) != 0 || !S_ISREG(facts.st_mode)) return result;
  record_text text;
  read_record_file(log.get(), text);
  std::string_view rest = text.view();
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    const std::size_t first = line.find(' ');
    const std::size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
    if (second == std::string_view::npos) continue;
    std::uint64_t at = 0;
    std::uint64_t pid = 0;
    if (!parse_number(line.substr(0, first), 253'402'300'799, at) ||
        !parse_number(line.substr(first + 1, second - first - 1), 2147483647, pid))
      continue;
    refusal one;
    one.at = from_unix_milliseconds(static_cast<std::int64_t>(at) * 1000);
    one.pid = static_cast<pid_t>(pid);
    one.started_from = line.substr(second + 1);
    result.push_back(std::move(one));
  }
  return result;
}

/// The holders of a name under other users, by their sockets.
inline std::vector<other_holder> other_holders(const lock_name& name, std::error_code& ec) {
  std::vector<other_holder> result;
  const uid_t self = ::geteuid();
  platform::for_each_abstract_socket([&](const char* text, std::size_t size, uid_t uid, bool known) noexcept {
    if (!known || uid == self) return true;
    const socket_name theirs(lock_scope::user, uid, name.view());
    if (!same(std::string_view(text, size), theirs.view())) return true;
    without_throwing(ec, [&] { result.emplace_back().uid = uid; });
    return !ec && result.size() < 100;
  });
  for (std::size_t i = 0; i < result.size(); ++i) {
    other_holder& one = result[i];
    one.user = user_name(one.uid);
    const socket_name theirs(lock_scope::user, one.uid, name.view());
    const file_descriptor connection(platform::watch_socket_name(theirs.text, theirs.size));
    uid_t uid = 0;
    if (connection && platform::peer_user(connection.get(), uid) && uid == one.uid)
      if (const pid_t pid = platform::peer_process(connection.get()); pid > 0) one.pid = pid;
  }
  return result;
}

/// Whether a lock file is held: 1, 0, or a negated errno.
inline int file_is_held(int descriptor, const std::optional<lock_record>& record) noexcept {
  const int marked = platform::is_marked_held(descriptor);
  if (marked >= 0) return marked;
  // No way to look without touching: believe a record whose process lives, try the rest. A start
  // that meets the trial meets no living holder either, and tries again.
  if (judge_holder(record) != holder_state::unknown) return 1;
  const int locked = platform::flock_now(descriptor, LOCK_SH);
  return locked == -EWOULDBLOCK ? 1 : locked < 0 ? locked : 0;
}

/// What lies in the lock file's place and makes a start fail: another kind of file, another user's, or none that can
/// be opened. `opened` may be a negated errno.
inline lock_fault refused_file(const lock_attempt& of, int opened) {
  if (opened == -ENOENT) return {};
  struct stat facts = {};
  const int seen = opened < 0 ? opened : platform::sys::fstat(opened, &facts);
  if (seen != 0 || !S_ISREG(facts.st_mode)) return wrong_file(of, seen != 0 ? seen : -EINVAL);
  if (of.scope == lock_scope::user && facts.st_uid != ::geteuid()) return wrong_file(of, -EPERM);
  return facts.st_nlink > 1 && !was_put_back(of, facts) ? second_name_fault(of) : lock_fault{};
}

inline void query_file(int directory, const lock_name& name, lock_status& status, std::error_code& ec) {
  namespace sys = platform::sys;
  bool held = false;
  bool empty = true;
  lock_fault fault;
  const lock_file_name file(name.view(), lock_suffix);
  if (directory >= 0) {
    const int number = sys::openat(directory, file.text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    const file_descriptor opened(number);
    fault = refused_file({name, status.scope, status.path.string(), directory}, number);
    struct stat facts = {};
    if (opened && sys::fstat(opened.get(), &facts) == 0 && S_ISREG(facts.st_mode)) {
      int answer = 0;
      // The record may be half written, or of the holder before: look again for a moment.
      for (int tries = 0; tries < 50; ++tries) {
        record_text text;
        read_record_file(opened.get(), text);
        empty = text.size == 0;
        status.holder = parse_record(text.view());
        answer = file_is_held(opened.get(), status.holder);
        if (answer != 1 || judge_holder(status.holder) != holder_state::unknown) break;
        sys::sleep_for(1'000'000);
      }
      if (answer < 0) ec.assign(-answer, std::system_category());
      held = answer == 1;
    }
    status.refusals = read_refusals(directory, name);
  }
  const auto ask_socket = [&] {
    socket_listener listener = listener_of(status.scope, name);
    status.holder = std::move(listener.record);
    status.state = listener.state == listener_state::gone ? lock_state::cleaning_up : lock_state::held;
  };
  if (held) {
    if (!status.holder) return ask_socket();  // its record is damaged, or not written yet
    if (!is_alive(status.holder->process)) {
      // Either its children are being ended, or somebody who can't write it has it now.
      std::optional<lock_record> listener;
      if (judge_holder(status.holder) != holder_state::cleaning) listener = holder_by_socket(status.scope, name);
      status.state = listener ? lock_state::held : lock_state::cleaning_up;
      if (listener) status.holder = std::move(listener);
    } else {
      status.state = lock_state::held;
    }
    return;
  }
  if (platform::has_socket_lock) {
    const socket_name address(status.scope, ::geteuid(), name.view());
    uid_t uid = 0;
    const int owner = platform::socket_name_owner(address.text, address.size, uid);
    if (owner == 2 || (owner == 1 && (status.scope == lock_scope::host || uid == ::geteuid()))) {
      return ask_socket();
    }
  }
  if (fault) {
    ec = fault.code;
    status.explanation = fault.explanation();
    status.holder.reset();  // nobody vouches for what is written there
    return;
  }
  status.state = empty ? lock_state::free : lock_state::abandoned;
}

/// `seen` is for several names in a row: one look at all processes. Null: the children are not asked for.
inline lock_status query(const lock_name& name, const lock_options& options, process_list* seen, std::error_code& ec) {
  lock_status status;
  status.name = name.view();
  status.scope = options.scope;
  lock_directory directory = open_lock_directory(options, directory_use::look);
  if (directory.fault && !is(directory.fault.code, std::errc::no_such_file_or_directory)) {
    ec = directory.fault.code;
    status.explanation = directory.fault.explanation();
    return status;
  }
  status.path = directory.path / lock_file_name(name.view(), lock_suffix).text;
  query_file(directory.descriptor.get(), name, status, ec);
  if (status.holder && status.state != lock_state::abandoned) {
    std::chrono::system_clock::time_point replaced;
    status.replaced_code = code_replaced_at(*status.holder, replaced);
    if (status.replaced_code) status.replaced_at = replaced;
    pid_t roots[2];
    std::size_t root_count = 0;
    for (const process_identity& each : {status.holder->process, status.holder->warden})
      if (each && is_alive_here(each)) roots[root_count++] = each.pid;
    if (root_count != 0 && seen != nullptr) {
      std::error_code unseen;  // without a list of processes the children are not known, the rest is
      for (const process_identity& each : descendants_of(roots, root_count, *seen, unseen))
        if (each.pid != status.holder->warden.pid) status.children.push_back(each);
      if (is(unseen, std::errc::not_enough_memory)) ec = unseen;
    }
  }
  if (status.scope == lock_scope::user) status.others = other_holders(name, ec);
  return status;
}

/// The entries of a directory, one after the other.
class listing {
 public:
  explicit listing(const char* path) noexcept : entries_(::opendir(path)), error_(entries_ == nullptr ? errno : 0) {}
  ~listing() {
    if (entries_ != nullptr) ::closedir(entries_);
  }
  listing(const listing&) = delete;
  listing& operator=(const listing&) = delete;

  /// Null at the end, and when the rest can't be read.
  const dirent* next(std::error_code& ec) const noexcept {
    errno = error_;
    const dirent* entry = entries_ != nullptr ? ::readdir(entries_) : nullptr;
    if (entry == nullptr && errno != 0) ec.assign(errno, std::system_category());
    return entry;
  }

 private:
  DIR* entries_;
  int error_;
};

inline std::vector<lock_status> list(const lock_options& options, bool with_children, std::error_code& ec) {
  std::vector<lock_status> result;
  std::vector<std::string> names;
  const lock_directory directory = open_lock_directory(options, directory_use::look);
  if (directory.fault && !is(directory.fault.code, std::errc::no_such_file_or_directory)) {
    ec = directory.fault.code;
    return result;
  }
  const auto add = [&](std::string_view text) {
    const lock_name name(text);
    if (!name || !same(name.view(), text)) return;
    std::size_t at = 0;  // sorted, each once
    while (at < names.size() && names[at].compare(text) < 0) ++at;
    if (at < names.size() && same(names[at], text)) return;
    names.push_back(std::string(text));
    for (std::size_t i = names.size() - 1; i > at; --i) names[i].swap(names[i - 1]);
  };
  if (directory.descriptor) {
    // std::filesystem::directory_iterator ends the program where there is no memory (libstdc++).
    const listing open(directory.path.c_str());
    constexpr std::string_view suffix = lock_suffix;
    while (const dirent* entry = open.next(ec)) {
      const std::string_view file = entry->d_name;
      if (file.size() > suffix.size() && same(file.substr(file.size() - suffix.size()), suffix))
        add(file.substr(0, file.size() - suffix.size()));
    }
  }
  // Held elsewhere, or after the file was removed.
  const uid_t self = ::geteuid();
  platform::for_each_abstract_socket([&](const char* text, std::size_t size, uid_t uid, bool) noexcept {
    const socket_name prefix(options.scope, self, "");
    const std::string_view bound(text, size);
    if ((options.scope == lock_scope::host || uid == self) && same(bound.substr(0, prefix.size), prefix.view()))
      without_throwing(ec, [&] { add(bound.substr(prefix.size)); });
    return !ec;
  });
  process_list seen;
  const std::vector<std::string>& sorted = names;  // one kind of iterator less to instantiate
  for (const std::string& name : sorted) {
    std::error_code one;
    lock_status status = query(lock_name(name), options, with_children ? &seen : nullptr, one);
    if (is(one, std::errc::not_enough_memory)) ec = one;
    if (status.state != lock_state::free || !status.explanation.empty()) result.push_back(std::move(status));
  }
  return result;
}

#if INSTANCE_GUARD_EXCEPTIONS
/// For an exception: the path that can't be asked about; with the cure, if it is the directory.
inline std::string asked_text(const lock_options& options, const lock_name& name = lock_name("")) {
  const lock_directory directory = open_lock_directory(options, directory_use::look);
  if (directory.fault) return directory.fault.exception_text();
  return name ? (directory.path / lock_file_name(name.view(), lock_suffix).text).string() : directory.path.string();
}
#endif

}  // namespace instance_guard::detail
