// The kernels of llama_step one by one, beside their scalar twins, as C functions for the tests.
//
// Owns nothing and checks nothing: the tests pass what fits.
#include <vector>

#include "../../../kernels/llama_step/attention.h"
#include "../../../kernels/llama_step/gemm.h"
#include "../../../kernels/llama_step/norm.h"
#include "../../../kernels/llama_step/rope.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace sapwood;

// ---- lanes: arrays of `count` numbers, a multiple of 16 ------------------------------------

EXPORT void probe_halves(const fp16* halves, int count, float* one_by_one, float* by_lanes) {
  for (int i = 0; i < count; ++i) one_by_one[i] = half_to_float(halves[i]);
  for (int i = 0; i < count; i += LANES) store(by_lanes + i, load_halves(halves + i));
}

EXPORT void probe_float_to_half(const float* values, int count, fp16* halves) {
  for (int i = 0; i < count; ++i) halves[i] = float_to_half(values[i]);
}

EXPORT void probe_bf16(const float* values, int count, bf16* one_by_one, bf16* by_lanes) {
  for (int i = 0; i < count; ++i) one_by_one[i] = to_bf16(values[i]);
  for (int i = 0; i < count; i += LANES) store_bf16(by_lanes + i, load(values + i));
}

EXPORT void probe_exp2_short(const float* x, int count, float* out) {
  for (int i = 0; i < count; i += LANES) store(out + i, exp2_short(load(x + i)));
}

EXPORT void probe_exp(const float* x, int count, float* by_lanes, float* one_by_one) {
  for (int i = 0; i < count; i += LANES) store(by_lanes + i, exp(load(x + i)));
  for (int i = 0; i < count; ++i) one_by_one[i] = exp(x[i]);
}

EXPORT void probe_silu(const float* x, int count, float* out) {
  for (int i = 0; i < count; i += LANES) store(out + i, silu(load(x + i)));
}

EXPORT void probe_round(const float* x, int count, int32_t* ints, float* floats) {
  for (int i = 0; i < count; i += LANES) {
    store_ints(ints + i, round_to_ints(load(x + i)));
    store(floats + i, round_even(load(x + i)));
  }
}

// count: of int32 sums; four bytes of each operand for one.
EXPORT void probe_dot4(const int32_t* start, const uint8_t* w, const int8_t* x, int count,
                       int32_t* out) {
  for (int i = 0; i < count; i += LANES)
    store_ints(out + i, dot4(load_ints(start + i), load_ints(w + 4 * i), load_ints(x + 4 * i)));
}

EXPORT void probe_dot2(const float* start, const bf16* w, const bf16* x, int count, float* out) {
  for (int i = 0; i < count; i += LANES)
    store(out + i, dot2(load(start + i), load_ints(w + 2 * i), load_ints(x + 2 * i)));
}

EXPORT void probe_reduce(const float* x, uint32_t keep, float other, float* max, float* sum) {
  const Vec v = select(keep, load(x), broadcast(other));
  *max = max_lane(v);
  *sum = sum_lanes(v);
}

EXPORT void probe_nibbles(const uint8_t* packed, uint8_t* low, uint8_t* high) {
  int32_t words[LANES];
  store_ints(words, nibbles_low(load_ints(packed)));
  std::memcpy(low, words, sizeof words);
  store_ints(words, nibbles_high(load_ints(packed)));
  std::memcpy(high, words, sizeof words);
}

// ---- the tile registers --------------------------------------------------------------------

namespace {

// For a function's length; nothing where there are none.
struct TileSession {
#if defined(SAPWOOD_TIER_AMX)
  amx::Session session;
#endif
};

}  // namespace

// As another library on the same thread would.
EXPORT void probe_release_tiles() {
#if defined(SAPWOOD_TIER_AMX)
  _tile_release();
#endif
}

// ---- linear maps ---------------------------------------------------------------------------

EXPORT Matrix* probe_matrix(int outputs, int inputs, int format) {
#if defined(SAPWOOD_TIER_AMX)
  if (!amx::permitted()) return nullptr;
#endif
  return new Matrix(outputs, inputs, Format(format));
}

EXPORT void probe_matrix_free(Matrix* matrix) { delete matrix; }

EXPORT void probe_pack(Matrix* matrix, int source, const uint8_t* data) {
  Buffer<float> scratch(size_t(matrix->padded));
  const size_t row_bytes = bytes_of_row(Source(source), matrix->inputs);
  for (int row = 0; row < matrix->outputs; ++row)
    pack_row(*matrix, row, Source(source), data + size_t(row) * row_bytes, scratch.data());
}

EXPORT void probe_bias(Matrix* matrix, const float* values) {
  matrix->bias.reserve(size_t(matrix->tiles()) * TILE);
  std::memcpy(matrix->bias.data(), values, size_t(matrix->outputs) * 4);
}

