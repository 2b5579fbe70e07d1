// A machine at work: `machine.py`, in C++; the same names, the same results.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "collection.h"
#include "interner.h"
#include "memo.h"
#include "program.h"

namespace sapwood {

constexpr int DEAD = -1;   // the configuration in which no text is accepted
constexpr size_t MOST_BYTES = 128 << 20;  // of a machine
constexpr int BOTTOM = 0;  // the frame below the first rule

struct Limit : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Item {
  int state, frame;
  bool operator==(const Item&) const = default;
  auto operator<=>(const Item&) const = default;
};

class Machine {
 public:
  // spelled[b]: whether byte b is a token by itself; seconds: how long this may take; Limit is thrown
  // after that.
  Machine(Program program, const std::array<bool, 256>& spelled, double seconds)
      : program_(std::move(program)), spelled_(spelled), has_unique_(program_.has(Kind::UNIQUE)) {
    deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    work_ = WORK_OF_A_MOMENT;
    spelled_class_.assign(program_.num_classes(), false);
    for (int byte = 0; byte < 256; ++byte)
      if (spelled_[byte]) spelled_class_[program_.byte_class[byte]] = true;
    frames_.add(nullptr, 0);
    frame_shortest_.push_back(0);
    rules_.resize(program_.collections.size());
    rule_configurations_.assign(program_.rule_start.size(), NOT_MADE);
    find_byte_counts();
    find_sole_bytes();
    settle_needs();
    start_ = start_of(program_.root);
    deadline_ = Clock::time_point::max();
    work_ = MOST_WORK;
  }

  // One call begins: it may do so much work (`spend`) and no more.
  void begin_work() { work_ = MOST_WORK; }

  // Counts work: items of a closure, edges tried, states of a search, nodes of a trie.
  void spend(size_t units) {
    if ((work_ -= static_cast<int64_t>(units)) < 0) out_of_work();
  }

  const Program& program() const { return program_; }

  // Whether as many tokens as `shortest` says bytes are enough from every configuration.
  bool only_spelled() const { return only_spelled_; }
  int start() const { return start_; }
  int size() const { return configurations_.size(); }

  // What it keeps; nearly all of it grows with the texts that it has met.
  size_t bytes() const {
    size_t bytes = program_.bytes() + num_rows_ * sizeof(int) * program_.num_classes();
    for (const Memo* memo : {&reached_, &tops_, &below_}) bytes += memo->bytes();
    for (const Interner* lists : {&configurations_, &frames_, &counting_, &texts_, &text_sets_, &product_states_})
      bytes += lists->bytes();
    for (const std::vector<int>* numbers : {&shortest_, &frame_shortest_, &above_, &counting_need_, &texts_before_,
                                            &product_shortest_, &need_, &inner_, &rule_configurations_})
      bytes += sizeof(int) * numbers->capacity();
    bytes += sizeof(void*) * rows_.capacity() + sizeof(Sole) * soles_.capacity() + accepting_.capacity();
    return bytes + not_above_.size() * BYTES_OF_A_NODE;
  }

  // Where a class of bytes leads from a configuration, or DEAD.
  int step_class(int configuration, int byte_class) {
    if (const Sole& sole = soles_[configuration]; sole.byte >= 0) {
      if (byte_class != program_.byte_class[sole.byte]) return DEAD;
      return sole.next == UNKNOWN ? make_step(configuration, byte_class) : sole.next;
    }
    const int next = row(configuration)[byte_class];
    return next == UNKNOWN ? make_step(configuration, byte_class) : next;
  }
  int step(int configuration, uint8_t byte) { return step_class(configuration, program_.byte_class[byte]); }

  // The one byte that a configuration reads, within a key or a literal; ANY: there may be others;
  // MAY_RUN: others, and `run` may find some.
  static constexpr int ANY = -1, MAY_RUN = -2;
  int sole_byte(int configuration) const { return soles_[configuration].byte; }
  int step_sole(int configuration) {
    const Sole& sole = soles_[configuration];
    return sole.next == UNKNOWN ? make_step(configuration, program_.byte_class[sole.byte]) : sole.next;
  }

  // Where each class of bytes leads from a configuration; below DEAD: not known yet. Stays where it is.
  const int* steps(int configuration) { return row(configuration); }
  const int* known_steps(int configuration) const { return rows_[configuration]; }  // null: none

  bool accepting(int configuration) const { return accepting_[configuration]; }

  // Fewest bytes with which the text can end.
  int shortest(int configuration) {
    if (shortest_[configuration] < 0) {
      int best = accepting_[configuration] ? 0 : NEVER;
      spend(configurations_[configuration].size);
      for (int i = 1; best > 0 && i < configurations_[configuration].size; i += 2)  // the list may move
        best = std::min(best, item_shortest({configurations_[configuration][i], configurations_[configuration][i + 1]}));
      shortest_[configuration] = best;  // only now: the list may have moved
    }
    return shortest_[configuration];
  }

  // The configuration with the text of a unique item forgotten, as far as it differs from those before.
  int outline(int configuration) {
    if (!has_unique_) return configuration;
    std::vector<Item> items = this->items(configuration);
    bool changed = false;
    for (Item& item : items) {
      const int outlined = outline_state(item.state);
      changed |= outlined != item.state;
      item.state = outlined;
    }
    return changed ? intern(items, accepting_[configuration]) : configuration;
  }

  // The configuration with nothing below the rules that read.
  int without_callers(int configuration) {
    std::vector<Item> items = this->items(configuration);
    for (Item& item : items) item.frame = BOTTOM;
    return intern(items);
  }

  // The configuration of a single pair and what follows it by empty steps.
  int reached_from(const Item& item) { return intern({item}); }

  bool has_unique() const { return has_unique_; }

  // A configuration with nothing below so many calls. Until it accepts it reads what the whole one does.
  struct Cut {
    int configuration;
    int below;  // as many bytes more may be needed in the whole one, at most
  };
  Cut cut(int configuration) {
    Cut made{configuration, 0};
    bool is_deep = false;
    for (int i = 1; i < configurations_[configuration].size; i += 2) {
      const int frame = configurations_[configuration][i + 1];
      const Top top = top_of(frame, CUT_AT);
      is_deep |= top.frame != frame;
      made.below = std::max(made.below, top.below);
    }
    if (!is_deep) return made;
    std::vector<Item> items = this->items(configuration);
    for (Item& item : items) item.frame = top_of(item.frame, CUT_AT).frame;
    made.configuration = intern(items);
    return made;
  }

  // Whether items are being read of which no two may be equal.
  bool reads_unique(int configuration) {
    if (!has_unique_) return false;
    const List list = configurations_[configuration];
    spend(list.size);
    for (int i = 1; i < list.size; i += 2)
      if (is_counting(list[i]) && program_.kind[counting(list[i])[0]] == Kind::UNIQUE) return true;
    return false;
  }

