// layer 4: the members of child and process_group; part of process_group.hpp.
#pragma once

#include <cstring>
#include <utility>

#include "../process_group.hpp"
#include "group_await.hpp"
#include "group_direct.hpp"
#include "group_keep.hpp"
#include "lock_session.hpp"
#include "run_capture.hpp"

namespace instance_guard {

inline const detail::warden_link& child::link() const noexcept {
  static constinit detail::warden_link gone{.channel = {-1}, .watch = {-1}, .adoptions = {-1}};
  if (slot_ < 0) return gone;
  const detail::group_slot& slot = detail::group_slots[slot_];
  return slot.generation.load(std::memory_order_relaxed) == generation_ ? slot.link[link_] : gone;
}

inline std::optional<exit_status> child::wait_for(std::chrono::milliseconds limit, std::error_code& ec) noexcept {
  ec.clear();
  if (!channel_) {
    ec = std::make_error_code(std::errc::invalid_argument);
    return {};
  }
  // The message stays where it is, so that exit_fd stays readable and others may ask as well.
  detail::wire::ended what;
  const detail::deadline end(limit);
  long size = 0;
  for (;;) {
    size = detail::await_answer(link(), channel_.get(), &what, sizeof what, end, true);
    if (size != static_cast<long>(sizeof what) || what.head.what != detail::wire::kind::stopped) break;
    take_stop();
  }
  if (size == -ETIMEDOUT) return {};
  if (size != static_cast<long>(sizeof what)) {
    ec = detail::group_error(size < 0 ? static_cast<int>(size) : -EPROTO);
    return {};
  }
  return exit_status(what.code, what.status, what.usage);
}

inline int child::take_stop() noexcept {
  detail::wire::ended what;
  detail::wire::received got;
  if (!channel_) return 0;
  detail::wire::receive(channel_.get(), &what, sizeof what, got, MSG_PEEK);
  if (got.size != static_cast<long>(sizeof what) || what.head.what != detail::wire::kind::stopped) return 0;
  detail::wire::receive(channel_.get(), &what, sizeof what, got);
  return what.status;
}

inline void child::signal(int number, std::error_code& ec) noexcept {
  ec.clear();
  if (!channel_) {
    ec = std::make_error_code(std::errc::invalid_argument);
    return;
  }
  detail::wire::signal_request request;
  request.number = number;
  request.thread = detail::asking_thread();
  request.token = token_;
  const detail::warden_link& warden = link();
  int result = -ESRCH;
  if (warden.pid.load(std::memory_order_relaxed) > 0) result = detail::ask(warden, request);
  if (result < 0) ec = detail::group_error(result);
}

inline void process_group::start(const group_options& options, const process_group* above,
                                 std::error_code& ec) noexcept {
  ec.clear();
  if (!detail::is_signal(options.stop_signal)) {
    ec = std::make_error_code(std::errc::invalid_argument);
    return;
  }
  const int index = detail::claim_group_slot();
  if (index < 0) {
    ec = std::make_error_code(std::errc::resource_unavailable_try_again);
    return;
  }
  detail::group_slot& mine = detail::group_slots[index];
  mine.grace.store(detail::deadline::nanoseconds(options.grace), std::memory_order_relaxed);
  mine.stop_signal.store(options.stop_signal, std::memory_order_relaxed);
  mine.no_new_privileges.store(options.no_new_privileges, std::memory_order_relaxed);
  mine.keep_session.store(options.keep_session, std::memory_order_relaxed);
  mine.inherit_descriptors.store(options.inherit_descriptors, std::memory_order_relaxed);
  int result = -EINVAL;
  if (above == nullptr) {
    result = detail::start_link(mine);
  } else if (detail::group_slot* outer = above->slot()) {
    mine.parent.store(detail::slot_index(*outer), std::memory_order_relaxed);
    if (outer->no_new_privileges) mine.no_new_privileges.store(true, std::memory_order_relaxed);
    for (std::size_t i = 0; i < sizeof mine.mark_entry; ++i) mine.mark_entry[i] = outer->mark_entry[i];
    result = detail::with_present_rights(
        *outer, [&](const detail::warden_link& link, int) noexcept { return detail::start_nested(mine, link); });
  }
  if (result < 0) {
    detail::free_group_slot(mine);
    ec = detail::group_error(result);
    return;
  }
  detail::publish_link(mine);
  slot_ = index;
  generation_ = mine.generation.load(std::memory_order_relaxed);
  options_ = options;
  mine.state.store(detail::group_slot::live, std::memory_order_release);
}

inline void process_group::end() noexcept {
  detail::group_slot* mine = slot();
  slot_ = -1;
  if (mine == nullptr || !detail::begin_end(*mine)) return;
  detail::end_wardens(*mine, detail::end_limit(*mine));
  detail::free_group_slot(*mine);
}

inline child process_group::spawn(const std::vector<std::string>& arguments, const spawn_options& options,
                                  std::error_code& ec) noexcept {
  ec.clear();
  child result;
  detail::without_throwing(ec, [&] {
    detail::group_slot* mine = slot();
    if (mine == nullptr) {
      ec = std::make_error_code(std::errc::invalid_argument);
      return;
    }
    detail::spawn_order order;
    ec = order.prepare(arguments, options, *mine);
    if (ec) return;
    detail::wire::answer answer;
    int error = -ENOSYS;
    if (order.is_plain() && detail::can_start_directly(*mine))
      error = detail::start_directly(*mine, order, result.channel_, answer);
    if (error == -ENOSYS) {
      ec = order.prepare_request();
      if (ec) return;
      error = detail::start_by_warden(*mine, order, result.channel_, result.link_, answer);
    }
    if (error < 0) {
      ec = detail::group_error(error);
      return;
    }
    result.slot_ = slot_;
    result.generation_ = generation_;
    result.token_ = answer.token;
    for (int i = 0; i < 3; ++i) result.ends_[i] = std::move(order.pipe_end(i));
    result.id_.pid = answer.pid;
    result.id_.start_time = answer.start_time;
    result.id_.boot = detail::boot_id_now();
    result.id_.pid_namespace = mine->pid_namespace.load(std::memory_order_relaxed);
  });
  return result;
}

inline process_group process_group::nested(const group_options& options, std::error_code& ec) noexcept {
  process_group result(nullptr);
  result.start(options, this, ec);
  return result;
}

inline termination_report process_group::terminate(std::chrono::milliseconds grace, std::error_code& ec) noexcept {
  ec.clear();
  termination_report report;
  detail::without_throwing(ec, [&] {
    detail::group_slot* mine = slot();
    if (mine == nullptr) {
      ec = std::make_error_code(std::errc::invalid_argument);
      return;
    }
    detail::wire::terminate_request request;
    request.grace = detail::deadline::nanoseconds(grace);
    // All wardens first, then their answers: they work at the same time.
    const int links = mine->links.load(std::memory_order_acquire);
    file_descriptor own[detail::max_links];
    int result[detail::max_links] = {};
    for (int i = 0; i < links; ++i)
      result[i] = detail::send_request(mine->link[i], &request, sizeof request, nullptr, 0, nullptr, 0, own[i]);
    report.proven_empty = true;
    report.mechanism = static_cast<containment>(mine->mechanism.load(std::memory_order_relaxed));
    bool heard = false;
    const process_identity self = process_identity::self();
    for (int i = 0; i < links; ++i) {
      detail::wire::terminated answer;
      if (result[i] == 0) {
        const long size =
            detail::await_answer(mine->link[i], own[i].get(), &answer, sizeof answer, detail::deadline(no_limit));
        result[i] = size < 0 ? static_cast<int>(size) : -answer.error;
      }
      if (result[i] < 0) {
        ec = detail::group_error(result[i]);
        report.proven_empty = false;
        continue;
      }
      report.proven_empty = report.proven_empty && answer.proven_empty;
      // Of several wardens the one that can do least.
      const auto mechanism = static_cast<containment>(answer.mechanism);
      if (!heard || mechanism < report.mechanism) report.mechanism = mechanism;
      heard = true;
      // Not push_back, which takes a compiler ten times longer: they are few, and mostly none.
      const std::size_t before = report.survivors.size();
      std::vector<survivor> all(before + answer.count);
      for (std::size_t k = 0; k < before; ++k) all[k] = std::move(report.survivors[k]);
      for (std::uint32_t k = 0; k < answer.count; ++k) {
        survivor& left = all[before + k];
        left.process = self;
        left.process.pid = answer.left[k].pid;
        left.process.start_time = answer.left[k].start_time;
        left.name = detail::joined({answer.left[k].name});
        left.why = static_cast<survival>(answer.left[k].why);
      }
      report.survivors.swap(all);
    }
  });
  return report;
}

inline bool process_group::wait_idle(std::chrono::milliseconds limit, std::error_code& ec) noexcept {
  ec.clear();
  detail::group_slot* mine = slot();
  if (mine == nullptr) {
    ec = std::make_error_code(std::errc::invalid_argument);
    return false;
  }
  // Without time to wait there is still time for an answer.
  const bool waits = limit > std::chrono::milliseconds(0);
  const detail::deadline end(waits ? limit : no_limit);
  const detail::wire::header request = {waits ? detail::wire::kind::wait_idle : detail::wire::kind::look_idle, 0};
  for (int i = 0; i < mine->links.load(std::memory_order_acquire); ++i) {
    file_descriptor own;
    long result = detail::send_request(mine->link[i], &request, sizeof request, nullptr, 0, nullptr, 0, own);
    detail::wire::terminated answer;
    if (result == 0 && !waits) detail::look_for_answer(own.get());
    if (result == 0) result = detail::await_answer(mine->link[i], own.get(), &answer, sizeof answer, end);
    if (result >= 0 && answer.error != 0) result = -answer.error;
    if (result == -ETIMEDOUT) return false;
    if (result < 0) {
      ec = detail::group_error(static_cast<int>(result));
      return false;
    }
  }
  return true;
}

inline void process_group::keep_locked(const pid_lockfile& lock, std::error_code& ec) noexcept {
  ec.clear();
  detail::group_slot* mine = slot();
  if (mine == nullptr || !lock.owns_lock()) {
    ec = std::make_error_code(std::errc::invalid_argument);
    return;
  }
  detail::lock_slot& kept = detail::slot_of(lock);
  int result = 0;
  for (int i = 0; i < mine->links.load(std::memory_order_acquire) && result == 0; ++i)
    result = detail::give_lock(mine->link[i], kept, detail::wire::kind::keep_lock);
  if (result < 0) {
    ec = detail::group_error(result);
    return;
  }
  detail::lock_keeper keeper;
  keeper.group_slot = slot_;
  keeper.drop = detail::keeper_drop;
  keeper.replace = detail::keeper_replace;
  keeper.healthy = detail::group_is_healthy;
  detail::lock_set_keeper(kept, keeper);
  // Who waits for the name one day can tell what is left, and wake a warden that is stopped.
  detail::without_throwing(ec, [&] {
    lock_record changes = lock.record();
    const process_identity former = std::exchange(changes.warden, warden());
    changes.grace = options_.grace;
    char path[platform::control_group_path_size];
    const bool together = platform::find_control_group(changes.warden.pid, changes.warden.start_time, path) == 0;
    changes.control_group = together ? path : "";
    detail::lock_update_record(lock, std::move(changes), ec);
    // Another group's, and those that the group had before the caller's rights became others.
    if (!ec && former) result = detail::note_warden(kept, former);
    for (int i = 0; i < mine->links.load(std::memory_order_acquire) && !ec && result == 0; ++i)
      result = detail::note_warden(kept, detail::identity_of(mine->link[i]));
    if (result < 0) ec = detail::group_error(result);
  });
}

inline std::vector<process_identity> process_group::members(std::error_code& ec) const noexcept {
  ec.clear();
  std::vector<process_identity> result;
  detail::without_throwing(ec, [&] {
    if (const detail::group_slot* mine = slot()) result = detail::group_members(*mine, ec);
    else ec = std::make_error_code(std::errc::invalid_argument);
  });
  return result;
}

inline bool process_group::warden_alive() const noexcept {
  return slot() != nullptr && detail::group_is_healthy(slot_);
}

inline process_identity process_group::warden() const noexcept {
  const detail::group_slot* mine = slot();
  if (mine == nullptr) return {};
  const int links = mine->links.load(std::memory_order_acquire);
  return detail::identity_of(mine->link[links - 1]);
}

inline void process_group::mark(const detail::stray_mark& mark, const detail::stray_target& target, bool strays,
                                std::error_code& ec) noexcept {
  ec.clear();
  detail::without_throwing(ec, [&] {
    detail::group_slot* mine = slot();
    if (mine == nullptr || !mark) return;
    const std::string entry = detail::mark_entry(mark);
    detail::copy_text(mine->mark_entry, sizeof mine->mark_entry, entry.c_str());
    if (!strays) return;
    std::memcpy(mine->mark, &target, sizeof target);
    mine->is_marked = target.nonce[0] != '\0';
    int result = 0;
    for (int i = 0; i < mine->links.load(std::memory_order_acquire) && result == 0; ++i)
      result = detail::tell_mark(mine->link[i], *mine);
    if (result < 0) ec = detail::group_error(result);
  });
}

}  // namespace instance_guard

#include "group_run.hpp"  // IWYU pragma: export
