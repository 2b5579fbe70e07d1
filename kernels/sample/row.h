// One row of logits in blocks of 32 tokens, one mask word each: which tokens it allows, and passes
// over those blocks alone that can matter. Owns: blocks and bounds. Knows no limit and no draw.
//
// A block's bound is a value that none of its allowed logits exceeds: its maximum, or more where
// the maximum is forbidden. A pass from a floor on skips a block whose bound is below the floor.
#pragma once
#include <vector>

#include "lanes.h"

namespace sapwood::sampling {

constexpr int BLOCK = 32;
constexpr float NOTHING = -INFINITY;  // a forbidden token's logit; a NaN counts as forbidden

inline int num_blocks(int vocab) { return (vocab + BLOCK - 1) / BLOCK; }

struct Block {
  Floats low, high;  // 32 neighbouring logits

  float largest_above(float floor) const {  // `floor` where there is none
    const Floats least = Floats{} + floor;  // the second operand, so that a NaN loses
    return largest(larger(larger(low, least), larger(high, least)));
  }

  // Bit i: logit i is at or above the floor.
  uint32_t reaching(float floor) const {
    return bits(low >= Floats{} + floor) | bits(high >= Floats{} + floor) << LANES;
  }
};

// A token and its logit. Rank is by logit, then by id.
struct Token {
  float logit;
  int id;
};

inline bool outranks(const Token& a, const Token& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

inline Floats allowed_lanes(Floats values, uint32_t word) {
  const Ints allowed = (Ints{} + int32_t(word)) & ((Ints{} + 1) << LANE);
  return allowed != 0 ? values : Floats{} + NOTHING;
}

inline Block raw_block(const float* logits, int vocab, int block) {
  const float* first = logits + size_t(block) * BLOCK;
  const int count = vocab - block * BLOCK;
  if (count >= BLOCK) return {load(first), load(first + LANES)};
  float padded[BLOCK];
  for (int i = 0; i < BLOCK; ++i) padded[i] = i < count ? first[i] : NOTHING;
  return {load(padded), load(padded + LANES)};
}

// The blocks that passes over a row go through, in the order of ids, and their bounds.
struct Active {
  std::vector<int> blocks;
  std::vector<float> bounds;

  size_t size() const { return blocks.size(); }

  void resize(size_t size) {
    blocks.resize(size);
    bounds.resize(size);
  }
};

class Row {
 public:
  // bounds: one for each block, of the unmasked logits. mask: a word for each block, or null.
  // `memory` is the row's while it lives.
  Row(const float* logits, int vocab, const float* bounds, const uint32_t* mask, Active& memory)
      : logits_(logits), vocab_(vocab), mask_(mask), active_(memory) {
    const int blocks = num_blocks(vocab);
    active_.resize(size_t(blocks));
    size_t count = 0;
    for (int i = 0; i < blocks; ++i) {
      active_.blocks[count] = i;
      active_.bounds[count] = bounds[i];
      count += bounds[i] > NOTHING && (!mask || mask[i]);
    }
    active_.resize(count);
  }

  Row(const Row&) = delete;
  Row& operator=(const Row&) = delete;

  int vocab() const { return vocab_; }
  bool is_masked() const { return mask_; }
  float logit(int token) const { return logits_[token]; }

  const Active& active() const { return active_; }

  // From now on nobody asks for logits below `floor`.
  void narrow(float floor) {
    size_t count = 0;
    for (size_t i = 0; i < active_.size(); ++i) {
      const float bound = active_.bounds[i];
      active_.blocks[count] = active_.blocks[i];
      active_.bounds[count] = bound;
      count += bound >= floor;
    }
    active_.resize(count);
  }

  Block block(int index) const {
    const Block values = raw_block(logits_, vocab_, index);
    if (!mask_ || mask_[index] == ~uint32_t(0)) return values;
    return {allowed_lanes(values.low, mask_[index]),
            allowed_lanes(values.high, mask_[index] >> LANES)};
  }

  // use(index, block) for every active block that may hold a logit >= floor.
  template <class Use>
  void each_block(float floor, Use use) const {
    for (size_t i = 0; i < active_.size(); ++i)
      if (active_.bounds[i] >= floor) use(active_.blocks[i], block(active_.blocks[i]));
  }

  // use(token) for every allowed token with low <= logit < high, in the order of ids.
  template <class Use>
  void each_token(float low, float high, Use use) const {
    each_block(low, [&](int index, const Block& values) {
      uint32_t inside = values.reaching(low) & ~values.reaching(high);
      if (!inside) return;
      float logits[BLOCK];
      store(logits, values.low);
      store(logits + LANES, values.high);
      for (; inside; inside &= inside - 1) {
        const int i = __builtin_ctz(inside);
        use(Token{logits[i], index * BLOCK + i});
      }
    });
  }

  // The first of the largest allowed logits; token 0 where nothing is above NOTHING.
  Token likeliest() const {
    Token best{NOTHING, 0};
    int where = -1;
    for (size_t i = 0; i < active_.size(); ++i) {
      if (!(active_.bounds[i] > best.logit)) continue;
      const float top = block(active_.blocks[i]).largest_above(best.logit);
      if (top > best.logit) {
        best.logit = top;
        where = active_.blocks[i];
      }
    }
    if (where >= 0)
      best.id = where * BLOCK + __builtin_ctz(block(where).reaching(best.logit));
    return best;
  }

  // A logit that at least `count` of the active bounds reach, and not many more; the lowest bound
  // where there are fewer. `top` where none is lower.
  float level_of(size_t count, float top) const {
    float low = top;
    for (const float bound : active_.bounds) low = bound < low ? bound : low;
    float high = top;
    for (int i = 0; i < GUESSES && count < active_.size(); ++i) {
      const float middle = low / 2 + high / 2;
      int reached = 0;
      for (const float bound : active_.bounds) reached += bound >= middle;
      (size_t(reached) >= count ? low : high) = middle;
    }
    return low;
  }

 private:
  static constexpr int GUESSES = 8;

  const float* logits_;
  int vocab_;
  const uint32_t* mask_;
  Active& active_;
};

}  // namespace sapwood::sampling
