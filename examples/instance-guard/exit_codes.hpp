// What the tool exits with, beside the exit status of the command that it runs.
#pragma once

namespace tool {

enum exit_code : int {
  exit_refused = 75,          ///< EX_TEMPFAIL: somebody else has the name
  exit_timed_out = 124,       ///< as timeout(1)
  exit_fault = 125,           ///< a fault of the tool or its arguments; nothing was started
  exit_cannot_execute = 126,  ///< as the shell: found, but it can't be run
  exit_not_found = 127,       ///< as the shell
  exit_by_signal = 128        ///< and the number of the signal
};

}  // namespace tool
