// The rows that a linear map reads, in the form that its weights' format asks for.
//
//   FLOAT32       float32
//   BFLOAT16      bfloat16, rounded once
//   INT8, INT4    signed bytes in groups of 32 with one float32 scale each (largest magnitude = 127),
//                 and the sum of each group's bytes
//
// Rows stand in blocks, as many as a kernel takes at once, and a block group by group of 32 inputs:
// [blocks][groups][ROW_BLOCK][32], scales and sums [blocks][groups][ROW_BLOCK]. A kernel's rows are
// then at fixed distances, and those of one group side by side.
//
// Owns: these forms. Knows nothing of weights.
#pragma once
#include "memory.h"
#include "simd.h"
#include "weights.h"

namespace sapwood {

#if defined(SAPWOOD_TIER_AMX)
constexpr int ROW_BLOCK = 16;  // rows of a tile register
#elif defined(SAPWOOD_AVX512)
constexpr int ROW_BLOCK = 12;  // accumulators of 12 rows x 2 tiles fill 24 of 32 registers
#else
constexpr int ROW_BLOCK = 4;
#endif

struct Rows {
  Format format = Format::FLOAT32;
  int padded = 0;  // inputs, a multiple of 32
  int capacity = 0;
  Buffer<float> floats;
  Buffer<bf16> halves;
  Buffer<int8_t> bytes;
  Buffer<float> scales;
  Buffer<int32_t> sums;   // of the bytes
  Buffer<float> offsets;  // scale * sum: what a weight's minimum is worth

  int groups() const { return padded / GROUP; }

  // Where a row's group stands, counted in groups.
  size_t at(int row, int group) const {
    const size_t block = size_t(row / ROW_BLOCK) * size_t(groups()) + size_t(group);
    return block * ROW_BLOCK + size_t(row % ROW_BLOCK);
  }

  void prepare(Format format_, int inputs, int rows) {
    const int whole = round_up(inputs, GROUP);
    if (format == format_ && padded == whole && capacity >= rows) return;
    format = format_;
    padded = whole;
    capacity = rows;
    const size_t size = size_t(round_up(rows, ROW_BLOCK)) * size_t(whole);
    if (format == Format::FLOAT32) floats.reserve(size);
    if (format == Format::BFLOAT16) halves.reserve(size);
    if (is_quantized(format)) {
      bytes.reserve(size);
      scales.reserve(size / GROUP);
      sums.reserve(size / GROUP);
      offsets.reserve(size / GROUP);
    }
  }

  // Stores 32 neighbouring numbers of a row.
  void put(int row, int group, Vec a, Vec b) {
    const size_t start = at(row, group) * GROUP;
    switch (format) {
      case Format::FLOAT32:
        store(&floats[start], a);
        store(&floats[start + LANES], b);
        return;
      case Format::BFLOAT16:
        store_bf16(&halves[start], a);
        store_bf16(&halves[start + LANES], b);
        return;
      default: put_bytes(row, group, a, b);
    }
  }

  void put(int row, int group, const float* values) {
    put(row, group, load(values), load(values + LANES));
  }

  // Stores a whole row of `count` numbers; the rest of the last group becomes zero.
  void put_row(int row, const float* values, int count) {
    const int whole = count / GROUP;
    for (int g = 0; g < whole; ++g) put(row, g, values + g * GROUP);
    if (whole == groups()) return;
    float last[GROUP] = {};
    std::memcpy(last, values + whole * GROUP, size_t(count - whole * GROUP) * 4);
    put(row, whole, last);
  }

 private:
  void put_bytes(int row, int group, Vec a, Vec b) {
    const float largest = max_lane(max(abs(a), abs(b)));
    const Vec inverse = broadcast(largest > 0 ? 127.0f / largest : 0.0f);
    const IVec x = round_to_ints(mul(a, inverse)), y = round_to_ints(mul(b, inverse));
    const size_t here = at(row, group);
    store_bytes(&bytes[here * GROUP], x);
    store_bytes(&bytes[here * GROUP + LANES], y);
    scales[here] = largest / 127.0f;
    int32_t lanes[LANES], sum = 0;
    store_ints(lanes, add_ints(x, y));
    for (int i = 0; i < LANES; ++i) sum += lanes[i];
    sums[here] = sum;
    offsets[here] = scales[here] * float(sum);
  }
};

}  // namespace sapwood
