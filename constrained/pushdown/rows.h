// Rows of bits that are kept once, whoever asks for them: most grammars allow the same few sets of
// tokens again and again. For any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace sapwood {

class RowStore {
 public:
  // `number`: of the row, from 1; no other ever has it.
  struct Kept {
    int64_t number;
    std::vector<int32_t> words;
  };
  using Words = std::shared_ptr<const Kept>;

  explicit RowStore(int num_words) : num_words_(num_words) {}

  // The row with these words; it lives as long as somebody holds it.
  Words keep(const int32_t* words) {
    const uint64_t h = hash(words);
    const std::lock_guard<std::mutex> lock(mutex_);
    std::weak_ptr<const Kept>& place = rows_[h];
    if (Words known = place.lock(); known && std::equal(known->words.begin(), known->words.end(), words)) return known;
    Words made = std::make_shared<const Kept>(Kept{++last_, {words, words + num_words_}});
    place = made;
    if (rows_.size() > most_) drop_dead();
    return made;
  }

 private:
  // Four sums side by side: one would wait for itself.
  uint64_t hash(const int32_t* words) const {
    uint64_t sums[4] = {1, 2, 3, 4};
    for (int i = 0; i < num_words_; i += 8) {
      uint64_t part[4] = {};
      std::memcpy(part, words + i, std::min(8, num_words_ - i) * sizeof(int32_t));
      for (int k = 0; k < 4; ++k) sums[k] = (sums[k] ^ part[k]) * 0x9E3779B97F4A7C15u, sums[k] ^= sums[k] >> 29;
    }
    return ((sums[0] * 31 + sums[1]) * 31 + sums[2]) * 31 + sums[3];
  }

  void drop_dead() {
    std::erase_if(rows_, [](const auto& entry) { return entry.second.expired(); });
    most_ = 2 * rows_.size() + 1024;
  }

  int num_words_;
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::weak_ptr<const Kept>> rows_;
  int64_t last_ = 0;
  size_t most_ = 1024;
};

}  // namespace sapwood
