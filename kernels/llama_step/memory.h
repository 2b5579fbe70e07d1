// Aligned memory that goes away with its owner, in huge pages where the system has them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sapwood {

// `size` elements, 64-byte aligned, zeroed when first touched. Grows by `reserve`, which forgets
// the contents. The end is padded so that a prefetch or a whole last vector may go beyond it.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size) { reserve(size); }
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  void reserve(size_t size) {
    if (size <= size_) return;
    release();
    bytes_ = size * sizeof(T) + PADDING;
#if defined(__linux__)
    if (bytes_ >= HUGE) {
      // Mapped: pages appear, zeroed, when touched, so a large pool costs nothing until it is used.
      void* map = mmap(nullptr, bytes_ + HUGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (map == MAP_FAILED) throw std::bad_alloc();
      map_ = map;
      const uintptr_t aligned = (reinterpret_cast<uintptr_t>(map) + HUGE - 1) / HUGE * HUGE;
      data_ = reinterpret_cast<T*>(aligned);
      madvise(data_, bytes_, MADV_HUGEPAGE);
      size_ = size;
      return;
    }
#endif
    const size_t whole = (bytes_ + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, whole));
    if (!data_) throw std::bad_alloc();
    __builtin_memset(static_cast<void*>(data_), 0, whole);
    size_ = size;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr size_t HUGE = size_t(2) << 20;
  static constexpr size_t PADDING = 4096;

  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(map_, other.map_);
    std::swap(size_, other.size_);
    std::swap(bytes_, other.bytes_);
  }
  void release() {
#if defined(__linux__)
    if (map_) munmap(map_, bytes_ + HUGE);
    else
#endif
      std::free(data_);
    data_ = nullptr;
    map_ = nullptr;
    size_ = 0;
  }

  T* data_ = nullptr;
  void* map_ = nullptr;
  size_t size_ = 0, bytes_ = 0;
};

inline int round_up(int value, int step) { return (value + step - 1) / step * step; }

}  // namespace sapwood
