#include "process_text.hpp"

#include <fcntl.h>
#include <unistd.h>
#if __has_include(<sys/auxv.h>)
#include <sys/auxv.h>
#endif

#include <cerrno>
#include <vector>

#include <instance_guard/file_descriptor.hpp>

#include "text.hpp"

namespace tool {

std::string contents(const std::string& path, std::size_t limit) {
  std::string text;
  const instance_guard::file_descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char block[16'384];
  while (file && text.size() < limit) {
    const ssize_t size = ::read(file.get(), block, sizeof block);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    text.append(block, static_cast<std::size_t>(size));
  }
  return text;
}

std::string own_program() {
  std::string link = "/proc/self/exe";  // also of a file that has been replaced since
#if __has_include(<sys/auxv.h>)
  const auto* called = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  if (::access(link.c_str(), X_OK) != 0 && called != nullptr) return called;
#endif
  return link;
}

std::string raw_arguments_of(pid_t pid) { return contents("/proc/" + std::to_string(pid) + "/cmdline", 65'536); }

std::string name_of(pid_t pid) {
  std::string name = contents("/proc/" + std::to_string(pid) + "/comm", 64);
  if (!name.empty() && name.back() == '\n') name.pop_back();
  return name;
}

std::string command_of(pid_t pid) {
  const std::string text = raw_arguments_of(pid);
  std::vector<std::string> arguments;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\0', at);
    if (end == std::string::npos) end = text.size();
    arguments.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  // What writes its title over its arguments leaves the rest of their room empty.
  while (!arguments.empty() && arguments.back().empty()) arguments.pop_back();
  if (!arguments.empty() && !arguments.front().empty()) return command_line(arguments);
  const std::string name = name_of(pid);
  return name.empty() ? "(ended)" : "[" + shown(name) + "]";
}

}  // namespace tool
