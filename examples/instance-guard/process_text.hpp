// What /proc says of a process, for people. Any of it may be gone, or a lie of the process.
#pragma once

#include <sys/types.h>

#include <string>

namespace tool {

/// "python3 -m shiva.worker", else the process's name in brackets, else "(ended)". Escaped as
/// text.hpp does it.
std::string command_of(pid_t pid);

/// Its arguments with a NUL behind each, as the kernel shows them.
std::string raw_arguments_of(pid_t pid);

/// The short name (15 bytes at most), or empty.
std::string name_of(pid_t pid);

/// A whole file; empty if it can't be read. `limit` bytes at most.
std::string contents(const std::string& path, std::size_t limit = std::size_t{16} << 20U);

/// This program's file, which may be executed again; without /proc it is as it was called.
std::string own_program();

}  // namespace tool
