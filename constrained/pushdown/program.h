// A machine's flat tables as they come from Python (`program.py` says what each holds); kept here as
// copies, and the classes of bytes that they tell apart.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sapwood {

constexpr int FINAL = 0;      // the state in which a rule ends
constexpr int NO_BOUND = -1;  // in the place of an upper bound
constexpr int NEVER = 1 << 30;

enum class Kind : int { PLAIN, CALL, REPEAT, PRODUCT, COLLECTION, UNIQUE };

struct Edge {
  int low, high, target;
};

// Lists of unequal length, one after the other.
template <class T>
struct Lists {
  std::vector<int> begin;
  std::vector<T> flat;
  int size() const { return static_cast<int>(begin.size()) - 1; }
  const T* first(int list) const { return flat.data() + begin[list]; }
  const T* last(int list) const { return flat.data() + begin[list + 1]; }
  size_t bytes() const { return sizeof(int) * begin.capacity() + sizeof(T) * flat.capacity(); }
  size_t size(int list) const { return begin[list + 1] - begin[list]; }
  bool empty(int list) const { return begin[list] == begin[list + 1]; }
};

struct Operands {
  int rule, then, low, high, comma;  // of a product or collection, `rule` is its number
};

struct PartOf {
  int rule, negated;
};

struct MemberOf {
  int rule, once, counter, required;
};

struct Pair {
  int first, second;
};

struct CollectionOf {
  int comma, ordered, low, high;
};

struct Program {
  int root;
  Lists<Edge> edges;
  Lists<int> jumps;
  std::vector<Kind> kind;
  std::vector<Operands> operands;
  std::vector<int> rule_start;
  Lists<PartOf> parts;
  std::vector<CollectionOf> collections;
  Lists<MemberOf> members;
  Lists<Pair> needs;
  Lists<Pair> counters;

  // Bytes that no state tells apart share a class; a class has its lowest byte stand for it.
  uint8_t byte_class[256];
  std::vector<uint8_t> class_byte;

  size_t bytes() const {
    return edges.bytes() + jumps.bytes() + parts.bytes() + members.bytes() + needs.bytes() + counters.bytes() +
           sizeof(Kind) * kind.capacity() + sizeof(Operands) * operands.capacity() +
           sizeof(int) * rule_start.capacity() + sizeof(CollectionOf) * collections.capacity();
  }

  int num_states() const { return static_cast<int>(kind.size()); }
  int num_classes() const { return static_cast<int>(class_byte.size()); }
  bool has(Kind wanted) const { return std::find(kind.begin(), kind.end(), wanted) != kind.end(); }

  void find_classes() {
    bool cuts[257] = {};
    // The texts of unique items are told apart by every byte.
    if (has(Kind::UNIQUE)) std::fill_n(cuts, 257, true);
    for (const Edge& edge : edges.flat) cuts[edge.low] = cuts[edge.high + 1] = true;
    class_byte.assign(1, 0);
    byte_class[0] = 0;
    for (int byte = 1; byte < 256; ++byte) {
      if (cuts[byte]) class_byte.push_back(static_cast<uint8_t>(byte));
      byte_class[byte] = static_cast<uint8_t>(class_byte.size() - 1);
    }
  }
};

}  // namespace sapwood
