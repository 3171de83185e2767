// Words that several ways to tell a census have in common.
#pragma once

#include <string>

#include "audit_report.hpp"

namespace tool {

/// "2 critical, 1 warning", or "clean", if all was seen.
std::string summary_of(const audit_report& report);

/// "tesseract, 2026-03-29 03:00: 21 ghosts among 643 processes (user knox)".
std::string headline_of(const audit_report& report);

/// Its command line, or its name in brackets; harmless.
std::string command_of(const instance_guard::census_entry& entry);

/// "HEAD 9f31c02", "HEAD was 41be77a": the commit that it runs, of a checkout; empty: can't be told.
std::string commit_of(const instance_guard::census_entry& entry);

/// "7d 2h" when the census was taken.
std::string age_of(const audit_report& report, const instance_guard::census_entry& entry, const char* between = " ");

/// One row a process, for a terminal of 120 columns.
std::string audit_wide_table(const audit_report& report, std::size_t columns);

}  // namespace tool
