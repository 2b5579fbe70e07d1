// Sixteen floats at a time, by the compiler's own vectors: one register or several, as the processor
// has them. Owns: loads, sums and the exponential.
//
// Every operation here is an IEEE one, lane by lane, in a fixed order and never a fused multiply-add:
// the same logits give the same weights, bit for bit, on every processor.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed within this file alone

namespace sapwood::sampling {

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef double Doubles __attribute__((vector_size(64)));
typedef float HalfFloats __attribute__((vector_size(32)));
typedef float QuarterFloats __attribute__((vector_size(16)));

constexpr Ints LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline Floats load(const float* values) {
  Floats lanes;
  std::memcpy(&lanes, values, sizeof lanes);
  return lanes;
}

inline void store(float* values, Floats lanes) { std::memcpy(values, &lanes, sizeof lanes); }

template <class Part, class Whole>
inline Part part_of(const Whole& whole, int index) {
  Part part;
  std::memcpy(&part, reinterpret_cast<const char*>(&whole) + size_t(index) * sizeof part,
              sizeof part);
  return part;
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

inline float largest(Floats lanes) {
  const HalfFloats a = part_of<HalfFloats>(lanes, 0), b = part_of<HalfFloats>(lanes, 1);
  const HalfFloats eight = a > b ? a : b;
  const QuarterFloats c = part_of<QuarterFloats>(eight, 0), d = part_of<QuarterFloats>(eight, 1);
  const QuarterFloats four = c > d ? c : d;
  const float left = four[0] > four[1] ? four[0] : four[1];
  const float right = four[2] > four[3] ? four[2] : four[3];
  return left > right ? left : right;
}

// Bit i: lane i of a comparison's outcome is true.
inline uint32_t bits(Ints outcome) {
  const Ints single = outcome & ((Ints{} + 1) << LANE);
  typedef int32_t Half __attribute__((vector_size(32)));
  typedef int32_t Quarter __attribute__((vector_size(16)));
  const Half eight = part_of<Half>(single, 0) | part_of<Half>(single, 1);
  const Quarter four = part_of<Quarter>(eight, 0) | part_of<Quarter>(eight, 1);
  return uint32_t((four[0] | four[1]) | (four[2] | four[3]));
}

// The sixteen floats as eight doubles, lane i and lane i + 8 added.
inline Doubles folded(Floats lanes) {
  return __builtin_convertvector(part_of<HalfFloats>(lanes, 0), Doubles) +
         __builtin_convertvector(part_of<HalfFloats>(lanes, 1), Doubles);
}

inline double sum(Doubles lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// e^x for x <= 0, within 2 units in the last place; 0 where that is below the smallest normal
// float (x < -87.3), and for NaN.
//
// x = n ln 2 + r with |r| <= ln 2 / 2; Taylor's series to r^7 is off by 5e-9 at most. ln 2 is
// subtracted in two parts (Cody and Waite, 1980), the first short enough for exact products.
inline Floats exp_of_nonpositive(Floats x) {
  constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the low bits
  const Floats smallest = Floats{} - 87.3f;
  const auto is_normal = x >= smallest;
  const Floats inside = is_normal ? x : Floats{};
  const Floats shifted = inside * 1.44269504f + ROUND;
  const Floats n = shifted - ROUND;
  const Floats r = (inside - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats series = r * (1.0f / 5040) + (1.0f / 720);
  series = series * r + (1.0f / 120);
  series = series * r + (1.0f / 24);
  series = series * r + (1.0f / 6);
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  Ints bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const Ints exponent = (bits + (127 - 0x4B400000)) << 23;  // 0x4B400000: the bits of ROUND
  Floats power;
  std::memcpy(&power, &exponent, sizeof power);
  return is_normal ? series * power : Floats{};
}

}  // namespace sapwood::sampling
