// layer 1: objects on the heap and their only owner.
//
// std::unique_ptr and std::vector take a compiler some ten times longer for each type of this
// library.
#pragma once

#include <cstddef>
#include <utility>

namespace instance_guard::detail {

template <class T>
class owned {
 public:
  owned() noexcept = default;
  explicit owned(T* object) noexcept : object_(object) {}
  owned(owned&& other) noexcept : object_(other.release()) {}
  owned& operator=(owned&& other) noexcept {
    T* const next = other.release();
    delete object_;
    object_ = next;
    return *this;
  }
  ~owned() { delete object_; }

  T* get() const noexcept { return object_; }
  T& operator*() const noexcept { return *object_; }
  T* operator->() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  T* release() noexcept {
    T* const object = object_;
    object_ = nullptr;
    return object;
  }

  T* object_ = nullptr;
};

/// A few of them in a row.
template <class T>
class owned_array {
 public:
  owned_array() noexcept = default;
  explicit owned_array(std::size_t size) : first_(new T[size]()), size_(size) {}
  owned_array(owned_array&& other) noexcept { swap(other); }
  owned_array& operator=(owned_array&& other) noexcept {
    owned_array old(std::move(other));
    swap(old);
    return *this;
  }
  ~owned_array() { delete[] first_; }

  std::size_t size() const noexcept { return size_; }
  T* data() noexcept { return first_; }
  T& operator[](std::size_t i) noexcept { return first_[i]; }
  const T& operator[](std::size_t i) const noexcept { return first_[i]; }

  /// Moves the others: for the few.
  void push(T&& last) {
    owned_array more(size_ + 1);
    for (std::size_t i = 0; i < size_; ++i) more[i] = std::move(first_[i]);
    more[size_] = std::move(last);
    swap(more);
  }

 private:
  void swap(owned_array& other) noexcept {
    T* const first = first_;
    const std::size_t size = size_;
    first_ = other.first_;
    size_ = other.size_;
    other.first_ = first;
    other.size_ = size;
  }

  T* first_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace instance_guard::detail
