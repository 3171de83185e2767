// Completions for bash, zsh and fish, from the one source in manual.hpp.
#include <string>
#include <vector>

#include "manual.hpp"

namespace tool {
namespace {

/// Names that are not free: the first column of the table.
constexpr char names[] = "instance-guard list 2>/dev/null | sed '1d;/^[! ]/d;s/ .*//'";

/// For single quotes of a shell.
std::string quoted(const std::string& text) {
  std::string result;
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result;
}

std::vector<std::string> choices(const option_doc& option) {
  std::vector<std::string> result;
  if (option.value == "SCOPE") return {"user", "host"};
  if (option.value.find('|') == std::string::npos) return result;
  for (std::size_t at = 0; at <= option.value.size();) {
    std::size_t end = option.value.find('|', at);
    if (end == std::string::npos) end = option.value.size();
    result.push_back(option.value.substr(at, end - at));
    at = end + 1;
  }
  return result;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& each : words) text += (text.empty() ? "" : " ") + each;
  return text;
}

/// "--flag|-f" of each option that has a value, and what completes it.
std::string bash_values(const command_doc& command) {
  std::string text;
  for (const option_doc& each : command.options) {
    if (each.flags.empty() || each.value.empty()) continue;
    std::string pattern;
    for (const std::string& flag : each.flags) pattern += (pattern.empty() ? "" : "|") + flag;
    const std::vector<std::string> words = choices(each);
    std::string what = "COMPREPLY=()";
    if (!words.empty()) what = "COMPREPLY=($(compgen -W '" + joined(words) + "' -- \"$current\"))";
    if (each.value == "DIR") what = "COMPREPLY=($(compgen -d -- \"$current\"))";
    if (each.value == "NAME") what = "COMPREPLY=($(compgen -W \"$(" + std::string(names) + ")\" -- \"$current\"))";
    text += "      " + pattern + ") " + what + "; return ;;\n";
  }
  return text;
}

std::string flags_of(const command_doc& command) {
  std::vector<std::string> words;
  for (const option_doc& each : command.options) words.insert(words.end(), each.flags.begin(), each.flags.end());
  return joined(words);
}

bool takes_names(const command_doc& command) {
  for (const option_doc& each : command.options)
    if (each.flags.empty() && each.value == "NAME") return true;
  return false;
}

std::string bash(const command_doc& root) {
  std::vector<std::string> commands;
  for (const command_doc& each : root.commands) commands.push_back(each.name);
  std::string text =
      "# bash completion for instance-guard\n"
      "_instance_guard() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} i\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n"
      "    COMPREPLY=($(compgen -W '" +
      joined(commands) + " " + flags_of(root) +
      "' -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case ${COMP_WORDS[1]} in\n";
  for (const command_doc& each : root.commands) {
    text += "  " + each.name + ")\n";
    if (each.runs_command)
      text +=
          "    for ((i = 2; i < COMP_CWORD; ++i)); do\n"
          "      [[ ${COMP_WORDS[i]} == -- ]] || continue\n"
          "      if declare -F _command_offset >/dev/null; then _command_offset $((i + 1))\n"
          "      elif ((i + 1 == COMP_CWORD)); then COMPREPLY=($(compgen -c -- \"$current\"))\n"
          "      else COMPREPLY=($(compgen -f -- \"$current\")); fi\n"
          "      return\n"
          "    done\n";
    text += "    case $before in\n" + bash_values(each) + "    esac\n";
    const std::string flags = flags_of(each) + (each.runs_command ? " --" : "");
    text += "    if [[ $current == -* ]]; then COMPREPLY=($(compgen -W '" + flags + "' -- \"$current\"))\n";
    if (takes_names(each))
      text += "    else COMPREPLY=($(compgen -W \"$(" + std::string(names) + ")\" -- \"$current\"))\n";
    text += "    fi ;;\n";
  }
  return text + "  esac\n}\ncomplete -F _instance_guard instance-guard\n";
}

/// A description in the brackets of an option of _arguments.
std::string zsh_text(const std::string& text) {
  std::string result;
  for (const char c : quoted(text))
    result += c == '[' || c == ']' || c == ':' ? "\\" + std::string(1, c) : std::string(1, c);
  return result;
}

std::string zsh_value(const option_doc& option) {
  const std::vector<std::string> words = choices(option);
  if (!words.empty()) return ":value:(" + joined(words) + ")";
  if (option.value == "DIR") return ":directory:_files -/";
  if (option.value == "NAME") return ":name:_instance_guard_names";
  return option.value.empty() ? "" : ":" + option.value + ":";
}

std::string zsh(const command_doc& root) {
  std::string text =
      "#compdef instance-guard\n"
      "_instance_guard_names() {\n"
      "  local -a found\n"
      "  found=(${(f)\"$(" +
      std::string(names) +
      ")\"})\n"
      "  _describe 'name' found\n"
      "}\n"
      "_instance_guard() {\n"
      "  local -a subcommands\n"  // not commands: that is zsh's own table
      "  subcommands=(\n";
  for (const command_doc& each : root.commands) text += "    '" + each.name + ":" + zsh_text(each.text) + "'\n";
  text +=
      "  )\n"
      "  if ((CURRENT == 2)); then\n"
      "    _describe 'subcommand' subcommands\n"
      "    return\n"
      "  fi\n"
      "  local subcommand=$words[2]\n"
      "  shift words\n"
      "  ((CURRENT -= 1))\n"
      "  case $subcommand in\n";
  for (const command_doc& each : root.commands) {
    text += "  " + each.name + ")\n";
    if (each.runs_command)
      text +=
          "    local at=${words[(i)--]}\n"
          "    if ((at < CURRENT)); then\n"
          "      shift $at words\n"
          "      ((CURRENT -= at))\n"
          "      _normal\n"
          "      return\n"
          "    fi\n";
    text += "    _arguments";
    for (const option_doc& option : each.options) {
      if (option.flags.empty())
        text += std::string(" \\\n      '") + (option.many ? "*" : "1") + zsh_value(option) + "'";
      for (const std::string& flag : option.flags)
        text += " \\\n      '*" + flag + "[" + zsh_text(option.text) + "]" + zsh_value(option) + "'";
    }
    text += " ;;\n";
  }
  return text + "  esac\n}\n_instance_guard \"$@\"\n";
}

std::string fish(const command_doc& root) {
  const std::string base = "complete -c instance-guard";
  std::string text = "# fish completion for instance-guard\n" + base + " -f\n";
  for (const command_doc& each : root.commands)
    text += base + " -n __fish_use_subcommand -a " + each.name + " -d '" + quoted(each.text) + "'\n";
  for (const command_doc& each : root.commands) {
    const std::string here = base + " -n '__fish_seen_subcommand_from " + each.name + "'";
    for (const option_doc& option : each.options) {
      std::string line = here;
      for (const std::string& flag : option.flags)
        line += flag.rfind("--", 0) == 0 ? " -l " + flag.substr(2) : " -s " + flag.substr(1);
      if (option.value == "NAME") line += std::string(option.flags.empty() ? "" : " -x") + " -a \"(" + names + ")\"";
      else if (option.value == "DIR") line += " -x -a '(__fish_complete_directories)'";
      else if (!choices(option).empty()) line += " -x -a '" + joined(choices(option)) + "'";
      else if (!option.value.empty()) line += " -x";
      text += line + " -d '" + quoted(option.text) + "'\n";
    }
    if (each.runs_command)
      text += base + " -n '__fish_seen_subcommand_from " + each.name +
              "; and contains -- -- (commandline -opc)' -a '(__fish_complete_subcommand "
              "--commandline (commandline -opc | string split0 | sed \"1,/^--\\$/d\") "
              "(commandline -ct))'\n";
  }
  return text;
}

}  // namespace

std::string completion(const command_doc& root, const std::string& shell) {
  return shell == "bash" ? bash(root) : shell == "zsh" ? zsh(root) : fish(root);
}

}  // namespace tool
