// What the tool prints: harmless on a terminal, aligned, never wider than 80 columns.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tool {

/// `text` with \xNN for each byte that a terminal would obey instead of draw: control characters,
/// what is no UTF-8, marks that reorder text.
std::string shown(std::string_view text);

/// A command line that a shell reads back.
std::string command_line(const std::vector<std::string>& arguments);

/// How many columns a text takes on a terminal; it is valid UTF-8.
std::size_t width(std::string_view text);

/// Cut to `columns`, with "…" at its end if something is missing.
std::string cut(std::string_view text, std::size_t columns);

/// Cut or filled with blanks.
std::string cell(std::string_view text, std::size_t columns);

/// "7d 2h", "2h 5m", "4m 10s", "12s": the two largest units.
std::string age(std::chrono::seconds how_long, const char* between = " ");
std::string age_since(std::chrono::system_clock::time_point then, const char* between = " ");

/// "2026-03-22 00:58", in the local time zone.
std::string local_time(std::chrono::system_clock::time_point at);

/// "2026-03-22T00:58:00Z".
std::string utc_time(std::chrono::system_clock::time_point at);

/// "  label     text", broken between words, continued below the text; ends with a newline.
std::string row(std::string_view label, std::string_view text, std::size_t indent = 12, std::size_t columns = 80);

/// "142 MB", "8.0 GB", in powers of 1024.
std::string memory(std::uint64_t bytes);

/// "1 child", "3 children".
std::string counted(std::size_t number, std::string_view one, std::string_view many);

/// Columns of the terminal at a descriptor; 0: it is none.
std::size_t terminal_columns(int descriptor);

/// Columns of stdout: a terminal's, from 80 to 120, else 80.
std::size_t columns();

/// In this colour (an SGR number), if stdout is a terminal that has colours.
std::string coloured(std::string_view text, int colour);

/// Writes to stdout; throws std::system_error if it can't be written.
void print(std::string_view text);

}  // namespace tool
