// Attention of query rows to cached keys and values (Milakov and Gimelshein, 2018: online softmax;
// Dao et al., 2022: in blocks).
//
// Owns: the kernels and their order. Positions are cut into splits of 128, counted from 0. Within a
// split a row takes its blocks of 64 in order; the splits' parts are merged in order. A row's result
// is therefore the same whichever rows are computed beside it and whoever loads a block for whom.
#pragma once
#include "kv.h"
#include "simd.h"

#include <utility>
#include <vector>
#if defined(SAPWOOD_TIER_AMX)
#include "attention_amx.h"
#endif

namespace sapwood {

constexpr int SPLIT = 128;          // positions
constexpr int CHUNK = 64;           // positions of one softmax update
constexpr int TILES = CHUNK / BLOCK;
constexpr float MASKED = -1e30f;
#if defined(SAPWOOD_AVX512)
constexpr int QUERY_ROWS = 6;  // scores of 6 rows x 4 tiles fill 24 of 32 registers
#else
constexpr int QUERY_ROWS = 2;
#endif
constexpr int DIMS_AT_ONCE = 4 * LANES;

// What some rows have gathered so far: `sum[r]` of weights e^(score - top[r]) and `out` [row][dim]
// of weighted values.
struct Part {
  float* out;
  float* top;
  float* sum;
};

// Keys and values of 64 positions: four tiles of 16.
template <class Element>
struct Tiles {
  const Element* keys[TILES];
  const Element* values[TILES];
};

// Which positions a row sees: first .. last.
struct Range {
  int first, last;
};

namespace kernel {

// A row's lanes of the tile at `position`, as bits.
inline uint32_t visible(Range range, int position) {
  const int from = range.first - position, to = range.last - position;
  if (to < 0 || from > 15) return 0;
  uint32_t bits = 0xffff;
  if (from > 0) bits &= 0xffffu << from;
  if (to < 15) bits &= (2u << to) - 1;
  return bits;
}

template <int R, class Element>
void scores(const Element* queries, const Tiles<Element>& tiles, int dim, Vec (&s)[R][TILES]) {
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < TILES; ++j) s[r][j] = broadcast(0.0f);
  if constexpr (sizeof(Element) == 2) {
    for (int d = 0; d < dim; d += 2) {
      IVec keys[TILES];
      for (int j = 0; j < TILES; ++j) keys[j] = load_ints(tiles.keys[j] + d * BLOCK);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const IVec pair = broadcast_pair(queries + r * dim + d);
        for (int j = 0; j < TILES; ++j) s[r][j] = dot2(s[r][j], keys[j], pair);
      }
    }
  } else {
    for (int d = 0; d < dim; ++d) {
      Vec keys[TILES];
      for (int j = 0; j < TILES; ++j) keys[j] = load(tiles.keys[j] + d * BLOCK);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const Vec value = broadcast(queries[r * dim + d]);
        for (int j = 0; j < TILES; ++j) s[r][j] = fma(keys[j], value, s[r][j]);
      }
    }
  }
}

// Turns one row's scores into weights e^(score - top), moving its part to the new top.
template <class Element>
void softmax_row(Vec* s, Range range, int position, float scale, int dim, float* out, float& top,
                 float& sum, Element* weights) {
  uint32_t bits[TILES], any = 0;
  for (int j = 0; j < TILES; ++j) any |= bits[j] = visible(range, position + j * BLOCK);
  if (!any) {
    std::memset(weights, 0, CHUNK * sizeof(Element));
    return;
  }
  Vec largest = broadcast(top);
  for (int j = 0; j < TILES; ++j) {
    if (!bits[j]) continue;
    s[j] = mul(s[j], broadcast(scale));
    if (bits[j] != 0xffff) s[j] = select(bits[j], s[j], broadcast(MASKED));
    largest = max(largest, s[j]);
  }
  const float new_top = max_lane(largest);
  if (new_top > top) {
    alignas(64) float factors[LANES];
    store(factors, exp(broadcast(top - new_top)));
    for (int d = 0; d < dim; d += LANES)
      store(out + d, mul(load(out + d), broadcast(factors[0])));
    sum *= factors[0];
    top = new_top;
  }
  Vec total = broadcast(0.0f);
  for (int j = 0; j < TILES; ++j) {
    if (!bits[j]) {
      std::memset(weights + j * BLOCK, 0, BLOCK * sizeof(Element));
      continue;
    }
    Vec e = exp(sub(s[j], broadcast(top)));
    if (bits[j] != 0xffff) e = select(bits[j], e, broadcast(0.0f));
    total = add(total, e);
    if constexpr (sizeof(Element) == 2) store_bf16(weights + j * BLOCK, e);
    else store(weights + j * BLOCK, e);
  }
  sum += sum_lanes(total);
}

