// Penalties and bias on one row of logits, in place and taken back afterwards: a handful of logits
// change, so a copy of the row would cost more. Owns: their order and arithmetic (float32).
#pragma once
#include <vector>

#include "draw.h"

namespace sapwood::sampling {

// One row's ids of a ragged list: row r has ids[starts[r]] to ids[starts[r + 1]].
struct Ragged {
  const int64_t* starts;  // null: no row has any
  const int32_t* ids;

  const int32_t* begin(int64_t row) const { return starts ? ids + starts[row] : nullptr; }
  const int32_t* end(int64_t row) const { return starts ? ids + starts[row + 1] : nullptr; }

  bool all_below(int64_t row, int64_t vocab) const {
    for (const int32_t* id = begin(row); id != end(row); ++id)
      if (*id < 0 || *id >= vocab) return false;
    return true;
  }
};

// Takes every change back when it goes.
class Adjusted {
 public:
  // bounds: as in Row; raised where a logit is.
  Adjusted(float* logits, int vocab, float* bounds, Scratch& scratch)
      : logits_(logits), bounds_(bounds), counts_(scratch.counts), changed_(scratch.changed) {
    changed_.clear();
    counts_.resize(size_t(vocab), 0);
  }

  ~Adjusted() {
    for (auto change = changed_.rbegin(); change != changed_.rend(); ++change)
      logits_[change->id] = change->logit;
  }

  Adjusted(const Adjusted&) = delete;
  Adjusted& operator=(const Adjusted&) = delete;

  // Keskar et al., 2019: positive logits are divided, negative ones multiplied, once each.
  void repetition(const Ragged& prompt, const Ragged& output, int64_t row, float factor) {
    for (const Ragged* tokens : {&prompt, &output})
      for (const int32_t* id = tokens->begin(row); id != tokens->end(row); ++id) {
        int32_t& seen = counts_[size_t(*id)];
        if (!seen) scale(*id, factor);
        seen = 1;
      }
    for (const Ragged* tokens : {&prompt, &output})
      for (const int32_t* id = tokens->begin(row); id != tokens->end(row); ++id)
        counts_[size_t(*id)] = 0;
  }

  // Of output tokens: `frequency` for each occurrence, `presence` once.
  void occurrences(const Ragged& output, int64_t row, float frequency, float presence) {
    for (const int32_t* id = output.begin(row); id != output.end(row); ++id) ++counts_[size_t(*id)];
    for (const int32_t* id = output.begin(row); id != output.end(row); ++id) {
      int32_t& count = counts_[size_t(*id)];
      if (!count) continue;
      set(*id, logits_[*id] - (float(count) * frequency + presence));
      count = 0;
    }
  }

  void bias(const Ragged& tokens, const float* values, int64_t row) {
    for (const int32_t* id = tokens.begin(row); id != tokens.end(row); ++id)
      set(*id, logits_[*id] + values[id - tokens.ids]);
  }

 private:
  void scale(int id, float factor) {
    const float value = logits_[id];
    set(id, value > 0 ? value / factor : value * factor);
  }

  void set(int id, float value) {
    changed_.push_back({logits_[id], id});
    logits_[id] = value;
    float& bound = bounds_[id / BLOCK];
    if (!(value <= bound)) bound = value;
  }

  float* logits_;
  float* bounds_;
  std::vector<int32_t>& counts_;
  std::vector<Token>& changed_;
};

}  // namespace sapwood::sampling
