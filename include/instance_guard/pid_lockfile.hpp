// layer 3: one holder per name.
//
//   pid_lockfile lock("wallet-0x39a1", {.wait = 5s});     // throws already_running
//   lock.verify();                                        // before what must not be done twice
//
// Two kernel locks stand for a name: a file lock in default_lock_directory(), and on Linux a
// socket without a file, which finds a second instance also when the file was removed or the
// directories differ. The file's existence means nothing; its content says who has the lock.
// The lock goes with the process that took it, however that ends. A clean end removes the file;
// where it is left, the next holder learns of it by recovered_from().
//
// fork(2): a child holds nothing, and its copy of the object does nothing. exec(2): the lock is
// let go. Threads: one object, one thread at a time, but for verify(), which any may call;
// different objects, any. Signals: what ends locks on the way out is in detail/lock_slot.hpp;
// nothing here may be called in a handler.
#pragma once

#include "lock_status.hpp"
#include "pid_lockfile_class.hpp"
#include "pid_lockfile_types.hpp"
