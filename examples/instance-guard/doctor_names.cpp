// doctor: does a name have one holder here?
#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <instance_guard/pid_lockfile.hpp>

#include "doctor.hpp"
#include "doctor_actors.hpp"
#include "text.hpp"

namespace tool {
namespace {

std::string file_system_of(const std::string& path) {
  struct statfs facts = {};
  if (::statfs(path.c_str(), &facts) != 0) return "unknown file system";
  constexpr struct {
    unsigned long magic;
    const char* name;
  } known[] = {{0x01021994, "tmpfs"},   {0xef53, "ext4"},     {0x58465342, "xfs"},  {0x9123683e, "btrfs"},
               {0x794c7630, "overlay"}, {0x2fc12fc1, "zfs"},  {0x6969, "nfs"},      {0x01021997, "9p"},
               {0x65735546, "fuse"},    {0xf2f52010, "f2fs"}, {0x858458f6, "ramfs"}};
  const auto type = static_cast<unsigned long>(facts.f_type) & 0xffffffffUL;
  for (const auto& each : known)
    if (each.magic == type) return each.name;
  char text[32];
  std::snprintf(text, sizeof text, "file system 0x%lx", type);
  return text;
}

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n') c = ' ';
  return shown(text);
}

/// Whether a start with the name is refused.
bool is_refused(const std::vector<std::string>& words) { return actor(words).wait() == 75; }

finding check_socket(const std::string& name) {
  // A start that looks for the file in another place finds none: only the second lock is left.
  std::string place = (std::filesystem::temp_directory_path() / "instance-guard-doctor.XXXXXX").string();
  if (::mkdtemp(place.data()) == nullptr) return found("socket", false, "not tried: " + place + " can't be made");
  const bool refused = is_refused({"take", name, place});
  std::error_code ignored;
  std::filesystem::remove_all(place, ignored);
  return found("socket", refused,
               refused ? "second lock without a file (tried: a start that looks elsewhere)"
                       : "there is no second lock: a removed file lets a second one start");
}

finding check_ageing(const std::string& directory) {
  const instance_guard::file_descriptor opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const bool taken = opened && ::flock(opened.get(), LOCK_EX | LOCK_NB) == 0;
  const bool kept = opened && !taken && errno == EWOULDBLOCK;
  return found("ageing", kept,
               kept ? "tmp cleaners leave the directory alone (tried: flock on it)"
                    : "a tmp cleaner may take the directory of a holder away");
}

}  // namespace

std::vector<finding> check_names() {
  std::vector<finding> result;
  const std::string name = doctors_name("lock");
  std::error_code ec;
  instance_guard::pid_lockfile lock(name, ec);
  if (ec) {
    forget(name);
    result.push_back(found("lock", false, one_line(lock.explanation())));
    return result;
  }
  const std::string directory = lock.path().parent_path().string();
  const bool refused = is_refused({"take", name});
  const std::string where = directory + " (" + file_system_of(directory) + ")";
  result.push_back(
      found("lock", refused, refused ? "flock on " + where : "a second start is not refused by flock on " + where));
  result.push_back(check_socket(name));
  result.push_back(check_ageing(directory));
  lock.release();
  const bool free = actor({"take", name}).wait() == 0;
  result.push_back(
      found("release", free,
            free ? "the name is free again at once, and no file is left" : "a name that was let go can't be taken"));
  forget(name);
  const bool root = ::geteuid() == 0;
  result.push_back(
      {"scope", verdict::note,
       std::string("names are per user: ") + (root ? "another user's" : "root's") + " `shiva` is another one"});
  return result;
}

}  // namespace tool
