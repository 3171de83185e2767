// layer 2: a snapshot of the processes of this host.
//
//   const process_table table = process_table::read(ec);
//   for (const process_info& each : table)              // ascending by pid
//     if (each.state == process_state::zombie) ...
//   for (const process_info& each : table.children_of(pid)) ...
//   process_details more = table.details(*table.find(pid), read_options::everything(), ec);
//
// One pass over /proc, while processes come and go: what has ended before it was reached is not
// in the table, and that is no error. A row is of one process; the table is of no one moment.
// A row tells nothing of now: signal through process_handle, which looks again.
//
// What others may see of a process is decided by the system: without rights the details of other
// users' processes can't be read (process_details says so), and with hidepid= their rows neither.
//
// Names, arguments, paths and variables are what the processes chose: any bytes but NUL. Escape
// them before showing them.
//
// Thread-safe: const members may be called at once. Allocates; not for signal handlers. After fork
// the copy stays usable. Linux; elsewhere read() says function_not_supported.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "detail/table_read.hpp"
#include "detail/without_throwing.hpp"
#include "process_table_types.hpp"

namespace instance_guard {

/// Some processes of a table, ascending by pid. Valid as long as the table is.
class process_range {
 public:
  class iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = process_info;
    using difference_type = std::ptrdiff_t;
    using pointer = const process_info*;
    using reference = const process_info&;

    iterator() noexcept = default;
    iterator(const process_info* rows, const std::uint32_t* at) noexcept : rows_(rows), at_(at) {}
    reference operator*() const noexcept { return rows_[*at_]; }
    pointer operator->() const noexcept { return rows_ + *at_; }
    iterator& operator++() noexcept {
      ++at_;
      return *this;
    }
    iterator operator++(int) noexcept {
      const iterator before = *this;
      ++at_;
      return before;
    }
    bool operator==(const iterator& other) const noexcept { return at_ == other.at_; }

   private:
    const process_info* rows_ = nullptr;
    const std::uint32_t* at_ = nullptr;
  };

  process_range() noexcept = default;
  process_range(const process_info* rows, const std::uint32_t* first, const std::uint32_t* last) noexcept
      : rows_(rows), first_(first), last_(last) {}

  iterator begin() const noexcept { return {rows_, first_}; }
  iterator end() const noexcept { return {rows_, last_}; }
  std::size_t size() const noexcept { return static_cast<std::size_t>(last_ - first_); }
  bool empty() const noexcept { return first_ == last_; }

 private:
  const process_info* rows_ = nullptr;
  const std::uint32_t* first_ = nullptr;
  const std::uint32_t* last_ = nullptr;
};

/// The table. A default one is empty. Copies are deep.
class process_table {
 public:
  process_table() noexcept = default;

  /// Reads it now: some 15 µs a process, and as much again for each part of the details that is
  /// asked for. Errors: function_not_supported where the system lists no processes; no_such_process
  /// when /proc counts those of another pid namespace; no_such_file_or_directory without /proc;
  /// not_enough_memory; too_many_files_open. Never because of one process.
  static process_table read(const read_options& what, std::error_code& ec) noexcept {
    ec.clear();
    process_table result;
    detail::without_throwing(ec, [&] { result.fill(what, ec); });
    return ec ? process_table() : std::move(result);
  }
  static process_table read(std::error_code& ec) noexcept { return read(read_options(), ec); }
#if INSTANCE_GUARD_EXCEPTIONS
  static process_table read(const read_options& what = {}) {
    std::error_code ec;
    process_table result = read(what, ec);
    if (ec) throw std::system_error(ec, "reading the processes of this host");
    return result;
  }
#endif

  /// A table of rows from elsewhere (a test, a recording): sorted by pid, of two with one pid the
  /// later is kept. `details` are those of the rows, one each, or none; details() gives them, and
  /// never asks the system. Throws std::bad_alloc.
  static process_table of(std::vector<process_info> rows, std::vector<process_details> details = {},
                          std::chrono::system_clock::time_point taken_at = {}) {
    process_table result;
    result.from_elsewhere_ = true;
    result.taken_at_ = taken_at;
    result.rows_ = std::move(rows);
    result.details_ = std::move(details);
    result.details_.resize(result.rows_.size());
    result.index();
    return result;
  }

  std::size_t size() const noexcept { return rows_.size(); }
  bool empty() const noexcept { return rows_.empty(); }
  const process_info* begin() const noexcept { return rows_.data(); }
  const process_info* end() const noexcept { return rows_.data() + rows_.size(); }
  const process_info& operator[](std::size_t i) const noexcept { return rows_[i]; }

  /// The row of a pid, or null.
  const process_info* find(pid_t pid) const noexcept {
    const process_info* at =
        std::lower_bound(begin(), end(), pid, [](const process_info& row, pid_t value) { return row.id.pid < value; });
    return at != end() && at->id.pid == pid ? at : nullptr;
  }

  /// The row of exactly this process, or null: also when its pid is another's by now.
  const process_info* find(const process_identity& who) const noexcept {
    const process_info* row = find(who.pid);
    return row != nullptr && row->id == who ? row : nullptr;
  }

  /// Those whose parent is `pid`.
  process_range children_of(pid_t pid) const noexcept { return range(by_parent_, pid, &process_info::parent); }

