// Attention of query rows to cached keys and values (Milakov and Gimelshein, 2018: online softmax;
// Dao et al., 2022: in blocks).
//
// Owns: the kernels and their order. Positions are cut into splits of 128, counted from 0. A split
// gives each row one softmax; the splits' parts are merged in order. A row's result is therefore the
// same whichever rows are computed beside it and whoever loads a block for whom.
#pragma once
#include "kv.h"
#include "simd.h"

#include <algorithm>
#include <utility>
#include <vector>
#if defined(SAPWOOD_TIER_AMX)
#include "attention_amx.h"
#endif

namespace sapwood {

constexpr int SPLIT = 128;  // positions of one softmax
constexpr int TILES = SPLIT / BLOCK;
constexpr int SCORE_TILES = 4;  // computed together
constexpr float MASKED = -1e30f;
constexpr float LOG2_E = 1.44269504f;
#if defined(SAPWOOD_AVX512)
constexpr int QUERY_ROWS = 6;  // scores of 6 rows x 4 tiles fill 24 of 32 registers
#else
constexpr int QUERY_ROWS = 2;
#endif
constexpr int DIMS_AT_ONCE = 4 * LANES;

// What some rows gathered from a split: `sum[r]` of weights e^(score - top[r]) and `out` [row][dim] of
// weighted values.
struct Part {
  float* out;
  float* top;
  float* sum;
};

// Keys and values of a split: `count` tiles of 16 positions.
template <class Element>
struct Tiles {
  const Element* keys[TILES];
  const Element* values[TILES];
  int count;
};

// Which positions a row sees: first .. last.
struct Range {
  int first, last;
};

namespace kernel {

// out[r][16 * tile ..] for up to four tiles from `first` on.
template <int R, class Element>
void scores(const Element* queries, const Tiles<Element>& tiles, int first, int dim,
            float (*out)[SPLIT]) {
  const Element* keys[SCORE_TILES];
  for (int j = 0; j < SCORE_TILES; ++j)  // the last one again rather than one that is not there
    keys[j] = tiles.keys[first + j < tiles.count ? first + j : tiles.count - 1];
  Vec s[R][SCORE_TILES];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < SCORE_TILES; ++j) s[r][j] = broadcast(0.0f);
  if constexpr (sizeof(Element) == 2) {
    for (int d = 0; d < dim; d += 2) {
      IVec column[SCORE_TILES];
      for (int j = 0; j < SCORE_TILES; ++j) column[j] = load_ints(keys[j] + d * BLOCK);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const IVec pair = broadcast_pair(queries + r * dim + d);
        for (int j = 0; j < SCORE_TILES; ++j) s[r][j] = dot2(s[r][j], column[j], pair);
      }
    }
  } else {
    for (int d = 0; d < dim; ++d) {
      Vec column[SCORE_TILES];
      for (int j = 0; j < SCORE_TILES; ++j) column[j] = load(keys[j] + d * BLOCK);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const Vec value = broadcast(queries[r * dim + d]);
        for (int j = 0; j < SCORE_TILES; ++j) s[r][j] = fma(column[j], value, s[r][j]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < SCORE_TILES; ++j) store(out[r] + (first + j) * BLOCK, s[r][j]);
}

// A position's weight from its score; bfloat16 takes the shorter way, 2^x.
template <class Element>
Vec softmax_weight(const float* score, Vec factor, Vec start) {
  const Vec x = fma(load(score), factor, start);
  if constexpr (sizeof(Element) == 2) return exp2_short(x);
  else return exp(x);
}

inline void store_weights(bf16* out, Vec e) { store_bf16(out, e); }
inline void store_weights(float* out, Vec e) { store(out, e); }

// R rows' softmax where all 128 positions are seen: the arithmetic of `softmax_row`, rows side by side
// because each one's maximum and sum are long chains. top, sum: [R]; weights: [R][128].
template <int R, class Element>
void softmax_whole(const float* scores, float scale, float* top, float* sum, Element* weights) {
  constexpr float BASE = sizeof(Element) == 2 ? LOG2_E : 1.0f;
  Vec largest[R], factor = broadcast(scale * BASE), start[R], total[R];
  for (int r = 0; r < R; ++r) largest[r] = broadcast(MASKED);
#pragma GCC unroll 8
  for (int j = 0; j < TILES; ++j)
    for (int r = 0; r < R; ++r)
      largest[r] = max(largest[r], load(scores + r * SPLIT + j * BLOCK));
  for (int r = 0; r < R; ++r) {
    top[r] = max_lane(largest[r]) * scale;
    start[r] = broadcast(-top[r] * BASE);
    total[r] = broadcast(0.0f);
  }
#pragma GCC unroll 8
  for (int j = 0; j < TILES; ++j) {
    for (int r = 0; r < R; ++r) {
      const Vec e = softmax_weight<Element>(scores + r * SPLIT + j * BLOCK, factor, start[r]);
      total[r] = add(total[r], e);
      store_weights(weights + r * SPLIT + j * BLOCK, e);
    }
  }
  for (int r = 0; r < R; ++r) sum[r] = sum_lanes(total[r]);
}

inline bool sees_all(Range range, int position) {
  return range.first <= position && range.last >= position + SPLIT - 1;
}

// One row's softmax: weights e^(score * scale - top) of the positions that it sees, zero elsewhere.
template <class Element>
void softmax_row(const float* scores, int num_tiles, Range range, int position, float scale,
                 float& top, float& sum, Element* weights) {
  constexpr float BASE = sizeof(Element) == 2 ? LOG2_E : 1.0f;
  const int first = std::max(range.first - position, 0);
  const int last = std::min(range.last - position, num_tiles * BLOCK - 1);
  if (first > last) {
    top = MASKED;
    sum = 0;
    std::memset(weights, 0, size_t(num_tiles * BLOCK) * sizeof(Element));
    return;
  }
  const int from = first / BLOCK, to = last / BLOCK + 1;  // the tiles of which it sees anything
  const auto visible = [&](int j) {  // as bits
    uint32_t bits = 0xffff;
    if (j == from) bits &= 0xffffu << first % BLOCK;
    if (j == to - 1) bits &= (2u << last % BLOCK) - 1;
    return bits;
  };
  Vec largest = broadcast(MASKED), total = broadcast(0.0f);
  for (int j = from; j < to; ++j)
    largest = max(largest, select(visible(j), load(scores + j * BLOCK), broadcast(MASKED)));
  top = max_lane(largest) * scale;
  std::memset(weights, 0, size_t(from * BLOCK) * sizeof(Element));
  std::memset(weights + to * BLOCK, 0, size_t((num_tiles - to) * BLOCK) * sizeof(Element));
  const Vec factor = broadcast(scale * BASE), start = broadcast(-top * BASE);
  for (int j = from; j < to; ++j) {
    const Vec e = select(visible(j), softmax_weight<Element>(scores + j * BLOCK, factor, start),
                         broadcast(0.0f));
    total = add(total, e);
    store_weights(weights + j * BLOCK, e);
  }
  sum = sum_lanes(total);
}

// scores, weights: [rows][128]; `part` gets tops and sums.
template <class Element>
void softmax_rows(const float* scores, int num_tiles, const Range* ranges, int rows, int position,
                  float scale, Part part, Element* weights) {
  constexpr int TOGETHER = 4;
  for (int r = 0; r < rows;) {
    int whole = 0;
    while (whole < TOGETHER && r + whole < rows && sees_all(ranges[r + whole], position)) ++whole;
    if (whole == TOGETHER) {
      softmax_whole<TOGETHER>(scores + r * SPLIT, scale, part.top + r, part.sum + r,
                              weights + r * SPLIT);
      r += TOGETHER;
    } else if (whole) {
      softmax_whole<1>(scores + r * SPLIT, scale, part.top + r, part.sum + r, weights + r * SPLIT);
      ++r;
    } else {
      softmax_row(scores + r * SPLIT, num_tiles, ranges[r], position, scale, part.top[r],
                  part.sum[r], weights + r * SPLIT);
      ++r;
    }
  }
}

// out[r][first .. first + 16 * N - 1] = weights[r] times the tiles' values.
template <int R, int N, class Element>
void weigh(const Element (*weights)[SPLIT], const Tiles<Element>& tiles, int dim, int first,
           float* out) {
  Vec acc[R][N];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) acc[r][n] = broadcast(0.0f);
  for (int j = 0; j < tiles.count; ++j) {
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

// R query rows over a split that begins at `position`.
template <int R, class Element>
void attend(const Element* queries, const Range* ranges, const Tiles<Element>& tiles, int position,
            int dim, float scale, Part part) {
  alignas(64) float s[R][SPLIT];
  alignas(64) Element weights[R][SPLIT];
  for (int first = 0; first < tiles.count; first += SCORE_TILES)
    scores<R>(queries, tiles, first, dim, s);
  softmax_rows(s[0], tiles.count, ranges, R, position, scale, part, weights[0]);
  int first = 0;
  for (; first + DIMS_AT_ONCE <= dim; first += DIMS_AT_ONCE)
    weigh<R, 4>(weights, tiles, dim, first, part.out);
  for (; first < dim; first += LANES) weigh<R, 1>(weights, tiles, dim, first, part.out);
}

template <class Element>
using Attend = void (*)(const Element*, const Range*, const Tiles<Element>&, int, int, float, Part);

template <class Element, int... R>
Attend<Element> choose_attend(int rows, std::integer_sequence<int, R...>) {
  static const Attend<Element> table[] = {attend<R + 1, Element>...};
  return table[rows - 1];
}

#if defined(SAPWOOD_TIER_AMX)
// Rows whose scores wait for one another: a tile loaded from what was only just stored would wait
// until it has left the store buffer.
constexpr int AMX_ROWS = 4 * amx::QUERY_ROWS;

inline void attend_amx(const bf16* queries, const Range* ranges, const Tiles<bf16>& tiles,
                       int position, int dim, float scale, Part part, int rows) {
  alignas(64) float scores[AMX_ROWS * SPLIT];
  alignas(64) bf16 weights[AMX_ROWS * SPLIT];
  for (int row = 0; row < rows; row += amx::QUERY_ROWS) {
    amx::configure_attention(std::min(amx::QUERY_ROWS, rows - row));
    for (int first = 0; first < tiles.count; first += SCORE_TILES)
      amx::scores(queries + size_t(row * dim), tiles.keys + first,
                  std::min(SCORE_TILES, tiles.count - first), dim,
                  scores + row * SPLIT + first * BLOCK, SPLIT);
  }
  softmax_rows(scores, tiles.count, ranges, rows, position, scale, part, weights);
  for (int row = 0; row < rows; row += amx::QUERY_ROWS) {
    amx::configure_attention(std::min(amx::QUERY_ROWS, rows - row));
    amx::weigh(weights + row * SPLIT, SPLIT, tiles.values, tiles.count, dim,
               part.out + size_t(row * dim));
  }
}
#endif

// All rows over a split that begins at `position`, a few rows at a time.
template <class Element>
void attend_rows(const Element* queries, const Range* ranges, int count,
                 const Tiles<Element>& tiles, int position, int dim, float scale, Part part) {
#if defined(SAPWOOD_TIER_AMX)
  constexpr int most = sizeof(Element) == 2 ? AMX_ROWS : QUERY_ROWS;
#else
  constexpr int most = QUERY_ROWS;
#endif
  for (int row = 0; row < count; row += most) {
    const int rows = count - row < most ? count - row : most;
    const Element* some = queries + size_t(row) * size_t(dim);
    const Part here{part.out + size_t(row) * size_t(dim), part.top + row, part.sum + row};
#if defined(SAPWOOD_TIER_AMX)
    if constexpr (sizeof(Element) == 2) {
      attend_amx(some, ranges + row, tiles, position, dim, scale, here, rows);
      continue;
    }
#endif
    choose_attend<Element>(rows, std::make_integer_sequence<int, QUERY_ROWS>())(
        some, ranges + row, tiles, position, dim, scale, here);
  }
}

}  // namespace kernel

// The tiles of one sequence: straight from its pages or, where those are smaller than a tile or store
// bytes, put together in scratch memory.
template <class Element, class Stored = Element>
class Loader {
 public:
  using Cache = Kv<Element, Stored>;

  Loader(Cache& kv, int layer, int head, const int32_t* pages, Buffer<Element>& scratch)
      : kv_(kv), layer_(layer), head_(head), pages_(pages), scratch_(scratch) {
    if (!is_direct()) scratch_.reserve(size_t(TILES) * 2 * tile_size());
  }

  // Positions `position` .. `last`, of one split.
  Tiles<Element> load(int position, int last) {
    Tiles<Element> tiles;
    tiles.count = (last - position) / BLOCK + 1;
    for (int j = 0; j < tiles.count; ++j) {
      const int at = position + j * BLOCK;
      const int page = pages_[at / kv_.page_size], offset = at % kv_.page_size;
      if constexpr (!Cache::quantized) {
        if (is_direct()) {
          const size_t start = size_t(offset / BLOCK) * kv_.block_size;
          tiles.keys[j] = kv_.keys(layer_, page, head_) + start;
          tiles.values[j] = kv_.values(layer_, page, head_) + start;
          continue;
        }
      }
      Element* keys = &scratch_[size_t(j) * 2 * tile_size()];
      Element* values = keys + tile_size();
      tiles.keys[j] = keys;
      tiles.values[j] = values;
      if constexpr (Cache::quantized) {
        if (kv_.block == BLOCK) {
          kv_.expand_keys(layer_, page, head_, offset, keys);
          kv_.expand_values(layer_, page, head_, offset, values);
          continue;
        }
      }
      gather(at, last, keys, values);
    }
    return tiles;
  }

 private:
  bool is_direct() const { return !Cache::quantized && kv_.block == BLOCK; }
  size_t tile_size() const { return size_t(BLOCK * kv_.dim); }

  void gather(int position, int last, Element* keys, Element* values) {
    const int dim = kv_.dim;
    for (int t = 0; t < BLOCK; ++t) {
      const int at = position + t < last ? position + t : last;
      const int page = pages_[at / kv_.page_size], offset = at % kv_.page_size;
      for (int d = 0; d < dim; ++d) {
        const size_t row = Cache::paired ? (size_t(d / 2) * BLOCK + size_t(t)) * 2 + d % 2
                                         : size_t(d) * BLOCK + size_t(t);
        const size_t column = Cache::paired ? (size_t(t / 2) * size_t(dim) + size_t(d)) * 2 + t % 2
                                            : size_t(t) * size_t(dim) + size_t(d);
        keys[row] = kv_.key(layer_, page, head_, offset, d);
        values[column] = kv_.value(layer_, page, head_, offset, d);
      }
    }
  }

  Cache& kv_;
  const int layer_, head_;
  const int32_t* pages_;
  Buffer<Element>& scratch_;
};

// Rows `queries` [count][dim] over one split: fills `part`.
template <class Element, class Stored>
void attend_split(Loader<Element, Stored>& loader, const Element* queries, const Range* ranges, int count,
                  int split, int dim, float scale, Part part) {
  int last = ranges[0].last;
  for (int r = 1; r < count; ++r) last = ranges[r].last > last ? ranges[r].last : last;
  const int position = split * SPLIT, end = position + SPLIT - 1;
  const Tiles<Element> tiles = loader.load(position, last < end ? last : end);
  kernel::attend_rows(queries, ranges, count, tiles, position, dim, scale, part);
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
template <class Element, class Stored>
void attend(Kv<Element, Stored>& kv, int layer, int head, const int32_t* pages, const float* query,
            Range range, float scale, float* out) {
  const auto number = [](Element e) {
    if constexpr (sizeof(Element) == 2) return double(to_float(e));
    else return double(e);
  };
  const int count = range.last - range.first + 1, dim = kv.dim;
  std::vector<double> weights(size_t(count), 0.0), sums(size_t(dim), 0.0);
  double top = -1e300, total = 0;
  for (int i = 0; i < count; ++i) {
    const int at = range.first + i, offset = at % kv.page_size, page = pages[at / kv.page_size];
    for (int d = 0; d < dim; ++d)
      weights[size_t(i)] += double(query[d]) * number(kv.key(layer, page, head, offset, d));
    weights[size_t(i)] *= double(scale);
    top = weights[size_t(i)] > top ? weights[size_t(i)] : top;
  }
  for (int i = 0; i < count; ++i) {
    const int at = range.first + i, offset = at % kv.page_size, page = pages[at / kv.page_size];
    const double weight = std::exp(weights[size_t(i)] - top);
    total += weight;
    for (int d = 0; d < dim; ++d)
      sums[size_t(d)] += weight * number(kv.value(layer, page, head, offset, d));
  }
  for (int d = 0; d < dim; ++d) out[d] = float(sums[size_t(d)] / total);
}

}  // namespace scalar
}  // namespace sapwood
