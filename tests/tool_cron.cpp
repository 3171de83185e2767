// The recipe "cron without overlap" with a real cron, which runs what it has for the start at once.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/other_user.hpp"
#include "support/own_pid_namespace.hpp"
#include "support/tool_result.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

const char* const cron = "/usr/sbin/cron";

std::string contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// A place for this cron's crontabs and marks; the host's own must not run here.
bool has_places() {
  const auto hidden = [](const char* place, const char* data) { return ::mount("none", place, "tmpfs", 0, data) == 0; };
  if (!hidden("/run", "mode=755") || !hidden("/var/spool", "mode=755")) return false;
  if (::access("/etc/cron.d", F_OK) == 0 && !hidden("/etc/cron.d", "mode=755")) return false;
  if (::access("/etc/crontab", F_OK) == 0 && ::mount("/dev/null", "/etc/crontab", nullptr, MS_BIND, nullptr) != 0)
    return false;
  return ::mkdir("/var/spool/cron", 0755) == 0 && ::mkdir("/var/spool/cron/crontabs", 0700) == 0;
}

/// The line of the recipe, for this tool, this name, and this job, to be run when cron starts.
std::string line_for(const std::string& name, const std::string& job) {
  std::string line = contents(std::string(INSTANCE_GUARD_RECIPES) + "/nightly.cron");
  line = line.substr(line.find("\n0 3 * * *") + 1);
  line.resize(line.find('\n'));
  const auto put = [&line](const std::string& what, const std::string& instead) {
    const std::size_t at = line.find(what);
    if (at == line.npos) throw std::runtime_error("not in the recipe: " + what);
    line.replace(at, what.size(), instead);
  };
  put("instance-guard", INSTANCE_GUARD_TOOL);
  put("--name nightly", "--name " + name);
  put("/srv/jobs/nightly", job);
  put("0 3 * * *", "@reboot");
  return line + "\n";
}

/// Says what went wrong: a CHECK in another process would not be seen.
int fail(int code, const std::string& text) {
  std::fprintf(stderr, "%d: %s\n", code, text.c_str());
  return code;
}

int two_at_once(const scene& s) {
  if (!has_places()) return no_namespace;
  const std::string name = unique_name("nightly"), out = s / "out", job = s / "job", go = s / "go";
  std::ofstream(job) << "#!/bin/sh\necho started >>" << out << "\n"
                     << s.helper() << " setsid sleep >>" << out << " &\nread line <" << go << "\n";
  std::filesystem::permissions(job, std::filesystem::perms::owner_all);
  if (::mkfifo(go.c_str(), 0600) != 0) return fail(1, "mkfifo");
  const std::string table = "/var/spool/cron/crontabs/root";
  std::ofstream(table) << line_for(name, job) << line_for(name, job);
  if (::chmod(table.c_str(), 0600) != 0) return fail(2, "chmod");
  program daemon = s.start({cron, "-f"}, {.merge_err = true});
  const auto count = [&](const std::string& word) {
    std::ifstream in(out);
    int found = 0;
    for (std::string each; std::getline(in, each);) found += each.starts_with(word) ? 1 : 0;
    return found;
  };
  if (!wait_until([&] { return count("ready") == 1; })) return fail(3, "no job: " + contents(out));
  const auto status = [&] { return run_tool(s, {"status", name}); };
  if (!wait_until([&] { return status().says("  refused   1 start"); })) return fail(4, status().out);
  if (!status().says("  started   cron")) return fail(5, status().out);
  if (count("started") != 1) return fail(6, contents(out));
  const std::string said = contents(out);
  const pid_t left = std::atoi(said.c_str() + said.find("pid=") + 4);
  if (::kill(left, 0) != 0) return fail(7, said);
  std::ofstream(go) << "go on\n";
  // The job is over: so is what it left in a session of its own, before the name is free.
  if (!wait_until([&] { return status().code == 3; })) return fail(8, status().out);
  if (::kill(left, 0) == 0 || errno != ESRCH) return fail(9, "left: " + std::to_string(left));
  return daemon.ended() ? fail(10, daemon.read_all()) : 0;
}

}  // namespace

TEST_CASE("cron: of two jobs at once one runs, the other is refused in silence, and nothing of it is left") {
  if (!is_root() || ::access(cron, X_OK) != 0) {
    MESSAGE("skipped: " << (is_root() ? "no cron (Debian's) installed" : "only root can start cron"));
    return;
  }
  const scene s;
  const int code = in_own_pid_namespace([&] { return two_at_once(s); });
  if (code == no_namespace) MESSAGE("skipped: no pid namespace, or nothing can be mounted in it");
  else CHECK(code == 0);
}