// out[r][first .. first + 16 * N - 1] += weights[r] times the values of `num_tiles` tiles.
template <int R, int N, class Element>
void weigh(const Element (*weights)[CHUNK], const Tiles<Element>& tiles, int num_tiles, int dim,
           int first, float* out) {
  Vec acc[R][N];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) acc[r][n] = load(out + r * dim + first + n * LANES);
  for (int j = 0; j < num_tiles; ++j) {
    if constexpr (sizeof(Element) == 2) {
      for (int t = 0; t < BLOCK; t += 2) {
        IVec values[N];
        for (int n = 0; n < N; ++n)
          values[n] = load_ints(tiles.values[j] + t * dim + (first + n * LANES) * 2);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
          const IVec pair = broadcast_pair(&weights[r][j * BLOCK + t]);
          for (int n = 0; n < N; ++n) acc[r][n] = dot2(acc[r][n], values[n], pair);
        }
      }
    } else {
      for (int t = 0; t < BLOCK; ++t) {
        Vec values[N];
        for (int n = 0; n < N; ++n)
          values[n] = load(tiles.values[j] + t * dim + first + n * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
          const Vec weight = broadcast(weights[r][j * BLOCK + t]);
          for (int n = 0; n < N; ++n) acc[r][n] = fma(values[n], weight, acc[r][n]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) store(out + r * dim + first + n * LANES, acc[r][n]);
}

// R query rows take in the 64 positions from `position` on, of which `num_tiles` tiles are there.
template <int R, class Element>
void attend_chunk(const Element* queries, const Range* ranges, const Tiles<Element>& tiles,
                  int num_tiles, int position, int dim, float scale, Part part) {
  Vec s[R][TILES];
  alignas(64) Element weights[R][CHUNK];
  scores<R>(queries, tiles, dim, s);
  for (int r = 0; r < R; ++r)
    softmax_row<Element>(s[r], ranges[r], position, scale, dim, part.out + r * dim, part.top[r],
                         part.sum[r], weights[r]);
  int first = 0;
  for (; first + DIMS_AT_ONCE <= dim; first += DIMS_AT_ONCE)
    weigh<R, 4>(weights, tiles, num_tiles, dim, first, part.out);
  for (; first < dim; first += LANES) weigh<R, 1>(weights, tiles, num_tiles, dim, first, part.out);
}

template <class Element>
using AttendChunk = void (*)(const Element*, const Range*, const Tiles<Element>&, int, int, int,
                             float, Part);

template <class Element, int... R>
AttendChunk<Element> choose_attend(int rows, std::integer_sequence<int, R...>) {
  static const AttendChunk<Element> table[] = {attend_chunk<R + 1, Element>...};
  return table[rows - 1];
}

#if defined(SAPWOOD_TIER_AMX)
inline void attend_chunk_amx(const bf16* queries, const Range* ranges, const Tiles<bf16>& tiles,
                             int num_tiles, int position, int dim, float scale, Part part,
                             int rows) {
  alignas(64) float scores[amx::QUERY_ROWS * CHUNK];
  alignas(64) bf16 weights[amx::QUERY_ROWS * CHUNK];
  amx::configure_attention(rows);
  amx::scores(queries, tiles.keys, num_tiles, dim, scores);
  for (int r = 0; r < rows; ++r) {
    Vec s[TILES];
    for (int j = 0; j < TILES; ++j) s[j] = load(scores + r * CHUNK + j * BLOCK);
    softmax_row<bf16>(s, ranges[r], position, scale, dim, part.out + r * dim, part.top[r],
                      part.sum[r], weights + r * CHUNK);
  }
  amx::weigh(weights, tiles.values, num_tiles, dim, part.out);
}
#endif

// All rows take in the 64 positions from `position` on, a few rows at a time.
template <class Element>
void attend_rows(const Element* queries, const Range* ranges, int count,
                 const Tiles<Element>& tiles, int num_tiles, int position, int dim, float scale,
                 Part part) {
#if defined(SAPWOOD_TIER_AMX)
  constexpr int most = sizeof(Element) == 2 ? amx::QUERY_ROWS : QUERY_ROWS;
#else
  constexpr int most = QUERY_ROWS;
#endif
  for (int row = 0; row < count; row += most) {
    const int rows = count - row < most ? count - row : most;
    const Element* some = queries + size_t(row) * size_t(dim);
    const Part here{part.out + size_t(row) * size_t(dim), part.top + row, part.sum + row};
#if defined(SAPWOOD_TIER_AMX)
    if constexpr (sizeof(Element) == 2) {
      attend_chunk_amx(some, ranges + row, tiles, num_tiles, position, dim, scale, here, rows);
      continue;
    }
#endif
    choose_attend<Element>(rows, std::make_integer_sequence<int, QUERY_ROWS>())(
        some, ranges + row, tiles, num_tiles, position, dim, scale, here);
  }
}

}  // namespace kernel

// The tiles of 64 positions of one sequence, straight from its pages or, where a page is smaller
// than a tile, put together in scratch memory.
template <class Element>
class Loader {
 public:
  Loader(Kv<Element>& kv, int layer, int head, const int32_t* pages)
      : kv_(kv), layer_(layer), head_(head), pages_(pages) {}

  // Positions up to `last` exist; returns how many tiles there are.
  int load(int position, int last, Tiles<Element>& tiles) {
    const int count = (last - position) / BLOCK + 1;
    const int num_tiles = count < TILES ? count : TILES;
    for (int j = 0; j < TILES; ++j) {
      const int at = position + (j < num_tiles ? j : 0) * BLOCK;
      if (kv_.block == BLOCK) {
        const int page = pages_[at / kv_.page_size];
        const size_t start = size_t(at % kv_.page_size / BLOCK) * kv_.block_size;
        tiles.keys[j] = kv_.keys(layer_, page, head_) + start;
        tiles.values[j] = kv_.values(layer_, page, head_) + start;
      } else if (j < num_tiles) {
        gather(at, last, j);
        tiles.keys[j] = &scratch_[size_t(j) * 2 * size_t(BLOCK * kv_.dim)];
        tiles.values[j] = tiles.keys[j] + size_t(BLOCK * kv_.dim);
      } else {
        tiles.keys[j] = tiles.keys[0];
        tiles.values[j] = tiles.values[0];
      }
    }
    return num_tiles;
  }

 private:
  void gather(int position, int last, int tile) {
    const int dim = kv_.dim;
    const size_t size = size_t(BLOCK * dim);
    scratch_.reserve(size_t(TILES) * 2 * size);
    Element* keys = &scratch_[size_t(tile) * 2 * size];
    Element* values = keys + size;
    for (int t = 0; t < BLOCK; ++t) {
      const int at = position + t < last ? position + t : last;
      const int page = pages_[at / kv_.page_size], offset = at % kv_.page_size;
      const Element* k = kv_.keys(layer_, page, head_);
      const Element* v = kv_.values(layer_, page, head_);
      for (int d = 0; d < dim; ++d) {
        const size_t row = Kv<Element>::paired ? (size_t(d / 2) * BLOCK + size_t(t)) * 2 + d % 2
                                               : size_t(d) * BLOCK + size_t(t);
        const size_t column = Kv<Element>::paired
                                  ? (size_t(t / 2) * size_t(dim) + size_t(d)) * 2 + t % 2
                                  : size_t(t) * size_t(dim) + size_t(d);
        keys[row] = k[kv_.key_index(offset, d)];
        values[column] = v[kv_.value_index(offset, d)];
      }
    }
  }

  Kv<Element>& kv_;
  const int layer_, head_;
  const int32_t* pages_;
  Buffer<Element> scratch_;
};

// Rows `queries` [count][dim] over one split: fills `part` anew.
template <class Element>
void attend_split(Loader<Element>& loader, const Element* queries, const Range* ranges, int count,
                  int split, int dim, float scale, Part part) {
  int first = ranges[0].first, last = ranges[0].last;
  for (int r = 0; r < count; ++r) {
    first = ranges[r].first < first ? ranges[r].first : first;
    last = ranges[r].last > last ? ranges[r].last : last;
    part.top[r] = MASKED;
    part.sum[r] = 0;
  }
  std::memset(part.out, 0, size_t(count) * size_t(dim) * sizeof(float));
  const int end = last + 1 < (split + 1) * SPLIT ? last + 1 : (split + 1) * SPLIT;
  for (int position = split * SPLIT; position < end; position += CHUNK) {
    if (position + CHUNK <= first) continue;
    Tiles<Element> tiles;
    const int num_tiles = loader.load(position, end - 1, tiles);
    kernel::attend_rows(queries, ranges, count, tiles, num_tiles, position, dim, scale, part);
  }
}

// Adds the next split's part of one row.
inline void merge(float* out, float& top, float& sum, const float* next, float next_top,
                  float next_sum, int dim) {
  const float new_top = next_top > top ? next_top : top;
  const float keep = top < new_top ? exp(top - new_top) : 1.0f;
  const float take = next_top < new_top ? exp(next_top - new_top) : 1.0f;
  for (int d = 0; d < dim; d += LANES)
    store(out + d, fma(load(out + d), broadcast(keep), mul(load(next + d), broadcast(take))));
  sum = sum * keep + next_sum * take;
  top = new_top;
}

namespace scalar {

// The definition for one row: softmax(q . k * scale) . v over its range, in double precision.
template <class Element>
void attend(Kv<Element>& kv, int layer, int head, const int32_t* pages, const float* query,
            Range range, float scale, float* out) {
  const auto number = [](Element e) {
    if constexpr (sizeof(Element) == 2) return double(to_float(e));
    else return double(e);
  };
  const int count = range.last - range.first + 1, dim = kv.dim;
  std::vector<double> weights(size_t(count), 0.0), sums(size_t(dim), 0.0);
  double top = -1e300, total = 0;
  for (int i = 0; i < count; ++i) {
    const int at = range.first + i, offset = at % kv.page_size;
    const Element* keys = kv.keys(layer, pages[at / kv.page_size], head);
    for (int d = 0; d < dim; ++d)
      weights[size_t(i)] += double(query[d]) * number(keys[kv.key_index(offset, d)]);
    weights[size_t(i)] *= double(scale);
    top = weights[size_t(i)] > top ? weights[size_t(i)] : top;
  }
  for (int i = 0; i < count; ++i) {
    const int at = range.first + i, offset = at % kv.page_size;
    const Element* values = kv.values(layer, pages[at / kv.page_size], head);
    const double weight = std::exp(weights[size_t(i)] - top);
    total += weight;
    for (int d = 0; d < dim; ++d)
      sums[size_t(d)] += weight * number(values[kv.value_index(offset, d)]);
  }
  for (int d = 0; d < dim; ++d) out[d] = float(sums[size_t(d)] / total);
}

}  // namespace scalar
}  // namespace sapwood