EXPORT void probe_unpack(const Matrix* matrix, float* values) {  // [outputs][inputs]
  Buffer<float> row(size_t(matrix->inputs));
  for (int i = 0; i < matrix->outputs; ++i) {
    unpack_row(*matrix, i, row.data());
    std::memcpy(values + size_t(i) * size_t(matrix->inputs), row.data(),
                size_t(matrix->inputs) * 4);
  }
}

// x: [count][inputs]; rows first .. last - 1 are multiplied. out: [count][strips * 32].
EXPORT void probe_multiply(const Matrix* matrix, const float* x, int count, int first, int last,
                           float* out) {
  [[maybe_unused]] const TileSession session{};
  Rows rows;
  rows.prepare(matrix->format, matrix->inputs, count);
  for (int i = 0; i < count; ++i)
    rows.put_row(i, x + size_t(i) * size_t(matrix->inputs), matrix->inputs);
  const int strips = matrix->tiles() / 2;
  for (int strip = 0; strip < strips; ++strip) {
    auto finish = [&](int row, int rows, const float* products) {
      for (int r = 0; r < rows; ++r)
        std::memcpy(out + (size_t(row + r) * size_t(strips) + size_t(strip)) * STRIP,
                    products + r * STRIP, STRIP * sizeof(float));
    };
    multiply_strip(*matrix, strip, rows, first, last - first, finish);
  }
}

// values: [count][padded], what the rows stand for in their form; out: [count][outputs].
EXPORT void probe_scalar_multiply(const Matrix* matrix, const float* x, int count, float* values,
                                  double* out) {
  Rows rows;
  rows.prepare(matrix->format, matrix->inputs, count);
  for (int i = 0; i < count; ++i) {
    rows.put_row(i, x + size_t(i) * size_t(matrix->inputs), matrix->inputs);
    for (int k = 0; k < matrix->padded; ++k)
      values[size_t(i) * size_t(matrix->padded) + size_t(k)] = scalar::value(rows, i, k);
    for (int output = 0; output < matrix->outputs; ++output)
      out[size_t(i) * size_t(matrix->outputs) + size_t(output)] =
          scalar::multiply(*matrix, output, rows, i);
  }
}

// ---- norm and rotation ---------------------------------------------------------------------

EXPORT void probe_rms_norm(const float* x, const float* weight, int count, float eps, float* out,
                           float* by_scalar) {
  rms_norm(x, weight, count, eps, out);
  scalar::rms_norm(x, weight, count, eps, by_scalar);
}

EXPORT void probe_rotate(float* head, float* scalar_head, int position, const float* frequencies,
                         int half, float scale) {
  std::vector<float> cos(size_t(half), 0.0f), sin(size_t(half), 0.0f);
  rope_angles(position, frequencies, half, scale, cos.data(), sin.data());
  rotate(head, cos.data(), sin.data(), half);
  scalar::rotate(scalar_head, cos.data(), sin.data(), half);
}

// ---- the cache and attention ---------------------------------------------------------------

namespace {

// Both widths of the cache behind one face.
struct Cache {
  virtual ~Cache() = default;
  virtual void fill(float value) = 0;
  virtual void write(int layer, int page, int head, int offset, const float* key,
                     const float* value) = 0;
  virtual void read(int layer, int page, int head, int offset, float* key, float* value) = 0;
  virtual void copy(int source, int target) = 0;
  virtual int64_t page_bytes() const = 0;
  virtual void attend(int layer, int head, const int32_t* pages, const float* queries,
                      const Range* ranges, int count, float* out) = 0;
  virtual void attend_scalar(int layer, int head, const int32_t* pages, const float* query,
                             Range range, float* out) = 0;
};

template <class Element>
float number(Element element) {
  if constexpr (sizeof(Element) == 2) return to_float(element);
  else return element;
}

template <class Element>
Element element(float number) {
  if constexpr (sizeof(Element) == 2) return to_bf16(number);
  else return number;
}

template <class Element, class Stored = Element>
struct CacheOf final : Cache {
  Kv<Element, Stored> kv;

  CacheOf(int layers, int heads, int dim, int page_size, int num_pages)
      : kv(layers, heads, dim, page_size, num_pages) {}

  float scale() const { return 1.0f / std::sqrt(float(kv.dim)); }

