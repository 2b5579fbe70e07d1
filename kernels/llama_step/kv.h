// Where keys and values live: pages of tokens, each holding all layers and heads of its tokens.
//
// A page is [layers][keys, values][kv heads][tokens x dim]. Tokens stand in blocks of 16 (or of the
// page's size, where that is less), laid out for the products that read them; T is the block's size:
//   bfloat16 keys    [dim / 2][T][2]          values  [ceil(T / 2)][dim][2]
//   float32 keys     [dim][T]                 values  [T][dim]
// They may be stored as bytes in the order of bfloat16, with a float32 scale for each head and token,
// [pages][layers][keys, values][kv heads][tokens]: largest magnitude = 127.
//
// Owns: this layout. Knows nothing of attention. A page lies in one piece (with its scales, in two), so
// copying one is a memcpy.
#pragma once
#include <type_traits>

#include "memory.h"
#include "simd.h"

namespace sapwood {

constexpr int BLOCK = 16;  // tokens

// Element: what attention multiplies; Stored: what is kept, the same or int8_t.
template <class Element, class Stored = Element>
struct Kv {
  static constexpr bool paired = sizeof(Element) == 2;  // bfloat16 stands in pairs
  static constexpr bool quantized = !std::is_same_v<Element, Stored>;
  static_assert(!quantized || (paired && std::is_same_v<Stored, int8_t>));

  int layers = 0, heads = 0, dim = 0, page_size = 0, num_pages = 0;
  int block = 0;         // tokens of a block
  size_t block_size = 0; // elements of one head's keys, or values, of a block
  size_t head_size = 0;  // ... of a page
  size_t page_elements = 0, page_scales = 0;
  Buffer<Stored> memory;
  Buffer<float> scales;

  Kv() = default;
  Kv(int layers_, int heads_, int dim_, int page_size_, int num_pages_)
      : layers(layers_), heads(heads_), dim(dim_), page_size(page_size_), num_pages(num_pages_) {
    block = page_size < BLOCK ? page_size : BLOCK;
    block_size = size_t(paired ? round_up(block, 2) : block) * size_t(dim);
    head_size = size_t(page_size / block) * block_size;
    page_elements = size_t(layers) * 2 * size_t(heads) * head_size;
    page_scales = quantized ? size_t(layers) * 2 * size_t(heads) * size_t(page_size) : 0;
    memory.reserve(page_elements * size_t(num_pages));
    scales.reserve(page_scales * size_t(num_pages));
  }

  static size_t bytes_of_page(int layers, int heads, int dim, int page_size) {
    const int block = page_size < BLOCK ? page_size : BLOCK;
    const size_t slots = size_t(page_size / block) * size_t(paired ? round_up(block, 2) : block);
    const size_t scale_bytes = quantized ? size_t(page_size) * sizeof(float) : 0;
    return size_t(layers) * 2 * size_t(heads) *
           (slots * size_t(dim) * sizeof(Stored) + scale_bytes);
  }

  Stored* keys(int layer, int page, int head) {
    return memory.data() + size_t(page) * page_elements +
           (size_t(layer) * 2 * size_t(heads) + size_t(head)) * head_size;
  }
  Stored* values(int layer, int page, int head) {
    return keys(layer, page, head) + size_t(heads) * head_size;
  }
  float* key_scales(int layer, int page, int head) {
    return scales.data() + size_t(page) * page_scales +
           (size_t(layer) * 2 * size_t(heads) + size_t(head)) * size_t(page_size);
  }
  float* value_scales(int layer, int page, int head) {
    return key_scales(layer, page, head) + heads * page_size;
  }

  // Index, within a head's part of a page, of element d of the token at `offset`.
  size_t key_index(int offset, int d) const {
    const size_t start = size_t(offset / block) * block_size;
    const size_t t = size_t(offset % block), at = size_t(d);
    if (!paired) return start + at * size_t(block) + t;
    return start + (at / 2 * size_t(block) + t) * 2 + at % 2;
  }
  size_t value_index(int offset, int d) const {
    const size_t start = size_t(offset / block) * block_size;
    const size_t t = size_t(offset % block), at = size_t(d);
    if (!paired) return start + t * size_t(dim) + at;
    return start + (t / 2 * size_t(dim) + at) * 2 + t % 2;
  }

  // One number as attention multiplies it.
  Element key(int layer, int page, int head, int offset, int d) {
    const Stored number = keys(layer, page, head)[key_index(offset, d)];
    if constexpr (quantized) return to_bf16(float(number) * key_scales(layer, page, head)[offset]);
    else return number;
  }
  Element value(int layer, int page, int head, int offset, int d) {
    const Stored number = values(layer, page, head)[value_index(offset, d)];
    if constexpr (quantized) return to_bf16(float(number) * value_scales(layer, page, head)[offset]);
    else return number;
  }

