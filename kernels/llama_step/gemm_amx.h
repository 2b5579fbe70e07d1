// A strip's products on AMX tiles: 16 rows x 16 outputs and 32 bfloat16, or one group of 32 bytes, an
// instruction.
//
// Owns: the tile registers while a product runs. Bfloat16 adds in the instruction's own order, the
// same for every row count; bytes give exact integers, so a quantised result equals gemm.h's to the bit.
#pragma once
#include "activations.h"
#include "amx.h"
#include "weights.h"

namespace sapwood::amx {

// Tiles 0-3: results [row half][output half]; 4, 5: rows; 6, 7: weights.
// `low`, `high`: rows of the two row tiles, at least one each.
inline void configure_product(int low, int high) {
  if (!is_new(PRODUCT_LAYOUT + low * 32 + high)) return;
  Config config;
  const int rows[8] = {low, low, high, high, low, high, 16, 16};
  for (int tile = 0; tile < 8; ++tile) config.rows[tile] = uint8_t(rows[tile]);
  load_config(config);
}

// out: [rows][32] float32 for up to 32 rows.
inline void multiply_block(const Matrix& w, int strip, const Rows& x, int row, int rows,
                           float* out) {
  const int low = rows < 16 ? rows : 16, high = rows - low;
  const size_t stride = size_t(x.padded) * 2, out_stride = 2 * TILE * 4;
  const bf16* t0 = reinterpret_cast<const bf16*>(w.tile(2 * strip));
  const bf16* t1 = reinterpret_cast<const bf16*>(w.tile(2 * strip + 1));
  const bf16* x0 = x.halves.data() + size_t(row) * size_t(x.padded);
  const bf16* x1 = x0 + 16 * size_t(x.padded);
  configure_product(low, high ? high : 1);
  publish(x0);
  _tile_zero(0);
  _tile_zero(1);
  if (high) {
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < w.padded; k += 32) {
      _tile_loadd(4, x0 + k, stride);
      _tile_loadd(6, t0 + size_t(k) * TILE, 64);
      _tile_loadd(7, t1 + size_t(k) * TILE, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, x1 + k, stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(2, out + 16 * 2 * TILE, out_stride);
    _tile_stored(3, out + 16 * 2 * TILE + TILE, out_stride);
  } else {
    for (int k = 0; k < w.padded; k += 32) {
      for (int line = 0; line < 16; ++line) {
        prefetch(t0 + size_t(k) * TILE + line * 32 + 2048);
        prefetch(t1 + size_t(k) * TILE + line * 32 + 2048);
      }
      _tile_loadd(4, x0 + k, stride);
      _tile_loadd(6, t0 + size_t(k) * TILE, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, t1 + size_t(k) * TILE, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
  _tile_stored(0, out, out_stride);
  _tile_stored(1, out + TILE, out_stride);
}

template <class HandOver>
void multiply_bfloat16(const Matrix& w, int strip, const Rows& x, int first, int count,
                    HandOver&& hand_over) {
  alignas(64) float out[32 * 2 * TILE];
  for (int row = first, end = first + count; row < end; row += 32) {
    const int rows = end - row < 32 ? end - row : 32;
    multiply_block(w, strip, x, row, rows, out);
    hand_over(row, rows, out);
  }
}

// ---- quantised -----------------------------------------------------------------------------

constexpr int QUANTIZED_ROWS = 16;  // taken at a time; the plain dot products take what is left

// Tiles 0, 1: results; 4, 5: rows x 32 bytes; 6, 7: 8 quads x 16 outputs.
inline void configure_int8() {
  if (!is_new(INT8_LAYOUT)) return;
  Config config;
  const int counts[8] = {16, 16, 16, 16, 16, 16, 8, 8};
  for (int tile = 0; tile < 8; ++tile) config.rows[tile] = uint8_t(counts[tile]);
  config.bytes_per_row[4] = config.bytes_per_row[5] = 32;
  load_config(config);
}

// A tile's numbers as signed bytes, [groups][8][16][4].
inline void unpack_numbers(Format format, const uint8_t* tile, int groups, int8_t* numbers) {
  const IVec offset = _mm512_set1_epi8(char(0x80));
  if (format == Format::INT8) {
    for (size_t at = 0, end = size_t(groups) * 512; at < end; at += 64)
      _mm512_store_si512(numbers + at, _mm512_xor_si512(load_ints(tile + at), offset));
    return;
  }
  for (size_t at = 0, end = size_t(groups) * 256; at < end; at += 64) {
    const IVec packed = load_ints(tile + at);
    _mm512_store_si512(numbers + 2 * at, nibbles_low(packed));
    _mm512_store_si512(numbers + 2 * at + 64, nibbles_high(packed));
  }
}

// The integer sums of one group, [16][16], in either of two sets of registers, so that neighbouring
// groups do not wait for one another. (The instructions want their registers as literals.)
inline void even_group(const int8_t* bytes, size_t stride, const int8_t* numbers, int32_t* sums) {
  _tile_zero(0);
  _tile_loadd(4, bytes, stride);
  _tile_loadd(6, numbers, 64);
  _tile_dpbssd(0, 4, 6);
  _tile_stored(0, sums, TILE * sizeof(int32_t));
}
inline void odd_group(const int8_t* bytes, size_t stride, const int8_t* numbers, int32_t* sums) {
  _tile_zero(1);
  _tile_loadd(5, bytes, stride);
  _tile_loadd(7, numbers, 64);
  _tile_dpbssd(1, 5, 7);
  _tile_stored(1, sums, TILE * sizeof(int32_t));
}

// 16 rows by one tile of 16 outputs; out: [16][32], of which 16 columns are filled.
template <bool HAS_MINIMUM>
void quantized_block(const int8_t* numbers, const fp16* scales, const Rows& x, int row, float* out) {
  constexpr int AHEAD = 2;  // groups between a tile's store and the loads of it: loads right behind
                            // the store would wait until it has left the store buffer
  const int groups = x.groups();
  const size_t first = size_t(row) * size_t(groups), stride = size_t(x.padded);
  const int8_t* bytes = x.bytes.data() + first * GROUP;
  const float* row_scales = x.scales.data() + first;
  const float* offsets = x.offsets.data() + first;
  alignas(64) int32_t sums[4][16 * TILE];
  Vec acc[QUANTIZED_ROWS];
  for (Vec& a : acc) a = _mm512_setzero_ps();
  const auto multiply = [&](int g) {
    if (g >= groups) return;
    const int8_t* some = bytes + size_t(g) * GROUP;
    if (g % 2) odd_group(some, stride, numbers + size_t(g) * 512, sums[g % 4]);
    else even_group(some, stride, numbers + size_t(g) * 512, sums[g % 4]);
  };
  for (int g = 0; g < AHEAD; ++g) multiply(g);
  for (int g = 0; g < groups; ++g) {
    multiply(g + AHEAD);
    const int32_t* here = sums[g % 4];
    const fp16* group_scales = scales + g * (HAS_MINIMUM ? 2 * TILE : TILE);
    const Vec scale = load_halves(group_scales);
    const Vec minimum = HAS_MINIMUM ? load_halves(group_scales + TILE) : scale;
    const float* scale_at = row_scales + g;
    const float* offset_at = offsets + g;
#pragma GCC unroll 16
    for (int r = 0; r < QUANTIZED_ROWS; ++r) {
      const size_t at = size_t(r) * size_t(groups);
      const Vec sum = to_floats(load_ints(here + r * TILE));
      acc[r] = fma(sum, mul(scale, broadcast(scale_at[at])), acc[r]);
      if (HAS_MINIMUM) acc[r] = fma(minimum, broadcast(offset_at[at]), acc[r]);
    }
  }
  for (int r = 0; r < QUANTIZED_ROWS; ++r) store(out + r * 2 * TILE, acc[r]);
}

// Rows first .. first + 16 * blocks - 1 by a strip.
template <class HandOver>
void multiply_quantized(const Matrix& w, int strip, const Rows& x, int first, int blocks,
                        HandOver&& hand_over) {
  static thread_local Buffer<int8_t> numbers;
  alignas(64) float out[QUANTIZED_ROWS * 2 * TILE];
  const int groups = w.groups();
  const size_t size = size_t(groups) * 512;
  numbers.reserve(2 * size);
  for (int t = 0; t < 2; ++t)
    unpack_numbers(w.format, w.tile(2 * strip + t), groups, numbers.data() + size_t(t) * size);
  configure_int8();
  publish(numbers.data());
  for (int block = 0; block < blocks; ++block) {
    const int row = first + block * QUANTIZED_ROWS;
    for (int t = 0; t < 2; ++t) {
      const uint8_t* tile = w.tile(2 * strip + t);
      const int8_t* mine = numbers.data() + size_t(t) * size;
      if (w.format == Format::INT8)
        quantized_block<false>(mine, int8_scales(tile, groups), x, row, out + t * TILE);
      else
        quantized_block<true>(mine, int4_scales(tile, groups), x, row, out + t * TILE);
    }
    hand_over(row, QUANTIZED_ROWS, out);
  }
}

}  // namespace sapwood::amx