  void fill(float value) override {
    for (size_t i = 0; i < kv.page_elements * size_t(kv.num_pages); ++i) {
      if constexpr (kv.quantized) kv.memory[i] = 1;
      else kv.memory[i] = element<Element>(value);
    }
    std::fill_n(kv.scales.data(), kv.page_scales * size_t(kv.num_pages), value);
  }
  void write(int layer, int page, int head, int offset, const float* key,
             const float* value) override {
    kv.write_key(layer, page, head, offset, key);
    kv.write_value(layer, page, head, offset, value);
  }
  void read(int layer, int page, int head, int offset, float* key, float* value) override {
    for (int d = 0; d < kv.dim; ++d) {
      key[d] = number(kv.key(layer, page, head, offset, d));
      value[d] = number(kv.value(layer, page, head, offset, d));
    }
  }
  void copy(int source, int target) override { kv.copy_page(source, target); }
  int64_t page_bytes() const override {
    const size_t stated = kv.bytes_of_page(kv.layers, kv.heads, kv.dim, kv.page_size);
    const size_t taken = kv.page_elements * sizeof(Stored) + kv.page_scales * sizeof(float);
    return stated == taken ? int64_t(stated) : -1;
  }

  // Split by split, as the step takes a long span.
  void attend(int layer, int head, const int32_t* pages, const float* queries, const Range* ranges,
              int count, float* out) override {
    [[maybe_unused]] const TileSession session{};
    const size_t size = size_t(count) * size_t(kv.dim);
    Buffer<Element> rows(size);
    Buffer<float> part_out(size), merged(size);
    std::vector<float> tops(size_t(count), 0.0f), sums = tops, merged_sums = tops;
    std::vector<float> merged_tops(size_t(count), MASKED);
    int first = ranges[0].first, last = ranges[0].last;
    for (size_t i = 0; i < size; ++i) rows[i] = element<Element>(queries[i]);
    for (int r = 0; r < count; ++r) {
      first = ranges[r].first < first ? ranges[r].first : first;
      last = ranges[r].last > last ? ranges[r].last : last;
    }
    Buffer<Element> tiles;
    Loader<Element, Stored> loader(kv, layer, head, pages, tiles);
    const Part part{part_out.data(), tops.data(), sums.data()};
    for (int split = first / SPLIT; split <= last / SPLIT; ++split) {
      attend_split(loader, rows.data(), ranges, count, split, kv.dim, scale(), part);
      for (int r = 0; r < count; ++r)
        merge(&merged[size_t(r * kv.dim)], merged_tops[size_t(r)], merged_sums[size_t(r)],
              &part_out[size_t(r * kv.dim)], tops[size_t(r)], sums[size_t(r)], kv.dim);
    }
    for (size_t i = 0; i < size; ++i) out[i] = merged[i] / merged_sums[i / size_t(kv.dim)];
  }

  void attend_scalar(int layer, int head, const int32_t* pages, const float* query, Range range,
                     float* out) override {
    std::vector<float> rounded(query, query + kv.dim);
    for (float& value : rounded) value = number(element<Element>(value));
    scalar::attend(kv, layer, head, pages, rounded.data(), range, scale(), out);
  }
};

}  // namespace

EXPORT Cache* probe_cache(int format, int layers, int heads, int dim, int page_size,
                          int num_pages) {
#if defined(SAPWOOD_TIER_AMX)
  if (!amx::permitted()) return nullptr;
#endif
  if (format == 1) return new CacheOf<float>(layers, heads, dim, page_size, num_pages);
  if (format == 2) return new CacheOf<bf16, int8_t>(layers, heads, dim, page_size, num_pages);
  return new CacheOf<bf16>(layers, heads, dim, page_size, num_pages);
}

EXPORT void probe_cache_free(Cache* cache) { delete cache; }
EXPORT void probe_cache_fill(Cache* cache, float value) { cache->fill(value); }
EXPORT void probe_cache_copy(Cache* cache, int source, int target) { cache->copy(source, target); }
EXPORT int64_t probe_cache_page_bytes(Cache* cache) { return cache->page_bytes(); }

EXPORT void probe_cache_write(Cache* cache, int layer, int page, int head, int offset,
                              const float* key, const float* value) {
  cache->write(layer, page, head, offset, key, value);
}

EXPORT void probe_cache_read(Cache* cache, int layer, int page, int head, int offset, float* key,
                             float* value) {
  cache->read(layer, page, head, offset, key, value);
}

// queries, out: [count][dim]; ranges: [count][2], first and last position that a row sees.
EXPORT void probe_attend(Cache* cache, int layer, int head, const int32_t* pages,
                         const float* queries, const Range* ranges, int count, float* out) {
  cache->attend(layer, head, pages, queries, ranges, count, out);
}

EXPORT void probe_attend_scalar(Cache* cache, int layer, int head, const int32_t* pages,
                                const float* query, const Range* range, float* out) {
  cache->attend_scalar(layer, head, pages, query, *range, out);
}

EXPORT void probe_merge(float* out, float* top, float* sum, const float* next, float next_top,
                        float next_sum, int dim) {
  merge(out, *top, *sum, next, next_top, next_sum, dim);
}
