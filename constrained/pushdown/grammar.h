// A machine beside a vocabulary: rows of allowed tokens, kept for reuse, and the way to the end in
// tokens. Used by one thread at a time.
#pragma once

#include <cstring>
#include <vector>

#include "machine.h"
#include "vocabulary.h"

namespace sapwood {

class Grammar {
 public:
  Grammar(Program program, const Vocabulary& vocabulary, double seconds)
      : machine_(std::move(program), vocabulary.spelled(), seconds),
        vocabulary_(vocabulary),
        at_(vocabulary.longest() + 1),
        scratch_(vocabulary.num_words() + 1) {}

  Machine& machine() { return machine_; }

  size_t bytes() const {
    size_t bytes = machine_.bytes() + bytes_ + sizeof(Row) * rows_.capacity();
    for (const std::vector<int>* numbers : {&plain_, &needed_, &next_, &next_byte_, &row_numbers_, &cut_rows_})
      bytes += sizeof(int) * numbers->capacity();
    return bytes;
  }

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
      const int state = machine_.reading_state(item.state);
      counts |= state < 0;
      if (state < 0) continue;
      for (const Edge* e = program.edges.first(state); e != program.edges.last(state); ++e)
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
      if (const int byte = machine_.sole_byte(configuration); byte >= 0) {
        out.push_back(static_cast<uint8_t>(byte));
        configuration = machine_.step_sole(configuration);
        continue;
      }
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
        if (node >= 0 && at >= place && trie.has_token(node)) return true;
      }
      if (node >= 0 && has_token_below(trie, node, configuration)) return true;
    }
    return false;
  }

  bool has_token_below(const Trie& trie, int node, int configuration) {
    for (int child = node + 1; child < trie.end(node); child = trie.end(child)) {
      machine_.spend(1);
      const int reached = machine_.step(configuration, trie.byte(child));
      if (reached == DEAD) continue;
      if (trie.has_token(child) || has_token_below(trie, child, reached)) return true;
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
    Row& whole = row_of(configuration);
    if (budget >= 0 && budget <= whole.most && !whole.is_exact) {  // then the cheap bound is not enough
      whole.most = make_row(configuration, NEVER - 1);
      whole.words = vocabulary_.rows().keep(scratch_.data());
      whole.is_exact = true;
    }
    if (budget < 0 || budget > whole.most) {
      vocabulary_.rows().write(*whole.words, row);
    } else {
      make_row(configuration, budget - 1);
      std::memcpy(row, scratch_.data(), vocabulary_.num_words() * sizeof(int32_t));
    }
  }

  // The tokens that begin with `before` and go on, as bits of `row`: those whose further bytes are
  // allowed, and after which the end can be reached within the budget (as in `fill`).
  void fill_beyond(int configuration, const uint8_t* before, int length, int budget, int32_t* row) {
    const Trie& trie = vocabulary_.all();
    std::fill(scratch_.begin(), scratch_.end(), 0);
    int node = 0;
    for (int i = 0; i < length && node >= 0; ++i) node = trie.child(node, before[i]);
    if (node >= 0) walk(trie, node, machine_.outline(configuration), budget < 0 ? NEVER : budget - 1, 0);
    std::memcpy(row, scratch_.data(), vocabulary_.num_words() * sizeof(int32_t));
  }

  // The number of the row that `fill` would give; 0 where it would have to be made.
  int64_t row_number(int configuration, int budget) {
    configuration = machine_.outline(configuration);
    const int at = known(row_numbers_, configuration);
    if (at < 0 || (budget >= 0 && budget <= rows_[at].most)) return 0;
    return rows_[at].words->number;
  }

 private:
  static constexpr size_t MOST_FORCED = 1 << 16;
  static constexpr size_t MOST_PAIRS = 64;
  // How much farther plain text may lead from the end: by the rest of a character, by a character that
  // makes it another name than those that are taken; with room to spare.
  static constexpr int MOST_DETOUR = 8;
  static constexpr int UNKNOWN = -1, ENDED = -2;
  static constexpr size_t MOST_ROWS = 1 << 17, MOST_ROW_BYTES = 16 << 20;

  struct Row {
    RowStore::Words words;
    int most;               // that many tokens are enough after the worst of them
    bool is_exact = false;  // `most` is in tokens, not in the bytes that they spell
  };

  Row& row_of(int configuration) {
    if (const int number = known(row_numbers_, configuration); number >= 0) return rows_[number];
    if (rows_.size() >= MOST_ROWS || bytes_ > MOST_ROW_BYTES) {
      rows_.clear();
      row_numbers_.clear();
      cut_rows_.clear();
      bytes_ = 0;
    }
    if (!add_row_of_cut(configuration)) add_row(make_row(configuration, NEVER));
    known(row_numbers_, configuration) = static_cast<int>(rows_.size()) - 1;
    return rows_.back();
  }

  void add_row(int most) {
    RowStore::Words words = vocabulary_.rows().keep(scratch_.data());
    if (words.use_count() == 1) bytes_ += words->bytes();
    rows_.push_back({std::move(words), most});
  }

  // Deep in calls: a row depends on those only that some token ends. So it is made of the upper ones, once
  // for all that lie below; false where tokens end all of them.
  bool add_row_of_cut(int configuration) {
    if (!machine_.only_spelled() || machine_.has_unique() || machine_.accepting(configuration)) return false;
    const Machine::Cut cut = machine_.cut(configuration);
    if (cut.configuration == configuration || cut.configuration == DEAD) return false;
    if (known(cut_rows_, cut.configuration) == UNKNOWN) {
      ended_ = machine_.accepting(cut.configuration);
      const int most = ended_ ? 0 : make_row(cut.configuration, NEVER);
      cut_rows_[cut.configuration] = ended_ ? ENDED : static_cast<int>(rows_.size());
      if (!ended_) add_row(most);
    }
    const int number = cut_rows_[cut.configuration];
    if (number == ENDED) return false;
    rows_.push_back({rows_[number].words, std::min(NEVER - 1, rows_[number].most + cut.below)});
    return true;
  }

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
      if (trie.has_token(node)) best = std::min(best, known(needed_, here) + 1);
    }
    return std::min(best, NEVER);
  }

  // Makes a row in `scratch_`; returns the most tokens that any allowed one leaves to come.
  int make_row(int configuration, int most_after) {
    int most = 0;
    if (const int room = plain_room(configuration, most_after, most)) {
      std::copy(vocabulary_.plain(room).begin(), vocabulary_.plain(room).end(), scratch_.begin());
      most = walk(vocabulary_.beside_plain(room), 0, configuration, most_after, most);
    } else {
      std::fill(scratch_.begin(), scratch_.end(), 0);
      most = walk(vocabulary_.all(), 0, configuration, most_after, most);
    }
    if (machine_.accepting(configuration))
      for (int end : vocabulary_.ends()) set(end);
    return most;
  }

  // Sets the tokens below the node `top`, where the configuration stands, that lead to one that is not
  // too far from the end. Returns `most`, raised as `leaves` does.
  int walk(const Trie& trie, int top, int configuration, int most_after, int most) {
    Walk walk{trie, most_after, most};
    at_[trie[top].depth] = {configuration, nullptr};
    if (machine_.sole_byte(configuration) >= 0)
      walk_chain(walk, top, configuration);
    else
      walk_below(walk, top);
    for (const Trie::Twins& twins : trie.twins())
      if (scratch_[twins.first / 32] >> (twins.first % 32) & 1) set(twins.other);
    return walk.most;
  }

  struct Walk {
    const Trie& trie;
    int most_after, most;
  };

  void walk_below(Walk& walk, int node) {
    if (walk.trie[node].is_wide)
      walk_children(walk, node);
    else
      walk_range(walk, node + 1, walk.trie.end(node));
  }

  // Below a node where a chain or a run goes on; false where there is neither.
  bool walk_shortcut(Walk& walk, int node, int reached, uint32_t allowed) {
    if (machine_.sole_byte(reached) >= 0) {
      walk_chain(walk, node, reached);
      return true;
    }
    const Machine::Run run = machine_.run(reached);
    if (run.set != DEAD) walk_run(walk, node, run, allowed);
    return run.set != DEAD;
  }

  // Below a node where a single byte may follow: of its children that one, and so on. No step row is
  // made for what lies on the way.
  void walk_chain(Walk& walk, int node, int reached) {
    for (int byte; (byte = machine_.sole_byte(reached)) >= 0;) {
      node = walk.trie.child(node, static_cast<uint8_t>(byte));
      if (node < 0) return;
      reached = machine_.step_sole(reached);
      if (reached == DEAD) return;
      ended_ |= machine_.accepting(reached);
      if (walk.trie.has_token(node) && leaves(reached, walk.most_after, walk.most)) set(walk.trie[node].token);
    }
    at_[walk.trie[node].depth] = {reached, machine_.known_steps(reached)};
    const uint32_t allowed = leaves(reached, walk.most_after, walk.most) ? ~0u : 0;
    if (machine_.sole_byte(reached) != Machine::MAY_RUN || !walk_shortcut(walk, node, reached, allowed)) walk_below(walk, node);
  }

  // Below a wide node only what is wanted of it is looked at.
  void walk_children(Walk& walk, int node) {
    const int depth = walk.trie[node].depth;
    const int configuration = at_[depth].configuration;
    const uint8_t* byte_class = machine_.program().byte_class;
    const int* steps = machine_.steps(configuration);
    for (const Trie::Child& child : walk.trie.children(node)) {
      const int c = byte_class[child.byte];
      if (steps[c] != DEAD && machine_.step_class(configuration, c) != DEAD)
        walk_range(walk, child.node, walk.trie.end(child.node));
    }
  }

  void walk_range(Walk& walk, int first, int last) {
    const Trie::Node* nodes = &walk.trie[0];
    const uint8_t* byte_class = machine_.program().byte_class;
    At* at = at_.data();
    int32_t* words = scratch_.data();
    int most = walk.most;
    int before = DEAD;        // the configuration reached last,
    int sole = Machine::ANY;  // the byte that it reads,
    uint32_t allowed = 0;     // and all bits where its tokens are allowed
    for (int node = first; node < last;) {
      const Trie::Node here = nodes[node];
      At& above = at[here.depth - 1];
      const int c = byte_class[here.byte];
      if (!above.steps) above.steps = machine_.steps(above.configuration);
      int reached = above.steps[c];
      if (reached < 0) {
        if (reached != DEAD) reached = machine_.step_class(above.configuration, c);
        if (reached == DEAD) {
          node = walk.trie.end(node);
          continue;
        }
      }
      at[here.depth] = {reached, machine_.known_steps(reached)};
      if (reached != before) {
        sole = machine_.sole_byte(reached);
        allowed = leaves(reached, walk.most_after, most) ? ~0u : 0;
        before = reached;
        ended_ |= machine_.accepting(reached);
      }
      // Where no token ends the bit is in a word that nobody reads.
      words[here.token / 32] |= static_cast<int32_t>(allowed & 1u << (here.token % 32));
      if (sole != Machine::ANY) {
        if (walk_shortcut(walk, node, reached, allowed)) {
          node = walk.trie.end(node);
          continue;
        }
        sole = Machine::ANY;
      }
      if (here.is_wide) {
        walk_children(walk, node);
        node = walk.trie.end(node);
      } else {
        ++node;
      }
    }
    walk.most = std::max(walk.most, most);
  }

  // Below a node with a run: as far as the bytes of its set go nothing changes but how many may come.
  void walk_run(Walk& walk, int top, const Machine::Run& run, uint32_t allowed) {
    const Trie& trie = walk.trie;
    const int depth = trie[top].depth;
    for (int node = top + 1; node < trie.end(top);) {
      const Trie::Node here = trie[node];
      if (!machine_.reads(run.set, trie.byte(node))) {
        at_[here.depth - 1] = {run.after, nullptr};
        if (machine_.step(run.after, trie.byte(node)) != DEAD) walk_range(walk, node, trie.end(node));
        node = trie.end(node);
      } else if (static_cast<int>(here.depth) - depth > run.room) {
        node = trie.end(node);
      } else {
        scratch_[here.token / 32] |= static_cast<int32_t>(allowed & 1u << (here.token % 32));
        ++node;
      }
    }
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

  // How much plain text is allowed (see `Vocabulary`; 0: that is not known), where all of it leaves no
  // more tokens to come than `most_after`. Raises `most` to a bound of how many.
  int plain_room(int configuration, int most_after, int& most) {
    if (!machine_.only_spelled()) return 0;
    if (machine_.step(configuration, ' ') == DEAD || machine_.step(configuration, 'z') == DEAD) return 0;
    const int room = plain_room(configuration);
    if (!room) return 0;
    const int end = most_after == NEVER ? machine_.shortest(configuration) : needed(configuration);
    const int bound = std::min(NEVER - 1, end + MOST_DETOUR);
    if (bound > most_after) return 0;
    most = std::max(most, bound);
    return room;
  }

  int plain_room(int configuration) {
    if (known(plain_, configuration) < 0) {
      plain_[configuration] = 0;
      int room = std::max(counted_characters(configuration), plain_product(configuration));
      if (!room) {
        // What a rule reads does not depend on who has called it: so this is known from others of it.
        const int alone = machine_.without_callers(configuration);
        room = alone == configuration ? explore_plain_text(configuration) : plain_room(alone);
      }
      plain_[configuration] = room;
    }
    return plain_[configuration];
  }

  // A repetition of single characters, any of them: how many may come.
  int counted_characters(int configuration) {
    const std::vector<Item> items = machine_.items(configuration);
    const Program& program = machine_.program();
    int before = BOTTOM;
    for (const Item& item : items) {
      if (item.frame == before || item.frame == BOTTOM) continue;
      before = item.frame;
      const List list = machine_.frame(item.frame);
      const std::vector<int> callers(list.begin(), list.end());
      for (size_t i = 0; i < callers.size(); i += 2) {
        if (!machine_.is_counting(callers[i])) continue;
        const List counted = machine_.counting(callers[i]);
        const int origin = counted[0], begun = counted[1];
        const Operands& of = program.operands[origin];
        if (program.kind[origin] != Kind::REPEAT) continue;
        if (!begins(items, item.frame, of.rule) || !reads_any_character(of.rule)) continue;
        const int room = of.high == NO_BOUND ? Vocabulary::ANY : std::min(of.high - begun + 1, Vocabulary::SHORT);
        if (room >= Vocabulary::SHORT || is_bounded(items, item.frame, {of.then, callers[i + 1]})) return room;
      }
    }
    return 0;
  }

  // Whether plain text is read at one frame only, and not by what comes after it.
  bool is_bounded(const std::vector<Item>& items, int frame, Item after) {
    std::vector<Item> beside;
    for (const Item& item : items)
      if (item.frame != frame) beside.push_back(item);
    const int following = machine_.reached_from(after);
    if (following != DEAD && machine_.accepting(following)) return false;  // who knows what follows a cut
    if (following != DEAD)
      for (const Item& item : machine_.items(following)) beside.push_back(item);
    return std::none_of(beside.begin(), beside.end(), [&](const Item& item) { return may_read_plain(item.state); });
  }

  bool may_read_plain(int state) const {
    if (machine_.is_counting(state)) return true;
    const Lists<Edge>& edges = machine_.program().edges;
    return std::any_of(edges.first(state), edges.last(state), [](const Edge& edge) {
      for (int byte = edge.low; byte <= edge.high; ++byte)
        if (PlainText::step(0, static_cast<uint8_t>(byte)) != PlainText::BROKEN) return true;
      return false;
    });
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
  int plain_product(int configuration) {
    const Program& program = machine_.program();
    for (const Item& item : machine_.items(configuration)) {
      if (!machine_.is_counting(item.state)) continue;
      const List list = machine_.counting(item.state);
      if (program.kind[list[0]] != Kind::PRODUCT) continue;
      const std::vector<int> parts(list.begin() + 1, list.end());
      const PartOf* of = program.parts.first(program.operands[list[0]].rule);
      int room = Vocabulary::ANY;
      for (size_t i = 0; i < parts.size() && room; ++i)
        if (!of[i].negated || !machine_.is_finite(of[i].rule))
          room = of[i].negated || parts[i] == DEAD ? 0 : std::min(room, plain_room(parts[i]));
      if (room >= Vocabulary::SHORT) return room;
    }
    return 0;
  }

  struct Pair {
    int state, configuration;  // of plain text, and of the machine
  };

  // Whether all pairs that plain text leads to are alive: of any text, or as far as is looked.
  int explore_plain_text(int configuration) {
    std::vector<Pair> pairs{{0, configuration}};
    size_t first = 0;
    for (int depth = 0; first < pairs.size() && depth < PlainText::MOST_BYTES; ++depth)
      for (const size_t last = pairs.size(); first < last; ++first)
        if (!follow(pairs[first], pairs) || pairs.size() > MOST_PAIRS) return 0;
    return first == pairs.size() ? Vocabulary::ANY : Vocabulary::SHORT;
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

  void set(int token) { scratch_[token / 32] |= static_cast<int32_t>(1u << (token % 32)); }

  // A node of the way to a node of a trie.
  struct At {
    int configuration;
    const int* steps;  // where each class of bytes leads from there; null: not looked at yet
  };

  Machine machine_;
  const Vocabulary& vocabulary_;
  std::vector<At> at_;             // by depth
  std::vector<int32_t> scratch_;  // a row, and a word that nobody reads
  std::vector<int> plain_;        // how much plain text is read; -1: not known yet
  std::vector<int> needed_, next_, next_byte_;
  std::vector<Row> rows_;
  std::vector<int> row_numbers_;  // of each configuration; -1: not made yet
  std::vector<int> cut_rows_;     // of those that stand for deeper ones
  bool ended_ = false;            // whether the last walk met a configuration that accepts
  size_t bytes_ = 0;              // of the rows that no other grammar has made
};

}  // namespace sapwood
