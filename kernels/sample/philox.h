// Philox4x32-10 (Salmon et al., 2011): random numbers addressed by counters. The same numbers as
// philox.py.
#pragma once
#include <cstdint>

namespace sapwood::sampling {

// A number in [0, 1) with 53 random bits, for a stream (the key) and a position (the counter).
inline double uniform(uint64_t stream, uint64_t position) {
  uint32_t c0 = uint32_t(position), c1 = uint32_t(position >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = uint32_t(stream), k1 = uint32_t(stream >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t(c0) * 0xD2511F53u, second = uint64_t(c2) * 0xCD9E8D57u;
    c0 = uint32_t(second >> 32) ^ c1 ^ k0;
    c1 = uint32_t(second);
    c2 = uint32_t(first >> 32) ^ c3 ^ k1;
    c3 = uint32_t(first);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return double((uint64_t(c1) << 32 | c0) >> 11) * 0x1p-53;
}

}  // namespace sapwood::sampling
