// Weight matrices in the layouts that the micro-kernels read, and the way there from a checkpoint.
//
// A matrix [outputs, inputs] is cut into tiles of 16 outputs. A tile holds, for `padded` inputs (a
// multiple of 32, the last ones zero):
//   FLOAT32   [inputs][16] float32
//   BFLOAT16  [inputs / 2][16][2] bfloat16: pairs, as a two-way dot product reads them
//   INT8      [inputs / 4][16][4] bytes (number + 128), then [groups][16] float16 scales
//   INT4      [groups][4][16][4] bytes, each two numbers: of the group's chunks of four inputs, the
//             even ones in the low halves, the odd ones in the high halves; then [groups][2][16]
//             float16, scales and minima
// A group is 32 inputs of one output. INT8 means scale * number (-127..127), INT4 scale * number
// (0..15) + minimum: GGUF's Q8_0, Q4_0 and Q4_1 fit without loss.
//
// Owns: these layouts. Knows nothing of activations or models.
#pragma once
#include "memory.h"
#include "simd.h"

namespace sapwood {

constexpr int TILE = 16;   // outputs
constexpr int GROUP = 32;  // inputs that share a scale
// Bytes between what a kernel reads and what it asks for, across tiles and strips, as threads go
// through a matrix in order. For one row of stored weights 4 KB is slower by 16 %, 8 KB by 6 %.
constexpr size_t AHEAD = 6144;

enum class Format : int { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };
constexpr int NUM_FORMATS = 4;

// How a checkpoint stores a row.
enum class Source : int { F32 = 0, F16 = 1, BF16 = 2, Q8_0 = 3, Q4_0 = 4, Q4_1 = 5 };

inline bool is_quantized(Format format) { return format == Format::INT8 || format == Format::INT4; }

struct Matrix {
  int outputs = 0, inputs = 0, padded = 0;  // padded: inputs rounded up to whole groups
  Format format = Format::FLOAT32;
  size_t tile_bytes = 0;
  Buffer<uint8_t> memory;
  Buffer<float> bias;  // [tiles * 16], empty without one

  Matrix() = default;
  Matrix(int outputs_, int inputs_, Format format_, Arena* arena = nullptr)
      : outputs(outputs_), inputs(inputs_), padded(round_up(inputs_, GROUP)), format(format_) {
    tile_bytes = bytes_of_tile(format, padded);
    memory.reserve(tile_bytes * size_t(tiles()), arena);
  }

  // An even number, so that the kernels can always take two: the last one may be empty.
  int tiles() const { return round_up(outputs, 2 * TILE) / TILE; }
  int groups() const { return padded / GROUP; }
  size_t bytes() const { return tile_bytes * size_t(tiles()); }
  const uint8_t* tile(int index) const { return memory.data() + tile_bytes * size_t(index); }
  uint8_t* tile(int index) { return memory.data() + tile_bytes * size_t(index); }

