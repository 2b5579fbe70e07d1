// A machine beside a vocabulary: rows of allowed tokens, kept for reuse, and the way to the end in
// tokens. Used by one thread at a time.
#pragma once

#include <cstring>
#include <unordered_map>
#include <vector>

#include "machine.h"
#include "vocabulary.h"

namespace sapwood {

class Grammar {
 public:
  Grammar(Program program, const Vocabulary& vocabulary, double seconds)
      : machine_(std::move(program), vocabulary.spelled(), seconds), vocabulary_(vocabulary), at_(vocabulary.longest() + 1) {}

  Machine& machine() { return machine_; }

  int step(int configuration, const uint8_t* text, int length) {
    for (int i = 0; i < length && configuration != DEAD; ++i) configuration = machine_.step(configuration, text[i]);
    return configuration;
  }

  // Where a token leads; DEAD where it is not allowed.
  int accept(int configuration, int token) {
    if (token < 0 || token >= vocabulary_.size() || !vocabulary_.length(token)) return DEAD;
    const int reached = step(configuration, vocabulary_.text(token), vocabulary_.length(token));
    return reached == DEAD || !can_be_spelled(reached) ? DEAD : reached;
  }

  // The bytes that may follow.
  void next_bytes(int configuration, bool* may_follow) {
    const Program& program = machine_.program();
    std::fill_n(may_follow, 256, false);
    bool counts = false;
    for (const Item& item : machine_.items(configuration)) {
      counts |= machine_.is_counting(item.state);
      if (machine_.is_counting(item.state)) continue;
      for (const Edge* e = program.edges.first(item.state); e != program.edges.last(item.state); ++e)
        if (machine_.can_end(e->target)) std::fill(may_follow + e->low, may_follow + e->high + 1, true);
    }
    if (!counts) return;
    for (int byte = 0; byte < 256; ++byte)
      may_follow[byte] = may_follow[byte] || machine_.step(configuration, static_cast<uint8_t>(byte)) != DEAD;
  }

  // The bytes that must follow, appended to `out`; returns the configuration after them.
  int forced(int configuration, std::vector<uint8_t>& out) {
    bool may_follow[256];
    while (!machine_.accepting(configuration) && out.size() < MOST_FORCED) {
      next_bytes(configuration, may_follow);
      const bool* first = std::find(may_follow, may_follow + 256, true);
      if (std::find(first + 1, static_cast<const bool*>(may_follow + 256), true) != may_follow + 256) break;
      out.push_back(static_cast<uint8_t>(first - may_follow));
      configuration = machine_.step(configuration, out.back());
    }
    return configuration;
  }

  bool is_end(int configuration) {
    bool may_follow[256];
    if (!machine_.accepting(configuration)) return false;
    next_bytes(configuration, may_follow);
    return std::find(may_follow, may_follow + 256, true) == may_follow + 256;
  }

  // Whether some token could lie across a place within or at the end of a text, which is followed by
  // what may follow the configuration.
  bool crosses(int configuration, const uint8_t* text, int length, int place) {
    const Trie& trie = vocabulary_.all();
    for (int start = place - 1; start >= std::max(0, place - vocabulary_.longest()); --start) {
      int node = 0;
      for (int at = start; at < length && node >= 0; ++at) {
        node = trie.child(node, text[at]);
        if (node >= 0 && at >= place && trie.token(node) >= 0) return true;
      }
      if (node >= 0 && has_token_below(trie, node, configuration)) return true;
    }
    return false;
  }

  bool has_token_below(const Trie& trie, int node, int configuration) {
    for (int child = node + 1; child < trie.end(node); child = trie.end(child)) {
      const int reached = machine_.step(configuration, trie.byte(child));
      if (reached == DEAD) continue;
      if (trie.token(child) >= 0 || has_token_below(trie, child, reached)) return true;
    }
    return false;
  }

  // Fewest tokens that spell a shortest text to the end; NEVER where no tokens do. Consistent: some
  // token leads to a configuration that needs one less.
  //
  // Within unique items it is the bytes of a text, for rows forget what tokens would be told apart by.
  int needed(int configuration) {
    if (machine_.reads_unique(configuration)) return machine_.shortest(configuration);
    if (known(needed_, configuration) >= 0) return needed_[configuration];
    std::vector<int> way{configuration};  // along the shortest text, to what is known
    while (known(needed_, way.back()) < 0 && !machine_.accepting(way.back())) {
      const int here = way.back();
      if (machine_.reads_unique(here)) {
        known(needed_, here) = machine_.shortest(here);
        break;
      }
      const int byte = machine_.shortest_byte(here);
      known(next_byte_, here) = byte;
      known(next_, here) = machine_.step(here, static_cast<uint8_t>(byte));
      way.push_back(next_[here]);
      if (way.size() > MOST_FORCED) throw Limit("no way to its end was found");
    }
    for (size_t i = way.size(); i-- > 0;)
      if (known(needed_, way[i]) < 0) needed_[way[i]] = split(way[i]);
    return needed_[configuration];
  }

