// What `doctor` finds out, by trying it.
#pragma once

#include <string>
#include <vector>

namespace tool {

enum class verdict {
  ok,    ///< kept: it was tried
  no,    ///< not kept, or can't be tried
  note,  ///< no promise; one should know
  part   ///< kept for some
};

struct finding {
  std::string name = {};
  verdict result = verdict::no;
  std::string text = {};
};

std::vector<finding> check_names();     ///< One holder per name
std::vector<finding> check_children();  ///< Children end with their owner
std::vector<finding> check_kernel();    ///< what the kernel offers for that
std::vector<finding> check_sight();     ///< Seeing others

/// "kept"/"not kept" in one step: `text` either way.
inline finding found(std::string name, bool kept, std::string text) {
  return {std::move(name), kept ? verdict::ok : verdict::no, std::move(text)};
}

}  // namespace tool