  // A byte after which the end is nearer.
  int shortest_byte(int configuration) {
    const int best = shortest(configuration);
    for (const Item& item : items(configuration)) {
      const int state = reading_state(item.state);
      if (state < 0 || item_shortest(item) != best) continue;
      if (state != item.state && counting(item.state)[1] >= program_.operands[counting(item.state)[0]].low) continue;
      for (const Edge* e = program_.edges.first(state); e != program_.edges.last(state); ++e)
        if (need_[e->target] + 1 == need_[state])
          if (const int byte = spelled_byte(e->low, e->high); byte >= 0) return byte;
    }
    int least = NEVER, found = -1;
    for (int byte = 0; byte < 256; ++byte) {
      if (only_spelled_ && !spelled_[byte]) continue;
      const int reached = step(configuration, static_cast<uint8_t>(byte));
      if (reached == DEAD || shortest(reached) >= least) continue;
      least = shortest(reached);
      found = byte;
    }
    if (found < 0) throw Limit("no way to its end was found");
    return found;
  }

  // Whether the end of its rule can be reached from a state of the program.
  bool can_end(int state) const { return need_[state] < NEVER; }

  // A configuration that may read so many more bytes of a set, one after the other, and after each of
  // them goes on as `after` does, which reads none of the set.
  struct Run {
    int set;  // the state whose edges they are; DEAD where a configuration is none of this kind
    int after, room;
  };
  Run run(int configuration) {
    constexpr Run NONE{DEAD, DEAD, 0};
    const int last = configurations_[configuration].size - 2;
    if (last < 1) return NONE;
    const Item item{configurations_[configuration][last], configurations_[configuration][last + 1]};
    if (!reads_by_itself(item.state)) return NONE;
    const Operands& of = program_.operands[counting(item.state)[0]];
    const int times = counting(item.state)[1];
    const int after = times < of.low ? DEAD : intern_one({of.then, item.frame});
    if (after == DEAD) return NONE;
    const List here = configurations_[configuration], there = configurations_[after];
    const bool is_all = there.size == last && std::equal(there.begin(), there.end(), here.begin());
    const Run found{reading_state(item.state), after, of.high == NO_BOUND ? NEVER : of.high - times};
    for (int i = 1; is_all && i < there.size; i += 2)
      if (may_read_alike(reading_state(there[i]), found.set)) return NONE;
    return is_all ? found : NONE;
  }

  bool reads(int state, uint8_t byte) const {
    const Edge *first = program_.edges.first(state), *last = program_.edges.last(state);
    return std::any_of(first, last, [&](const Edge& e) { return e.low <= byte && byte <= e.high; });
  }

  // The state whose edges are read where this one is; DEAD where none says what is read.
  int reading_state(int state) const {
    if (!is_counting(state)) return state;
    return reads_by_itself(state) ? program_.rule_start[program_.operands[counting(state)[0]].rule] : DEAD;
  }

  // The configuration at the start of a rule, should nothing follow it.
  int start_of(int rule) {
    if (rule_configurations_[rule] == NOT_MADE) {
      const int start = program_.rule_start[rule];
      const int made = need_[start] < NEVER ? intern({{start, BOTTOM}}) : DEAD;
      rule_configurations_[rule] = made;
    }
    return rule_configurations_[rule];
  }

  // Whether a rule reads finitely many texts: it neither loops nor calls.
  bool is_finite(int rule) {
    std::vector<int>& known = finite_;
    if (known.empty()) known.assign(program_.rule_start.size(), -1);
    if (known[rule] < 0) {
      std::vector<int> mark(program_.num_states(), 0);  // 1: on the way, 2: done
      known[rule] = ends_everywhere(program_.rule_start[rule], mark);
    }
    return known[rule];
  }

  std::vector<Item> items(int configuration) {
    spend(configurations_[configuration].size);
    return pairs(configurations_[configuration], 1);
  }
  List frame(int number) const { return frames_[number]; }
  List counting(int state) const { return counting_[state - program_.num_states()]; }
  bool is_counting(int state) const { return state >= program_.num_states(); }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int UNKNOWN = -2, NOT_MADE = -2;
  static constexpr int MOST_CONFIGURATIONS = 200'000;
  static constexpr size_t BYTES_OF_A_NODE = 40;  // of a hash table
  static constexpr size_t MOST_AT_ONCE = 100'000;  // items of a closure, callers of a frame
  static constexpr int64_t MOST_WORK = 1 << 22;  // some ten nanoseconds each
  static constexpr int64_t WORK_OF_A_MOMENT = 1 << 14;
  static constexpr size_t MOST_PRODUCT_STATES = 100'000;
  static constexpr int CUT_AT = 12;  // calls
  static constexpr size_t ROWS_AT_ONCE = 1 << 12;  // numbers of a block
  static constexpr int ENOUGH_TEXTS = 100;

  // While the machine is set up time is the limit, and is looked at now and then.
  void out_of_work() {
    if (deadline_ == Clock::time_point::max()) throw Limit("a single step of it takes more work than the limit of " + std::to_string(MOST_WORK));
    if (Clock::now() > deadline_) throw Limit("it took too long");
    work_ = WORK_OF_A_MOMENT;
  }

  static std::vector<Item> pairs(List list, int first) {
    std::vector<Item> pairs;
    for (int i = first; i < list.size; i += 2) pairs.push_back({list[i], list[i + 1]});
    return pairs;
  }

  // Whether some byte is read by both states, of which `a` may be DEAD: not known.
  bool may_read_alike(int a, int b) const {
    if (a == DEAD) return true;
    const Lists<Edge>& edges = program_.edges;
    return std::any_of(edges.first(a), edges.last(a), [&](const Edge& one) {
      return std::any_of(edges.first(b), edges.last(b), [&](const Edge& e) { return e.low <= one.high && one.low <= e.high; });
    });
  }

  struct Top {
    int frame, below;
  };
  // A frame with BOTTOM in the place of those that lie deeper, and the most bytes that one of them needs.
  Top top_of(int frame, int depth) {
    if (frame == BOTTOM) return {BOTTOM, 0};
    if (depth == 0) return {BOTTOM, frame_shortest_[frame]};
    if (const int known = tops_.find(frame, depth); known != NOT_MADE) return {known, below_.find(frame, depth)};
    std::vector<Item> items = pairs(frames_[frame], 0);
    int below = 0;
    for (Item& item : items) {
      const Top top = top_of(item.frame, depth - 1);
      item.frame = top.frame;
      below = std::max(below, top.below);
    }
    sort(items);
    const int made = intern_frame(items);
    tops_.add(frame, depth, made);
    below_.add(frame, depth, below);
    return {made, below};
  }

