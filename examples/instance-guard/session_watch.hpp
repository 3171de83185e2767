// The end of the terminal or ssh session that the tool was started from.
//
// A terminal tells its foreground, and shells tell their jobs; but a shell that was killed tells
// nobody, and without a terminal (`ssh host command`) nobody is told at all.
#pragma once

#include <instance_guard/file_descriptor.hpp>

namespace tool {

class session_watch {
 public:
  /// With a terminal, the session's leader counts; and below sshd, that.
  explicit session_watch(bool has_terminal);

  /// Readable once it has ended; -1: there is none. Two of them.
  int leader() const noexcept { return leader_.get(); }
  int server() const noexcept { return server_.get(); }

 private:
  instance_guard::file_descriptor leader_;
  instance_guard::file_descriptor server_;
};

}  // namespace tool
