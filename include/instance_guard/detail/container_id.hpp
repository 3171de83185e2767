// layer 2: which container a process is in, by the path of its cgroup.
//
// Docker, Podman, CRI-O, containerd and Kubernetes name the cgroup after 64 hexadecimal digits; LXC
// and systemd-nspawn after the machine.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace instance_guard::detail {

inline bool is_container_digest(std::string_view text) noexcept {
  if (text.size() != 64) return false;
  for (const char c : text)
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  return true;
}

/// The name of a container if one directory of a cgroup path is one, else empty. `inside` is the
/// name of the directory around it.
inline std::string_view container_of_directory(std::string_view name, std::string_view inside) noexcept {
  const auto without = [](std::string_view text, std::string_view begin, std::string_view end) {
    if (text.size() > begin.size() + end.size() && text.substr(0, begin.size()) == begin &&
        text.substr(text.size() - end.size()) == end)
      return text.substr(begin.size(), text.size() - begin.size() - end.size());
    return std::string_view();
  };
  if (is_container_digest(name)) return name;
  for (const std::string_view runtime : {"docker-", "libpod-", "crio-", "cri-containerd-"}) {
    const std::string_view digest = without(name, runtime, ".scope");
    if (is_container_digest(digest)) return digest;
  }
  if (inside == "lxc") return name;
  for (const std::string_view prefix : {"lxc.payload.", "lxc.payload/"})
    if (const std::string_view machine = without(name, prefix, ""); !machine.empty()) return machine;
  if (inside == "machine.slice")
    for (const auto& [prefix, suffix] :
         {std::pair<std::string_view, std::string_view>{"machine-", ".scope"}, {"systemd-nspawn@", ".service"}})
      if (const std::string_view machine = without(name, prefix, suffix); !machine.empty()) return machine;
  return {};
}

/// Of the text of /proc/<pid>/cgroup; the outermost one, as the host sees it. Empty: none is told.
inline std::string container_of_cgroups(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    line.remove_prefix(second + 1);
    std::string_view inside;
    while (!line.empty()) {
      if (line.front() == '/') {
        line.remove_prefix(1);
        continue;
      }
      const std::string_view name = line.substr(0, line.find('/'));
      line.remove_prefix(name.size());
      const std::string_view found = container_of_directory(name, inside);
      if (!found.empty()) return std::string(found);
      inside = name;
    }
  }
  return {};
}

}  // namespace instance_guard::detail