  bool ends_everywhere(int start, std::vector<int>& mark) const {
    std::vector<int> stack{start};  // by hand: a text may be long
    while (!stack.empty()) {
      const int state = stack.back();
      if (mark[state] == 1) mark[state] = 2;
      if (mark[state] == 2) {
        stack.pop_back();
        continue;
      }
      if (program_.kind[state] != Kind::PLAIN) return false;
      mark[state] = 1;
      const auto visit = [&](int target) {
        if (mark[target] == 0) stack.push_back(target);
        return mark[target] != 1;
      };
      for (const int* t = program_.jumps.first(state); t != program_.jumps.last(state); ++t)
        if (!visit(*t)) return false;
      for (const Edge* e = program_.edges.first(state); e != program_.edges.last(state); ++e)
        if (!visit(e->target)) return false;
    }
    return true;
  }

  int* row(int configuration) {
    int*& made = rows_[configuration];
    if (!made) {
      const size_t size = program_.num_classes();
      if (room_ < size) {
        room_ = std::max(size, ROWS_AT_ONCE);
        blocks_.emplace_back(new int[room_]);
        free_ = blocks_.back().get();
      }
      made = free_;
      free_ += size;
      room_ -= size;
      const Sole& sole = soles_[configuration];
      std::fill_n(made, size, sole.byte < 0 ? UNKNOWN : DEAD);
      if (sole.byte >= 0) made[program_.byte_class[sole.byte]] = sole.next;
      ++num_rows_;
    }
    return made;
  }

  int make_step(int configuration, int byte_class) {
    const int byte = program_.class_byte[byte_class];
    int low = 0, high = 255;  // the bytes around it that lead to the same
    std::vector<Item> reached;
    spend(1);
    Item one{DEAD, BOTTOM};  // what is reached, where it is one pair
    const auto reach = [&](const Item& item) {
      if (one.state != DEAD) reached.push_back(one);
      one = item;
    };
    // The edge that reads the byte.
    const auto follow = [&](const Edge* first, const Edge* last, auto&& take) {
      spend(last - first);
      for (const Edge* e = first; e != last; ++e) {
        if (e->high < byte) {
          low = std::max(low, e->high + 1);
        } else if (e->low > byte) {
          high = std::min(high, e->low - 1);
        } else {
          low = std::max(low, e->low);
          high = std::min(high, e->high);
          take(e->target);
        }
      }
    };
    for (int i = 1; i < configurations_[configuration].size; i += 2) {
      const Item item{configurations_[configuration][i], configurations_[configuration][i + 1]};
      if (!is_counting(item.state)) {
        follow(program_.edges.first(item.state), program_.edges.last(item.state),
               [&](int target) { reach({target, item.frame}); });
        continue;
      }
      if (const Lists<Edge>& edges = program_.edges; reads_by_itself(item.state)) {
        const int origin = counting(item.state)[0], start = program_.rule_start[program_.operands[origin].rule];
        follow(edges.first(start), edges.last(start), [&](int) { reach({once_more(item.state), item.frame}); });
        continue;
      }
      const List counted = counting(item.state);
      const int origin = counted[0];
      const std::vector<int> parts(counted.begin() + 1, counted.end());
      std::vector<int> after;
      if (program_.kind[origin] == Kind::UNIQUE) {
        low = high = byte;
        if (step_unique(parts, byte, after)) reach({count(origin, after), item.frame});
        continue;
      }
      const bool goes_on = step_parts(origin, parts, byte, after);
      int first = byte_class, last = byte_class;
      while (first > program_.byte_class[low] && step_alike(parts, byte_class, first - 1)) --first;
      while (last < program_.byte_class[high] && step_alike(parts, byte_class, last + 1)) ++last;
      low = std::max<int>(low, program_.class_byte[first]);
      if (last + 1 < program_.num_classes()) high = std::min(high, program_.class_byte[last + 1] - 1);
      if (goes_on) reach({count(origin, after), item.frame});
    }
    const int made = one.state == DEAD ? DEAD : reached.empty() ? intern_one(one) : (reached.push_back(one), intern(reached));
    if (soles_[configuration].byte >= 0) {
      if (int* known = rows_[configuration]) known[byte_class] = made;
      return soles_[configuration].next = made;
    }
    int* known = row(configuration);
    std::fill(known + program_.byte_class[low], known + program_.byte_class[high] + 1, made);
    return known[byte_class] = made;
  }

  // Whether all parts go the same way by two classes of bytes.
  bool step_alike(const std::vector<int>& parts, int a, int b) {
    return std::all_of(parts.begin(), parts.end(),
                       [&](int part) { return part == DEAD || step_class(part, a) == step_class(part, b); });
  }

  // False where a text that a part wants is out of reach.
  bool step_parts(int product, const std::vector<int>& parts, int byte, std::vector<int>& after) {
    after.resize(parts.size());
    const PartOf* of = program_.parts.first(program_.operands[product].rule);
    for (size_t i = 0; i < parts.size(); ++i) {
      after[i] = parts[i] == DEAD ? DEAD : step(parts[i], static_cast<uint8_t>(byte));
      if (after[i] == DEAD && !of[i].negated) return false;
    }
    return true;
  }

  // The configuration of what is reached from `items` by empty steps.
  int intern(const std::vector<Item>& items, bool accepting = false) {
    std::vector<Item> reading;
    if (std::all_of(items.begin(), items.end(), [&](const Item& i) { return only_reads(i.state); })) {
      reading = items;
      sort(reading);
    } else {
      accepting |= closure(items, reading);
    }
    drop_covered(reading);
    return number_of(reading, accepting);
  }

  // As `intern`, of one pair: others may have led to it as well.
  int intern_one(const Item& item) {
    if (only_reads(item.state)) return number_of({&item, 1}, false);
    int made = reached_.find(item.state, item.frame);
    if (made != NOT_MADE) return made;
    made = reads_by_itself(item.state) ? intern_repeat(item) : intern({item});
    reached_.add(item.state, item.frame, made);
    return made;
  }

  // As `intern`, of a repetition of single bytes: what follows it is known from its other counts.
  int intern_repeat(const Item& item) {
    const int origin = counting(item.state)[0], times = counting(item.state)[1];
    const Operands& of = program_.operands[origin];
    const int after = times < of.low ? DEAD : intern_one({of.then, item.frame});
    std::vector<Item> reading;
    if (after != DEAD) reading = items(after);
    if (of.high == NO_BOUND || times < of.high) reading.push_back(item);
    sort(reading);
    return number_of(reading, after != DEAD && accepting_[after]);
  }

  // The configuration of what reads next, sorted.
  int number_of(std::span<const Item> reading, bool accepting) {
    if (reading.empty() && !accepting) return DEAD;
    key_.assign(1, accepting);
    for (const Item& item : reading) {
      key_.push_back(item.state);
      key_.push_back(item.frame);
    }
    const int known = configurations_.find(key_.data(), static_cast<int>(key_.size()));
    if (known >= 0) return known;
    if (size() >= MOST_CONFIGURATIONS) throw Limit("it needs more than 200000 states");
    if (bytes() > MOST_BYTES) throw Limit("it needs more than 128 MiB");
    rows_.push_back(nullptr);
    soles_.push_back({sole_of(reading), UNKNOWN});
    accepting_.push_back(accepting);
    shortest_.push_back(-1);
    return configurations_.add(key_);
  }

