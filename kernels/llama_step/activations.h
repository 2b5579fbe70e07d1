// The rows that a linear map reads, in the form that its weights' format asks for.
//
//   FLOAT32       float32
//   BFLOAT16      bfloat16, rounded once
//   INT8, INT4    signed bytes in groups of 32 with one float32 scale each (largest magnitude = 127),
//                 and the sum of each group's bytes
//
// Owns: these forms. Knows nothing of weights.
#pragma once
#include "memory.h"
#include "simd.h"
#include "weights.h"

namespace sapwood {

struct Rows {
  Format format = Format::FLOAT32;
  int padded = 0;  // inputs, a multiple of 32
  int capacity = 0;
  Buffer<float> floats;   // [rows][padded]
  Buffer<bf16> halves;    // [rows][padded]
  Buffer<int8_t> bytes;   // [rows][padded]
  Buffer<float> scales;   // [rows][padded / 32]
  Buffer<int32_t> sums;   // [rows][padded / 32], of the bytes
  Buffer<float> offsets;  // [rows][padded / 32], scale * sum: what a weight's minimum is worth

  int groups() const { return padded / GROUP; }

  void prepare(Format format_, int inputs, int rows) {
    const int whole = round_up(inputs, GROUP);
    if (format == format_ && padded == whole && capacity >= rows) return;
    format = format_;
    padded = whole;
    capacity = rows;
    const size_t size = size_t(rows) * size_t(whole);
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
    const size_t at = size_t(row) * size_t(padded) + size_t(group) * GROUP;
    switch (format) {
      case Format::FLOAT32:
        store(&floats[at], a);
        store(&floats[at + LANES], b);
        return;
      case Format::BFLOAT16:
        store_bf16(&halves[at], a);
        store_bf16(&halves[at + LANES], b);
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
    const size_t at = size_t(row) * size_t(groups()) + size_t(group);
    store_bytes(&bytes[at * GROUP], x);
    store_bytes(&bytes[at * GROUP + LANES], y);
    scales[at] = largest / 127.0f;
    int32_t lanes[LANES], sum = 0;
    store_ints(lanes, add_ints(x, y));
    for (int i = 0; i < LANES; ++i) sum += lanes[i];
    sums[at] = sum;
    offsets[at] = scales[at] * float(sum);
  }
};

}  // namespace sapwood
