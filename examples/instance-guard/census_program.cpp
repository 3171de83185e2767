// instance-guard-census: `instance-guard audit` and `instance-guard reap`, which executes it with
// its own words. Not for people: what is wrong with them, and the help, has been told by then.
#include <CLI/CLI.hpp>

#include "command_line.hpp"
#include "subcommands.hpp"

int main(int count, char** arguments) {
  tool::invocation call;
  tool::split(count, arguments, call);
  CLI::App root("The census of instance-guard.", "instance-guard");
  root.require_subcommand(1);
  tool::add_audit(root, call);
  tool::add_reap(root, call);
  return tool::answer(root, call);
}
