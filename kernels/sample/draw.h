// One token of one row: the limits, then the inverse of the kept tokens' cumulative distribution in
// token-id order. Owns the arithmetic of a draw; knows no penalty and no batch.
//
// Weights are float32, their sums float64.
#pragma once
#include <vector>

#include "cut.h"

namespace sapwood::sampling {

constexpr size_t USUALLY_KEPT = 64;  // tokens that top_p keeps: where the search begins

struct Limits {
  float temperature;
  int top_k;
  float top_p, min_p;
  double uniform;
};

// Memory of one thread, kept from row to row.
struct Scratch {
  Active active;
  std::vector<float> bounds, weights;
  std::vector<Token> band, found;
  std::vector<double> sums;
  std::vector<uint32_t> mask;
  std::vector<int32_t> counts;
  std::vector<Token> changed;  // logits as they were, in the order of the changes
};

// e^((logit - top) / temperature)
struct Softmax {
  float top, temperature;

  Floats operator()(int, Floats logits) const {
    if (temperature == 1.0f) return exp_of_nonpositive(logits - top);
    return exp_of_nonpositive((logits - top) / temperature);
  }
};

// Weights computed before, by token id.
struct Stored {
  const float* weights;

  Floats operator()(int first, Floats) const { return load(weights + first); }
};

inline double total_weight(const Row& row, const Softmax& softmax) {
  Doubles total = {};
  row.each_block(-FLT_MAX, [&](int index, const Block& values) {
    total += folded(softmax(index * BLOCK, values.low));
    total += folded(softmax(index * BLOCK + LANES, values.high));
  });
  return sum(total);
}

// The same, and keeps the weights of the active blocks.
inline double store_weights(const Row& row, const Softmax& softmax, std::vector<float>& weights) {
  weights.resize(size_t(num_blocks(row.vocab())) * BLOCK);
  Doubles total = {};
  row.each_block(-FLT_MAX, [&](int index, const Block& values) {
    const int first = index * BLOCK;
    const Floats low = softmax(first, values.low), high = softmax(first + LANES, values.high);
    store(&weights[size_t(first)], low);
    store(&weights[size_t(first) + LANES], high);
    total += folded(low);
    total += folded(high);
  });
  return sum(total);
}

constexpr int RUN = 8;  // blocks that are summed as one

// The token at which the running sum of `weigh` over the active blocks, in token-id order, first
// exceeds `uniform` times its total.
template <class Weigh>
int token_at(const Row& row, double uniform, const Weigh& weigh, std::vector<double>& sums) {
  const std::vector<int>& active = row.active().blocks;
  const auto weights_of = [&](size_t i) {
    const Block values = row.block(active[i]);
    const int first = active[i] * BLOCK;
    return Block{weigh(first, values.low), weigh(first + LANES, values.high)};
  };
  sums.clear();
  double total = 0;
  for (size_t first = 0; first < active.size(); first += RUN) {
    Doubles weight = {};
    for (size_t i = first; i < std::min(first + RUN, active.size()); ++i) {
      const Block weights = weights_of(i);
      weight += folded(weights.low);
      weight += folded(weights.high);
    }
    sums.push_back(sum(weight));
    total += sums.back();
  }
  const double target = uniform * total;
  size_t run = 0, last = 0;
  double before = 0;
  for (; run < sums.size() && before + sums[run] <= target; ++run) {
    before += sums[run];
    if (sums[run] > 0) last = run;
  }
  if (run == sums.size()) {  // rounding: no run exceeds the target
    run = last;
    before = -INFINITY;
  }
  int token = 0;
  for (size_t i = run * RUN; i < std::min((run + 1) * RUN, active.size()); ++i) {
    const Block block = weights_of(i);
    float weights[BLOCK];
    store(weights, block.low);
    store(weights + LANES, block.high);
    for (int j = 0; j < BLOCK; ++j) {
      if (!(weights[j] > 0)) continue;
      token = active[i] * BLOCK + j;
      before += double(weights[j]);
      if (before > target) return token;
    }
  }
  return token;
}

// The draw among the tokens up to `last`, by rank, that weigh at least `min_p`.
template <class Weigh>
int token_within(Row& row, const Token& last, const Limits& limits, const Weigh& weigh,
                 std::vector<double>& sums) {
  const bool is_cut = last.logit > -FLT_MAX;
  const Floats cut = Floats{} + last.logit, least = Floats{} + limits.min_p;
  return token_at(
      row, limits.uniform,
      [&](int first, Floats logits) {
        Floats weights = weigh(first, logits);
        if (is_cut) {
          const Ints up_to_last = (logits == cut) & (LANE + first <= Ints{} + last.id);
          weights = ((logits > cut) | up_to_last) ? weights : Floats{};
        }
        return limits.min_p > 0 ? (weights >= least ? weights : Floats{}) : weights;
      },
      sums);
}

// A logit below which no token weighs min_p of the likeliest. The margins cover the rounding of exp
// and log.
inline float least_logit(const Softmax& softmax, float min_p) {
  return softmax.top + softmax.temperature * (std::log(min_p) * 1.0001f - 1e-4f);
}

inline int draw(Row& row, const Limits& limits, Scratch& scratch) {
  const Token likeliest = row.likeliest();
  if (!(limits.temperature > 0) || !std::isfinite(likeliest.logit)) return likeliest.id;
  if (limits.top_k == 1) return likeliest.id;
  const Softmax softmax{likeliest.logit, std::max(limits.temperature, 1e-30f)};
  Token last{-FLT_MAX, row.vocab()};
  double total = 0;
  if (limits.top_p < 1) total = store_weights(row, softmax, scratch.weights);
  if (limits.top_k > 0 && limits.top_k < row.vocab())
    last = kth(row, softmax.top, limits.top_k, scratch.band);
  if (limits.min_p > 0) row.narrow(least_logit(softmax, limits.min_p));
  if (limits.top_p >= 1) return token_within(row, last, limits, softmax, scratch.sums);
  const Stored stored{scratch.weights.data()};
  const Token other = last_kept(
      row, softmax.top, limits.top_p * total, USUALLY_KEPT, stored,
      [&](const Token& token) { return double(scratch.weights[size_t(token.id)]); }, scratch.band);
  if (outranks(other, last)) last = other;
  return token_within(row, last, limits, stored, scratch.sums);
}

}  // namespace sapwood::sampling
