// layer 2: an array that grows, for code that may not allocate from the program's heap.
//
// For the warden: a copy of a threaded program, where malloc's locks may be held for ever.
// Its memory comes straight from the system. Async-signal-safe; for plain values only.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../platform/platform.hpp"

namespace instance_guard::detail {

template <class T>
class raw_array {
  static_assert(__is_trivially_copyable(T));  // the built-in: the templates take a compiler longer

 public:
  INSTANCE_GUARD_NO_SANITIZE uint32_t size() const noexcept { return size_; }
  INSTANCE_GUARD_NO_SANITIZE bool empty() const noexcept { return size_ == 0; }
  INSTANCE_GUARD_NO_SANITIZE T* data() noexcept { return data_; }
  INSTANCE_GUARD_NO_SANITIZE T& operator[](uint32_t i) noexcept { return data_[i]; }
  INSTANCE_GUARD_NO_SANITIZE const T& operator[](uint32_t i) const noexcept { return data_[i]; }
  INSTANCE_GUARD_NO_SANITIZE T* begin() noexcept { return data_; }
  INSTANCE_GUARD_NO_SANITIZE T* end() noexcept { return data_ + size_; }
  INSTANCE_GUARD_NO_SANITIZE const T* begin() const noexcept { return data_; }
  INSTANCE_GUARD_NO_SANITIZE const T* end() const noexcept { return data_ + size_; }
  INSTANCE_GUARD_NO_SANITIZE void clear() noexcept { size_ = 0; }

  /// False: the system has no more memory; nothing is changed.
  INSTANCE_GUARD_NO_SANITIZE bool reserve(uint32_t count) noexcept {
    if (count <= capacity_) return true;
    size_t bytes = bytes_ == 0 ? 4096 : bytes_;
    while (bytes / sizeof(T) < count) bytes *= 2;
    void* memory = platform::sys::mmap(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (platform::sys::is_error(memory)) return false;
    T* moved = static_cast<T*>(memory);
    for (uint32_t i = 0; i < size_; ++i) moved[i] = data_[i];
    if (data_ != nullptr) platform::sys::munmap(data_, bytes_);
    data_ = moved;
    bytes_ = bytes;
    capacity_ = static_cast<uint32_t>(bytes / sizeof(T));
    return true;
  }

  INSTANCE_GUARD_NO_SANITIZE bool push(const T& value) noexcept {
    if (size_ == capacity_ && !reserve(size_ + 1)) return false;
    data_[size_++] = value;
    return true;
  }

  /// The last one takes the place of the one removed.
  INSTANCE_GUARD_NO_SANITIZE void remove(uint32_t i) noexcept { data_[i] = data_[--size_]; }

  INSTANCE_GUARD_NO_SANITIZE void swap(raw_array& other) noexcept {
    const raw_array mine = *this;
    *this = other;
    other = mine;
  }

 private:
  T* data_ = nullptr;
  size_t bytes_ = 0;
  uint32_t size_ = 0;
  uint32_t capacity_ = 0;
};

}  // namespace instance_guard::detail