  // See `sole_byte`.
  int sole_of(std::span<const Item> reading) const {
    if (!reading.empty() && reads_by_itself(reading.back().state)) return MAY_RUN;
    int sole = ANY;
    for (const Item& item : reading) {
      const int byte = is_counting(item.state) ? -1 : sole_bytes_[item.state];
      if (byte < 0 || (sole >= 0 && byte != sole)) return ANY;
      sole = byte;
    }
    return sole;
  }

  void find_sole_bytes() {
    sole_bytes_.assign(program_.num_states(), -1);
    for (int state = 0; state < program_.num_states(); ++state)
      if (const Edge* edge = program_.edges.first(state); program_.edges.size(state) == 1 && edge->low == edge->high)
        sole_bytes_[state] = static_cast<int16_t>(edge->low);
  }

  // Whether a state leads nowhere by empty steps.
  bool only_reads(int state) const {
    return !is_counting(state) && program_.kind[state] == Kind::PLAIN && program_.jumps.empty(state) &&
           !program_.edges.empty(state) && need_[state] < NEVER;
  }

  static void sort(std::vector<Item>& items) {
    std::sort(items.begin(), items.end());
    items.erase(std::unique(items.begin(), items.end()), items.end());
  }

  // Items in the order of their coming, each once.
  struct ItemSet {
    std::vector<Item> items;
    std::unordered_set<int64_t> index;  // of `items`, once they are many

    void clear() {
      items.clear();
      index.clear();
    }
    bool add(const Item& item) {
      if (items.size() < MANY) {
        if (std::find(items.begin(), items.end(), item) != items.end()) return false;
      } else {
        if (index.empty())
          for (const Item& known : items) index.insert(key(known));
        if (!index.insert(key(item)).second) return false;
      }
      if (items.size() >= MOST_AT_ONCE) throw Limit("there are too many ways to read it at once");
      items.push_back(item);
      return true;
    }
    static int64_t key(const Item& i) { return static_cast<int64_t>(i.state) << 32 | static_cast<uint32_t>(i.frame); }
    static constexpr size_t MANY = 64;
  };

  // --- what a configuration need not hold: see `_covers` in machine.py ---

  static constexpr size_t MANY = 64;  // more are not compared
  static constexpr int DEEP = 8;
  static constexpr size_t MOST_KNOWN = 1 << 16;

  // `items` are sorted. The youngest frames, which cover most, come first.
  void drop_covered(std::vector<Item>& items) {
    const auto same_state = [](const Item& a, const Item& b) { return a.state == b.state; };
    if (std::adjacent_find(items.begin(), items.end(), same_state) == items.end()) return;
    std::vector<Item> kept;
    size_t first = 0;  // in `kept`, of this state
    for (size_t i = items.size(); i-- > 0;) {
      const Item item = items[i];
      if (i + 1 < items.size() && items[i + 1].state != item.state) first = kept.size();
      const auto begin = kept.begin() + first;
      if (kept.size() - first < MANY) {
        if (std::any_of(begin, kept.end(), [&](const Item& by) { return covers(by.frame, item.frame, DEEP); })) continue;
        kept.erase(std::remove_if(begin, kept.end(), [&](const Item& old) { return covers(item.frame, old.frame, DEEP); }),
                   kept.end());
      }
      kept.push_back(item);
    }
    std::sort(kept.begin(), kept.end());
    items.swap(kept);
  }

  // Whether every text that leads from one frame to the end leads there from the other as well; where
  // that takes long to find out, false.
  bool covers(int frame, int other, int depth) {
    if (frame == other || above_[other] == frame) return true;
    if (other == BOTTOM) return frame_shortest_[frame] == 0;
    if (frame == BOTTOM || !depth) return false;
    const int64_t key = static_cast<int64_t>(frame) << 32 | other;
    if (not_above_.count(key)) return false;
    if ((above_[other] != other && covers(frame, above_[other], depth - 1)) || covers_pairs(frame, other, depth - 1)) {
      above_[other] = frame;
      return true;
    }
    if (not_above_.size() > MOST_KNOWN) not_above_.clear();
    not_above_.insert(key);
    return false;
  }

  bool covers_pairs(int frame, int other, int depth) {
    const List have = frames_[frame], wanted = frames_[other];
    const size_t pairs = static_cast<size_t>(have.size) * static_cast<size_t>(wanted.size);
    if (pairs > MANY * MANY) return false;
    for (int i = 0; i < wanted.size; i += 2) {
      bool found = false;
      spend(have.size / 2);
      for (int j = 0; j < have.size && !found; j += 2)
        found = have[j] == wanted[i] && covers(have[j + 1], wanted[i + 1], depth);
      if (!found) return false;
    }
    return true;
  }

  // One closure under way. All calls of one rule share a frame, which grows while the closure is made
  // and gets its number at the end; until then its number is negative.
  struct Growing {
    int rule;
    ItemSet callers;
    bool ended = false;  // its rule ended at once
    int settled = NOT_MADE;
  };
  struct Closure {
    std::vector<Item> stack;
    ItemSet seen;
    std::vector<Growing> growing;
    std::unordered_map<int, size_t> by_rule;  // of `growing`, once they are many

    void clear() {
      stack.clear();
      seen.clear();
      growing.clear();
      by_rule.clear();
    }
    // The place of a rule in `growing`; its end where it is not there.
    size_t place(int rule) {
      if (growing.size() < ItemSet::MANY) {
        size_t at = 0;
        while (at < growing.size() && growing[at].rule != rule) ++at;
        return at;
      }
      for (size_t at = by_rule.size(); at < growing.size(); ++at) by_rule[growing[at].rule] = at;
      const auto found = by_rule.find(rule);
      return found == by_rule.end() ? growing.size() : found->second;
    }
  };

  struct Deeper {
    explicit Deeper(size_t& depth) : depth(depth) { ++depth; }
    ~Deeper() { --depth; }
    size_t& depth;
  };

  void push(Closure& c, Item item) {
    spend(1);
    if (state_need(item.state) < NEVER && c.seen.add(item)) c.stack.push_back(item);
  }

  void call(Closure& c, int rule, Item caller, bool may_be_empty = true) {
    spend(1);
    const int start = program_.rule_start[rule];
    if (need_[start] >= NEVER) return;
    const size_t at = c.place(rule);
    if (at == c.growing.size()) {
      c.growing.push_back({rule, {}});
      push(c, {start, -1 - static_cast<int>(at)});
    }
    Growing& called = c.growing[at];
    if (called.callers.add(caller) && called.ended && may_be_empty) push(c, caller);
  }