  // A block of 16 tokens as attention multiplies it.
  void expand_keys(int layer, int page, int head, int offset, Element* out) {
    const Stored* numbers = keys(layer, page, head) + size_t(offset / BLOCK) * block_size;
    const float* scale = key_scales(layer, page, head) + offset;
    float each[2 * BLOCK];  // a token's two neighbouring dimensions share its scale
    for (int i = 0; i < 2 * BLOCK; ++i) each[i] = scale[i / 2];
    const Vec low = load(each), high = load(each + LANES);
    for (int d = 0; d < dim; d += 2, numbers += 2 * BLOCK, out += 2 * BLOCK) {
      store_bf16(out, mul(load_bytes(numbers), low));
      store_bf16(out + LANES, mul(load_bytes(numbers + LANES), high));
    }
  }
  void expand_values(int layer, int page, int head, int offset, Element* out) {
    const Stored* numbers = values(layer, page, head) + size_t(offset / BLOCK) * block_size;
    const float* scale = value_scales(layer, page, head) + offset;
    for (int t = 0; t < BLOCK; t += 2) {
      float each[LANES];  // two tokens in turns
      for (int i = 0; i < LANES; ++i) each[i] = scale[t + i % 2];
      const Vec pair = load(each);
      for (int d = 0; d < dim; d += LANES / 2, numbers += LANES, out += LANES)
        store_bf16(out, mul(load_bytes(numbers), pair));
    }
  }

  void write_key(int layer, int page, int head, int offset, const float* key) {
    Stored* at = keys(layer, page, head) + key_index(offset, 0);
    if constexpr (paired) {
      const float inverse =
          quantized ? put_scale(key, key_scales(layer, page, head) + offset) : 1.0f;
      for (int d = 0; d < dim; d += LANES, at += LANES * block) {
        alignas(64) Stored numbers[LANES];
        put(numbers, load(key + d), inverse);
        for (int i = 0; i < LANES; i += 2) std::memcpy(at + i * block, numbers + i, 2 * sizeof(Stored));
      }
    } else {
      for (int d = 0; d < dim; ++d) at[d * block] = key[d];
    }
  }

  void write_value(int layer, int page, int head, int offset, const float* value) {
    Stored* at = values(layer, page, head) + value_index(offset, 0);
    if constexpr (paired) {
      const float inverse =
          quantized ? put_scale(value, value_scales(layer, page, head) + offset) : 1.0f;
      for (int d = 0; d < dim; d += LANES, at += 2 * LANES) {
        alignas(64) Stored numbers[LANES];
        put(numbers, finite(load(value + d)), inverse);
        for (int i = 0; i < LANES; ++i) at[2 * i] = numbers[i];
      }
    } else {
      for (int d = 0; d < dim; d += LANES) store(at + d, finite(load(value + d)));
    }
  }

  void copy_page(int source, int target) {
    std::memcpy(memory.data() + size_t(target) * page_elements,
                memory.data() + size_t(source) * page_elements, page_elements * sizeof(Stored));
    if constexpr (quantized)
      std::memcpy(scales.data() + size_t(target) * page_scales,
                  scales.data() + size_t(source) * page_scales, page_scales * sizeof(float));
  }

 private:
  // A row gives the tokens that it does not see a weight of zero, and zero times infinity is no zero:
  // what one sequence left in a page would reach the next.
  static Vec finite(Vec value) {
    const Vec zero = broadcast(0.0f), lowest = broadcast(-3.38e38f);  // the last that bfloat16 has
    return sub(zero, max(sub(zero, max(value, lowest)), lowest));     // NaN becomes the lowest
  }

  // Keeps the scale of one head's numbers; returns what they are multiplied by to become bytes.
  float put_scale(const float* numbers, float* scale) const {
    Vec largest = broadcast(0.0f);
    for (int d = 0; d < dim; d += LANES) largest = max(largest, abs(finite(load(numbers + d))));
    const float top = max_lane(largest);
    *scale = top / 127.0f;
    return top > 0 ? 127.0f / top : 0.0f;
  }

  static void put(Stored* out, Vec numbers, [[maybe_unused]] float inverse) {
    if constexpr (quantized) store_bytes(out, round_to_ints(mul(finite(numbers), broadcast(inverse))));
    else store_bf16(out, numbers);
  }
};

}  // namespace sapwood
