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

// The registers are laid out anew only where a thread's last use was another one.
enum Layout { PRODUCT_LAYOUT = 0, ATTENTION_LAYOUT = 1 << 16, INT8_LAYOUT = 2 << 16 };

inline bool is_new(int layout) {
  static thread_local int current = -1;
  const bool changed = current != layout;
  current = layout;
  return changed;
}

}  // namespace sapwood::amx
