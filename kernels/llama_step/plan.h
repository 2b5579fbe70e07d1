// A step's attention work, planned once and run in every layer.
//
// Owns: which rows are computed together. Long spans (prefill) are cut into blocks of tokens that go
// through their splits one after the other. Tokens of short spans (decodes, drafts) are taken split
// by split: those whose pages are the same share a unit, so that a shared prefix is read once.
// What is computed together never changes a result (see attention.h).
#pragma once
#include <algorithm>
#include <vector>

#include "attention.h"

namespace sapwood {

constexpr int LONG_SPAN = 8;     // tokens; from here on a span is taken in blocks
constexpr int BLOCK_TOKENS = 16; // of a long span
constexpr int SHARED_TOKENS = 32; // most tokens of one shared unit

// One token of the step: where it stands and which positions it sees.
struct Token {
  int position;
  const int32_t* pages;
  Range range;
};

struct LongUnit {
  int first, count;  // tokens of the step
};

struct ShortUnit {
  int split;
  std::vector<int> tokens;
};

struct Plan {
  std::vector<Token> tokens;
  std::vector<LongUnit> long_units;
  std::vector<ShortUnit> short_units;
  std::vector<int> short_tokens;  // all tokens of short spans
  std::vector<int> part_of;       // per token of the step: where its first split's part lies
  int num_parts = 0;

  void clear() {
    tokens.clear();
    long_units.clear();
    short_units.clear();
    short_tokens.clear();
    part_of.clear();
    num_parts = 0;
  }

  static int first_split(const Token& token) { return token.range.first / SPLIT; }
  static int num_splits(const Token& token) {
    return token.range.last / SPLIT - first_split(token) + 1;
  }
  int part(int token, int split) const {
    return part_of[size_t(token)] + split - first_split(tokens[size_t(token)]);
  }

  // `window`: how many positions a token sees, itself included; 0 for all before it.
  void add_span(int start, int length, const int32_t* pages, int window) {
    const int base = int(tokens.size());
    for (int i = 0; i < length; ++i) {
      const int position = start + i;
      const int first = window > 0 && position >= window ? position - window + 1 : 0;
      tokens.push_back({position, pages, {first, position}});
      part_of.push_back(0);
    }
    if (length >= LONG_SPAN) {
      for (int i = 0; i < length; i += BLOCK_TOKENS)
        long_units.push_back({base + i, std::min(BLOCK_TOKENS, length - i)});
      return;
    }
    for (int i = base; i < base + length; ++i) {
      part_of[size_t(i)] = num_parts;
      num_parts += num_splits(tokens[size_t(i)]);
      short_tokens.push_back(i);
    }
  }

  // Groups the short spans' tokens, split by split, by equal pages.
  void finish(int page_size) {
    // The dearest units first: what is left for helpers at the end of a range is small.
    std::reverse(long_units.begin(), long_units.end());
    int most = 0;
    for (int token : short_tokens) most = std::max(most, tokens[size_t(token)].range.last / SPLIT);
    std::vector<int> members;
    for (int split = 0; split <= most; ++split) {
      members.clear();
      for (int token : short_tokens) {
        const Token& t = tokens[size_t(token)];
        if (split >= first_split(t) && split <= t.range.last / SPLIT) members.push_back(token);
      }
      std::stable_sort(members.begin(), members.end(), [&](int a, int b) {
        return compare(tokens[size_t(a)], tokens[size_t(b)], split, page_size) < 0;
      });
      for (size_t i = 0; i < members.size(); ++i) {
        const bool joins = i > 0 && short_units.back().split == split &&
                           short_units.back().tokens.size() < size_t(SHARED_TOKENS) &&
                           compare(tokens[size_t(members[i - 1])], tokens[size_t(members[i])], split,
                                   page_size) == 0;
        if (!joins) short_units.push_back({split, {}});
        short_units.back().tokens.push_back(members[i]);
      }
    }
  }

 private:
  // Orders tokens by the pages that they read in a split.
  static int compare(const Token& a, const Token& b, int split, int page_size) {
    const int end_a = std::min(a.range.last, (split + 1) * SPLIT - 1) / page_size;
    const int end_b = std::min(b.range.last, (split + 1) * SPLIT - 1) / page_size;
    if (a.pages == b.pages) return 0;  // tokens of one span: the later one's pages hold the earlier's
    for (int page = split * SPLIT / page_size; page <= std::min(end_a, end_b); ++page)
      if (a.pages[page] != b.pages[page]) return a.pages[page] < b.pages[page] ? -1 : 1;
    return end_a - end_b;
  }
};

}  // namespace sapwood
