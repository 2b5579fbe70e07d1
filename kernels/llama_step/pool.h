// A fixed crew of threads that run one function together and meet at barriers.
//
// Owns: the threads and how they wait. Knows nothing of what they compute.
#pragma once
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace sapwood {

// Work is handed out by counters: whoever is free takes the next unit. One line of cache each.
struct alignas(64) Counter {
  std::atomic<int> next{0};
  int take() { return next.fetch_add(1, std::memory_order_relaxed); }
};

class Pool {
 public:
  explicit Pool(int num_threads) : num_threads_(num_threads < 1 ? 1 : num_threads) {
    for (int index = 1; index < num_threads_; ++index)
      threads_.emplace_back([this, index] { work(index); });
  }

  ~Pool() {
    stopping_ = true;
    generation_.fetch_add(1);
    generation_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return num_threads_; }

  // Calls job(thread index) on every thread, this one included (index 0); returns when all are done.
  void run(const std::function<void(int)>& job) {
    job_ = &job;
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    job(0);
    barrier();
  }

  // Every thread of a running job calls it as often as every other.
  void barrier() {
    if (num_threads_ == 1) return;
    const int phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == num_threads_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      phase_.notify_all();
    } else {
      wait_while_equal(phase_, phase, SPINS_IN_STEP);
    }
  }

 private:
  // With a long spin one busy neighbour makes every step several times slower: the thread that is
  // waited for does not run while the others spin in its place.
  static constexpr int SPINS_IN_STEP = 4000;
  static constexpr int SPINS_BETWEEN_STEPS = 20000;

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  static void wait_while_equal(std::atomic<int>& value, int old, int spins) {
    for (int i = 0; i < spins; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      pause();
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old);
  }

  void work(int index) {
    for (int seen = 0;;) {
      wait_while_equal(generation_, seen, SPINS_BETWEEN_STEPS);
      ++seen;
      if (stopping_) return;
      (*job_)(index);
      barrier();
    }
  }

  const int num_threads_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* job_ = nullptr;
  alignas(64) std::atomic<int> generation_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace sapwood
