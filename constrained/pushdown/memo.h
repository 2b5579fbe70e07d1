// Numbers that are known by pairs of numbers, both from 0.
#pragma once

#include <cstdint>
#include <vector>

namespace sapwood {

class Memo {
 public:
  Memo() : entries_(16) {}

  size_t bytes() const { return sizeof(Entry) * entries_.capacity(); }

  // -2: not known.
  int find(int a, int b) const { return entries_[place(key(a, b))].value; }

  void add(int a, int b, int value) {
    if (++size_ * 2 > entries_.size()) grow();
    entries_[place(key(a, b))] = {key(a, b), value};
  }

 private:
  static constexpr uint64_t NONE = ~0ull;
  struct Entry {
    uint64_t key = NONE;
    int value = -2;
  };

  static uint64_t key(int a, int b) { return static_cast<uint64_t>(a) << 32 | static_cast<uint32_t>(b); }

  size_t place(uint64_t key) const {
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    size_t at = (h ^ h >> 32) & (entries_.size() - 1);
    while (entries_[at].key != NONE && entries_[at].key != key) at = (at + 1) & (entries_.size() - 1);
    return at;
  }

  void grow() {
    std::vector<Entry> before(entries_.size() * 2);
    before.swap(entries_);
    for (const Entry& entry : before)
      if (entry.key != NONE) entries_[place(entry.key)] = entry;
  }

  std::vector<Entry> entries_;  // a power of two of them
  size_t size_ = 0;
};

}  // namespace sapwood
