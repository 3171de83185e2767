// layer 2: the environment of a child, composed by its owner.
//
// Runs in the program, before anything is forked: it allocates (and so may throw
// std::bad_alloc). It reads `environ` as posix_spawn does: not beside a setenv in another thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>

namespace instance_guard::detail {

/// A list of "NAME=value", without doubles.
class environment {
 public:
  /// Takes over a list as in environ(7), which may be null. An entry without '=' is kept as it is.
  void inherit(const char* const* list) {
    for (; list != nullptr && *list != nullptr; ++list) add(*list);
  }

  /// "NAME=value" sets, "NAME" removes. invalid_argument: no name, or a NUL anywhere.
  std::error_code change(std::string_view what) {
    const std::size_t equals = what.find('=');
    const std::string_view name = what.substr(0, equals);
    if (name.empty() || what.find('\0') != std::string_view::npos)
      return std::make_error_code(std::errc::invalid_argument);
    for (std::size_t at = 0; at < bytes_.size();) {
      const std::string_view each = bytes_.data() + at;
      if (each.substr(0, each.find('=')).compare(name) != 0) {
        at += each.size() + 1;
      } else {
        bytes_.erase(at, each.size() + 1);
        --size_;
      }
    }
    if (equals != std::string_view::npos) add(what);
    return {};
  }

  std::size_t size() const noexcept { return size_; }

  /// All entries, each followed by a NUL: as it lies in a process's memory.
  const std::string& bytes() const noexcept { return bytes_; }

 private:
  void add(std::string_view entry) {
    bytes_.append(entry.data(), entry.size());
    bytes_.push_back('\0');
    ++size_;
  }

  std::string bytes_;
  std::size_t size_ = 0;
};

}  // namespace instance_guard::detail
