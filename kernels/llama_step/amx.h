// Matrix tiles of Intel's AMX for bfloat16 weights: 16 rows x 16 outputs x 32 inputs an instruction.
//
// Owns: the tile registers and their configuration. The order of additions is the instruction's own
// and the same for every row count.
#pragma once
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "activations.h"
#include "weights.h"

namespace sapwood::amx {

// Linux gives a process the tile registers on request only.
inline bool permitted() {
  constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// Tiles 0-3: results [row half][output half]; 4, 5: rows; 6, 7: weights.
struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {};
};

// `low`, `high`: rows of the two row tiles, at least one each.
inline void configure(int low, int high) {
  static thread_local int current = 0;
  if (current == low * 32 + high) return;
  current = low * 32 + high;
  Config config;
  const int rows[8] = {low, low, high, high, low, high, 16, 16};
  for (int tile = 0; tile < 8; ++tile) config.rows[tile] = uint8_t(rows[tile]);
  _tile_loadconfig(&config);
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
  configure(low, high ? high : 1);
  _tile_zero(0);
  _tile_zero(1);
  if (high) {
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < w.padded; k += 32) {
      _tile_stream_loadd(4, x0 + k, stride);
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
void multiply_strip(const Matrix& w, int strip, const Rows& x, int first, int count,
                    HandOver&& hand_over) {
  alignas(64) float out[32 * 2 * TILE];
  for (int row = first, end = first + count; row < end; row += 32) {
    const int rows = end - row < 32 ? end - row : 32;
    multiply_block(w, strip, x, row, rows, out);
    hand_over(row, rows, out);
  }
}

}  // namespace sapwood::amx