  // The allowed tokens, as bits of `row`. With a budget (of tokens, this one included; -1: none) only
  // those after which the end can be reached within it.
  void fill(int configuration, int budget, int32_t* row) {
    configuration = machine_.outline(configuration);
    const int words = vocabulary_.num_words();
    auto found = rows_.find(configuration);
    if (found == rows_.end()) {
      if (rows_.size() * words * sizeof(int32_t) > MOST_BYTES) rows_.clear();
      found = rows_.emplace(configuration, Row{std::vector<int32_t>(words), 0}).first;
      found->second.most = make_row(configuration, NEVER, found->second.words.data());
    }
    Row& whole = found->second;
    if (budget >= 0 && budget <= whole.most && !whole.is_exact) {  // then the cheap bound is not enough
      whole.most = make_row(configuration, NEVER - 1, whole.words.data());
      whole.is_exact = true;
    }
    if (budget < 0 || budget > whole.most)
      std::memcpy(row, whole.words.data(), words * sizeof(int32_t));
    else
      make_row(configuration, budget - 1, row);
  }

 private:
  static constexpr size_t MOST_FORCED = 1 << 16;
  static constexpr size_t MOST_PAIRS = 64;
  // How much farther plain text may lead from the end: by the rest of a character, by a character that
  // makes it another name than those that are taken; with room to spare.
  static constexpr int MOST_DETOUR = 8;
  static constexpr size_t MOST_BYTES = 16 << 20;

  struct Row {
    std::vector<int32_t> words;
    int most;               // that many tokens are enough after the worst of them
    bool is_exact = false;  // `most` is in tokens, not in the bytes that they spell
  };

  static int& known(std::vector<int>& list, int at) {
    if (at >= static_cast<int>(list.size())) list.resize(at + at / 2 + 16, -1);
    return list[at];
  }

  int split(int configuration) {
    if (machine_.accepting(configuration)) return 0;
    const Trie& trie = vocabulary_.all();
    int node = 0, best = NEVER;
    for (int here = configuration; known(next_, here) >= 0 && !machine_.accepting(here);) {
      node = trie.child(node, static_cast<uint8_t>(next_byte_[here]));
      if (node < 0) break;
      here = next_[here];
      if (trie.token(node) >= 0) best = std::min(best, known(needed_, here) + 1);
    }
    return std::min(best, NEVER);
  }

  // Returns the most tokens that any allowed one leaves to come.
  int make_row(int configuration, int most_after, int32_t* row) {
    int most = 0;
    if (reads_plain_text(configuration, most_after, most)) {
      std::copy(vocabulary_.plain_words().begin(), vocabulary_.plain_words().end(), row);
      walk(vocabulary_.others(), configuration, most_after, row, most);
    } else {
      std::fill_n(row, vocabulary_.num_words(), 0);
      most = 0;
      walk(vocabulary_.all(), configuration, most_after, row, most);
    }
    if (machine_.accepting(configuration))
      for (int end : vocabulary_.ends()) set(row, end);
    return most;
  }

  void walk(const Trie& trie, int configuration, int most_after, int32_t* row, int& most) {
    at_[0] = configuration;
    for (int node = 1; node < trie.num_nodes();) {
      const int depth = trie.depth(node);
      const int reached = machine_.step(at_[depth - 1], trie.byte(node));
      if (reached == DEAD) {
        node = trie.end(node);
        continue;
      }
      at_[depth] = reached;
      const int token = trie.token(node++);
      if (token < 0) continue;
      if (!leaves(reached, most_after, most)) continue;
      set(row, token);
    }
    for (const Trie::Twins& twins : trie.twins())
      if (row[twins.first / 32] >> (twins.first % 32) & 1) set(row, twins.other);
  }

  // Whether the end can be reached from a configuration within so many tokens; raises `most` to a bound
  // of how many it takes. Without a limit the bytes of a shortest text are bound enough, which cost no
  // search: each of them is a token, where the machine has seen to that.
  bool leaves(int configuration, int most_after, int& most) {
    const bool is_cheap = most_after == NEVER && machine_.only_spelled();
    const int after = is_cheap ? machine_.shortest(configuration) : needed(configuration);
    if (after > most_after || after >= NEVER) return false;
    most = std::max(most, after);
    return true;
  }

  bool can_be_spelled(int configuration) { return machine_.only_spelled() || needed(configuration) < NEVER; }

  // --- plain text ---

  // Whether every plain token is allowed, and leaves no more tokens to come than `most_after`. Raises
  // `most` to a bound of how many.
  bool reads_plain_text(int configuration, int most_after, int& most) {
    if (!machine_.only_spelled()) return false;
    if (machine_.step(configuration, ' ') == DEAD || machine_.step(configuration, 'z') == DEAD) return false;
    if (!is_plain(configuration)) return false;
    const int end = most_after == NEVER ? machine_.shortest(configuration) : needed(configuration);
    const int bound = std::min(NEVER - 1, end + MOST_DETOUR);
    if (bound > most_after) return false;
    most = std::max(most, bound);
    return true;
  }

