// What a machine can do at most, measured: bytes read from memory and multiply-adds a second.
//
// Owns: the two loops. `step.py` holds the model's step against them, so they use what the step uses:
// the same threads, huge pages, vectors and tiles.
#include <chrono>
#include <cstdio>

#include "../kernels/llama_step/gemm.h"
#include "../kernels/llama_step/pool.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace sapwood;
using Clock = std::chrono::steady_clock;

namespace {

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Keeps the compiler from dropping a loop whose result nobody reads.
template <class T>
void use(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

// Independent chains of the format's dot product, or four of its whole tiles (64 bytes of each row,
// where the step's groups fill 32); multiply-adds done.
double multiply(Format format, int rounds) {
  alignas(64) uint8_t bytes[1024] = {};
#if defined(SAPWOOD_TIER_AMX)
  if (format != Format::FLOAT32) {
    const amx::Session session;
    amx::configure_product(16, 16);
    amx::publish(bytes);
    _tile_loadd(4, bytes, 64);
    _tile_loadd(5, bytes, 64);
    _tile_loadd(6, bytes, 64);
    _tile_loadd(7, bytes, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (format == Format::BFLOAT16) {
      for (int i = 0; i < rounds; ++i) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      return double(rounds) * 4 * 16 * 16 * 32;
    }
    for (int i = 0; i < rounds; ++i) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    return double(rounds) * 4 * 16 * 16 * 64;
  }
#endif
  constexpr int CHAINS = 12;  // with starts of their own, so that none is taken for another
  const IVec x = load_ints(bytes), y = load_ints(bytes + 64);
  if (is_quantized(format)) {
    IVec acc[CHAINS];
    for (int j = 0; j < CHAINS; ++j) acc[j] = broadcast_int(j);
    for (int i = 0; i < rounds; ++i)
#pragma GCC unroll 12
      for (int j = 0; j < CHAINS; ++j) acc[j] = dot4(acc[j], x, y);
    for (IVec& a : acc) use(a);
    return double(rounds) * CHAINS * LANES * 4;
  }
  Vec acc[CHAINS];
  for (int j = 0; j < CHAINS; ++j) acc[j] = broadcast(float(j));
  if (format == Format::BFLOAT16) {
    for (int i = 0; i < rounds; ++i)
#pragma GCC unroll 12
      for (int j = 0; j < CHAINS; ++j) acc[j] = dot2(acc[j], x, y);
    for (Vec& a : acc) use(a);
    return double(rounds) * CHAINS * LANES * 2;
  }
  const Vec u = broadcast(0.5f);
  for (int i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; ++j) acc[j] = fma(acc[j], u, u);
  for (Vec& a : acc) use(a);
  return double(rounds) * CHAINS * LANES;
}

}  // namespace

// Bytes a second that `threads` read together, from memory that holds `size` bytes; the best of
// `rounds` passes.
EXPORT double sapwood_read_rate(int64_t size, int threads, int rounds) {
  Mapping memory{size_t(size)};
  std::fill_n(memory.data(), size_t(size), uint8_t(1));
  Pool pool(threads);
  constexpr int64_t UNIT = 256 << 10;
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    Work work;
    const auto start = Clock::now();
    pool.run([&](Member me) {
      work.run(me, int(size / UNIT), [&](int unit) {
        const uint8_t* p = memory.data() + int64_t(unit) * UNIT;
        IVec sums[4];
        for (IVec& s : sums) s = broadcast_int(0);
        for (int64_t at = 0; at < UNIT; at += 256) {
          for (int j = 0; j < 4; ++j) {
            prefetch(p + at + j * 64 + 4096);
            sums[j] = add_ints(sums[j], load_ints(p + at + j * 64));
          }
        }
        for (IVec& s : sums) use(s);
      });
    });
    best = std::max(best, double(size / UNIT * UNIT) / since(start));
  }
  return best;
}

// Multiply-adds a second of `threads` together, from registers; the best of `rounds`.
EXPORT double sapwood_multiply_rate(int format, int threads, int rounds) {
  constexpr int LOOPS = 100'000;
#if defined(SAPWOOD_TIER_AMX)
  if (!amx::permitted()) return 0;
#endif
  Pool pool(threads);
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    Work work;
    std::vector<double> done(size_t(2 * threads), 0.0);
    const auto start = Clock::now();
    pool.run([&](Member me) {
      work.run(me, 2 * threads,
               [&](int unit) { done[size_t(unit)] = multiply(Format(format), LOOPS); });
    });
    double total = 0;
    for (const double d : done) total += d;
    best = std::max(best, total / since(start));
  }
  return best;
}
