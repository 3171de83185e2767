// layer 1: texts joined and compared by plain functions.
//
// For each operator between two texts a compiler tries some hundred templates of the standard
// library; written so, what includes this library compiles in much less time.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>

namespace instance_guard::detail {

/// All parts, one after the other.
inline std::string joined(std::initializer_list<std::string_view> parts) {
  std::size_t size = 0;
  for (const std::string_view part : parts) size += part.size();
  std::string whole;
  whole.reserve(size);
  for (const std::string_view part : parts) whole.append(part.data(), part.size());
  return whole;
}

inline bool same(std::string_view one, std::string_view other) noexcept { return one.compare(other) == 0; }

}  // namespace instance_guard::detail
