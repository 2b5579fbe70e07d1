// The tokens of a vocabulary as byte tries; knows no machine.
//
// Most tokens are plain: whole or cut characters that a JSON string holds as they are. Where a machine
// would read any such text, or so many characters of it, their bits are set at once, and only the trie
// of the others is walked.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "rows.h"

namespace sapwood {

// Well-formed UTF-8 without control characters, '"' and '\': where one byte leads. 0 is between
// characters, FULL is nowhere.
struct PlainText {
  static constexpr int STATES = 8, BROKEN = -1;
  static constexpr int MOST_BYTES = 16;  // of a plain token; where that is a bound, longer ones are walked

  struct Range {
    int low, high, next;
  };
  // 1, 2, 3: so many continuation bytes; 4: after E0, 5: ED, 6: F0, 7: F4.
  static std::vector<Range> ranges(int state) {
    switch (state) {
      case 0:
        return {{0x20, 0x21, 0}, {0x23, 0x5B, 0}, {0x5D, 0x7F, 0}, {0xC2, 0xDF, 1}, {0xE0, 0xE0, 4},
                {0xE1, 0xEC, 2}, {0xED, 0xED, 5}, {0xEE, 0xEF, 2}, {0xF0, 0xF0, 6}, {0xF1, 0xF3, 3},
                {0xF4, 0xF4, 7}};
      case 1: return {{0x80, 0xBF, 0}};
      case 2: return {{0x80, 0xBF, 1}};
      case 3: return {{0x80, 0xBF, 2}};
      case 4: return {{0xA0, 0xBF, 1}};
      case 5: return {{0x80, 0x9F, 1}};
      case 6: return {{0x90, 0xBF, 2}};
      default: return {{0x80, 0x8F, 2}};
    }
  }
  static int step(int state, uint8_t byte) {
    static const std::vector<std::array<int8_t, 256>> table = make_table();
    return table[state][byte];
  }
  static std::vector<std::array<int8_t, 256>> make_table() {
    std::vector<std::array<int8_t, 256>> table(STATES);
    for (int state = 0; state < STATES; ++state) {
      table[state].fill(BROKEN);
      for (const Range& range : ranges(state))
        std::fill(&table[state][range.low], &table[state][range.high] + 1, static_cast<int8_t>(range.next));
    }
    return table;
  }
};

// Nodes: 0 is the root; a node's children follow it, the next sibling stands at its end. The children of
// a wide node are listed as well: often few of many are wanted, and those lie far from each other.
class Trie {
 public:
  struct Twins {
    int first, other;  // tokens with the same bytes; only the first is in the trie
  };
  struct Node {
    uint32_t byte : 8, is_wide : 1, is_indexed : 1, depth : 22;
    int token;  // `none` where no token ends here
  };

  // `text(token)` and `length(token)` of the tokens, which are sorted by text, then by number; `none`
  // is the number of no token.
  template <class Text, class Length>
  Trie(const std::vector<int>& tokens, int none, Text&& text, Length&& length) : none_(none) {
    add(0, 0);
    std::vector<int> path{0};  // the nodes from the root to the last one
    int before = -1;
    for (int token : tokens) {
      const int size = length(token);
      int shared = 0;
      if (before >= 0) {
        const int limit = std::min(length(before), size);
        while (shared < limit && text(before)[shared] == text(token)[shared]) ++shared;
        if (shared == size && shared == length(before)) {
          twins_.push_back({before, token});
          continue;
        }
      }
      close(path, shared + 1);
      for (int i = shared; i < size; ++i) {
        path.push_back(num_nodes());
        add(text(token)[i], i + 1);
      }
      nodes_.back().token = token;
      before = token;
    }
    close(path, 0);
    list_children();
    index_children();
  }

  struct Child {
    uint8_t byte;
    int node;
  };

  int num_nodes() const { return static_cast<int>(nodes_.size()); }
  const Node& operator[](int node) const { return nodes_[node]; }
  uint8_t byte(int node) const { return static_cast<uint8_t>(nodes_[node].byte); }
  int end(int node) const { return end_[node]; }
  bool has_token(int node) const { return nodes_[node].token != none_; }
  std::span<const Child> children(int wide_node) const {
    const int list = lists_.at(wide_node);
    return {children_.data() + begin_[list], children_.data() + begin_[list + 1]};
  }
  const std::vector<Twins>& twins() const { return twins_; }

  int child(int node, uint8_t byte) const {  // -1: none
    if (nodes_[node].is_indexed) {
      for (size_t at = place(key(node, byte)); index_[at].child >= 0; at = (at + 1) & (index_.size() - 1))
        if (index_[at].above == key(node, byte)) return index_[at].child;
      return -1;
    }
    for (int at = node + 1; at < end_[node]; at = end_[at])
      if (nodes_[at].byte == byte) return at;
    return -1;
  }

 private:
  void add(uint8_t byte, int depth) {
    nodes_.push_back({byte, false, false, static_cast<uint32_t>(depth), none_});
    end_.push_back(0);
  }
  void close(std::vector<int>& path, int kept) {
    for (; static_cast<int>(path.size()) > kept; path.pop_back()) end_[path.back()] = num_nodes();
  }

  void list_children() {
    for (int node = 0; node < num_nodes(); ++node) {
      const size_t before = children_.size();
      for (int child = node + 1; child < end_[node]; child = end_[child]) children_.push_back({byte(child), child});
      nodes_[node].is_wide = node == 0 || children_.size() - before >= WIDE;
      if (!nodes_[node].is_wide) {
        children_.resize(before);
        continue;
      }
      lists_[node] = static_cast<int>(begin_.size()) - 1;
      begin_.push_back(static_cast<int>(children_.size()));
    }
  }

