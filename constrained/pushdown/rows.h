// Rows of bits that are kept once, whoever asks for them: most grammars allow the same few sets of
// tokens again and again. For any thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <unordered_map>
#include <vector>

namespace sapwood {

class RowStore {
 public:
  // Within a key or a literal only a few tokens are allowed: a row that is nearly empty is kept as the
  // words that are not.
  struct Word {
    int place;
    int32_t bits;
    bool operator==(const Word&) const = default;
  };
  // `number`: of the row, from 1; no other ever has it.
  struct Kept {
    int64_t number;
    std::vector<Word> few;       // those that are not 0, where they are few;
    std::vector<int32_t> words;  // otherwise all of them

    size_t bytes() const { return sizeof(Kept) + sizeof(Word) * few.size() + sizeof(int32_t) * words.size(); }
  };
  using Words = std::shared_ptr<const Kept>;

  explicit RowStore(int num_words) : num_words_(num_words) {}

  // The row with these words; it lives as long as somebody holds it.
  Words keep(const int32_t* words) {
    Few few;
    const bool is_sparse = find_few(words, few);
    const uint64_t h = is_sparse ? hash(few) : hash(words);
    const std::lock_guard<std::mutex> lock(mutex_);
    std::weak_ptr<const Kept>& place = rows_[h];
    if (Words known = place.lock(); known && known->words.empty() == is_sparse) {
      if (is_sparse ? std::equal(known->few.begin(), known->few.end(), few.begin(), few.end())
                    : std::equal(known->words.begin(), known->words.end(), words))
        return known;
    }
    Kept row{++last_, {}, {}};
    if (is_sparse)
      row.few.assign(few.begin(), few.end());
    else
      row.words.assign(words, words + num_words_);
    Words made = std::make_shared<const Kept>(std::move(row));
    place = made;
    if (rows_.size() > most_) drop_dead();
    return made;
  }

  void write(const Kept& kept, int32_t* row) const {
    if (!kept.words.empty()) {
      std::copy(kept.words.begin(), kept.words.end(), row);
      return;
    }
    std::fill_n(row, num_words_, 0);
    for (const Word& word : kept.few) row[word.place] = word.bits;
  }

 private:
  static constexpr size_t FEW = 32;

  struct Few {
    std::array<Word, FEW> words;
    size_t size = 0;
    const Word* begin() const { return words.data(); }
    const Word* end() const { return words.data() + size; }
  };

  // The words that are not 0; false where they are more than a few.
  bool find_few(const int32_t* words, Few& few) const {
    for (int first = 0; first < num_words_; first += 16) {
      const int last = std::min(first + 16, num_words_);
      if (std::accumulate(words + first, words + last, 0, std::bit_or<>()) == 0) continue;
      for (int i = first; i < last; ++i) {
        if (words[i] == 0) continue;
        if (few.size == FEW) return false;
        few.words[few.size++] = {i, words[i]};
      }
    }
    return true;
  }

  static uint64_t hash(const Few& few) {
    uint64_t sum = few.size;
    for (const Word& word : few) {
      sum = (sum ^ (static_cast<uint64_t>(word.place) << 32 | static_cast<uint32_t>(word.bits))) * 0x9E3779B97F4A7C15u;
      sum ^= sum >> 29;
    }
    return sum;
  }

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
