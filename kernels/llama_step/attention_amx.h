// Attention's two products on AMX tiles, bfloat16 keys and values: up to 16 query rows at a time.
//
// Owns: the tile registers while attention runs. The softmax between the products is attention.h's.
#pragma once
#include "amx.h"
#include "kv.h"

namespace sapwood::amx {

constexpr int QUERY_ROWS = 16;

// Tiles 0-3: results; 4: rows x 32 numbers; 5: 16 pairs x 16; 6: rows x 16 numbers; 7: 8 pairs x 16.
inline void configure_attention(int rows) {
  if (!is_new(ATTENTION_LAYOUT + rows)) return;
  Config config;
  const int counts[8] = {rows, rows, rows, rows, rows, 16, rows, 8};
  for (int tile = 0; tile < 8; ++tile) config.rows[tile] = uint8_t(counts[tile]);
  config.bytes_per_row[6] = 32;
  load_config(config);
}

// scores[row][0 .. 63]: queries [rows][dim] times the keys of up to four tiles of tokens; `width`: of
// a row of scores.
inline void scores(const bf16* queries, const bf16* const* keys, int num_tiles, int dim,
                   float* scores, int width) {
  const size_t out_stride = size_t(width) * sizeof(float);
  const size_t stride = size_t(dim) * sizeof(bf16);
  publish(queries);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  int d = 0;
  for (; d + 32 <= dim; d += 32) {
    _tile_loadd(4, queries + d, stride);
    _tile_loadd(5, keys[0] + d * BLOCK, 64);
    _tile_dpbf16ps(0, 4, 5);
    if (num_tiles > 1) {
      _tile_loadd(5, keys[1] + d * BLOCK, 64);
      _tile_dpbf16ps(1, 4, 5);
    }
    if (num_tiles > 2) {
      _tile_loadd(5, keys[2] + d * BLOCK, 64);
      _tile_dpbf16ps(2, 4, 5);
    }
    if (num_tiles > 3) {
      _tile_loadd(5, keys[3] + d * BLOCK, 64);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  if (d < dim) {  // 16 numbers are left
    _tile_loadd(6, queries + d, stride);
    _tile_loadd(7, keys[0] + d * BLOCK, 64);
    _tile_dpbf16ps(0, 6, 7);
    if (num_tiles > 1) {
      _tile_loadd(7, keys[1] + d * BLOCK, 64);
      _tile_dpbf16ps(1, 6, 7);
    }
    if (num_tiles > 2) {
      _tile_loadd(7, keys[2] + d * BLOCK, 64);
      _tile_dpbf16ps(2, 6, 7);
    }
    if (num_tiles > 3) {
      _tile_loadd(7, keys[3] + d * BLOCK, 64);
      _tile_dpbf16ps(3, 6, 7);
    }
  }
  _tile_stored(0, scores, out_stride);
  _tile_stored(1, scores + BLOCK, out_stride);
  _tile_stored(2, scores + 2 * BLOCK, out_stride);
  _tile_stored(3, scores + 3 * BLOCK, out_stride);
}

// out [rows][dim] = weights [rows][width], of which 16 for each tile count, times the tiles' values.
inline void weigh(const bf16* weights, int width, const bf16* const* values, int num_tiles, int dim,
                  float* out) {
  const size_t out_stride = size_t(dim) * sizeof(float), stride = size_t(dim) * 4;
  const size_t weight_stride = size_t(width) * sizeof(bf16);
  publish(weights);
  int d = 0;
  for (; d + 64 <= dim; d += 64) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int j = 0; j < num_tiles; ++j) {
      const bf16* v = values[j] + 2 * d;
      _tile_loadd(6, weights + j * BLOCK, weight_stride);
      _tile_loadd(7, v, stride);
      _tile_dpbf16ps(0, 6, 7);
      _tile_loadd(7, v + 32, stride);
      _tile_dpbf16ps(1, 6, 7);
      _tile_loadd(7, v + 64, stride);
      _tile_dpbf16ps(2, 6, 7);
      _tile_loadd(7, v + 96, stride);
      _tile_dpbf16ps(3, 6, 7);
    }
    _tile_stored(0, out + d, out_stride);
    _tile_stored(1, out + d + 16, out_stride);
    _tile_stored(2, out + d + 32, out_stride);
    _tile_stored(3, out + d + 48, out_stride);
  }
  for (; d < dim; d += 16) {
    _tile_zero(0);
    for (int j = 0; j < num_tiles; ++j) {
      _tile_loadd(6, weights + j * BLOCK, weight_stride);
      _tile_loadd(7, values[j] + 2 * d, stride);
      _tile_dpbf16ps(0, 6, 7);
    }
    _tile_stored(0, out + d, out_stride);
  }
}

}  // namespace sapwood::amx