  static uint64_t key(int node, uint8_t byte) { return static_cast<uint64_t>(node) << 8 | byte; }
  size_t place(uint64_t key) const {
    const uint64_t h = key * 0x9E3779B97F4A7C15u;
    return h >> 32 & (index_.size() - 1);
  }

  void index_children() {
    std::vector<Indexed> found;
    for (int node = 0; node < num_nodes(); ++node) {
      const size_t before = found.size();
      for (int child = node + 1; child < end_[node]; child = end_[child]) found.push_back({key(node, byte(child)), child});
      nodes_[node].is_indexed = found.size() - before >= MANY;
      if (!nodes_[node].is_indexed) found.resize(before);
    }
    index_.resize(std::bit_ceil(2 * found.size() + 2));
    for (const Indexed& one : found) {
      size_t at = place(one.above);
      while (index_[at].child >= 0) at = (at + 1) & (index_.size() - 1);
      index_[at] = one;
    }
  }

  struct Indexed {
    uint64_t above = 0;  // the node, and the byte that leads on
    int child = -1;
  };

  static constexpr size_t WIDE = 48;
  static constexpr size_t MANY = 12;  // fewer are looked at one after the other
  int none_;
  std::vector<Node> nodes_;
  std::vector<int> end_;
  std::vector<Indexed> index_;  // of the children of nodes with many; a power of two
  std::unordered_map<int, int> lists_;  // of wide nodes
  std::vector<int> begin_{0};
  std::vector<Child> children_;
  std::vector<Twins> twins_;
};

class Vocabulary {
 public:
  // Token t spells blob[begin[t]:begin[t + 1]]; one that spells nothing is never allowed. `ends`: the
  // end tokens.
  Vocabulary(const uint8_t* blob, const int64_t* begin, int size, const int* ends, int num_ends)
      : size_(size),
        begin_(begin, begin + size + 1),
        blob_(blob, blob + begin[size]),
        ends_(ends, ends + num_ends),
        order_(sorted()),
        all_(make_trie(order_)),
        plain_(PlainText::MOST_BYTES + 2, std::vector<int32_t>(num_words())),
        beside_short_(make_trie(without_plain(SHORT))),
        beside_any_(make_trie(without_plain(ANY))),
        rows_(num_words()) {}

  int size() const { return size_; }
  int num_words() const { return (size_ + 31) / 32; }
  int longest() const { return longest_; }
  int length(int token) const { return static_cast<int>(begin_[token + 1] - begin_[token]); }
  const uint8_t* text(int token) const { return blob_.data() + begin_[token]; }
  const std::vector<int>& ends() const { return ends_; }

  // Whether each byte is a token by itself.
  std::array<bool, 256> spelled() const {
    std::array<bool, 256> spelled{};
    for (int token : order_)
      if (length(token) == 1) spelled[*text(token)] = true;
    return spelled;
  }

  const Trie& all() const { return all_; }

  RowStore& rows() const { return rows_; }

  // How much plain text may come: so many characters, or more than any short token holds, or any text.
  static constexpr int SHORT = PlainText::MOST_BYTES, ANY = PlainText::MOST_BYTES + 1;

  // The bits of the plain tokens that hold no more text than that, and the trie of all that are not
  // plain, nor of any length that is left out of those.
  const std::vector<int32_t>& plain(int room) const { return plain_[room]; }
  const Trie& beside_plain(int room) const { return room == ANY ? beside_any_ : beside_short_; }

 private:
  Trie make_trie(const std::vector<int>& tokens) const {
    return Trie(tokens, 32 * num_words(), [&](int t) { return text(t); }, [&](int t) { return length(t); });
  }

  std::vector<int> sorted() {
    std::vector<int> order;
    for (int token = 0; token < size_; ++token) {
      if (!length(token)) continue;
      order.push_back(token);
      longest_ = std::max(longest_, length(token));
    }
    std::sort(order.begin(), order.end(), [&](int a, int b) {
      const int order = compare(a, b);
      return order < 0 || (order == 0 && a < b);
    });
    return order;
  }

  int compare(int a, int b) const {
    const int limit = std::min(length(a), length(b));
    const int shared = static_cast<int>(std::mismatch(text(a), text(a) + limit, text(b)).first - text(a));
    return shared == limit ? length(a) - length(b) : text(a)[shared] - text(b)[shared];
  }

  // All tokens but the plain ones, short ones or any; notes the bits of those.
  std::vector<int> without_plain(int kind) {
    std::vector<int> others;
    for (int token : order_) {
      const bool is_wanted = kind == ANY || length(token) <= PlainText::MOST_BYTES;
      const int characters = is_wanted ? plain_characters(token) : 0;
      if (!characters) others.push_back(token);
      for (int room = kind == ANY ? ANY : characters; characters && room <= kind; ++room)
        plain_[room][token / 32] |= static_cast<int32_t>(1u << (token % 32));
    }
    return others;
  }

  // How many characters of plain text a token spells, a cut one included; 0 where it spells other text.
  int plain_characters(int token) const {
    int state = 0, characters = 0;
    for (int i = 0; i < length(token); ++i) {
      characters += state == 0;
      state = PlainText::step(state, text(token)[i]);
      if (state == PlainText::BROKEN) return 0;
    }
    return characters;
  }

  int size_, longest_ = 0;
  std::vector<int64_t> begin_;
  std::vector<uint8_t> blob_;
  std::vector<int> ends_;
  std::vector<int> order_;  // by text
  Trie all_;
  std::vector<std::vector<int32_t>> plain_;  // by `room`
  Trie beside_short_, beside_any_;
  mutable RowStore rows_;
};

}  // namespace sapwood
