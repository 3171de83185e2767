// layer 1: what a lock needs of Linux beyond POSIX.
//
// Each function returns a value >= 0 or a negated errno and may be refused by an old kernel or
// a seccomp filter (-ENOSYS, -EPERM, -ENOPROTOOPT ...); callers then do without.
// posix_lock.hpp has the same names.
#pragma once

#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>

#include <string>

#include "../detail/text.hpp"
#include "linux_calls.hpp"
#include "linux_proc.hpp"

namespace instance_guard::platform {

// ---- file locks -------------------------------------------------------------------------

/// flock(2), never waiting. LOCK_EX or LOCK_SH; -EWOULDBLOCK: somebody else has it.
inline int flock_now(int descriptor, int kind) noexcept {
  int result = 0;
  do {
    result = static_cast<int>(system_call(SYS_flock, descriptor, kind | LOCK_NB));
  } while (result == -EINTR);
  return result;
}

/// Marks an open file as held, with a lock of the open file description (F_OFD_SETLK,
/// fcntl_locking(2)): others can see it without taking it. Read-only descriptors get a shared one.
inline int mark_held(int descriptor, bool writable) noexcept {
  struct flock all = {};
  all.l_type = static_cast<short>(writable ? F_WRLCK : F_RDLCK);
  all.l_whence = SEEK_SET;
  return sys::fcntl(descriptor, F_OFD_SETLK, word(&all));
}

/// Whether another open file description of this file is marked. 1, 0, or a negated errno.
/// Takes nothing, disturbs nobody.
inline int is_marked_held(int descriptor) noexcept {
  struct flock all = {};
  all.l_type = F_WRLCK;
  all.l_whence = SEEK_SET;
  const int result = sys::fcntl(descriptor, F_OFD_GETLK, word(&all));
  return result < 0 ? result : (all.l_type != F_UNLCK ? 1 : 0);
}

/// True where locks are known to be unreliable, or local to this machine while the files are not.
inline bool is_network_file_system(int descriptor) noexcept {
  struct statfs facts = {};
  if (system_call(SYS_fstatfs, descriptor, word(&facts)) < 0) return false;
  switch (static_cast<unsigned long>(facts.f_type) & 0xffffffffUL) {
    case 0x6969UL:      // NFS
    case 0x517bUL:      // SMB
    case 0xff534d42UL:  // CIFS
    case 0xfe534d42UL:  // SMB2
    case 0x01021997UL:  // 9P
    case 0x5346414fUL:  // AFS
    case 0x6b414653UL:  // kAFS
    case 0x73757245UL:  // Coda
    case 0x564cUL:      // NCP
    case 0x00c36400UL:  // Ceph
    case 0x0bd00bd0UL:  // Lustre
    case 0xaad7aaeaUL:  // Panasas
    case 0x786f4256UL:  // VirtualBox shared folder
    case 0xbacbacbcUL:  // VMware shared folder
      return true;
    default: return false;
  }
}

/// A page whose first word a forked copy sees as zero (MADV_WIPEONFORK, madvise(2)), or null.
inline unsigned* owner_page() noexcept {
  void* page = sys::mmap(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (sys::is_error(page)) return nullptr;
  if (system_call(SYS_madvise, word(page), 4096, MADV_WIPEONFORK) < 0) {
    sys::munmap(page, 4096);
    return nullptr;
  }
  return static_cast<unsigned*>(page);
}

// ---- the abstract socket, see unix(7) ----------------------------------------------------

inline constexpr bool has_socket_lock = true;

/// `name` without the leading NUL, at most 107 bytes.
inline socklen_t abstract_address(const char* name, size_t size, sockaddr_un& out) noexcept {
  memset(&out, 0, sizeof out);
  out.sun_family = AF_UNIX;
  if (size > sizeof out.sun_path - 1) size = sizeof out.sun_path - 1;
  memcpy(out.sun_path + 1, name, size);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
}

inline int stream_socket() noexcept {
  const int made = static_cast<int>(system_call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (made < 0 || made > 2) return made;
  const int moved = sys::fcntl(made, F_DUPFD_CLOEXEC, 3);  // 0 to 2 belong to the standard streams
  sys::close(made);
  return moved;
}

/// Takes the name: the descriptor of a listening socket, or -EADDRINUSE.
inline int take_socket_name(const char* name, size_t size) noexcept {
  sockaddr_un address;
  const socklen_t length = abstract_address(name, size, address);
  const int made = stream_socket();
  if (made < 0) return made;
  int result = static_cast<int>(system_call(SYS_bind, made, word(&address), length));
  if (result == 0) result = static_cast<int>(system_call(SYS_listen, made, 4096));
  if (result == 0) return made;
  sys::close(made);
  return result;
}

/// A second listen(2) renews the credentials that SO_PEERCRED and SO_PEERPIDFD report.
inline int renew_socket_owner(int descriptor) noexcept {
  return static_cast<int>(system_call(SYS_listen, descriptor, 4096));
}

/// Connects without waiting: the connection reports POLLHUP when the last holder of the name is
/// gone. -ECONNREFUSED: nobody listens. -EAGAIN: the queue is full.
inline int watch_socket_name(const char* name, size_t size) noexcept {
  sockaddr_un address;
  const socklen_t length = abstract_address(name, size, address);
  const int made = stream_socket();
  if (made < 0) return made;
  const int result = static_cast<int>(system_call(SYS_connect, made, word(&address), length));
  if (result == 0) return made;
  sys::close(made);
  return result;
}

/// The effective uid of the one who called listen() last, seen through a connection.
inline bool peer_user(int connection, uid_t& out) noexcept {
  struct {
    pid_t pid;
    uid_t uid;
    gid_t gid;
  } peer = {};
  socklen_t length = sizeof peer;
  if (system_call(SYS_getsockopt, connection, SOL_SOCKET, SO_PEERCRED, word(&peer), word(&length)) < 0) return false;
  out = peer.uid;
  return true;
}

/// The living process that called listen() last (SO_PEERPIDFD, Linux 6.5); -ESRCH: it has ended;
/// 0: can't be told. Unlike SO_PEERCRED it never names whoever got the pid afterwards.
inline pid_t peer_process(int connection) noexcept {
  constexpr int so_peerpidfd = 77;
  int handle = -1;
  socklen_t length = sizeof handle;
  const long asked = system_call(SYS_getsockopt, connection, SOL_SOCKET, so_peerpidfd, word(&handle), word(&length));
  if (asked == -ESRCH || asked == -EINVAL) return -ESRCH;  // reaped; since 6.16 a handle all the same
  if (asked < 0 || handle < 0) return 0;
  char path[64];
  char text[512];
  char leaf[32] = "fdinfo/";
  int digits = 7;
  for (int scale = 1'000'000'000; scale > 0; scale /= 10)
    if (handle >= scale || scale == 1) leaf[digits++] = static_cast<char>('0' + handle / scale % 10);
  const long size = read_small_file(proc_path(path, sys::getpid(), leaf), text, sizeof text);
  pid_t pid = 0;  // also of a process that is in no pid namespace of ours
  if (size > 0) {
    const char* found = strstr(text, "Pid:");
    if (found != nullptr) pid = static_cast<pid_t>(strtol(found + 4, nullptr, 10));
  }
  pollfd entry{handle, POLLIN, 0};  // readable once it has ended
  if (sys::ppoll(&entry, 1, 0, nullptr) > 0) pid = -ESRCH;
  sys::close(handle);
  return pid > 0 || pid == -ESRCH ? pid : 0;
}

/// As for_each_abstract_socket.
inline int visit_abstract_sockets(bool (*visit)(const char*, size_t, uid_t, bool, void*) noexcept,
                                  void* context) noexcept {
  const int link = static_cast<int>(system_call(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (link < 0) return link;
  struct {
    nlmsghdr head;
    unix_diag_req ask;
  } request = {};
  request.head.nlmsg_len = sizeof request;
  request.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.ask.sdiag_family = AF_UNIX;
  // Listening (10) or only bound (7); a connection that waits to be accepted (1) shows the name
  // too.
  request.ask.udiag_states = 1U << 10 | 1U << 7;
  request.ask.udiag_show = UDIAG_SHOW_NAME | 0x40U;  // UDIAG_SHOW_UID, Linux 5.3
  long result = system_call(SYS_sendto, link, word(&request), sizeof request, 0, 0, 0);
  bool go_on = result >= 0;
  alignas(nlmsghdr) char buffer[16384];
  while (go_on) {
    result = sys::read(link, buffer, sizeof buffer);
    if (result == -EINTR) continue;
    if (result <= 0) break;
    size_t left = static_cast<size_t>(result);
    result = 0;
    for (char* at = buffer; go_on && left >= sizeof(nlmsghdr);) {
      nlmsghdr head;
      memcpy(&head, at, sizeof head);
      if (head.nlmsg_len < sizeof head || head.nlmsg_len > left) {
        go_on = false;
        break;
      }
      if (head.nlmsg_type == NLMSG_DONE) {
        go_on = false;
        break;
      }
      if (head.nlmsg_type == NLMSG_ERROR) {
        nlmsgerr fault = {};
        if (head.nlmsg_len >= sizeof head + sizeof fault) memcpy(&fault, at + sizeof head, sizeof fault);
        result = fault.error < 0 ? fault.error : -EIO;
        go_on = false;
        break;
      }
      const char* name = nullptr;
      size_t name_size = 0;
      uid_t uid = 0;
      bool known = false;
      size_t offset = NLMSG_ALIGN(sizeof head + sizeof(unix_diag_msg));
      while (offset + sizeof(nlattr) <= head.nlmsg_len) {
        nlattr attribute;
        memcpy(&attribute, at + offset, sizeof attribute);
        if (attribute.nla_len < sizeof attribute || offset + attribute.nla_len > head.nlmsg_len) break;
        const char* value = at + offset + sizeof attribute;
        const size_t value_size = attribute.nla_len - sizeof attribute;
        if (attribute.nla_type == UNIX_DIAG_NAME) {
          name = value;
          name_size = value_size;
        } else if (attribute.nla_type == 7 && value_size >= sizeof uid) {  // UNIX_DIAG_UID
          memcpy(&uid, value, sizeof uid);
          known = true;
        }
        offset += NLMSG_ALIGN(attribute.nla_len);
      }
      if (name != nullptr && name_size > 1 && name[0] == '\0')
        go_on = visit(name + 1, name_size - 1, uid, known, context);
      const size_t step = NLMSG_ALIGN(head.nlmsg_len);
      if (step >= left) break;
      at += step;
      left -= step;
    }
    if (result < 0) break;
  }
  sys::close(link);
  return result < 0 ? static_cast<int>(result) : 0;
}

/// Calls `visit(name, size, uid, known)` for every bound abstract socket of this network
/// namespace until it returns false; `known` says whether the uid is. Asks sock_diag(7): no
/// connection, so neither a full queue nor a peer that never listens matters. `visit` must not
/// throw.
template <typename Visit>
int for_each_abstract_socket(Visit visit) noexcept {
  return visit_abstract_sockets(
      [](const char* name, size_t size, uid_t uid, bool known, void* context) noexcept -> bool {
        return (*static_cast<Visit*>(context))(name, size, uid, known);
      },
      &visit);
}

/// Whose name it is. 1: bound, `uid` set; 2: bound, by nobody knows whom; 0: free.
inline int socket_name_owner(const char* name, size_t size, uid_t& uid) noexcept {
  int answer = 0;
  const int result =
      for_each_abstract_socket([&](const char* other, size_t other_size, uid_t owner, bool known) noexcept {
        if (other_size != size || memcmp(other, name, size) != 0) return true;
        answer = known ? 1 : 2;
        uid = owner;
        return false;
      });
  if (result == 0 && answer != 2) return answer;
  // No sock_diag here, or an old one: ask through a connection.
  const int connection = watch_socket_name(name, size);
  if (connection == -ECONNREFUSED && answer == 0) return 0;  // free, or bound and silent
  if (connection < 0) return 2;
  const bool known = peer_user(connection, uid);
  sys::close(connection);
  return known ? 1 : 2;
}

// ---- where, and who started it ----------------------------------------------------------

/// The n-th place to try for the lock directory; empty: no more. Nothing in it depends on the
/// environment. Where /tmp is shared, a stranger may have made the first one.
inline std::string lock_directory_candidate(bool host, uid_t uid, int n) {
  if (host) return n == 0 ? "/run/lock/instance_guard" : "";
  if (uid == 0) return n == 0 ? "/run/instance_guard" : "";
  if (n > 9) return {};
  const std::string user = std::to_string(uid);
  return detail::joined({"/tmp/instance_guard-", user, n == 0 ? "" : ".", n == 0 ? "" : std::to_string(n)});
}

}  // namespace instance_guard::platform
