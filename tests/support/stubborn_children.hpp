// Every kind of child that is hard to end, as words of the helper program.
#pragma once

#include <string>
#include <vector>

namespace support {

/// The words that make a child hard to end, each in its own way; each says "ready" once.
inline const std::vector<std::string>& stubborn_children() {
  static const std::vector<std::string> list = {
      "sleep",
      "setsid sleep",
      "daemon sleep",
      "daemon3 sleep",
      "ignore sleep",
      "block handle sleep",
      "stopped",
      "setsid ignore stopped",
      "closed scrubbed sleep",
      "daemon cleared closed sleep",
      "subreaper daemon sleep",
      "undying setsid sleep",
      "runner=1",
      "hydra=20",
      "headless sleep",
      "renamed sleep",
      "undumpable daemon sleep",
      "chain=20 sleep",
      "kill-group=15",
      "daemon undying ignore renamed cleared closed sleep",
  };
  return list;
}

}  // namespace support
