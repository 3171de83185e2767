// layer 3: the owner composes a request for a child.
//
// Runs in the program: it allocates, and may throw std::bad_alloc.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "../file_descriptor.hpp"
#include "../platform/platform.hpp"
#include "../process_group_types.hpp"
#include "direct_start.hpp"
#include "environment.hpp"
#include "group_request.hpp"
#include "owned.hpp"
#include "stray_target.hpp"
#include "text.hpp"
#include "wire.hpp"

namespace instance_guard::detail {

/// One spawn in the making: what goes to the warden, and what stays with the caller.
class spawn_order {
 public:
  /// Fills everything in. Errors: invalid_argument (no program, a NUL inside a text, a stream that
  /// leads nowhere), those of opening files, too_many_files_open.
  std::error_code prepare(const std::vector<std::string>& arguments, const spawn_options& options,
                          const group_slot& slot) {
    std::error_code error = prepare_text(arguments, options, slot);
    if (error) return error;
    if (options.same_process_group) request_.process_group = ::getpgrp();
    request_.no_new_privileges = slot.no_new_privileges.load(std::memory_order_relaxed);
    request_.mask = platform::signal_mask_now();
    for (int i = 0; i < 3 && !error; ++i)
      error = prepare_stream(i, i == 0 ? options.in : i == 1 ? options.out : options.err);
    return error;
  }

  /// What is needed besides for a request to the warden. Errors as prepare.
  std::error_code prepare_request() {
    std::error_code error;
    request_.thread = asking_thread();
    const int directory = ::open(".", platform::directory_only_flags | O_CLOEXEC);
    if (directory < 0) return last_error();
    error = attach(above_streams(directory), request_.directory);
    if (error) return error;
    if (text_.size() > wire::max_inline_text) error = put_text_in_memory();
    return error;
  }

  /// Fills in what a child of the program itself needs; `pointers` becomes the memory of its arrays.
  void fill(direct_start& start, owned_array<char*>& pointers) {
    const std::size_t count = std::size_t{request_.candidates} + request_.arguments + request_.environment;
    pointers = owned_array<char*>(count + 3);
    char* text = text_.data();
    char** at = pointers.data();
    const auto point = [&](std::size_t texts) {
      char** const first = at;
      for (std::size_t i = 0; i < texts; ++i, text += std::strlen(text) + 1) *at++ = text;
      ++at;
      return first;
    };
    start.candidates = point(request_.candidates);
    start.arguments = point(request_.arguments);
    start.environment = point(request_.environment);
    start.directory = *text == '\0' ? nullptr : text;
    for (int i = 0; i < 3; ++i) {
      const std::int8_t from = request_.streams[i];
      start.streams[i] = from > 0 ? numbers_[from - 1] : from;
    }
    start.no_new_privileges = request_.no_new_privileges;
    start.mask = request_.mask;
  }

  /// Whether the child is one like most: it ends with the group, and leads a process group.
  bool is_plain() const noexcept { return !request_.outlives && request_.process_group == 0; }

  /// Sends it. `own` becomes the end on which answers come, `exec` that of a pipe where the warden has
  /// no board. 0, or a negated errno.
  int send(const warden_link& link, file_descriptor& own, file_descriptor& exec) noexcept {
    const bool by_pipe = link.board.load(std::memory_order_relaxed) == nullptr;
    request_.exec = by_pipe ? static_cast<std::int8_t>(count_ + 1) : std::int8_t{-1};  // the last one
    const bool inlined = request_.text < 0;
    return send_request(link, &request_, sizeof request_, inlined ? text_.data() : nullptr, inlined ? text_.size() : 0,
                        numbers_, count_, own, by_pipe ? &exec : nullptr);
  }

  /// The caller's end of a piped stream.
  file_descriptor& pipe_end(int stream) noexcept { return ends_[stream]; }

 private:
  static std::error_code last_error() noexcept { return {errno, std::system_category()}; }
  static std::error_code invalid() noexcept { return std::make_error_code(std::errc::invalid_argument); }

  /// Text that is too long for a message. A limit on file sizes holds for memory files as well:
  /// then the call fails, but the SIGXFSZ that it brings must not end the program.
  std::error_code put_text_in_memory() {
    const int file = platform::memory_file("instance_guard");
    if (file < 0) return {-file, std::system_category()};
    file_descriptor memory = above_streams(file);
    const auto before = platform::signal_mask_now();
    const auto size_signal = platform::sys::signal_bit(SIGXFSZ);
    const bool was_pending = platform::is_signal_pending(SIGXFSZ);
    platform::sys::set_signal_mask(before | size_signal);
    std::error_code error;
    for (std::size_t done = 0; done < text_.size() && !error;) {
      const long part = platform::sys::write(memory.get(), text_.data() + done, text_.size() - done);
      if (part > 0) done += static_cast<std::size_t>(part);
      else if (part != -EINTR) error.assign(part == 0 ? EIO : static_cast<int>(-part), std::system_category());
    }
    if (error && !was_pending) platform::take_pending_signal(SIGXFSZ);
    platform::sys::set_signal_mask(before);
    return error ? error : attach(std::move(memory), request_.text);
  }

