// What both programs make of a command line: the tool, and the one that takes the census.
#pragma once

#include <CLI/App.hpp>
#include <string>

#include "subcommands.hpp"

namespace tool {

std::string version_text();

/// Puts what stands before the first "--" and what stands behind it where they belong.
void split(int count, char** arguments, invocation& call);

/// Has CLI11 read the words and the subcommand's callback do it. What to exit with; what is wrong
/// has been told in a line.
int answer(CLI::App& root, invocation& call);

}  // namespace tool
