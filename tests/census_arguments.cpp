// Which of an interpreter's arguments is the program.
#include <doctest/doctest.h>

#include <instance_guard/detail/census_arguments.hpp>
#include <string>
#include <vector>

using instance_guard::detail::interpreted;
using instance_guard::detail::interpreter_language;
using instance_guard::detail::language;
using instance_guard::detail::program_of_arguments;

namespace {

/// "script main.py 2", "module shiva 3", "text", "nothing".
std::string found(std::vector<std::string> words) {
  const interpreted result = program_of_arguments(interpreter_language(words.front()), words);
  switch (result.kind) {
    case interpreted::what::script: return "script " + result.name + " " + std::to_string(result.behind);
    case interpreted::what::module: return "module " + result.name + " " + std::to_string(result.behind);
    case interpreted::what::text: return "text";
    case interpreted::what::nothing: break;
  }
  return "nothing";
}

}  // namespace

TEST_CASE("an interpreter is known by its name, with any version") {
  CHECK(interpreter_language("python3.11") == language::python);
  CHECK(interpreter_language("python") == language::python);
  CHECK(interpreter_language("php8.2") == language::php);
  CHECK(interpreter_language("bash") == language::shell);
  CHECK(interpreter_language("pythonista") == language::none);
  CHECK(interpreter_language("") == language::none);
  CHECK(interpreter_language("3.11") == language::none);
}

TEST_CASE("python: the script is behind the options, a module and a text end them") {
  CHECK(found({"python3", "main.py"}) == "script main.py 2");
  CHECK(found({"python3", "-u", "main.py", "-m", "x"}) == "script main.py 3");
  CHECK(found({"python3", "-X", "dev", "-W", "error", "main.py"}) == "script main.py 6");
  CHECK(found({"python3", "-Xdev", "-Werror", "main.py"}) == "script main.py 4");
  CHECK(found({"python3", "-m", "shiva", "--debug"}) == "module shiva 3");
  CHECK(found({"python3", "-um", "shiva"}) == "module shiva 3");
  CHECK(found({"python3", "-mshiva"}) == "module shiva 2");
  CHECK(found({"python3", "-c", "import x", "main.py"}) == "text");
  CHECK(found({"python3", "-Bc", "import x"}) == "text");
  CHECK(found({"python3", "--check-hash-based-pycs", "always", "main.py"}) == "script main.py 4");
  CHECK(found({"python3", "--", "-main.py"}) == "script -main.py 3");
  CHECK(found({"python3"}) == "nothing");
  CHECK(found({"python3", "-m"}) == "nothing");
  CHECK(found({"python3", "-", "main.py"}) == "nothing");
  CHECK(found({"python3", ""}) == "nothing");
}

TEST_CASE("shells: what is behind -c is no script") {
  CHECK(found({"bash", "run.sh", "-c"}) == "script run.sh 2");
  CHECK(found({"bash", "-ex", "run.sh"}) == "script run.sh 3");
  CHECK(found({"bash", "-lc", "run.sh"}) == "text");
  CHECK(found({"bash", "-o", "pipefail", "run.sh"}) == "script run.sh 4");
  CHECK(found({"bash", "+o", "posix", "run.sh"}) == "script run.sh 4");
  CHECK(found({"bash", "--rcfile", "rc", "run.sh"}) == "script run.sh 4");
  CHECK(found({"bash", "--norc", "-i"}) == "nothing");
}

TEST_CASE("others") {
  CHECK(found({"node", "--inspect", "server.js"}) == "script server.js 3");
  CHECK(found({"node", "-r", "ts-node/register", "server.ts"}) == "script server.ts 4");
  CHECK(found({"node", "--import", "tsx", "server.ts"}) == "script server.ts 4");
  CHECK(found({"node", "--import=tsx", "server.ts"}) == "script server.ts 3");
  CHECK(found({"node", "-e", "1"}) == "text");
  CHECK(found({"bun", "run", "server.ts"}) == "script server.ts 3");
  CHECK(found({"deno", "run", "--allow-net", "server.ts"}) == "script server.ts 4");
  CHECK(found({"deno", "lsp"}) == "nothing");
  CHECK(found({"ruby", "-I", "lib", "-w", "app.rb"}) == "script app.rb 5");
  CHECK(found({"perl", "-Ilib", "-MFoo", "app.pl"}) == "script app.pl 4");
  CHECK(found({"perl", "-ne", "print", "file"}) == "text");
  CHECK(found({"php", "-d", "a=b", "-f", "app.php"}) == "script app.php 5");
  CHECK(found({"java", "-Xmx1g", "-cp", "a:b", "com.knox.Shiva", "x"}) == "module com.knox.Shiva 5");
  CHECK(found({"java", "-jar", "shiva.jar"}) == "script shiva.jar 3");
}