  // The pairs that read a byte, sorted; returns whether the text may end.
  bool closure(const std::vector<Item>& items, std::vector<Item>& reading) {
    // Kept from one closure to the next; one may be begun within another, for what it needs.
    if (depth_ == closures_.size()) closures_.push_back(std::make_unique<Closure>());
    Closure& c = *closures_[depth_];
    c.clear();
    const Deeper deeper(depth_);
    bool accepting = false;
    for (const Item& item : items) push(c, item);
    while (!c.stack.empty()) {
      const Item item = c.stack.back();
      c.stack.pop_back();
      if (item.state == FINAL) {
        accepting |= item.frame == BOTTOM;
        end_rule(c, item.frame);
      } else if (!is_counting(item.state)) {
        if (!program_.edges.empty(item.state)) reading.push_back(item);
        for (const int* t = program_.jumps.first(item.state); t != program_.jumps.last(item.state); ++t)
          push(c, {*t, item.frame});
        const Operands& of = program_.operands[item.state];
        const Kind kind = program_.kind[item.state];
        if (kind == Kind::CALL)
          call(c, of.rule, {of.then, item.frame});
        else if (kind != Kind::PLAIN)
          push(c, {begin_counting(item.state), item.frame});
      } else {
        go_on_counting(c, item, reading);
      }
    }
    settle(c);
    for (Item& item : reading)
      if (item.frame < 0) item.frame = c.growing[-1 - item.frame].settled;
    sort(reading);
    return accepting;
  }

  void end_rule(Closure& c, int frame) {
    if (frame == BOTTOM) return;
    std::vector<Item> callers;
    if (frame < 0) {
      c.growing[-1 - frame].ended = true;
      callers = c.growing[-1 - frame].callers.items;
      // A repetition's body that ends without a byte does not count as one more.
      std::erase_if(callers, [&](const Item& caller) { return is_repeat(caller.state); });
    } else {
      callers = pairs(frames_[frame], 0);
    }
    for (const Item& caller : callers) push(c, caller);
  }

  void go_on_counting(Closure& c, Item item, std::vector<Item>& reading) {
    const List list = counting(item.state);
    const std::vector<int> counted(list.begin() + 1, list.end());
    const int origin = list[0];
    const Operands of = program_.operands[origin];
    const Item after{of.then, item.frame};
    if (program_.kind[origin] == Kind::REPEAT) {
      const int times = counted[0];
      if (times >= of.low) push(c, after);
      if (of.high != NO_BOUND && times >= of.high) return;
      if (reads_by_itself(item.state)) {
        reading.push_back(item);
      } else {
        const int more = of.high == NO_BOUND ? std::min(times + 1, of.low) : times + 1;
        call(c, of.rule, {count(origin, {more}), item.frame}, false);
      }
    } else if (program_.kind[origin] == Kind::PRODUCT) {
      if (parts_accept(origin, counted)) push(c, after);
      reading.push_back(item);
    } else if (program_.kind[origin] == Kind::UNIQUE) {
      if (counted[READS] != AFTER_ITEM) reading.push_back(item);
      after_unique(c, origin, counted, item.frame);
    } else {
      const CollectionRules& rules = collection(origin);
      const int* progress = counted.data();
      spend(rules.work());
      if (rules.may_end(progress)) push(c, after);
      if (progress[0] == AFTER_MEMBER) {
        const std::vector<int> next = rules.after_comma(progress);
        if (rules.shortest(next.data()) < NEVER) call(c, rules.comma_rule(), {count(origin, next), item.frame});
        return;
      }
      for (int member = 0; member < rules.size(); ++member)
        if (rules.may_come(progress, member))
          call(c, rules.rule(member), {count(origin, rules.after(progress, member)), item.frame});
    }
  }

  // Whether a state counts single bytes: then it reads them, and its rule is not called.
  bool reads_by_itself(int state) const { return is_counting(state) && counts_bytes_[counting(state)[0]]; }

  // The state after one more byte.
  int once_more(int state) {
    const int origin = counting(state)[0], times = counting(state)[1] + 1;
    const Operands& of = program_.operands[origin];
    return count(origin, {of.high == NO_BOUND ? std::min(times, of.low) : times});
  }

  void find_byte_counts() {
    counts_bytes_.assign(program_.num_states(), false);
    for (int state = 0; state < program_.num_states(); ++state) {
      if (program_.kind[state] != Kind::REPEAT) continue;
      const int start = program_.rule_start[program_.operands[state].rule];
      const Lists<Edge>& edges = program_.edges;
      counts_bytes_[state] = program_.kind[start] == Kind::PLAIN && program_.jumps.empty(start) &&
                             std::all_of(edges.first(start), edges.last(start), [](const Edge& e) { return e.target == FINAL; });
    }
  }

  bool is_repeat(int state) const {
    return is_counting(state) && program_.kind[counting(state)[0]] == Kind::REPEAT;
  }

  // Numbers the frames that have grown, callers first; one only called for its end is its caller.
  void settle(Closure& c) {
    std::vector<int> stack;  // by hand: rules may call each other in a long row
    for (size_t i = 0; i < c.growing.size(); ++i) {
      stack.push_back(static_cast<int>(i));
      while (!stack.empty()) {
        const int at = stack.back();
        bool waits = false;
        for (const Item& caller : c.growing[at].callers.items) {
          if (caller.frame >= 0 || c.growing[-1 - caller.frame].settled != NOT_MADE) continue;
          stack.push_back(-1 - caller.frame);
          waits = true;
        }
        if (waits) continue;
        stack.pop_back();
        if (c.growing[at].settled == NOT_MADE) c.growing[at].settled = settled(c, at);
      }
    }
  }

  int settled(const Closure& c, int at) {
    std::vector<Item> pairs = c.growing[at].callers.items;
    spend(pairs.size());
    for (Item& caller : pairs)
      if (caller.frame < 0) caller.frame = c.growing[-1 - caller.frame].settled;
    sort(pairs);
    drop_covered(pairs);
    const bool is_tail = pairs.size() == 1 && pairs[0].state == FINAL;
    return is_tail ? pairs[0].frame : intern_frame(pairs);
  }

  int intern_frame(const std::vector<Item>& pairs) {
    const int size = static_cast<int>(2 * pairs.size());
    if (const int known = frames_.find(&pairs[0].state, size); known >= 0) return known;
    const int best = shortest_of(pairs);  // first, for it may fail
    const int number = frames_.add(&pairs[0].state, size);
    frame_shortest_.push_back(best);
    above_.push_back(number);
    return number;
  }

  int shortest_of(const std::vector<Item>& items) {
    int best = NEVER;
    for (const Item& item : items) best = std::min(best, item_shortest(item));
    return best;
  }

  // --- counting: a state that counts is interned as (origin, what it has counted) ---

  int count(int origin, const std::vector<int>& counted) {
    std::vector<int> list{origin};
    list.insert(list.end(), counted.begin(), counted.end());
    const int number = counting_.add(list);
    if (number == static_cast<int>(counting_need_.size())) counting_need_.push_back(-1);
    return program_.num_states() + number;
  }

