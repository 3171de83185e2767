// layer 2: the environment of a child, composed by its owner.
//
// Runs in the program, before anything is forked: it allocates (and so may throw
// std::bad_alloc). It reads `environ` as posix_spawn does: not beside a setenv in another thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace instance_guard::detail {

/// A list of "NAME=value", without doubles. Borrows every text it is given until bytes().
class environment {
 public:
  /// Takes over a list as in environ(7), which may be null. An entry without '=' is kept as it is.
  void inherit(const char* const* list) {
    for (; list != nullptr && *list != nullptr; ++list) entries_.emplace_back(*list);
  }

  /// "NAME=value" sets, "NAME" removes. invalid_argument: no name, or a NUL anywhere.
  std::error_code change(std::string_view what) {
    const std::size_t equals = what.find('=');
    const std::string_view name = what.substr(0, equals);
    if (name.empty() || what.find('\0') != std::string_view::npos)
      return std::make_error_code(std::errc::invalid_argument);
    std::size_t kept = 0;
    for (const std::string_view each : entries_)
      if (each.substr(0, each.find('=')) != name) entries_[kept++] = each;
    entries_.resize(kept);
    if (equals != std::string_view::npos) entries_.push_back(what);
    return {};
  }

  std::size_t size() const noexcept { return entries_.size(); }

  /// All entries, each followed by a NUL: as it lies in a process's memory.
  std::string bytes() const {
    std::size_t total = 0;
    for (const std::string_view each : entries_) total += each.size() + 1;
    std::string block;
    block.reserve(total);
    for (const std::string_view each : entries_) block.append(each).push_back('\0');
    return block;
  }

 private:
  std::vector<std::string_view> entries_;
};

}  // namespace instance_guard::detail
