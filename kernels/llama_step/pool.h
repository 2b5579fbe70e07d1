// A crew of threads that run one function together, in phases of small units of work.
//
// Owns: the threads, how they join and how they wait. Knows nothing of what they compute. Nobody ever
// waits for a thread, only for units that a thread has taken: a thread that the system does not let
// run comes late, finds its phases done and is no hindrance. On a busy machine that is worth a factor.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace sapwood {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One of a crew's threads.
struct Member {
  int index, count;
};

// One phase: units 0 .. total - 1, each done once. Every thread begins in a range of its own, so that
// it goes through memory in order and finds what it wrote in the phase before; whoever has finished
// its range helps in the others.
class alignas(64) Work {
 public:
  // Takes units until there are none, then waits until all of them are done.
  template <class F>
  void run(Member me, int total, F&& unit) {
    const int ranges = me.count < MAX_RANGES ? me.count : MAX_RANGES;
    for (int i = 0; i < ranges; ++i) {
      const int range = (me.index + i) % ranges;
      const int first = int(int64_t(total) * range / ranges);
      const int end = int(int64_t(total) * (range + 1) / ranges);
      // Some at a time, since all threads count in the same place.
      const int some = (end - first + PIECES - 1) / PIECES;
      for (int at; (at = first + next_[range].fetch_add(some, std::memory_order_relaxed)) < end;) {
        const int stop = at + some < end ? at + some : end;
        for (int index = at; index < stop; ++index) unit(index);
        if (done_.fetch_add(stop - at, std::memory_order_acq_rel) == total - (stop - at))
          done_.notify_all();
      }
    }
    for (int spins = 0; spins < SPINS; ++spins) {
      if (done_.load(std::memory_order_acquire) >= total) return;
      pause();
    }
    for (int done; (done = done_.load(std::memory_order_acquire)) < total;) done_.wait(done);
  }

  void reset() {
    for (std::atomic<int>& next : next_) next.store(0, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
  }

 private:
  static constexpr int SPINS = 4000, MAX_RANGES = 12, PIECES = 16;
  std::atomic<int> next_[MAX_RANGES] = {};  // units taken of each range
  std::atomic<int> done_{0};
};

class Pool {
 public:
  explicit Pool(int num_threads) : num_threads_(num_threads < 1 ? 1 : num_threads) {
    for (int index = 1; index < num_threads_; ++index)
      threads_.emplace_back([this, index] { work(index); });
  }

  ~Pool() {
    stopping_ = true;
    round_.fetch_add(1);
    round_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return num_threads_; }

  // Calls job(member) here, as index 0, and on every other thread that comes in time; returns when this
  // one is through and all that had joined have left. The job's work must be in phases.
  void run(const std::function<void(Member)>& job) {
    job_ = &job;
    members_.store(OPEN, std::memory_order_release);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    job({0, num_threads_});
    members_.fetch_and(~OPEN, std::memory_order_acq_rel);
    for (int spins = 0; members_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < SPINS_BETWEEN) pause();
      else std::this_thread::yield();
    }
  }

 private:
  static constexpr int SPINS_BETWEEN = 20000;
  static constexpr int OPEN = 1 << 16;  // in `members_`, beside the number of members

  bool join() {
    int members = members_.load(std::memory_order_acquire);
    while (members & OPEN)
      if (members_.compare_exchange_weak(members, members + 1, std::memory_order_acq_rel)) return true;
    return false;
  }

  void work(int index) {
    for (int seen = 0;;) {
      for (int spins = 0; spins < SPINS_BETWEEN; ++spins) {
        if (round_.load(std::memory_order_acquire) != seen) break;
        pause();
      }
      round_.wait(seen, std::memory_order_acquire);
      seen = round_.load(std::memory_order_acquire);
      if (stopping_) return;
      if (!join()) continue;
      (*job_)({index, num_threads_});
      members_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  const int num_threads_;
  std::vector<std::thread> threads_;
  const std::function<void(Member)>* job_ = nullptr;
  alignas(64) std::atomic<int> round_{0};
  alignas(64) std::atomic<int> members_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace sapwood
