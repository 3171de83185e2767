// layer 2: an array that grows, for code that may not allocate from the program's heap.
//
// For the warden: a copy of a threaded program, where malloc's locks may be held for ever.
// Its memory comes straight from the system. Async-signal-safe; for plain values only.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../platform/platform.hpp"

namespace instance_guard::detail {

/// A mapping of at least `want` bytes that begins with the `used` ones of the old mapping, which is
/// given back; `bytes` is its size, 0 where there is none yet. Null: no more memory, nothing is changed.
INSTANCE_GUARD_NO_SANITIZE inline void* grow_mapping(void* old, size_t& bytes, size_t used, size_t want) noexcept {
  size_t size = bytes == 0 ? 4096 : bytes;
  while (size < want) size *= 2;
  void* memory = platform::sys::mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (platform::sys::is_error(memory)) return nullptr;
  const unsigned char* from = static_cast<unsigned char*>(old);
  unsigned char* to = static_cast<unsigned char*>(memory);
  for (size_t i = 0; i < used; ++i) to[i] = from[i];
  if (old != nullptr) platform::sys::munmap(old, bytes);
  bytes = size;
  return memory;
}

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
    void* moved = grow_mapping(data_, bytes_, size_ * sizeof(T), count * sizeof(T));
    if (moved == nullptr) return false;
    data_ = static_cast<T*>(moved);
    capacity_ = static_cast<uint32_t>(bytes_ / sizeof(T));
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
