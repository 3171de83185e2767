// What a start costs: the call alone, or until the end has been seen.
#pragma once

#include <benchmark/benchmark.h>
#include <unistd.h>

/// Starts and waits, again and again; one of the two is measured, or both.
template <class Start, class Wait>
void measure_starts(benchmark::State& state, bool until_exit, Start start, Wait wait) {
  for (auto unused : state) {
    (void)unused;
    auto started = start();
    if (until_exit) wait(started);
    state.PauseTiming();
    if (!until_exit) wait(started);
    ::usleep(300);  // who has reaped it goes to sleep again, as between two starts of a program
    state.ResumeTiming();
  }
}