  int begin_counting(int state) {
    switch (program_.kind[state]) {
      case Kind::REPEAT: return count(state, {0});
      case Kind::PRODUCT: return count(state, first_parts(state));
      case Kind::UNIQUE: return count(state, {AFTER_ITEM, 0, no_texts(), 0, 0, KEEPS});
      default: return count(state, collection(state).begin());
    }
  }

  std::vector<int> first_parts(int product) {
    std::vector<int> parts;
    const int number = program_.operands[product].rule;
    for (const PartOf* p = program_.parts.first(number); p != program_.parts.last(number); ++p)
      parts.push_back(start_of(p->rule));
    return parts;
  }

  bool parts_accept(int product, const std::vector<int>& parts) const {
    const PartOf* of = program_.parts.first(program_.operands[product].rule);
    for (size_t i = 0; i < parts.size(); ++i)
      if ((parts[i] != DEAD && accepting_[parts[i]]) == of[i].negated) return false;
    return true;
  }

  bool parts_alive(int product, const std::vector<int>& parts) const {
    const PartOf* of = program_.parts.first(program_.operands[product].rule);
    for (size_t i = 0; i < parts.size(); ++i)
      if (parts[i] == DEAD && !of[i].negated) return false;
    return true;
  }

  // --- unique items: see `outline` in machine.py. What is counted is a list of these: ---

  enum Counted { READS, COUNT, BEFORE, INNER, TEXT, KEEPING };
  enum Reads : int { ITEM, AFTER_ITEM, COMMA };
  enum Keeping : int { KEEPS, FORGETS, ENDED };
  static constexpr int ELSE = -1;  // the text of an item that none of the earlier ones begins with

  int outline_state(int state) {
    if (!is_counting(state)) return state;
    const List list = counting(state);
    if (program_.kind[list[0]] != Kind::UNIQUE) return state;
    std::vector<int> counted(list.begin() + 1, list.end());
    counted[TEXT] = known_text(counted[BEFORE], counted[TEXT]);
    counted[KEEPING] = FORGETS;
    return count(list[0], counted);
  }

  int no_texts() { return text_sets_.add(nullptr, 0); }

  int known_text(int before, int text) const {
    const List texts = text_sets_[before];
    for (int each : texts) {
      while (each > text) each = texts_before_[each];  // a text is numbered after those it begins with
      if (each == text) return text;
    }
    return ELSE;
  }

  int find_text(int text, int byte) const {
    const int key[2] = {text, byte};
    return texts_.find(key, 2) < 0 ? ELSE : texts_.find(key, 2) + 1;
  }

  bool step_unique(const std::vector<int>& counted, int byte, std::vector<int>& after) {
    after = counted;
    after[INNER] = step(counted[INNER], static_cast<uint8_t>(byte));
    if (after[INNER] == DEAD) return false;
    if (counted[READS] != ITEM || counted[TEXT] == ELSE) return true;
    if (counted[KEEPING] == KEEPS) {
      const int key[2] = {counted[TEXT], byte};
      after[TEXT] = texts_.add(key, 2) + 1;
      if (after[TEXT] == static_cast<int>(texts_before_.size())) texts_before_.push_back(counted[TEXT]);
    } else {
      after[TEXT] = known_text(counted[BEFORE], find_text(counted[TEXT], byte));
    }
    return true;
  }

  // Pushes the states that follow by an empty step.
  void after_unique(Closure& c, int origin, const std::vector<int>& counted, int frame) {
    const Operands of = program_.operands[origin];
    const bool keeps = counted[KEEPING] == KEEPS;
    if (counted[READS] == ITEM) {
      if (!accepting_[counted[INNER]] || has_text(counted[BEFORE], counted[TEXT]) || counted[KEEPING] == ENDED) return;
      const int most = std::max({of.low, most_items_[origin], 0});
      const int texts = keeps ? with_text(counted[BEFORE], counted[TEXT]) : counted[BEFORE];
      push(c, {count(origin, {AFTER_ITEM, std::min(counted[COUNT] + 1, most), texts, 0, 0, keeps ? KEEPS : ENDED}), frame});
      return;
    }
    const std::vector<int> item{ITEM, counted[COUNT], counted[BEFORE], start_of(of.rule), 0, counted[KEEPING]};
    if (counted[READS] == COMMA) {
      if (accepting_[counted[INNER]]) push(c, {count(origin, item), frame});
      return;
    }
    if (counted[COUNT] >= of.low) push(c, {of.then, frame});
    if (most_items_[origin] != NO_BOUND && counted[COUNT] >= most_items_[origin]) return;
    if (text_sets_[counted[BEFORE]].size == 0 && counted[KEEPING] != ENDED) {
      push(c, {count(origin, item), frame});
    } else {
      push(c, {count(origin, {COMMA, counted[COUNT], counted[BEFORE], start_of(of.comma), 0, counted[KEEPING]}), frame});
    }
  }

  bool has_text(int before, int text) const {
    const List texts = text_sets_[before];
    return std::find(texts.begin(), texts.end(), text) != texts.end();
  }

  int with_text(int before, int text) {
    const List texts = text_sets_[before];
    std::vector<int> more(texts.begin(), texts.end());
    more.insert(std::upper_bound(more.begin(), more.end(), text), text);
    return text_sets_.add(more);
  }

  // The bytes of as many items as there must be; notes how many there may be, and the bytes of the
  // shortest of them.
  int begin_unique(int state) {
    const Operands of = program_.operands[state];
    const int enough = std::max(of.low, ENOUGH_TEXTS);
    const std::vector<int> lengths = shortest_lengths(of.rule, enough);
    const int num_texts = static_cast<int>(lengths.size());
    const bool is_scarce = num_texts < enough && (of.high == NO_BOUND || num_texts < of.high);
    most_items_[state] = is_scarce ? num_texts : of.high;
    if (num_texts < of.low) return NEVER;
    std::vector<long> total{0};
    for (int i = 0; i < of.low; ++i) total.push_back(total.back() + lengths[i]);
    const long inner = total.back();
    item_bytes_[state] = std::move(total);
    return static_cast<int>(std::min<long>(inner, NEVER));
  }

  // The lengths of the shortest texts that a rule reads.
  std::vector<int> shortest_lengths(int rule, int enough) {
    const int start = start_of(rule);
    std::vector<int> lengths;
    std::map<int, int> layer;  // configuration: texts that lead to it
    if (start != DEAD) layer[start] = 1;
    for (int depth = 0; !layer.empty() && static_cast<int>(lengths.size()) < enough; ++depth) {
      std::map<int, int> following;
      for (const auto& [here, count] : layer) {
        if (accepting_[here]) lengths.insert(lengths.end(), count, depth);
        for (int byte = 0; byte < 256; ++byte) {
          const int after = step(here, static_cast<uint8_t>(byte));
          if (after == DEAD) continue;
          int& known = following[after];
          known = std::min(known + count, enough);
        }
      }
      spend(256 * following.size());
      layer.swap(following);
    }
    if (static_cast<int>(lengths.size()) > enough) lengths.resize(enough);
    return lengths;
  }

