// Rows times weights: y[m][n] = sum over k of x[m][k] * w[n][k], one strip of 32 outputs at a time.
//
// Owns: the micro-kernels of the four formats. Knows nothing of models. Each result is one chain of
// additions in the order of k (quantised: one exact integer sum per group, then a chain over
// groups), whatever the number of rows beside it: a row never depends on its neighbours.
#pragma once
#include <algorithm>
#include <utility>

#include "activations.h"
#include "weights.h"
#if defined(SAPWOOD_TIER_AMX)
#include "gemm_amx.h"
#endif

namespace sapwood {

constexpr int STRIP = 2 * TILE;  // outputs of one call

#if defined(SAPWOOD_AVX512)
constexpr int MAX_ROWS = 12;
constexpr int TILES_AT_ONCE = 2;
#else
constexpr int MAX_ROWS = 4;
constexpr int TILES_AT_ONCE = 1;
#endif

// What becomes of some rows' products [rows][32]: a reference to the caller's own function of (first
// row, rows, products). A plain template parameter would compile every kernel anew for each of them.
class Finish {
 public:
  template <class F>
  Finish(F& function)
      : function_(&function), call_([](void* f, int row, int rows, const float* products) {
          (*static_cast<F*>(f))(row, rows, products);
        }) {}
  void operator()(int row, int rows, const float* products) const {
    call_(function_, row, rows, products);
  }

