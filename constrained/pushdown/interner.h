// Lists of numbers that are numbered by content: equal lists, equal numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sapwood {

struct List {
  const int* data;
  int size;
  const int* begin() const { return data; }
  const int* end() const { return data + size; }
  int operator[](int i) const { return data[i]; }
};

class Interner {
 public:
  Interner() : slots_(64, -1) {}

  int size() const { return static_cast<int>(begin_.size()) - 1; }

  size_t bytes() const {
    return sizeof(int) * (lists_.capacity() + slots_.capacity()) + sizeof(size_t) * begin_.capacity() +
           sizeof(uint64_t) * hashes_.capacity();
  }

  // Valid until the next `add`.
  List operator[](int number) const {
    return {lists_.data() + begin_[number], static_cast<int>(begin_[number + 1] - begin_[number])};
  }

  // The number of the list; -1 where it has none yet.
  int find(const int* data, int size) const { return slots_[slot_of(data, size, hash(data, size))]; }

  // The number of the list, which may be new (then it is the last).
  int add(const int* data, int size) {
    const uint64_t h = hash(data, size);
    size_t slot = slot_of(data, size, h);
    if (slots_[slot] >= 0) return slots_[slot];
    const int number = this->size();
    lists_.insert(lists_.end(), data, data + size);
    begin_.push_back(lists_.size());
    hashes_.push_back(h);
    slots_[slot] = number;
    if (hashes_.size() * 2 > slots_.size()) grow();
    return number;
  }
  int add(const std::vector<int>& list) { return add(list.data(), static_cast<int>(list.size())); }

 private:
  static uint64_t hash(const int* data, int size) {
    uint64_t h = 0x9E3779B97F4A7C15u ^ static_cast<uint64_t>(size);
    for (int i = 0; i < size; ++i) {
      h ^= static_cast<uint32_t>(data[i]);
      h *= 0xFF51AFD7ED558CCDu;
      h ^= h >> 32;
    }
    return h;
  }

  size_t slot_of(const int* data, int size, uint64_t h) const {
    size_t slot = h & (slots_.size() - 1);
    while (slots_[slot] >= 0 && !is(slots_[slot], data, size, h)) slot = (slot + 1) & (slots_.size() - 1);
    return slot;
  }

  bool is(int number, const int* data, int size, uint64_t h) const {
    if (hashes_[number] != h) return false;
    const List list = (*this)[number];
    return list.size == size && std::equal(list.begin(), list.end(), data);
  }

  void grow() {
    std::vector<int> slots(slots_.size() * 2, -1);
    for (int number = 0; number < size(); ++number) {
      size_t slot = hashes_[number] & (slots.size() - 1);
      while (slots[slot] >= 0) slot = (slot + 1) & (slots.size() - 1);
      slots[slot] = number;
    }
    slots_.swap(slots);
  }

  std::vector<int> lists_;
  std::vector<size_t> begin_{0};
  std::vector<uint64_t> hashes_;
  std::vector<int> slots_;  // a power of two of them
};

}  // namespace sapwood