  // Bytes that are enough to come to the end of the items. Of the shortest texts so many may be taken as
  // items have come: the next ones are there.
  long shortest_unique(int origin, const std::vector<int>& counted) {
    const Operands of = program_.operands[origin];
    const std::vector<long>& total = item_bytes_[origin];
    const long sign = need_[program_.rule_start[of.comma]];
    const int count = counted[COUNT];
    if (counted[READS] == AFTER_ITEM) {
      const long more = std::max(of.low - count, 0);
      const long signs = more ? more - (count == 0) : 0;
      return total[of.low] - total[std::min(count, of.low)] + signs * sign;
    }
    const long rest = total[of.low] - total[std::min(count + 1, of.low)] + std::max(of.low - count - 1, 0) * sign;
    // After a text that has been forgotten the next one might be the same, but not two of them.
    const int skipped = counted[KEEPING] == ENDED;
    if (counted[READS] == COMMA) {
      const long item = shortest_item(start_of(of.rule), counted[BEFORE], 0, skipped);
      return shortest(counted[INNER]) + item + rest;
    }
    return shortest_item(counted[INNER], counted[BEFORE], counted[TEXT], skipped) + rest;
  }

  // Fewest bytes to the end of an item that is none of the texts before, nor one of so many shorter ones.
  int shortest_item(int inner, int before, int text, int skipped) {
    std::map<Item, int> layer{{{inner, known_text(before, text)}, 1}};  // (configuration, text): texts
    int best = NEVER, found = 0;
    for (int depth = 0; !layer.empty() && depth < best; ++depth) {
      std::map<Item, int> following;
      for (const auto& [here, count] : layer) {
        if (here.frame == ELSE && !skipped) {
          best = std::min(best, depth + shortest(here.state));
          continue;
        }
        if (accepting_[here.state] && !has_text(before, here.frame)) found += count;
        for (int byte = 0; byte < 256; ++byte) {
          const int after = step(here.state, static_cast<uint8_t>(byte));
          if (after == DEAD) continue;
          int& known = following[{after, known_text(before, find_text(here.frame, byte))}];
          known = std::min(known + count, 2);
        }
      }
      if (found > skipped) best = std::min(best, depth);
      spend(256 * following.size());
      layer.swap(following);
    }
    return best;
  }

  const CollectionRules& collection(int state) {
    const int number = program_.operands[state].rule;
    if (!rules_[number]) rules_[number] = std::make_unique<CollectionRules>(program_, number, need_);
    return *rules_[number];
  }

  // --- the way to the end ---

  // Fewest bytes from each state to the end of its rule: the least solution of the equations that
  // each state's parts make, from NEVER down. Products and unique items come last, one after the
  // other, for they are searched, which takes their parts' needs.
  void settle_needs() {
    need_.assign(program_.num_states(), NEVER);
    need_[FINAL] = 0;
    inner_.assign(program_.num_states(), NEVER);
    relax(1, program_.num_states());
    std::vector<int> searched;
    for (int s = 0; s < program_.num_states(); ++s)
      if (program_.kind[s] == Kind::PRODUCT || program_.kind[s] == Kind::UNIQUE) searched.push_back(s);
    for (size_t i = 0; i < searched.size(); ++i) {
      const int state = searched[i];
      const bool is_product = program_.kind[state] == Kind::PRODUCT;
      const int inner = is_product ? shortest_product(state, first_parts(state)) : begin_unique(state);
      inner_[state] = inner;
      // The parts of the next one may hold this one: they were built between the two.
      relax(state, i + 1 < searched.size() ? searched[i + 1] : program_.num_states());
    }
    relax(1, program_.num_states());
    prefer_spelled();
  }

  // Where every state's end can be reached by bytes that are tokens, only these count from now on: then
  // no more bytes than `shortest` says, and so no more tokens, are needed.
  void prefer_spelled() {
    const auto is_spelled = [&](const Edge& edge) {
      return std::find(spelled_.begin() + edge.low, spelled_.begin() + edge.high + 1, true) != spelled_.begin() + edge.high + 1;
    };
    only_spelled_ = true;
    if (!std::all_of(program_.edges.flat.begin(), program_.edges.flat.end(), is_spelled)) {
      std::vector<int> all(program_.num_states(), NEVER);
      all.swap(need_);
      need_[FINAL] = 0;
      relax(1, program_.num_states());
      for (int s = 0; s < program_.num_states(); ++s) only_spelled_ = only_spelled_ && (need_[s] < NEVER || all[s] >= NEVER);
      if (!only_spelled_) need_.swap(all);
    }
    std::fill(counting_need_.begin(), counting_need_.end(), -1);
    std::fill(shortest_.begin(), shortest_.end(), -1);
    for (std::unique_ptr<CollectionRules>& rules : rules_) rules.reset();
    for (int frame = 1; frame < frames_.size(); ++frame) frame_shortest_[frame] = shortest_of(pairs(frames_[frame], 0));
  }

  // A byte of a range, one that is a token where that is asked for; -1: none.
  int spelled_byte(int low, int high) const {
    if (!only_spelled_) return low;
    for (int byte = low; byte <= high; ++byte)
      if (spelled_[byte]) return byte;
    return -1;
  }

  void relax(int first, int last) {
    for (bool changed = true; changed;) {
      changed = false;
      for (int state = first; state < last; ++state) {
        spend(8 + program_.edges.size(state));
        const int best = equation(state);
        if (best < need_[state]) {
          need_[state] = best;
          changed = true;
        }
      }
    }
  }

  int equation(int state) {
    long best = need_[state];
    for (const int* t = program_.jumps.first(state); t != program_.jumps.last(state); ++t)
      best = std::min<long>(best, need_[*t]);
    for (const Edge* e = program_.edges.first(state); e != program_.edges.last(state); ++e)
      if (need_[e->target] + 1L < best && spelled_byte(e->low, e->high) >= 0) best = need_[e->target] + 1L;
    const Operands& of = program_.operands[state];
    switch (program_.kind[state]) {
      case Kind::PLAIN: break;
      case Kind::CALL:
        best = std::min<long>(best, static_cast<long>(need_[program_.rule_start[of.rule]]) + need_[of.then]);
        break;
      case Kind::REPEAT: {
        const long inner = of.low ? static_cast<long>(need_[program_.rule_start[of.rule]]) * of.low : 0;
        best = std::min<long>(best, inner + need_[of.then]);
        break;
      }
      case Kind::UNIQUE: {
        const long commas = of.low > 1 ? static_cast<long>(need_[program_.rule_start[of.comma]]) * (of.low - 1) : 0;
        best = std::min<long>(best, inner_[state] + commas + need_[of.then]);
        break;
      }
      case Kind::PRODUCT:
        best = std::min<long>(best, static_cast<long>(inner_[state]) + need_[of.then]);
        break;
      case Kind::COLLECTION: {
        const CollectionRules rules(program_, of.rule, need_);
        spend(8 * rules.size());
        best = std::min<long>(best, static_cast<long>(rules.shortest(rules.begin().data())) + need_[of.then]);
        break;
      }
    }
    return static_cast<int>(std::min<long>(best, NEVER));
  }