 private:
  void* function_;
  void (*call_)(void*, int, int, const float*);
};

namespace kernel {

// R rows of one block; out: [R][32] float32, of which this fills T tiles' columns.
template <int R, int T>
void float32_tiles(const Matrix& w, int tile, const Rows& x, int row, float* out) {
  const float* weights[T];
  for (int t = 0; t < T; ++t) weights[t] = reinterpret_cast<const float*>(w.tile(tile + t));
  Vec acc[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) acc[r][t] = broadcast(0.0f);
  for (int g = 0, k = 0; g < x.groups(); ++g) {
    const float* rows = x.floats.data() + x.at(row, g) * GROUP;
    for (int i = 0; i < GROUP; ++i, ++k) {
      Vec column[T];
      for (int t = 0; t < T; ++t) {
        column[t] = load(weights[t] + size_t(k) * TILE);
        prefetch(weights[t] + size_t(k) * TILE + AHEAD / sizeof(float));
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const Vec value = broadcast(rows[r * GROUP + i]);
        for (int t = 0; t < T; ++t) acc[r][t] = fma(column[t], value, acc[r][t]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) store(out + r * STRIP + t * TILE, acc[r][t]);
}

template <int R, int T>
void bfloat16_tiles(const Matrix& w, int tile, const Rows& x, int row, float* out) {
  const bf16* weights[T];
  for (int t = 0; t < T; ++t) weights[t] = reinterpret_cast<const bf16*>(w.tile(tile + t));
  Vec acc[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) acc[r][t] = broadcast(0.0f);
  for (int g = 0, k = 0; g < x.groups(); ++g) {
    const bf16* rows = x.halves.data() + x.at(row, g) * GROUP;
    for (int i = 0; i < GROUP; i += 2, k += 2) {
      IVec pairs[T];
      for (int t = 0; t < T; ++t) {
        pairs[t] = load_ints(weights[t] + size_t(k) * TILE);
        prefetch(weights[t] + size_t(k) * TILE + AHEAD / sizeof(bf16));
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const IVec pair = broadcast_pair(rows + r * GROUP + i);
        for (int t = 0; t < T; ++t) acc[r][t] = dot2(acc[r][t], pairs[t], pair);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) store(out + r * STRIP + t * TILE, acc[r][t]);
}

template <int R>
void float32(const Matrix& w, int strip, const Rows& x, int row, float* out) {
  for (int t = 0; t < 2; t += TILES_AT_ONCE)
    float32_tiles<R, TILES_AT_ONCE>(w, 2 * strip + t, x, row, out + t * TILE);
}

template <int R>
void bfloat16(const Matrix& w, int strip, const Rows& x, int row, float* out) {
  for (int t = 0; t < 2; t += TILES_AT_ONCE)
    bfloat16_tiles<R, TILES_AT_ONCE>(w, 2 * strip + t, x, row, out + t * TILE);
}

// A quantised group's part of one row: the exact integer sum of its 32 products, as float32.
inline Vec group_sum(const IVec* numbers, const int8_t* x, IVec start) {
  IVec even = start, odd = broadcast_int(0);
#pragma GCC unroll 4
  for (int j = 0; j < 8; j += 2) {
    even = dot4(even, numbers[j], broadcast_bytes(x + 4 * j));
    odd = dot4(odd, numbers[j + 1], broadcast_bytes(x + 4 * j + 4));
  }
  return to_floats(add_ints(even, odd));
}

template <int R>
void int8_tile(const uint8_t* tile, const Rows& x, int row, float* out) {
  const int groups = x.groups();
  const fp16* scales = int8_scales(tile, groups);
  Vec acc[R];
  for (int r = 0; r < R; ++r) acc[r] = broadcast(0.0f);
  for (int g = 0; g < groups; ++g, tile += 512) {
    IVec numbers[8];
    for (int j = 0; j < 8; ++j) {
      numbers[j] = load_ints(tile + j * 64);
      prefetch(tile + j * 64 + AHEAD);
    }
    const Vec scale = load_halves(scales + g * TILE);
    const size_t first = x.at(row, g);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const size_t at = first + size_t(r);
      // The numbers are stored 128 too large.
      const IVec start = broadcast_int(-128 * x.sums[at]);
      const Vec sum = group_sum(numbers, x.bytes.data() + at * GROUP, start);
      acc[r] = fma(sum, mul(scale, broadcast(x.scales[at])), acc[r]);
    }
  }
  for (int r = 0; r < R; ++r) store(out + r * STRIP, acc[r]);
}

template <int R>
void int4_tile(const uint8_t* tile, const Rows& x, int row, float* out) {
  const int groups = x.groups();
  const fp16* scales = int4_scales(tile, groups);
  Vec acc[R];
  for (int r = 0; r < R; ++r) acc[r] = broadcast(0.0f);
  for (int g = 0; g < groups; ++g, tile += 256) {
    IVec numbers[8];
    for (int j = 0; j < 4; ++j) {
      const IVec packed = load_ints(tile + j * 64);
      prefetch(tile + j * 64 + AHEAD);
      numbers[2 * j] = nibbles_low(packed);
      numbers[2 * j + 1] = nibbles_high(packed);
    }
    const Vec scale = load_halves(scales + g * 2 * TILE);
    const Vec minimum = load_halves(scales + g * 2 * TILE + TILE);
    const size_t first = x.at(row, g);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const size_t at = first + size_t(r);
      const Vec sum = group_sum(numbers, x.bytes.data() + at * GROUP, broadcast_int(0));
      acc[r] = fma(sum, mul(scale, broadcast(x.scales[at])), acc[r]);
      acc[r] = fma(minimum, broadcast(x.offsets[at]), acc[r]);
    }
  }
  for (int r = 0; r < R; ++r) store(out + r * STRIP, acc[r]);
}

template <int R>
void int8(const Matrix& w, int strip, const Rows& x, int row, float* out) {
  int8_tile<R>(w.tile(2 * strip), x, row, out);
  int8_tile<R>(w.tile(2 * strip + 1), x, row, out + TILE);
}

template <int R>
void int4(const Matrix& w, int strip, const Rows& x, int row, float* out) {
  int4_tile<R>(w.tile(2 * strip), x, row, out);
  int4_tile<R>(w.tile(2 * strip + 1), x, row, out + TILE);
}

using Kernel = void (*)(const Matrix&, int, const Rows&, int, float*);

template <int... R>
Kernel choose(Format format, int rows, std::integer_sequence<int, R...>) {
  static const Kernel table[4][sizeof...(R)] = {
      {float32<R + 1>...}, {bfloat16<R + 1>...}, {int8<R + 1>...}, {int4<R + 1>...}};
  return table[int(format)][rows - 1];
}

inline Kernel choose(Format format, int rows) {
  return choose(format, rows, std::make_integer_sequence<int, MAX_ROWS>());
}

}  // namespace kernel

// Multiplies rows first .. first + count - 1 by a strip and gives them to `finish(row, rows, products)`,
// some at a time; products: float32 [rows][32], the bias added.
inline void multiply_strip(const Matrix& w, int strip, const Rows& x, int first, int count,
                           Finish finish) {
  const float* bias = w.bias.size() ? w.bias.data() + strip * STRIP : nullptr;
  const auto hand_over = [&](int row, int rows, float* out) {
    if (bias) {
      const Vec low = load(bias), high = load(bias + TILE);
      for (float* values = out; values < out + rows * STRIP; values += STRIP) {
        store(values, add(load(values), low));
        store(values + TILE, add(load(values + TILE), high));
      }
    }
    finish(row, rows, out);
  };
#if defined(SAPWOOD_TIER_AMX)
  if (w.format == Format::BFLOAT16) {
    amx::multiply_bfloat16(w, strip, x, first, count, hand_over);
    return;
  }
  if (is_quantized(w.format) && count >= ROW_BLOCK && first % ROW_BLOCK == 0) {
    const int blocks = count / ROW_BLOCK;
    amx::multiply_quantized(w, strip, x, first, blocks, hand_over);
    first += blocks * ROW_BLOCK;
    count -= blocks * ROW_BLOCK;
  }
#endif
  alignas(64) float out[MAX_ROWS * STRIP];
  for (int row = first, end = first + count; row < end;) {
    const int left = std::min(end - row, ROW_BLOCK - row % ROW_BLOCK);
    const int rows = left <= MAX_ROWS ? left : (left + 1) / 2;
    kernel::choose(w.format, rows)(w, strip, x, row, out);
    hand_over(row, rows, out);
    row += rows;
  }
}

namespace scalar {

// What a row stands for after it was put into its form.
inline float value(const Rows& x, int row, int k) {
  const size_t group = x.at(row, k / GROUP), at = group * GROUP + size_t(k % GROUP);
  switch (x.format) {
    case Format::FLOAT32: return x.floats[at];
    case Format::BFLOAT16: return to_float(x.halves[at]);
    default: return x.scales[group] * float(x.bytes[at]);
  }
}

// The definition of one result, in double precision.
inline double multiply(const Matrix& w, int output, const Rows& x, int row) {
  Buffer<float> weights(size_t(w.padded));
  unpack_row(w, output, weights.data());
  double sum = w.bias.size() ? double(w.bias[size_t(output)]) : 0.0;
  for (int k = 0; k < w.inputs; ++k) sum += double(weights[size_t(k)]) * double(value(x, row, k));
  return sum;
}

}  // namespace scalar
}  // namespace sapwood