  /// Those in a session, its leader included while it lives.
  process_range session_members(pid_t session) const noexcept {
    return range(by_session_, session, &process_info::session);
  }

  /// When reading began.
  std::chrono::system_clock::time_point taken_at() const noexcept { return taken_at_; }

  /// Age of a process when the table was taken; never negative.
  std::chrono::milliseconds age(const process_info& row) const noexcept {
    const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(taken_at_ - row.started_at);
    return age.count() > 0 ? age : std::chrono::milliseconds(0);
  }

  /// Processes that are listed and whose row can't be read (hidepid=1). They are not in the table.
  std::size_t unreadable() const noexcept { return unreadable_; }

  /// True if the processes of other users are not even listed (hidepid=2): nobody knows how many.
  bool hides_others() const noexcept { return hides_others_; }

  /// What was read of it together with the table; null if nothing was asked for, or `row` is none
  /// of this table.
  const process_details* stored_details(const process_info& row) const noexcept {
    const process_info* mine = find(row.id);
    if (mine == nullptr || details_.empty()) return nullptr;
    return &details_[static_cast<std::size_t>(mine - begin())];
  }

  /// True if all that `what` asks for was read together with the table.
  bool stores(const read_options& what) const { return !details_.empty() && what_.cover(what); }

  /// Reads more of one process, now. It is the process of the row, or no_such_process: never the
  /// one that has its pid by now, not even in part. A part that can't be read is empty and has its
  /// reason; that is no error of the call. `what.proc` is that of the table. Errors:
  /// no_such_process, permission_denied (hidepid=), not_enough_memory, too_many_files_open.
  process_details details(const process_info& row, const read_options& what, std::error_code& ec) const noexcept {
    ec.clear();
    process_details result;
    detail::without_throwing(ec, [&] {
      if (!from_elsewhere_) {
        result = detail::read_details(row.id, what, what_.proc, ec);
        return;
      }
      const process_details* known = stored_details(row);
      if (known != nullptr) result = *known;
      else ec = std::make_error_code(std::errc::no_such_process);
    });
    return result;
  }
#if INSTANCE_GUARD_EXCEPTIONS
  process_details details(const process_info& row, const read_options& what = read_options::everything()) const {
    std::error_code ec;
    process_details result = details(row, what, ec);
    if (ec) throw std::system_error(ec, "process " + std::to_string(row.id.pid));
    return result;
  }
#endif

 private:
  using row_index = std::vector<std::uint32_t>;

  void fill(const read_options& what, std::error_code& ec) {
    detail::table_content content = detail::read_table(what, ec);
    if (ec) return;
    what_ = what;
    taken_at_ = content.taken_at;
    unreadable_ = content.unreadable;
    hides_others_ = content.hides_others;
    rows_ = std::move(content.rows);
    details_ = std::move(content.details);
    index();
  }

  void index() {
    sort_rows();
    const auto order_by = [this](row_index& out, pid_t process_info::*key) {
      out.resize(rows_.size());
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::uint32_t>(i);
      std::sort(out.begin(), out.end(), [&](std::uint32_t a, std::uint32_t b) {
        return rows_[a].*key != rows_[b].*key ? rows_[a].*key < rows_[b].*key : a < b;
      });
    };
    order_by(by_parent_, &process_info::parent);
    order_by(by_session_, &process_info::session);
  }

  /// /proc lists ascending; rows from elsewhere, and pids that were reused meanwhile, may not be.
  void sort_rows() {
    const auto in_order = [](const process_info& a, const process_info& b) { return a.id.pid < b.id.pid; };
    const auto not_ascending = [&](const process_info& a, const process_info& b) { return !in_order(a, b); };
    if (std::adjacent_find(rows_.begin(), rows_.end(), not_ascending) == rows_.end()) return;
    row_index order(rows_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return in_order(rows_[a], rows_[b]); });
    std::vector<process_info> rows;
    std::vector<process_details> details;
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (i + 1 < order.size() && rows_[order[i]].id.pid == rows_[order[i + 1]].id.pid) continue;
      rows.push_back(rows_[order[i]]);
      if (!details_.empty()) details.push_back(std::move(details_[order[i]]));
    }
    rows_ = std::move(rows);
    details_ = std::move(details);
  }

  process_range range(const row_index& index, pid_t value, pid_t process_info::*key) const noexcept {
    const auto low = std::lower_bound(index.begin(), index.end(), value,
                                      [&](std::uint32_t i, pid_t v) { return rows_[i].*key < v; });
    const auto high =
        std::upper_bound(low, index.end(), value, [&](pid_t v, std::uint32_t i) { return v < rows_[i].*key; });
    return {rows_.data(), index.data() + (low - index.begin()), index.data() + (high - index.begin())};
  }

  std::vector<process_info> rows_ = {};
  std::vector<process_details> details_ = {};  // of each row, or none
  row_index by_parent_ = {};
  row_index by_session_ = {};
  read_options what_ = {};  // was read
  std::chrono::system_clock::time_point taken_at_ = {};
  std::size_t unreadable_ = 0;
  bool hides_others_ = false;
  bool from_elsewhere_ = false;
};

}  // namespace instance_guard