  static size_t bytes_of_tile(Format format, int padded) {
    const size_t groups = size_t(padded) / GROUP;
    switch (format) {
      case Format::FLOAT32: return size_t(padded) * TILE * 4;
      case Format::BFLOAT16: return size_t(padded) * TILE * 2;
      case Format::INT8: return groups * (512 + 32);
      case Format::INT4: return groups * (256 + 64);
    }
    return 0;
  }
};

// The scales of a quantised tile lie behind its numbers.
inline const fp16* int8_scales(const uint8_t* tile, int groups) {
  return reinterpret_cast<const fp16*>(tile + size_t(groups) * 512);
}
inline const fp16* int4_scales(const uint8_t* tile, int groups) {
  return reinterpret_cast<const fp16*>(tile + size_t(groups) * 256);
}

// ---- one row of a checkpoint ---------------------------------------------------------------

inline size_t bytes_of_row(Source source, int inputs) {
  switch (source) {
    case Source::F32: return size_t(inputs) * 4;
    case Source::F16:
    case Source::BF16: return size_t(inputs) * 2;
    case Source::Q8_0: return size_t(inputs) / GROUP * 34;
    case Source::Q4_0: return size_t(inputs) / GROUP * 18;
    case Source::Q4_1: return size_t(inputs) / GROUP * 20;
  }
  return 0;
}

inline fp16 read_half(const uint8_t* p) {
  fp16 value;
  std::memcpy(&value, p, 2);
  return value;
}

// A group of a quantised row: value = scale * number + minimum (numbers as the format has them).
struct Group {
  fp16 scale, minimum;
  int numbers[GROUP];
};

inline Group read_group(Source source, const uint8_t* row, int group) {
  Group result{};
  if (source == Source::Q8_0) {
    const uint8_t* block = row + size_t(group) * 34;
    result.scale = read_half(block);
    for (int i = 0; i < GROUP; ++i) result.numbers[i] = int8_t(block[2 + i]);
    return result;
  }
  const bool has_minimum = source == Source::Q4_1;
  const uint8_t* block = row + size_t(group) * (has_minimum ? 20 : 18);
  result.scale = read_half(block);
  // Q4_0 counts from -8: the minimum is -8 scales, which is exact.
  result.minimum = has_minimum ? read_half(block + 2)
                               : float_to_half(-8.0f * half_to_float(result.scale));
  const uint8_t* packed = block + (has_minimum ? 4 : 2);
  for (int i = 0; i < GROUP / 2; ++i) {
    result.numbers[i] = packed[i] & 15;
    result.numbers[i + GROUP / 2] = packed[i] >> 4;
  }
  return result;
}

// The row as float32; `values` holds `inputs` of them.
inline void read_row(Source source, const uint8_t* row, int inputs, float* values) {
  switch (source) {
    case Source::F32: std::memcpy(values, row, size_t(inputs) * 4); return;
    case Source::F16:
      for (int k = 0; k < inputs; ++k) values[k] = half_to_float(read_half(row + 2 * k));
      return;
    case Source::BF16:
      for (int k = 0; k < inputs; ++k) values[k] = to_float(read_half(row + 2 * k));
      return;
    default:
      for (int group = 0; group < inputs / GROUP; ++group) {
        const Group g = read_group(source, row, group);
        const float scale = half_to_float(g.scale), minimum = half_to_float(g.minimum);
        for (int i = 0; i < GROUP; ++i)
          values[group * GROUP + i] = scale * float(g.numbers[i]) + minimum;
      }
  }
}

// ---- packing -------------------------------------------------------------------------------

inline Group quantize_int8(const float* values) {  // symmetric, largest magnitude = 127
  Group g{};
  float largest = 0;
  for (int i = 0; i < GROUP; ++i) largest = std::fmax(largest, std::fabs(values[i]));
  g.scale = float_to_half(largest / 127);
  const float scale = half_to_float(g.scale);
  for (int i = 0; i < GROUP; ++i) {
    const int n = scale > 0 ? int(std::lrint(values[i] / scale)) : 0;
    g.numbers[i] = n < -127 ? -127 : n > 127 ? 127 : n;
  }
  return g;
}

inline Group quantize_int4(const float* values) {  // from the smallest value to the largest
  Group g{};
  float low = values[0], high = values[0];
  for (int i = 1; i < GROUP; ++i) {
    low = std::fmin(low, values[i]);
    high = std::fmax(high, values[i]);
  }
  g.minimum = float_to_half(low);
  g.scale = float_to_half((high - low) / 15);
  const float scale = half_to_float(g.scale), minimum = half_to_float(g.minimum);
  for (int i = 0; i < GROUP; ++i) {
    const int n = scale > 0 ? int(std::lrint((values[i] - minimum) / scale)) : 0;
    g.numbers[i] = n < 0 ? 0 : n > 15 ? 15 : n;
  }
  return g;
}

inline void put_int8(uint8_t* tile, int groups, int lane, int group, const Group& g) {
  uint8_t* numbers = tile + size_t(group) * 512;
  for (int i = 0; i < GROUP; ++i)
    numbers[(i / 4) * 64 + lane * 4 + i % 4] = uint8_t(g.numbers[i] + 128);
  const_cast<fp16*>(int8_scales(tile, groups))[group * TILE + lane] = g.scale;
}

inline void put_int4(uint8_t* tile, int groups, int lane, int group, const Group& g) {
  uint8_t* numbers = tile + size_t(group) * 256;
  for (int i = 0; i < GROUP; ++i) {
    uint8_t& byte = numbers[(i / 8) * 64 + lane * 4 + i % 4];
    const int shift = (i / 4) % 2 ? 4 : 0;
    byte = uint8_t((byte & ~(15 << shift)) | g.numbers[i] << shift);
  }
  fp16* scales = const_cast<fp16*>(int4_scales(tile, groups)) + group * 2 * TILE;
  scales[lane] = g.scale;
  scales[TILE + lane] = g.minimum;
}

// Writes one output's weights into its lane of its tile. `scratch` holds `padded` floats.
inline void pack_row(Matrix& matrix, int output, Source source, const uint8_t* row,
                     float* scratch) {
  uint8_t* tile = matrix.tile(output / TILE);
  const int lane = output % TILE, groups = matrix.groups();
  const bool kept = (matrix.format == Format::INT8 && source == Source::Q8_0) ||
                    (matrix.format == Format::INT4 &&
                     (source == Source::Q4_0 || source == Source::Q4_1));
  if (!kept) {
    for (int k = matrix.inputs; k < matrix.padded; ++k) scratch[k] = 0;
    read_row(source, row, matrix.inputs, scratch);
  }
  switch (matrix.format) {
    case Format::FLOAT32: {
      float* values = reinterpret_cast<float*>(tile);
      for (int k = 0; k < matrix.padded; ++k) values[size_t(k) * TILE + lane] = scratch[k];
      return;
    }
    case Format::BFLOAT16: {
      bf16* values = reinterpret_cast<bf16*>(tile);
      for (int k = 0; k < matrix.padded; ++k)
        values[(size_t(k / 2) * TILE + lane) * 2 + k % 2] = to_bf16(scratch[k]);
      return;
    }
    case Format::INT8:
      for (int g = 0; g < groups; ++g)
        put_int8(tile, groups, lane, g,
                 kept ? read_group(source, row, g) : quantize_int8(scratch + g * GROUP));
      return;
    case Format::INT4:
      for (int g = 0; g < groups; ++g)
        put_int4(tile, groups, lane, g,
                 kept ? read_group(source, row, g) : quantize_int4(scratch + g * GROUP));
      return;
  }
}

// One output's weights as float32, `inputs` of them: what an embedding look-up reads.
inline void unpack_row(const Matrix& matrix, int output, float* values) {
  const uint8_t* tile = matrix.tile(output / TILE);
  const int lane = output % TILE, groups = matrix.groups();
  for (int k = 0; k < matrix.inputs; ++k) {
    const int group = k / GROUP, i = k % GROUP;
    switch (matrix.format) {
      case Format::FLOAT32:
        values[k] = reinterpret_cast<const float*>(tile)[size_t(k) * TILE + lane];
        break;
      case Format::BFLOAT16:
        values[k] = to_float(
            reinterpret_cast<const bf16*>(tile)[(size_t(k / 2) * TILE + lane) * 2 + k % 2]);
        break;
      case Format::INT8: {
        const int number = tile[size_t(group) * 512 + (i / 4) * 64 + lane * 4 + i % 4] - 128;
        values[k] = half_to_float(int8_scales(tile, groups)[group * TILE + lane]) * float(number);
        break;
      }
      case Format::INT4: {
        const uint8_t byte = tile[size_t(group) * 256 + (i / 8) * 64 + lane * 4 + i % 4];
        const int number = (i / 4) % 2 ? byte >> 4 : byte & 15;
        const fp16* scales = int4_scales(tile, groups) + group * 2 * TILE;
        values[k] = half_to_float(scales[lane]) * float(number) + half_to_float(scales[TILE + lane]);
        break;
      }
    }
  }
}

}  // namespace sapwood
