// A command's output line by line while it runs, instead of at the end.
#include <instance_guard/process_group.hpp>

#include <cstdio>
#include <string>
#include <string_view>

namespace {

/// Pieces come as the pipe gives them and end anywhere: put lines together again.
class line_splitter {
 public:
  void add(std::string_view piece) {
    for (const char letter : piece) {
      if (letter != '\n') {
        line_ += letter;
        continue;
      }
      std::printf("%2d  %s\n", ++count_, line_.c_str());
      line_.clear();
    }
  }
  int count() const { return count_; }

 private:
  std::string line_;
  int count_ = 0;
};

}  // namespace

int main() {
  instance_guard::process_group group;
  line_splitter lines;

  const auto result = group.run({"sh", "-c", "for i in 1 2 3; do echo tick $i; sleep 0.02; done; echo oops >&2"},
                                {.on_output = [&](std::string_view piece) { lines.add(piece); },
                                 .process = {.err = instance_guard::stdio::join_out()}});

  std::printf("%s, %d lines\n", result.status.str().c_str(), lines.count());
  return result.status.success() && lines.count() == 4 ? 0 : 1;
}
