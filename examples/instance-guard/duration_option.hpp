// An option whose value is a duration, checked before anything is done.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

#include "duration.hpp"

namespace tool {

inline CLI::Option* add_duration_option(CLI::App& sub, const std::string& name, std::string& to,
                                        const std::string& text) {
  return sub.add_option(name, to, text)
      ->check([](const std::string& value) { return parse_duration(value) ? std::string() : bad_duration(value); })
      ->type_name("DURATION");
}

}  // namespace tool
