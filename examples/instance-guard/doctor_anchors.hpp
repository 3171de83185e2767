// Where docs/reliability.md tells what it means that a check of `doctor` says NO.
#pragma once

#include <string>
#include <string_view>

namespace tool {

struct doctor_anchor {
  std::string_view check;
  std::string_view anchor;  ///< of a heading of that page
};

inline constexpr doctor_anchor doctor_anchors[] = {{"lock", "it-exists-once"},
                                                   {"socket", "it-exists-once"},
                                                   {"ageing", "it-exists-once"},
                                                   {"release", "it-leaves-nothing-behind"},
                                                   {"adopt", "its-children-die-with-it"},
                                                   {"kill -9", "its-children-die-with-it"},
                                                   {"both", "both-killed"},
                                                   {"setuid", "setuid"},
                                                   {"pidfd", "where-the-system-cant-do-it"},
                                                   {"reaper", "where-the-system-cant-do-it"},
                                                   {"/proc", "where-the-system-cant-do-it"},
                                                   {"init", "pid-1"},
                                                   {"own", "where-the-system-cant-do-it"}};

/// "docs/reliability.md#setuid", or the page alone.
inline std::string where_told(std::string_view check) {
  const std::string page = "docs/reliability.md";
  for (const doctor_anchor& each : doctor_anchors)
    if (each.check == check) return page + "#" + std::string(each.anchor);
  return page;
}

}  // namespace tool