  // Fewest bytes from a state, counting or not, to the end of its rule.
  int state_need(int state) {
    if (!is_counting(state)) return need_[state];
    const int at = state - program_.num_states();
    if (counting_need_[at] < 0) {
      const int need = make_counting_need(at);
      counting_need_[at] = need;
    }
    return counting_need_[at];
  }

  int make_counting_need(int at) {
    const List list = counting_[at];
    const std::vector<int> counted(list.begin() + 1, list.end());
    const int origin = list[0];
    const Operands of = program_.operands[origin];
    long inner = 0;
    if (program_.kind[origin] == Kind::REPEAT) {
      const long more = std::max(of.low - counted[0], 0);
      inner = more ? more * need_[program_.rule_start[of.rule]] : 0;
    } else if (program_.kind[origin] == Kind::PRODUCT) {
      inner = shortest_product(origin, counted);
    } else if (program_.kind[origin] == Kind::UNIQUE) {
      inner = shortest_unique(origin, counted);
    } else {
      const CollectionRules& rules = collection(origin);
      spend(rules.size());
      inner = rules.shortest(counted.data());
    }
    return static_cast<int>(std::min<long>(inner + need_[of.then], NEVER));
  }

  int item_shortest(const Item& item) {
    return static_cast<int>(std::min<long>(static_cast<long>(state_need(item.state)) + frame_shortest_[item.frame], NEVER));
  }

  // Fewest bytes after which all parts agree, by a search that goes on from what is known. The most
  // hopeful states are first: no part ends sooner than it would alone.
  int shortest_product(int product, const std::vector<int>& parts) {
    if (!parts_alive(product, parts)) return NEVER;
    struct Found {
      int number, before, depth;
    };
    const int first = product_state(product, parts);
    if (product_shortest_[first] >= 0) return product_shortest_[first];
    std::vector<Found> found;
    std::unordered_map<int, int> nearest;  // the least depth of each state found
    std::map<int, std::vector<int>> open;  // by a bound of the whole way: places in `found`
    const auto reach = [&](int number, int before, int depth) {
      const auto known = nearest.find(number);
      if (known != nearest.end() && known->second <= depth) return;
      const int rest = product_shortest_[number] >= 0 ? product_shortest_[number] : product_bound(product, number);
      nearest[number] = depth;
      if (rest >= NEVER) return;
      open[depth + rest].push_back(static_cast<int>(found.size()));
      found.push_back({number, before, depth});
    };
    reach(first, -1, 0);
    std::vector<int> after;
    while (!open.empty()) {
      const auto best = open.begin();
      const int place = best->second.back(), length = best->first;
      best->second.pop_back();
      if (best->second.empty()) open.erase(best);
      const Found here = found[place];
      if (nearest[here.number] < here.depth) continue;
      const List list = product_states_[here.number];
      const std::vector<int> at(list.begin() + 1, list.end());
      if (product_shortest_[here.number] >= 0 || parts_accept(product, at)) {
        for (int back = place; back >= 0; back = found[back].before)
          product_shortest_[found[back].number] = length - found[back].depth;
        return product_shortest_[first];
      }
      spend(4 * program_.num_classes());
      for (int c = 0; c < program_.num_classes(); ++c)
        if (spelled_class_[c] && step_parts(product, at, program_.class_byte[c], after))
          reach(product_state(product, after), place, here.depth + 1);
      if (found.size() > MOST_PRODUCT_STATES) throw Limit("it needs more than 100000 states");
    }
    for (const auto& [number, depth] : nearest) product_shortest_[number] = NEVER;
    return NEVER;
  }

  // As many bytes at least are to come.
  int product_bound(int product, int number) {
    const List list = product_states_[number];
    const std::vector<int> parts(list.begin() + 1, list.end());
    const PartOf* of = program_.parts.first(program_.operands[product].rule);
    int bound = 0;
    for (size_t i = 0; i < parts.size(); ++i)
      if (!of[i].negated) bound = std::max(bound, shortest(parts[i]));
    return bound;
  }

  int product_state(int product, const std::vector<int>& parts) {
    std::vector<int> list{product};
    list.insert(list.end(), parts.begin(), parts.end());
    const int number = product_states_.add(list);
    if (number == static_cast<int>(product_shortest_.size())) product_shortest_.push_back(-1);
    return number;
  }

  const Program program_;
  const std::array<bool, 256> spelled_;
  const bool has_unique_;
  std::vector<bool> spelled_class_;  // whether a class of bytes has one that is a token
  bool only_spelled_ = false;
  Clock::time_point deadline_;
  int64_t work_;  // that may still be done
  int start_ = DEAD;
  Interner configurations_;  // accepting, then (state, frame) pairs
  struct Sole {
    int byte, next;  // see `sole_byte`; where it leads, or UNKNOWN
  };
  std::vector<Sole> soles_;
  std::vector<int16_t> sole_bytes_;  // of each state; -1: it reads others, or none
  std::vector<int*> rows_;  // in blocks; null: none yet
  size_t num_rows_ = 0;     // of these, how many are made
  std::vector<std::unique_ptr<int[]>> blocks_;
  int* free_ = nullptr;  // the last block's rest
  size_t room_ = 0;
  Memo reached_;  // `intern_one` of (state, frame)
  Memo tops_, below_;  // `top_of` (frame, depth)
  std::vector<int> key_;
  std::vector<uint8_t> accepting_;
  std::vector<int> shortest_;  // -1: not known yet
  Interner frames_;            // (state, frame) pairs
  std::vector<int> frame_shortest_;
  std::vector<int> above_{BOTTOM};  // of each frame one that covers it
  std::unordered_set<int64_t> not_above_;
  Interner counting_;
  std::vector<uint8_t> counts_bytes_;  // of a repetition: whether its rule is one byte of a set
  std::vector<int> counting_need_;  // -1: not known yet
  std::vector<std::unique_ptr<CollectionRules>> rules_;
  std::vector<int> rule_configurations_;
  std::vector<int> finite_;  // of each rule; -1: not known yet
  std::vector<int> need_, inner_;  // inner_: of products, and of unique items without the commas
  std::unordered_map<int, int> most_items_;  // of unique items: `high`, or how many there are
  std::unordered_map<int, std::vector<long>> item_bytes_;  // [n]: of the n shortest ones together
  std::vector<std::unique_ptr<Closure>> closures_;
  size_t depth_ = 0;
  Interner texts_;                  // of unique items: (text before, byte); the empty one is 0, not in here
  std::vector<int> texts_before_{ELSE};
  Interner text_sets_;
  Interner product_states_;  // product, then the configurations of its parts
  std::vector<int> product_shortest_;
};

}  // namespace sapwood
