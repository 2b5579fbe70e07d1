// Intel's AMX: eight tile registers of 16 rows x 64 bytes, multiplied by one another.
//
// Owns: the permission to use them and their layout. gemm_amx.h and attention_amx.h multiply.
#pragma once
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace sapwood::amx {

// Linux gives a process the tile registers on request only.
inline bool permitted() {
  constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// As the instruction reads it.
struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {};
};

// The compiler does not know that the tile instructions read memory: without this it may drop or
// delay what was written at `p` just before.
inline void publish(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

inline void load_config(const Config& config) {
  publish(&config);
  _tile_loadconfig(&config);
}

// The registers are laid out anew only where a thread's last use was another one.
enum Layout { NO_LAYOUT = -1, PRODUCT_LAYOUT = 0, ATTENTION_LAYOUT = 1 << 16, INT8_LAYOUT = 2 << 16 };

inline thread_local int current_layout = NO_LAYOUT;

inline bool is_new(int layout) {
  const bool changed = current_layout != layout;
  current_layout = layout;
  return changed;
}

// A thread's use of the registers. Outside of one, other libraries on the thread may lay them out
// and release them as they like; an unreleased one makes every switch of threads dearer.
class Session {
 public:
  Session() { current_layout = NO_LAYOUT; }
  ~Session() {
    _tile_release();
    current_layout = NO_LAYOUT;
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

}  // namespace sapwood::amx
