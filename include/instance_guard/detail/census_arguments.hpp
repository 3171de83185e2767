// layer 4: which of an interpreter's arguments is the program that it runs.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "census_words.hpp"

namespace instance_guard::detail {

/// What the arguments of an interpreter say.
struct interpreted {
  enum class what { nothing, script, module, text } kind = what::nothing;
  std::string name = {};   ///< of the script or module
  std::size_t behind = 0;  ///< index of the first argument behind it
};

/// How an interpreter reads its options.
struct option_rules {
  std::string_view with_value = {};  ///< letters that take the rest of the word, or the next one
  std::string_view text = {};        ///< letters behind which the program itself is written
  std::string_view module = {};      ///< letters behind which a module is named
  std::string_view file = {};        ///< letters behind which the script is named
  const std::string_view* long_with_value = nullptr;
  std::size_t long_count = 0;
};

template <std::size_t N>
constexpr option_rules with_long(option_rules rules, const std::string_view (&words)[N]) noexcept {
  rules.long_with_value = words;
  rules.long_count = N;
  return rules;
}

inline constexpr std::string_view node_words[] = {
    "--require", "--import",       "--loader",       "--experimental-loader", "--conditions",       "--env-file",
    "--title",   "--inspect-port", "--icu-data-dir", "--openssl-config",      "--redirect-warnings"};
inline constexpr std::string_view shell_words[] = {"--rcfile", "--init-file"};
inline constexpr std::string_view python_words[] = {"--check-hash-based-pycs"};
inline constexpr std::string_view java_words[] = {"-cp",         "-classpath",    "--class-path",
                                                  "-p",          "--module-path", "--add-modules",
                                                  "--add-opens", "--add-exports", "--add-reads"};

constexpr option_rules rules_of(language which) noexcept {
  switch (which) {
    case language::python: return with_long({"WXQ", "c", "m", "", nullptr, 0}, python_words);
    case language::node:
    case language::deno: return with_long({"rC", "ep", "", "", nullptr, 0}, node_words);
    case language::ruby: return {"IrCEFKTW", "e", "", "", nullptr, 0};
    case language::perl: return {"IMmF", "eE", "", "", nullptr, 0};
    case language::php: return {"dczt", "rBRES", "", "fF", nullptr, 0};
    case language::shell: return with_long({"oO", "c", "", "", nullptr, 0}, shell_words);
    case language::java: return with_long({"", "", "", "", nullptr, 0}, java_words);
    default: return {"", "e", "", "f", nullptr, 0};
  }
}

/// `arguments` with argument 0.
inline interpreted program_of_arguments(language which, const std::vector<std::string>& arguments) {
  interpreted result;
  const option_rules rules = rules_of(which);
  std::size_t i = 1;
  if (which == language::deno ||
      (which == language::node && arguments.size() > 1 && base_name(arguments[0]) == "bun")) {
    if (arguments.size() > 1 && arguments[1] == "run") i = 2;
    else if (which == language::deno) return result;
  }
  const auto found = [&](interpreted::what kind, std::string_view name, std::size_t behind) {
    result.kind = kind;
    result.name = name;
    result.behind = behind;
    return result;
  };
  for (; i < arguments.size(); ++i) {
    const std::string_view word = arguments[i];
    if (word.empty()) return result;
    if (word == "-") return result;  // from standard input
    if (word == "--") {
      ++i;
      break;
    }
    const bool plus = which == language::shell && word.front() == '+';
    if (word.front() != '-' && !plus) break;
    if (which == language::java && word == "-jar") {
      if (i + 1 >= arguments.size()) return result;
      return found(interpreted::what::script, arguments[i + 1], i + 2);
    }
    bool takes_next = false;
    for (std::size_t k = 0; k < rules.long_count; ++k)
      if (word == rules.long_with_value[k]) takes_next = true;
    if (!takes_next && (word.substr(0, 2) == "--" || which == language::java)) continue;
    // A cluster of letters: the first that takes something takes the rest of it.
    for (std::size_t at = 1; !takes_next && at < word.size(); ++at) {
      const char letter = word[at];
      const std::string_view rest = word.substr(at + 1);
      const auto is = [&](std::string_view letters) { return letters.find(letter) != std::string_view::npos; };
      if (is(rules.text)) return found(interpreted::what::text, {}, i + 1);
      if (is(rules.module) || is(rules.file)) {
        const auto kind = is(rules.module) ? interpreted::what::module : interpreted::what::script;
        if (!rest.empty()) return found(kind, rest, i + 1);
        if (i + 1 >= arguments.size()) return result;
        return found(kind, arguments[i + 1], i + 2);
      }
      if (is(rules.with_value)) {
        // bash's -o may end a cluster and still takes the next word.
        takes_next = rest.empty();
        break;
      }
      if (plus && at > 1) break;
    }
    if (takes_next) ++i;
  }
  if (i >= arguments.size()) return result;
  const auto kind = which == language::java ? interpreted::what::module : interpreted::what::script;
  return found(kind, arguments[i], i + 1);
}

}  // namespace instance_guard::detail
