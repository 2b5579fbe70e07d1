// The sampler's C interface: a batch of rows in, a token for each row out, with log-probabilities
// where they are asked for. Owns: the order of a row's steps, the threads. Mirrored field by field in
// native_cpu.py, which says what each array is and checks shapes.
#include <atomic>
#include <thread>
#include <vector>

#include "adjust.h"
#include "draw.h"
#include "philox.h"

#define SAPWOOD_EXPORT extern "C" __attribute__((visibility("default")))

namespace sapwood::sampling {

struct Logits {
  float* values;
  const float* maxima;  // of each block; null: found here
  int64_t num_rows, vocab, stride, maxima_stride;

  float* row(int64_t index) const { return values + index * stride; }
};

struct Reports {
  double* logprobs;
  int32_t* top_ids;
  double* top_logprobs;
  int64_t width;  // of top_ids and top_logprobs
};

struct Request {
  Logits logits;
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;
  const double* uniforms;
  const uint32_t* masks;
  const int32_t* mask_rows;  // -1: the row has none
  Ragged banned, prompt, output, biased;
  const float *repetition, *frequency, *presence;
  const float* bias_values;
  const int32_t* report;  // how many likeliest tokens to report besides; -1: nothing
  Reports reports;
  int64_t* tokens;
};

// The row's bounds, copied or computed, so that penalties may raise them.
void find_bounds(const Logits& logits, int64_t row, std::vector<float>& bounds) {
  const int vocab = int(logits.vocab);
  bounds.resize(size_t(num_blocks(vocab)));
  if (logits.maxima) {
    const float* given = logits.maxima + row * logits.maxima_stride;
    bounds.assign(given, given + bounds.size());
    return;
  }
  for (size_t i = 0; i < bounds.size(); ++i)
    bounds[i] = raw_block(logits.row(row), vocab, int(i)).largest_above(NOTHING);
}

// The log-probability of `token` is left to the caller: its logit minus what this returns. Lists the
// `top` likeliest tokens; past the last finite one, token 0 at -inf.
double report_row(Row& row, int top, int64_t index, const Reports& reports,
                  Scratch& scratch) {
  const Token likeliest = row.likeliest();
  const bool is_finite = std::isfinite(likeliest.logit);
  double norm = likeliest.logit;
  if (is_finite) norm += std::log(total_weight(row, {likeliest.logit, 1.0f}));
  scratch.found.clear();
  if (is_finite) top_tokens(row, likeliest.logit, top, scratch.band, scratch.found);
  for (int i = 0; i < top; ++i) {
    const bool is_there = size_t(i) < scratch.found.size();
    const int64_t at = index * reports.width + i;
    reports.top_ids[at] = is_there ? scratch.found[size_t(i)].id : 0;
    reports.top_logprobs[at] = is_there ? double(scratch.found[size_t(i)].logit) - norm : -INFINITY;
  }
  return norm;
}

// The mask with the banned tokens taken out, unless nothing else would be left: then the mask's word
// stands.
const uint32_t* row_mask(const Request& request, int64_t row, Scratch& scratch) {
  const int words = num_blocks(int(request.logits.vocab));
  const uint32_t* mask = nullptr;
  if (request.masks && request.mask_rows[row] >= 0)
    mask = request.masks + int64_t(request.mask_rows[row]) * words;
  const Ragged& banned = request.banned;
  if (banned.begin(row) == banned.end(row)) return mask;
  std::vector<uint32_t>& own = scratch.mask;
  own.assign(size_t(words), ~uint32_t(0));
  if (const int rest = int(request.logits.vocab) % BLOCK) own.back() = (uint32_t(1) << rest) - 1;
  for (int i = 0; mask && i < words; ++i) own[size_t(i)] &= mask[i];
  for (const int32_t* id = banned.begin(row); id != banned.end(row); ++id)
    own[size_t(*id / BLOCK)] &= ~(uint32_t(1) << *id % BLOCK);
  for (const uint32_t word : own)
    if (word) return own.data();
  return mask;
}

void adjust(const Request& request, int64_t row, Adjusted& adjusted) {
  if (request.repetition && request.repetition[row] != 1.0f)
    adjusted.repetition(request.prompt, request.output, row, request.repetition[row]);
  if (request.frequency && (request.frequency[row] != 0 || request.presence[row] != 0))
    adjusted.occurrences(request.output, row, request.frequency[row], request.presence[row]);
  adjusted.bias(request.biased, request.bias_values, row);
}

void choose_row(const Request& request, int64_t index, Scratch& scratch) {
  const int vocab = int(request.logits.vocab);
  float* logits = request.logits.row(index);
  find_bounds(request.logits, index, scratch.bounds);
  const int top = request.report ? request.report[index] : -1;
  double norm = 0;
  if (top >= 0) {
    Row raw(logits, vocab, scratch.bounds.data(), nullptr, scratch.active);
    norm = report_row(raw, top, index, request.reports, scratch);
  }
  const Limits limits{request.temperature[index], request.top_k[index], request.top_p[index],
                      request.min_p[index], request.uniforms[index]};
  int token = 0;
  {
    Adjusted adjusted(logits, vocab, scratch.bounds.data(), scratch);
    adjust(request, index, adjusted);
    const uint32_t* mask = row_mask(request, index, scratch);
    Row row(logits, vocab, scratch.bounds.data(), mask, scratch.active);
    token = draw(row, limits, scratch);
  }
  request.tokens[index] = token;
  if (top >= 0) request.reports.logprobs[index] = double(logits[token]) - norm;
}

// The first row that names a token outside the vocabulary, or -1.
int64_t first_bad_row(const Request& request) {
  for (int64_t row = 0; row < request.logits.num_rows; ++row)
    for (const Ragged* list : {&request.banned, &request.prompt, &request.output, &request.biased})
      if (!list->all_below(row, request.logits.vocab)) return row;
  return -1;
}

// work(row, scratch) for every row, on this thread and `num_threads` - 1 further ones.
template <class Work>
void each_row(int64_t num_rows, int num_threads, Work work) {
  std::atomic<int64_t> next{0};
  const auto run = [&] {
    thread_local Scratch scratch;
    for (int64_t row; (row = next.fetch_add(1, std::memory_order_relaxed)) < num_rows;)
      work(row, scratch);
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < num_threads && i < num_rows; ++i) helpers.emplace_back(run);
  run();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace sapwood::sampling

using namespace sapwood::sampling;

// -1, or the first row with a token outside the vocabulary; then nothing was done.
SAPWOOD_EXPORT int64_t sapwood_choose(const Request* request, int32_t num_threads) {
  const int64_t bad = first_bad_row(*request);
  if (bad >= 0) return bad;
  each_row(request->logits.num_rows, num_threads,
           [&](int64_t row, Scratch& scratch) { choose_row(*request, row, scratch); });
  return -1;
}

// Log-probabilities of tokens[row], each within the vocabulary, and of the `top` likeliest tokens.
SAPWOOD_EXPORT void sapwood_logprobs(const Logits* logits, const int64_t* tokens, int32_t top,
                                     const Reports* reports, int32_t num_threads) {
  each_row(logits->num_rows, num_threads, [&](int64_t index, Scratch& scratch) {
    find_bounds(*logits, index, scratch.bounds);
    Row row(logits->row(index), int(logits->vocab), scratch.bounds.data(), nullptr, scratch.active);
    const double norm = report_row(row, top, index, *reports, scratch);
    reports->logprobs[index] = double(row.logit(int(tokens[index]))) - norm;
  });
}

SAPWOOD_EXPORT void sapwood_uniforms(const uint64_t* streams, const uint64_t* positions,
                                     int64_t count, double* found) {
  for (int64_t i = 0; i < count; ++i) found[i] = uniform(streams[i], positions[i]);
}
