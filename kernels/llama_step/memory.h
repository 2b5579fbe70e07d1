// Aligned memory that goes away with its owner, in huge pages where the system has them.
//
// Huge pages are no luxury: a model's weights are read once a token, and on virtual machines a miss of
// the translation cache for every 4 KiB costs more than the read (docs/log.md has a case of 100 times).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sapwood {

constexpr size_t HUGE_PAGE = size_t(2) << 20;
// Behind every piece, so that a prefetch or a whole last vector may go beyond its end.
constexpr size_t PADDING = 8192;

// Zeroed memory of its own mapping. Pages appear when they are touched, so a large pool costs nothing
// until it is used.
class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(size_t bytes) {
#if defined(__linux__)
    bytes_ = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE + HUGE_PAGE;
    void* map = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    map_ = map;
    const uintptr_t start = reinterpret_cast<uintptr_t>(map);
    data_ = reinterpret_cast<uint8_t*>((start + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    madvise(data_, bytes_ - HUGE_PAGE, MADV_HUGEPAGE);
#else
    map_ = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!map_) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(map_);
    std::fill_n(data_, bytes, uint8_t(0));
#endif
  }
  ~Mapping() {
    if (!map_) return;
#if defined(__linux__)
    munmap(map_, bytes_);
#else
    std::free(map_);
#endif
  }
  Mapping(Mapping&& other) noexcept { swap(other); }
  Mapping& operator=(Mapping&& other) noexcept {
    swap(other);
    return *this;
  }

  uint8_t* data() const { return data_; }

 private:
  void swap(Mapping& other) {
    std::swap(map_, other.map_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  void* map_ = nullptr;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Many pieces side by side in a few mappings, all freed together: a model's weights.
class Arena {
 public:
  uint8_t* take(size_t bytes) {
    const size_t whole = (bytes + PADDING + 63) / 64 * 64;
    if (whole > left_) {
      const size_t size = std::max(whole, SLAB);
      mappings_.emplace_back(size);
      next_ = mappings_.back().data();
      left_ = size;
    }
    uint8_t* piece = next_;
    next_ += whole;
    left_ -= whole;
    return piece;
  }

 private:
  static constexpr size_t SLAB = size_t(32) << 20;
  std::vector<Mapping> mappings_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0;
};

// `size` elements, 64-byte aligned, zero at first. Grows by `reserve`, which forgets the contents.
// Small ones lie on the heap, large ones in a mapping; those of an arena live as long as that.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size) { reserve(size); }
  ~Buffer() { std::free(heap_); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  void reserve(size_t size, Arena* arena = nullptr) {
    if (size <= size_) return;
    const size_t bytes = (size * sizeof(T) + PADDING + 63) / 64 * 64;
    std::free(heap_);
    heap_ = nullptr;
    mapping_ = Mapping();
    size_ = 0;
    if (arena) {
      data_ = reinterpret_cast<T*>(arena->take(bytes));
    } else if (bytes >= LARGE) {
      mapping_ = Mapping(bytes);
      data_ = reinterpret_cast<T*>(mapping_.data());
    } else {
      heap_ = std::aligned_alloc(64, bytes);
      if (!heap_) throw std::bad_alloc();
      data_ = static_cast<T*>(heap_);
      std::fill_n(static_cast<uint8_t*>(heap_), bytes, uint8_t(0));
    }
    size_ = size;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr size_t LARGE = size_t(256) << 10;

  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(heap_, other.heap_);
    std::swap(mapping_, other.mapping_);
    std::swap(size_, other.size_);
  }

  T* data_ = nullptr;
  void* heap_ = nullptr;
  Mapping mapping_;
  size_t size_ = 0;
};

inline int round_up(int value, int step) { return (value + step - 1) / step * step; }

}  // namespace sapwood