  bool is_plain(int configuration) {
    if (known(plain_, configuration) < 0) {
      plain_[configuration] = 0;
      // What a rule reads does not depend on who has called it: so this is known from others of it.
      const int alone = machine_.without_callers(configuration);
      const bool found = counts_characters(configuration) || has_plain_product(configuration) ||
                         (alone == configuration ? explores_plain_text(configuration) : is_plain(alone));
      plain_[configuration] = found;
    }
    return plain_[configuration];
  }

  // A repetition of single characters, any of them, that has far to go.
  bool counts_characters(int configuration) {
    const std::vector<Item> items = machine_.items(configuration);
    const Program& program = machine_.program();
    int before = BOTTOM;
    for (const Item& item : items) {
      if (item.frame == before || item.frame == BOTTOM) continue;
      before = item.frame;
      const List callers = machine_.frame(item.frame);
      for (int i = 0; i < callers.size; i += 2) {
        if (!machine_.is_counting(callers[i])) continue;
        const List counted = machine_.counting(callers[i]);
        const Operands& of = program.operands[counted[0]];
        if (program.kind[counted[0]] != Kind::REPEAT) continue;
        if (of.high != NO_BOUND && of.high - counted[1] < PlainText::MOST_BYTES) continue;
        if (begins(items, item.frame, of.rule) && reads_any_character(of.rule)) return true;
      }
    }
    return false;
  }

  // Whether a rule that goes on at `frame` has just begun.
  bool begins(const std::vector<Item>& items, int frame, int rule) {
    for (const Item& item : machine_.items(machine_.start_of(rule)))
      if (item.frame != BOTTOM || std::find(items.begin(), items.end(), Item{item.state, frame}) == items.end()) return false;
    return true;
  }

  // Whether every plain character is a text of the rule.
  bool reads_any_character(int rule) {
    std::vector<Pair> pairs{{0, machine_.start_of(rule)}};
    for (size_t first = 0; first < pairs.size(); ++first) {
      const Pair here = pairs[first];
      if (here.state == 0 && first > 0) {
        if (!machine_.accepting(here.configuration)) return false;
        continue;
      }
      if (!follow(here, pairs)) return false;
    }
    return true;
  }

  // A product that wants plain text and nothing else of importance: what it does not want are some
  // texts, from which a further character always leads away.
  bool has_plain_product(int configuration) {
    const Program& program = machine_.program();
    for (const Item& item : machine_.items(configuration)) {
      if (!machine_.is_counting(item.state)) continue;
      const List list = machine_.counting(item.state);
      if (program.kind[list[0]] != Kind::PRODUCT) continue;
      const std::vector<int> parts(list.begin() + 1, list.end());
      const PartOf* of = program.parts.first(program.operands[list[0]].rule);
      bool all = true;
      for (size_t i = 0; i < parts.size() && all; ++i)
        all = of[i].negated ? machine_.is_finite(of[i].rule) : is_plain(parts[i]);
      if (all) return true;
    }
    return false;
  }

  struct Pair {
    int state, configuration;  // of plain text, and of the machine
  };

  // All pairs that plain text leads to are alive.
  bool explores_plain_text(int configuration) {
    std::vector<Pair> pairs{{0, configuration}};
    for (size_t first = 0, depth = 0; first < pairs.size() && depth < PlainText::MOST_BYTES; ++depth)
      for (const size_t last = pairs.size(); first < last; ++first)
        if (!follow(pairs[first], pairs) || pairs.size() > MOST_PAIRS) return false;
    return true;
  }

  // Adds what follows a pair; false where plain text is not allowed.
  bool follow(Pair here, std::vector<Pair>& pairs) {
    const Program& program = machine_.program();
    for (const PlainText::Range& range : PlainText::ranges(here.state)) {
      for (int c = program.byte_class[range.low]; c <= program.byte_class[range.high]; ++c) {
        const int reached = machine_.step_class(here.configuration, c);
        if (reached == DEAD) return false;
        const bool is_new = std::none_of(pairs.begin(), pairs.end(), [&](const Pair& pair) {
          return pair.state == range.next && pair.configuration == reached;
        });
        if (is_new) pairs.push_back({range.next, reached});
      }
    }
    return true;
  }

  static void set(int32_t* row, int token) { row[token / 32] |= static_cast<int32_t>(1u << (token % 32)); }

  Machine machine_;
  const Vocabulary& vocabulary_;
  std::vector<int> at_;  // the configuration at each depth of the trie
  std::vector<int> plain_;  // whether plain text is read; -1: not known yet
  std::vector<int> needed_, next_, next_byte_;
  std::unordered_map<int, Row> rows_;
};

}  // namespace sapwood