  void add_text(std::string_view text) { text_.append(text.data(), text.size()).push_back('\0'); }

  std::error_code prepare_text(const std::vector<std::string>& arguments, const spawn_options& options,
                               const group_slot& slot) {
    if (arguments.empty() || arguments.front().empty()) return invalid();
    for (const std::string& each : arguments)
      if (each.find('\0') != std::string::npos) return invalid();
    const std::string& directory = options.working_directory.native();
    if (directory.find('\0') != std::string::npos) return invalid();
    environment changed;
    if (!options.clear_environment) changed.inherit(environ);
    // An owner that was itself to outlive a group does not pass that on.
    std::error_code error = changed.change("INSTANCE_GUARD_KEEP");
    const std::string_view mark = slot.mark_entry;
    if (!error && !mark.empty()) error = changed.change(mark);
    bool keep = options.outlives;
    for (const std::string& each : options.environment) {
      if (!error) error = changed.change(each);
      if (each.starts_with("INSTANCE_GUARD_KEEP")) keep = options.outlives || same(each, keep_entry);
    }
    if (!error && keep) error = changed.change(keep_entry);
    if (error) return error;
    const std::string& block = changed.bytes();
    add_candidates(arguments.front(), block);
    for (const std::string& each : arguments) add_text(each);
    text_.append(block);
    add_text(directory);
    if (text_.size() > wire::max_text) return std::make_error_code(std::errc::argument_list_too_long);
    request_.arguments = static_cast<std::uint32_t>(arguments.size());
    request_.environment = static_cast<std::uint32_t>(changed.size());
    request_.text_size = text_.size();
    request_.outlives = keep;
    return {};
  }

  /// Where to look for the program: as execvp(3), in the PATH of the child.
  void add_candidates(std::string_view program, std::string_view block) {
    request_.candidates = 1;
    if (program.find('/') != std::string_view::npos) return add_text(program);
    std::string_view path = "/bin:/usr/bin";
    for (std::size_t at = 0; at < block.size();) {
      const std::string_view entry = block.substr(at, block.find('\0', at) - at);
      if (entry.starts_with("PATH=")) path = entry.substr(5);
      at += entry.size() + 1;
    }
    request_.candidates = 0;
    for (std::size_t at = 0; at <= path.size(); ++request_.candidates) {
      const std::string_view directory = path.substr(at, path.find(':', at) - at);
      text_.append(directory.data(), directory.size());
      if (!directory.empty() && directory.back() != '/') text_.push_back('/');
      add_text(program);
      at += directory.size() + 1;
    }
  }

  std::error_code prepare_stream(int number, const stdio& where) {
    using target = stdio::target;
    std::int8_t& stream = request_.streams[number];
    switch (where.to) {
      case target::inherit: return share(number, stream, true);
      case target::descriptor: return share(where.number, stream, false);
      case target::null: stream = wire::to_null; return {};
      case target::join_out:
        if (number != 2) return invalid();
        stream = wire::join_out;
        return {};
      case target::file: {
        if (where.path.native().find('\0') != std::string::npos) return invalid();
        int flags = O_CLOEXEC | O_NOCTTY;
        switch (where.mode) {
          case file_mode::read: flags |= O_RDONLY; break;
          case file_mode::write: flags |= O_WRONLY | O_CREAT; break;
          case file_mode::append: flags |= O_WRONLY | O_CREAT | O_APPEND; break;
          case file_mode::truncate: flags |= O_WRONLY | O_CREAT | O_TRUNC; break;
        }
        const int file = ::open(where.path.c_str(), flags, 0666);
        if (file < 0) return last_error();
        return attach(above_streams(file), stream);
      }
      case target::pipe: {
        int numbers[2] = {-1, -1};
        if (::pipe2(numbers, O_CLOEXEC) != 0) return last_error();
        file_descriptor first = above_streams(numbers[0]), second = above_streams(numbers[1]);
        if (!first || !second) return std::make_error_code(std::errc::too_many_files_open);
        ends_[number] = std::move(number == 0 ? second : first);
        return attach(std::move(number == 0 ? first : second), stream);
      }
    }
    return invalid();
  }

  /// A descriptor that the caller keeps. A standard stream that it has closed becomes /dev/null.
  std::error_code share(int number, std::int8_t& stream, bool standard) noexcept {
    if (::fcntl(number, F_GETFD) < 0) {
      if (!standard) return last_error();
      stream = wire::to_null;
      return {};
    }
    numbers_[count_++] = number;
    stream = static_cast<std::int8_t>(count_);
    return {};
  }

  /// A descriptor that only the child needs. `index` becomes its place in the message, where the
  /// first is the answer's.
  std::error_code attach(file_descriptor descriptor, std::int8_t& index) noexcept {
    if (!descriptor) return std::make_error_code(std::errc::too_many_files_open);
    numbers_[count_] = descriptor.get();
    held_[count_] = std::move(descriptor);
    index = static_cast<std::int8_t>(++count_);
    return {};
  }

  wire::spawn_request request_;
  std::string text_;
  int numbers_[wire::max_descriptors] = {};
  unsigned count_ = 0;
  file_descriptor held_[wire::max_descriptors];
  file_descriptor ends_[3];
};

}  // namespace instance_guard::detail
