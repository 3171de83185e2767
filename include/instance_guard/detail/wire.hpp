// layer 3: what an owner and its warden say to each other.
//
// One SOCK_SEQPACKET pair, the channel, carries requests. Each request brings the end of a pair
// of its own, on which the answers to it come back: threads never share a stream of answers, and
// an answer nobody waits for any more goes nowhere. For a spawn that pair stays: later the exit
// status arrives on it. On the channel itself the warden says two things only: `hello` once, and
// `empty` after a `goodbye`.
//
// Both sides are the same program (the warden is a copy of its owner), so structs go as they
// are. Async-signal-safe.
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "../platform/platform.hpp"
#include "stray_target.hpp"

namespace instance_guard::detail::wire {

enum class kind : uint32_t {
  spawn = 1,
  signal,
  terminate,
  wait_idle,
  look_idle,
  nested,
  keep_lock,
  replace_lock,
  drop_lock,
  mark,
  hand_over,
  ping,
  goodbye,  ///< owner -> warden: end everything, then say `empty`
  closed,   ///< owner -> warden: my copies of the locks are closed, unlink the files
  hello,    ///< warden -> owner, once
  empty,    ///< warden -> owner: no descendant is left
  answer,   ///< warden -> owner, on a request's own pair
  failed,   ///< child -> owner, on a spawn's own pair: why it did not execute its program
  ended,    ///< warden -> owner, on a spawn's own pair: the exit status
  stopped,  ///< likewise, where the child is in the owner's process group: by which signal
  adopt     ///< child -> warden, on a socket of its own: see direct_start.hpp
};

/// Begins every message.
struct header {
  kind what = kind::ping;
  uint32_t reserved = 0;
};

/// Text longer than this travels in a memfd: a message holds some 200 KiB, arguments up to MBs.
inline constexpr size_t max_inline_text = 64u << 10;
/// As execve(2) limits arguments and environment together, with room to spare.
inline constexpr size_t max_text = 16u << 20;
inline constexpr unsigned max_descriptors = 8;

/// Where a child's stream leads; a non-negative number is an index into the descriptors.
enum stream : int8_t { to_null = -1, join_out = -2 };

/// Text follows, each piece ending in NUL: `candidates` paths to try, arguments, environment,
/// and the directory (may be empty).
///
/// When the child has executed its program the owner hears from the child itself: by its word on the
/// start_board, or, where there is none, by the pipe `exec`, which the child's exec closes.
struct spawn_request {
  header head = {kind::spawn, 0};
  pid_t thread = 0;         ///< who asks, if not the main thread
  pid_t process_group = 0;  ///< to join; 0: it leads one
  uint32_t candidates = 0;
  uint32_t arguments = 0;
  uint32_t environment = 0;
  int8_t streams[3] = {to_null, to_null, to_null};
  int8_t directory = -1;  ///< index of the descriptor of the caller's directory
  int8_t text = -1;       ///< index of a memfd with the text, or -1: it follows
  int8_t exec = -1;       ///< index of a pipe, or -1: the board tells
  bool outlives = false;
  bool no_new_privileges = false;
  platform::sys::signal_bits mask = 0;  ///< blocked signals of the caller
  uint64_t text_size = 0;
};

/// From a child that the owner has started as the warden's, see direct_start.hpp: it is the sender.
struct adopt_request {
  header head = {kind::adopt, 0};
  uint64_t token = 0;  ///< with own_token
};

/// Tokens that the owner gives out have this bit, those of the warden do not.
inline constexpr uint64_t own_token = uint64_t{1} << 63;

struct signal_request {
  header head = {kind::signal, 0};
  int32_t number = 0;
  pid_t thread = 0;
  uint64_t token = 0;  ///< which child, from its answer
};

struct terminate_request {
  header head = {kind::terminate, 0};
  int64_t grace = 0;  ///< nanoseconds; negative: the group's
};

struct group_request {
  header head = {kind::nested, 0};
  int64_t grace = 0;  ///< nanoseconds
  int32_t stop_signal = SIGTERM;
  pid_t thread = 0;
};

/// Descriptors after the answer's: lock file, directory, and perhaps the socket lock.
struct lock_request {
  header head = {kind::keep_lock, 0};
  int32_t slot = -1;
  pid_t thread = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
  bool has_socket = false;
  char file[80] = {};
  char refused[80] = {};  ///< goes with it
};

/// What strays of the owner can be told by.
struct mark_request {
  header head = {kind::mark, 0};
  stray_target target = {};
};

/// One descriptor after the answer's: the new owner's pidfd (or none, then by pid alone).
struct hand_over_request {
  header head = {kind::hand_over, 0};
  pid_t owner = 0;
};

struct answer {
  header head = {kind::answer, 0};
  int32_t error = 0;  ///< errno, or 0
  bool credentials_changed = false;
  pid_t pid = 0;
  uint64_t start_time = 0;
  uint64_t token = 0;
  int32_t word = 0;        ///< of a spawn: which on the start_board,
  int32_t word_value = 0;  ///< and what stands there until the child is past its exec
};

/// Sent before the child ends, so it is there when the word is cleared or the pipe closed.
struct failed {
  header head = {kind::failed, 0};
  int32_t error = 0;  ///< errno
};

struct ended {
  header head = {kind::ended, 0};
  int32_t code = 0;  ///< siginfo_t: CLD_EXITED, CLD_KILLED, CLD_DUMPED
  int32_t status = 0;
  rusage usage = {};
};

struct remaining {
  pid_t pid = 0;
  uint32_t why = 0;  ///< survival
  uint64_t start_time = 0;
  char name[16] = {};
};

inline constexpr uint32_t max_remaining = 64;

/// Answers terminate. Only `count` entries are sent.
struct terminated {
  header head = {kind::answer, 0};
  int32_t error = 0;
  bool proven_empty = false;
  uint32_t mechanism = 0;  ///< containment
  uint32_t count = 0;
  remaining left[max_remaining] = {};
};

/// Sends one message with descriptors. Never blocks, never raises SIGPIPE. A negated errno:
/// -EAGAIN when the peer's queue is full, -EPIPE when it is gone.
INSTANCE_GUARD_NO_SANITIZE inline long send(int channel, const void* head, size_t head_size, const void* text = nullptr,
                                            size_t text_size = 0, const int* descriptors = nullptr,
                                            unsigned count = 0) noexcept {
  alignas(cmsghdr) unsigned char control[CMSG_SPACE(sizeof(int) * max_descriptors)] = {};
  iovec parts[2] = {{const_cast<void*>(head), head_size}, {const_cast<void*>(text), text_size}};
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = text_size == 0 ? 1 : 2;
  if (count != 0) {
    cmsghdr* item = reinterpret_cast<cmsghdr*>(control);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int) * count);
    int* to = reinterpret_cast<int*>(control + CMSG_LEN(0));
    for (unsigned i = 0; i < count; ++i) to[i] = descriptors[i];
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
  }
  long result = 0;
  do result = platform::sys::sendmsg(channel, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (result == -EINTR);
  return result;
}

