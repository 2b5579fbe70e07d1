// Where keys and values live: pages of tokens, each holding all layers and heads of its tokens.
//
// A page is [layers][keys, values][kv heads][tokens x dim]. Tokens stand in blocks of 16 (or of the
// page's size, where that is less), laid out for the products that read them; T is the block's size:
//   bfloat16 keys    [dim / 2][T][2]          values  [ceil(T / 2)][dim][2]
//   float32 keys     [dim][T]                 values  [T][dim]
//
// Owns: this layout. Knows nothing of attention; a page lies in one piece, so copying one is a memcpy.
#pragma once
#include "memory.h"
#include "simd.h"

namespace sapwood {

constexpr int BLOCK = 16;  // tokens

template <class Element>
struct Kv {
  static constexpr bool paired = sizeof(Element) == 2;  // bfloat16 stands in pairs

  int layers = 0, heads = 0, dim = 0, page_size = 0, num_pages = 0;
  int block = 0;         // tokens of a block
  size_t block_size = 0; // elements of one head's keys, or values, of a block
  size_t head_size = 0;  // ... of a page
  size_t page_elements = 0;
  Buffer<Element> memory;

  Kv() = default;
  Kv(int layers_, int heads_, int dim_, int page_size_, int num_pages_)
      : layers(layers_), heads(heads_), dim(dim_), page_size(page_size_), num_pages(num_pages_) {
    block = page_size < BLOCK ? page_size : BLOCK;
    block_size = size_t(paired ? round_up(block, 2) : block) * size_t(dim);
    head_size = size_t(page_size / block) * block_size;
    page_elements = size_t(layers) * 2 * size_t(heads) * head_size;
    memory.reserve(page_elements * size_t(num_pages));
  }

  static size_t bytes_of_page(int layers, int heads, int dim, int page_size) {
    const int block = page_size < BLOCK ? page_size : BLOCK;
    return size_t(layers) * 2 * size_t(heads) * size_t(dim) * sizeof(Element) *
           size_t(page_size / block) * size_t(paired ? round_up(block, 2) : block);
  }

  Element* keys(int layer, int page, int head) {
    return memory.data() + size_t(page) * page_elements +
           (size_t(layer) * 2 * size_t(heads) + size_t(head)) * head_size;
  }
  Element* values(int layer, int page, int head) {
    return keys(layer, page, head) + size_t(heads) * head_size;
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

  void write_key(int layer, int page, int head, int offset, const float* key) {
    Element* at = keys(layer, page, head) + key_index(offset, 0);
    if constexpr (paired) {
      for (int d = 0; d < dim; d += LANES, at += LANES * block) {
        alignas(64) bf16 values[LANES];
        store_bf16(values, load(key + d));
        for (int i = 0; i < LANES; i += 2) std::memcpy(at + i * block, values + i, 4);
      }
    } else {
      for (int d = 0; d < dim; ++d) at[d * block] = key[d];
    }
  }
  // A row gives the tokens that it does not see a weight of zero, and zero times infinity is no zero:
  // what one sequence left in a page would reach the next.
  static Vec finite(Vec value) {
    const Vec zero = broadcast(0.0f), lowest = broadcast(-3.38e38f);  // the last that bfloat16 has
    return sub(zero, max(sub(zero, max(value, lowest)), lowest));     // NaN becomes the lowest
  }

  void write_value(int layer, int page, int head, int offset, const float* value) {
    Element* at = values(layer, page, head) + value_index(offset, 0);
    if constexpr (paired) {
      for (int d = 0; d < dim; d += LANES, at += 2 * LANES) {
        alignas(64) bf16 rounded[LANES];
        store_bf16(rounded, finite(load(value + d)));
        for (int i = 0; i < LANES; ++i) at[2 * i] = rounded[i];
      }
    } else {
      for (int d = 0; d < dim; d += LANES) store(at + d, finite(load(value + d)));
    }
  }

  void copy_page(int source, int target) {
    std::memcpy(memory.data() + size_t(target) * page_elements,
                memory.data() + size_t(source) * page_elements, page_elements * sizeof(Element));
  }
};

}  // namespace sapwood
