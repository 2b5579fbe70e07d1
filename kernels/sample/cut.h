// Where a ranked row is cut: the last token of the largest set, by rank, in which every token has at
// most a given weight before it. With weight 1 that is top-k, with probabilities top-p.
//
// Sorts nothing but the few tokens about the cut: passes over the row find two logits that it lies
// between, and each pass reads only the blocks that reach so high.
#pragma once
#include <algorithm>
#include <vector>

#include "row.h"

namespace sapwood::sampling {

constexpr size_t BAND = 128;       // tokens that are cheaper to sort than to divide further
constexpr int BISECTIONS = 16;     // after which nearly all of the band are ties

// What lies at or above a logit.
struct Tally {
  double weight;
  size_t count;
};

// weigh(first, logits): the weights (>= 0) of sixteen tokens from id `first` on.
template <class Weigh>
Tally tally(const Row& row, float floor, const Weigh& weigh) {
  Doubles weight = {};
  Ints count = {};
  const auto add = [&](int first, Floats logits) {
    const Ints inside = logits >= Floats{} + floor;
    weight += folded(inside ? weigh(first, logits) : Floats{});
    count -= inside;
  };
  row.each_block(floor, [&](int index, const Block& values) {
    add(index * BLOCK, values.low);
    add(index * BLOCK + LANES, values.high);
  });
  size_t total = 0;
  for (int i = 0; i < LANES; ++i) total += size_t(count[i]);
  return {sum(weight), total};
}

// Where the search goes on where `low` was not low enough: to a logit that `count` bounds reach,
// below the lowest bound ever further down, at last to all tokens.
inline float below(const Row& row, float top, float low, size_t count) {
  const float level = row.level_of(count, top);
  if (level < low) return level;
  if (count > 100 * size_t(row.vocab())) return -FLT_MAX;
  return std::max(low - (top - low) - FLT_MIN, -FLT_MAX);
}

// weight: of a single token. top: the row's largest logit, finite. guess: how many are kept, about.
// The answer's logit is -FLT_MAX where every finite token is kept. Narrows the row to what is kept.
template <class Weigh, class Weight>
Token last_kept(Row& row, float top, double limit, size_t guess, const Weigh& weigh,
                const Weight& weight, std::vector<Token>& band) {
  // Kept: all tokens at or above `high`, and the next. Not kept: some token at or above `low`.
  float high = std::nextafter(top, INFINITY);
  Tally above{0, 0};
  float low = row.level_of(guess, top);
  Tally within = tally(row, low, weigh);
  while (within.weight <= limit) {
    if (low == -FLT_MAX) return {-FLT_MAX, row.vocab()};
    high = low;
    above = within;
    low = below(row, top, low, guess *= 8);
    within = tally(row, low, weigh);
  }
  row.narrow(low);
  for (int i = 0; i < BISECTIONS && within.count - above.count > BAND; ++i) {
    const float middle = low / 2 + high / 2;
    if (!(middle > low && middle < high)) break;
    const Tally there = tally(row, middle, weigh);
    (there.weight > limit ? low : high) = middle;
    (there.weight > limit ? within : above) = there;
  }
  band.clear();
  row.each_token(low, high, [&](Token token) { band.push_back(token); });
  std::sort(band.begin(), band.end(), outranks);
  Token last{-FLT_MAX, row.vocab()};
  double before = above.weight;
  for (const Token& token : band) {
    if (before > limit) break;
    last = token;
    before += weight(token);
  }
  row.narrow(last.logit);
  return last;
}

inline Token kth(Row& row, float top, int k, std::vector<Token>& band) {
  return last_kept(
      row, top, k - 1, size_t(k) * (row.is_masked() ? 3 : 1),
      [](int, Floats) { return Floats{} + 1.0f; }, [](const Token&) { return 1.0; }, band);
}

// The n tokens of highest rank among the finite ones, best first. Narrows the row to them.
inline void top_tokens(Row& row, float top, int n, std::vector<Token>& band,
                       std::vector<Token>& found) {
  found.clear();
  if (n <= 0) return;
  const Token last = kth(row, top, n, band);
  row.each_token(last.logit, INFINITY, [&](Token token) {
    if (!outranks(last, token)) found.push_back(token);
  });
  std::sort(found.begin(), found.end(), outranks);
}

}  // namespace sapwood::sampling