/// A message as it arrived. Descriptors in it are closed on exec, and the receiver's to close.
struct received {
  long size = 0;      ///< 0: the peer is gone; negative: a negated errno
  bool cut = false;   ///< longer than the buffer, or descriptors are missing
  bool full = false;  ///< since the receiver may not open more
  pid_t sender = 0;   ///< attested by the kernel where SO_PASSCRED is set
  unsigned count = 0;
  int descriptors[max_descriptors] = {};
};

/// Takes one message if there is one. Never blocks.
INSTANCE_GUARD_NO_SANITIZE inline void receive(int channel, void* buffer, size_t size, received& out,
                                               int flags = 0) noexcept {
  alignas(cmsghdr) unsigned char
      control[CMSG_SPACE(sizeof(int) * max_descriptors) + CMSG_SPACE(platform::credentials_size)];
  iovec part = {buffer, size};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  out = received{};
  do out.size = platform::sys::recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | flags);
  while (out.size == -EINTR);
  if (out.size < 0) return;
  out.cut = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  out.full = (message.msg_flags & MSG_CTRUNC) != 0;
  for (size_t at = 0; at + sizeof(cmsghdr) <= message.msg_controllen;) {
    const cmsghdr* item = reinterpret_cast<const cmsghdr*>(control + at);
    if (item->cmsg_len < CMSG_LEN(0) || at + item->cmsg_len > message.msg_controllen) break;
    const unsigned char* data = control + at + CMSG_LEN(0);
    const size_t bytes = item->cmsg_len - CMSG_LEN(0);
    if (item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_RIGHTS) {
      for (size_t i = 0; i + sizeof(int) <= bytes && out.count < max_descriptors; i += sizeof(int))
        out.descriptors[out.count++] = *reinterpret_cast<const int*>(data + i);
    } else {
      const pid_t sender = platform::sender_of(item->cmsg_level, item->cmsg_type, data);
      if (sender > 0) out.sender = sender;
    }
    at += CMSG_ALIGN(item->cmsg_len);
  }
}

}  // namespace instance_guard::detail::wire
