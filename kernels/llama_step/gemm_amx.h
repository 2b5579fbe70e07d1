// A strip's products on AMX tiles: 16 rows x 16 outputs and 32 bfloat16, or one group of 32 bytes, an
// instruction.
//
// Owns: the tile registers while a product runs. Bfloat16 adds in the instruction's own order, the
// same for every row count; bytes give exact integers, so a quantised result equals gemm.h's to the bit.
#pragma once
#include <algorithm>
#include <utility>

#include "activations.h"
#include "amx.h"
#include "weights.h"

namespace sapwood::amx {

// ---- bfloat16 ------------------------------------------------------------------------------

// Tiles 0-3: results [row half][output half]; 4, 5: rows; 6, 7: weights.
// `low`, `high`: rows of the two row tiles, at least one each.
inline void configure_product(int low, int high) {
  if (!is_new(PRODUCT_LAYOUT + low * 32 + high)) return;
  Config config;
  const int rows[8] = {low, low, high, high, low, high, 16, 16};
  for (int tile = 0; tile < 8; ++tile) config.rows[tile] = uint8_t(rows[tile]);
  load_config(config);
}

// Up to 32 rows, from a block's first one on where they are more than that block's; out: [rows][32].
inline void multiply_block(const bf16* t0, const bf16* t1, const Rows& x, int row, int rows,
                           float* out) {
  const int low = rows < ROW_BLOCK ? rows : ROW_BLOCK, high = rows - low;
  constexpr size_t stride = GROUP * sizeof(bf16), out_stride = 2 * TILE * sizeof(float);
  constexpr size_t group_size = ROW_BLOCK * GROUP;
  const bf16* x0 = x.halves.data() + x.at(row, 0) * GROUP;
  const bf16* x1 = x0 + size_t(x.groups()) * group_size;
  const int groups = x.groups();
  configure_product(low, high ? high : 1);
  publish(x0);
  _tile_zero(0);
  _tile_zero(1);
  if (high) {
    _tile_zero(2);
    _tile_zero(3);
    for (int g = 0; g < groups; ++g, t0 += GROUP * TILE, t1 += GROUP * TILE) {
      _tile_loadd(4, x0 + size_t(g) * group_size, stride);
      _tile_loadd(6, t0, 64);
      _tile_loadd(7, t1, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, x1 + size_t(g) * group_size, stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(2, out + 16 * 2 * TILE, out_stride);
    _tile_stored(3, out + 16 * 2 * TILE + TILE, out_stride);
  } else {
    for (int g = 0; g < groups; ++g, t0 += GROUP * TILE, t1 += GROUP * TILE) {
      for (int line = 0; line < 16; ++line) {
        prefetch(t0 + line * 32 + AHEAD / sizeof(bf16));
        prefetch(t1 + line * 32 + AHEAD / sizeof(bf16));
      }
      _tile_loadd(4, x0 + size_t(g) * group_size, stride);
      _tile_loadd(6, t0, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, t1, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
  _tile_stored(0, out, out_stride);
  _tile_stored(1, out + TILE, out_stride);
}

// A block's products are handed over while the next one's are computed: read at once, they would
// still be on their way from the tile registers.
template <class HandOver>
void multiply_bfloat16(const Matrix& w, int strip, const Rows& x, int first, int count,
                       HandOver&& hand_over) {
  alignas(64) float out[2][2 * ROW_BLOCK * 2 * TILE];
  const bf16* t0 = reinterpret_cast<const bf16*>(w.tile(2 * strip));
  const bf16* t1 = reinterpret_cast<const bf16*>(w.tile(2 * strip + 1));
  int turn = 0, before = first, waiting = 0;
  for (int row = first, end = first + count; row < end;) {
    const int start = row % ROW_BLOCK;
    const int rows = std::min(end - row, start ? ROW_BLOCK - start : 2 * ROW_BLOCK);
    multiply_block(t0, t1, x, row, rows, out[turn]);
    turn = 1 - turn;
    if (waiting) hand_over(before, waiting, out[turn]);
    before = row;
    waiting = rows;
    row += rows;
  }
  if (waiting) hand_over(before, waiting, out[1 - turn]);
}

// ---- quantised -----------------------------------------------------------------------------

// Tiles 0-3: results [row half][output half]; 4, 5: rows x 32 bytes; 6, 7: 8 quads x 16 outputs.
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

constexpr int GROUPS_AT_ONCE = 4;  // their sums, 16 KB, stay in the first-level cache
constexpr int SUMS = ROW_BLOCK * TILE;

// The integer sums of one group, [row half][output half][16][16]; the second half of the rows only
// where it is there.
inline void multiply_group(const int8_t* low, const int8_t* high, const int8_t* n0, const int8_t* n1,
                           int32_t* sums) {
  constexpr size_t stride = TILE * sizeof(int32_t);
  _tile_loadd(4, low, GROUP);
  _tile_loadd(6, n0, 64);
  _tile_zero(0);
  _tile_dpbssd(0, 4, 6);
  _tile_loadd(7, n1, 64);
  _tile_zero(1);
  _tile_dpbssd(1, 4, 7);
  if (high) {
    _tile_loadd(5, high, GROUP);
    _tile_zero(2);
    _tile_dpbssd(2, 5, 6);
    _tile_zero(3);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_stored(0, sums, stride);
  _tile_stored(1, sums + SUMS, stride);
  if (high) {
    _tile_stored(2, sums + 2 * SUMS, stride);
    _tile_stored(3, sums + 3 * SUMS, stride);
  }
}

// Adds some groups' sums to 16 rows of 16 outputs. The rows are written out one by one: the compiler
// keeps an array that is indexed in a loop in memory.
template <bool HAS_MINIMUM, int... R>
void add_groups(const int32_t* sums, int groups, const fp16* scales, const float* row_scales,
                const float* offsets, float* out, std::integer_sequence<int, R...>) {
  Vec acc[] = {load(out + R * 2 * TILE)...};
  for (int g = 0; g < groups; ++g) {
    const Vec scale = load_halves(scales);
    ((acc[R] = fma(to_floats(load_ints(sums + R * TILE)), mul(scale, broadcast(row_scales[R])),
                   acc[R])),
     ...);
    if constexpr (HAS_MINIMUM) {
      const Vec minimum = load_halves(scales + TILE);
      ((acc[R] = fma(minimum, broadcast(offsets[R]), acc[R])), ...);
    }
    sums += 4 * SUMS;
    scales += HAS_MINIMUM ? 2 * TILE : TILE;
    row_scales += ROW_BLOCK;
    offsets += ROW_BLOCK;
  }
  (store(out + R * 2 * TILE, acc[R]), ...);
}

// One or two blocks of rows by a strip; numbers: its tiles', one behind the other; out: [rows][32].
template <bool HAS_MINIMUM>
void quantized_blocks(const int8_t* numbers, const fp16* const* scales, const Rows& x, int row,
                      int blocks, float* out) {
  constexpr auto all = std::make_integer_sequence<int, ROW_BLOCK>();
  constexpr int SCALES = HAS_MINIMUM ? 2 * TILE : TILE;
  const int groups = x.groups();
  const size_t first = x.at(row, 0), second = x.at(row + ROW_BLOCK, 0);
  const int8_t *bytes = x.bytes.data(), *other = numbers + size_t(groups) * 512;
  alignas(64) int32_t sums[GROUPS_AT_ONCE * 4 * SUMS];
  std::fill_n(out, blocks * ROW_BLOCK * 2 * TILE, 0.0f);
  for (int g = 0; g < groups; g += GROUPS_AT_ONCE) {
    const int count = std::min(GROUPS_AT_ONCE, groups - g);
    for (int i = 0; i < count; ++i) {
      const size_t at = size_t(g + i) * ROW_BLOCK, number = size_t(g + i) * 512;
      multiply_group(bytes + (first + at) * GROUP,
                     blocks > 1 ? bytes + (second + at) * GROUP : nullptr, numbers + number,
                     other + number, sums + i * 4 * SUMS);
    }
    for (int half = 0; half < 2 * blocks; ++half) {
      const size_t at = (half < 2 ? first : second) + size_t(g) * ROW_BLOCK;
      add_groups<HAS_MINIMUM>(sums + half * SUMS, count, scales[half % 2] + g * SCALES,
                              x.scales.data() + at, x.offsets.data() + at,
                              out + half / 2 * ROW_BLOCK * 2 * TILE + half % 2 * TILE, all);
    }
  }
}

// Rows first .. first + 16 * blocks - 1, whole blocks, by a strip.
template <class HandOver>
void multiply_quantized(const Matrix& w, int strip, const Rows& x, int first, int blocks,
                        HandOver&& hand_over) {
  static thread_local Buffer<int8_t> numbers;
  alignas(64) float out[2 * ROW_BLOCK * 2 * TILE];
  const int groups = w.groups();
  const size_t size = size_t(groups) * 512;
  numbers.reserve(2 * size);
  const fp16* scales[2];
  for (int t = 0; t < 2; ++t) {
    const uint8_t* tile = w.tile(2 * strip + t);
    unpack_numbers(w.format, tile, groups, numbers.data() + size_t(t) * size);
    scales[t] = w.format == Format::INT8 ? int8_scales(tile, groups) : int4_scales(tile, groups);
  }
  configure_int8();
  publish(numbers.data());
  for (int block = 0; block < blocks; block += 2) {
    const int row = first + block * ROW_BLOCK, here = std::min(2, blocks - block);
    if (w.format == Format::INT8)
      quantized_blocks<false>(numbers.data(), scales, x, row, here, out);
    else
      quantized_blocks<true>(numbers.data(), scales, x, row, here, out);
    hand_over(row, here * ROW_BLOCK, out);
  }
}

}  // namespace sapwood::amx
