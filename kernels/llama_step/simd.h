// Sixteen lanes of numbers and the few operations on them that the kernels use, for every
// instruction set: one zmm register, two ymm, four NEON or plain 128-bit vectors.
//
// Owns: which instructions run. Knows nothing of weights, attention or models. Every operation
// works lane by lane and in a fixed order, so a result depends on the tier but never on the batch.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(SAPWOOD_TIER_AMX) || defined(SAPWOOD_TIER_AVX512BF16)
#define SAPWOOD_BF16_DOT 1
#endif
#if defined(SAPWOOD_BF16_DOT) || defined(SAPWOOD_TIER_AVX512)
#define SAPWOOD_AVX512 1
#endif
#if defined(SAPWOOD_AVX512) || defined(SAPWOOD_TIER_AVX2)
#include <immintrin.h>
#endif
#if defined(SAPWOOD_TIER_NEON)
#include <arm_neon.h>
#endif

namespace sapwood {

constexpr int LANES = 16;
using bf16 = uint16_t;  // the upper half of a float32
using fp16 = uint16_t;  // IEEE half

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float to_float(bf16 value) { return from_bits(uint32_t(value) << 16); }

// Round to nearest, ties to even; subnormal numbers become zero, as the processors' own bfloat16
// instructions have it. A NaN stays one.
inline bf16 to_bf16(float value) {
  uint32_t bits = bits_of(value);
  if ((bits & 0x7f800000u) == 0) return bf16((bits & 0x80000000u) >> 16);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16((bits >> 16) | 0x40);
  return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float half_to_float(fp16 half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16;
  const uint32_t magnitude = half & 0x7fff;
  if (magnitude >= 0x7c00) return from_bits(sign | 0x7f800000u | ((magnitude & 0x3ff) << 13));
  // Scaling by 2^112 moves the exponent's bias and makes subnormal halves right as well.
  return from_bits(sign | bits_of(from_bits(magnitude << 13) * from_bits(0x77800000u)));
}

inline fp16 float_to_half(float value) {
  const uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return fp16(sign | 0x7e00);
  if (magnitude >= 0x477ff000u) return fp16(sign | 0x7c00);  // rounds beyond 65504
  if (magnitude < 0x38800000u) {  // subnormal half: let the float adder round at 2^-24
    const float shifted = from_bits(magnitude) + from_bits(0x3f000000u);
    return fp16(sign | (bits_of(shifted) - 0x3f000000u));
  }
  magnitude += 0xfff + ((magnitude >> 13) & 1);
  return fp16(sign | ((magnitude - 0x38000000u) >> 13));
}

// ---- sixteen lanes -------------------------------------------------------------------------

#if defined(SAPWOOD_AVX512)

using Vec = __m512;    // 16 float32
using IVec = __m512i;  // 16 int32, or 64 bytes

inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec broadcast(float value) { return _mm512_set1_ps(value); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec abs(Vec a) { return _mm512_abs_ps(a); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }  // a * b + c
inline float max_lane(Vec a) { return _mm512_reduce_max_ps(a); }
inline float sum_lanes(Vec a) { return _mm512_reduce_add_ps(a); }
inline IVec load_ints(const void* p) { return _mm512_loadu_si512(p); }
inline IVec broadcast_int(int32_t value) { return _mm512_set1_epi32(value); }
inline IVec add_ints(IVec a, IVec b) { return _mm512_add_epi32(a, b); }
inline Vec to_floats(IVec a) { return _mm512_cvtepi32_ps(a); }
inline IVec round_to_ints(Vec a) { return _mm512_cvtps_epi32(a); }
inline Vec load_halves(const fp16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void store_ints(int32_t* p, IVec v) { _mm512_storeu_si512(p, v); }
// Keeps the lanes whose bit is set; the others become `other`.
inline Vec select(uint32_t keep, Vec v, Vec other) {
  return _mm512_mask_blend_ps(__mmask16(keep), other, v);
}
// v * 2^n for whole n in [-126, 127].
inline Vec scale_by_two(Vec v, Vec n) { return _mm512_scalef_ps(v, n); }
inline Vec round_even(Vec v) { return _mm512_roundscale_ps(v, 0); }

inline void store_bytes(int8_t* p, IVec v) {  // 16 int32 in [-128, 127] -> 16 int8
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}
inline Vec load_bytes(const int8_t* p) {  // 16 int8 -> 16 float32
  return to_floats(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

inline IVec nibbles_low(IVec v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline IVec nibbles_high(IVec v) {
  return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

#if defined(__AVX512VNNI__)
// Lane i: c + sum over its four bytes of unsigned w times signed x.
inline IVec dot4(IVec c, IVec w, IVec x) { return _mm512_dpbusd_epi32(c, w, x); }
#else
inline IVec dot4(IVec c, IVec w, IVec x) {  // exact: products fit 16 bits, madd adds in 32
  const IVec low = _mm512_set1_epi16(0xff);
  const IVec even = _mm512_madd_epi16(_mm512_and_si512(w, low),
                                      _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8));
  const IVec odd = _mm512_madd_epi16(_mm512_srli_epi16(w, 8), _mm512_srai_epi16(x, 8));
  return _mm512_add_epi32(c, _mm512_add_epi32(even, odd));
}
#endif

#if defined(SAPWOOD_BF16_DOT)
// Lane i: c + the products of its two bfloat16 numbers, the second first.
inline Vec dot2(Vec c, IVec w, IVec x) { return _mm512_dpbf16_ps(c, (__m512bh)w, (__m512bh)x); }
inline void store_bf16(bf16* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v));
}
#else
inline Vec dot2(Vec c, IVec w, IVec x) {
  const IVec high = _mm512_set1_epi32(int32_t(0xffff0000u));
  c = fma(_mm512_castsi512_ps(_mm512_and_si512(w, high)),
          _mm512_castsi512_ps(_mm512_and_si512(x, high)), c);
  return fma(_mm512_castsi512_ps(_mm512_slli_epi32(w, 16)),
             _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), c);
}
inline void store_bf16(bf16* p, Vec v) {
  alignas(64) float lanes[LANES];
  store(lanes, v);
  for (int i = 0; i < LANES; ++i) p[i] = to_bf16(lanes[i]);
}
#endif

#else  // narrower registers: the same lanes in pieces

#if defined(SAPWOOD_TIER_AVX2)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
constexpr int PIECES = LANES / WIDTH;
typedef float Piece __attribute__((vector_size(WIDTH * 4)));
typedef int32_t IPiece __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t UPiece __attribute__((vector_size(WIDTH * 4)));
typedef int16_t SPiece __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t HPiece __attribute__((vector_size(WIDTH * 4)));
typedef uint8_t BPiece __attribute__((vector_size(WIDTH * 4)));

struct Vec {
  Piece piece[PIECES];
};
struct IVec {
  IPiece piece[PIECES];
};

template <class F>
inline Vec each(F f) {
  Vec result;
#pragma GCC unroll 4
  for (int i = 0; i < PIECES; ++i) result.piece[i] = f(i);
  return result;
}
template <class F>
inline IVec each_int(F f) {
  IVec result;
#pragma GCC unroll 4
  for (int i = 0; i < PIECES; ++i) result.piece[i] = f(i);
  return result;
}

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline IVec load_ints(const void* p) {
  IVec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store_ints(int32_t* p, IVec v) { std::memcpy(p, &v, sizeof v); }
inline Vec broadcast(float value) {
  return each([&](int) { return Piece{} + value; });
}
inline IVec broadcast_int(int32_t value) {
  return each_int([&](int) { return IPiece{} + value; });
}
inline Vec add(Vec a, Vec b) {
  return each([&](int i) { return a.piece[i] + b.piece[i]; });
}
inline Vec sub(Vec a, Vec b) {
  return each([&](int i) { return a.piece[i] - b.piece[i]; });
}
inline Vec mul(Vec a, Vec b) {
  return each([&](int i) { return a.piece[i] * b.piece[i]; });
}
inline Vec div(Vec a, Vec b) {
  return each([&](int i) { return a.piece[i] / b.piece[i]; });
}
inline Vec max(Vec a, Vec b) {
  return each([&](int i) { return a.piece[i] > b.piece[i] ? a.piece[i] : b.piece[i]; });
}
inline Vec abs(Vec a) {
  return each([&](int i) { return Piece(UPiece(a.piece[i]) & 0x7fffffffu); });
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return each([&](int i) {
#if defined(SAPWOOD_TIER_AVX2)
    return Piece(_mm256_fmadd_ps(__m256(a.piece[i]), __m256(b.piece[i]), __m256(c.piece[i])));
#elif defined(SAPWOOD_TIER_NEON)
    return Piece(vfmaq_f32(float32x4_t(c.piece[i]), float32x4_t(a.piece[i]), float32x4_t(b.piece[i])));
#else
    return a.piece[i] * b.piece[i] + c.piece[i];
#endif
  });
}
inline IVec add_ints(IVec a, IVec b) {
  return each_int([&](int i) { return a.piece[i] + b.piece[i]; });
}
inline Vec to_floats(IVec a) {
  return each([&](int i) { return __builtin_convertvector(a.piece[i], Piece); });
}
// Adding and taking off 1.5 * 2^23 rounds to a whole number, ties to even, for |v| < 2^22.
inline Vec round_even(Vec v) {
  return each([&](int i) { return (v.piece[i] + 12582912.0f) - 12582912.0f; });
}
inline IVec round_to_ints(Vec a) {
  const Vec whole = round_even(a);
  return each_int([&](int i) { return __builtin_convertvector(whole.piece[i], IPiece); });
}
inline Vec scale_by_two(Vec v, Vec n) {
  return each([&](int i) {
    return v.piece[i] * Piece((__builtin_convertvector(n.piece[i], IPiece) + 127) << 23);
  });
}
inline float max_lane(Vec a) {
  float lanes[LANES], result;
  store(lanes, a);
  result = lanes[0];
  for (int i = 1; i < LANES; ++i) result = lanes[i] > result ? lanes[i] : result;
  return result;
}
inline float sum_lanes(Vec a) {  // halves onto halves, as the 512-bit reduction adds
  float lanes[LANES];
  store(lanes, a);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}
inline Vec load_halves(const fp16* p) {
  Vec v;
#if defined(SAPWOOD_TIER_AVX2)
  for (int i = 0; i < PIECES; ++i)
    v.piece[i] = Piece(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * i))));
#else
  float lanes[LANES];
  for (int i = 0; i < LANES; ++i) lanes[i] = half_to_float(p[i]);
  v = load(lanes);
#endif
  return v;
}
inline Vec select(uint32_t keep, Vec v, Vec other) {
  float a[LANES], b[LANES];
  store(a, v);
  store(b, other);
  for (int i = 0; i < LANES; ++i) a[i] = (keep >> i) & 1 ? a[i] : b[i];
  return load(a);
}
inline void store_bytes(int8_t* p, IVec v) {
  int32_t lanes[LANES];
  store_ints(lanes, v);
  for (int i = 0; i < LANES; ++i) p[i] = int8_t(lanes[i]);
}
inline Vec load_bytes(const int8_t* p) {
  float lanes[LANES];
  for (int i = 0; i < LANES; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline IVec nibbles_low(IVec v) {
  return each_int([&](int i) { return v.piece[i] & 0x0f0f0f0f; });
}
inline IVec nibbles_high(IVec v) {
  return each_int([&](int i) { return IPiece((UPiece(v.piece[i]) >> 4) & 0x0f0f0f0fu); });
}
inline IVec dot4(IVec c, IVec w, IVec x) {
  return each_int([&](int i) {
#if defined(SAPWOOD_TIER_AVX2)
    const __m256i wide = __m256i(w.piece[i]), rows = __m256i(x.piece[i]);
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0xff)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(rows, 8), 8));
    const __m256i odd =
        _mm256_madd_epi16(_mm256_srli_epi16(wide, 8), _mm256_srai_epi16(rows, 8));
    return IPiece(_mm256_add_epi32(__m256i(c.piece[i]), _mm256_add_epi32(even, odd)));
#else
    // A product of unsigned and signed bytes fits 16 bits; pairs are added in 32.
    const SPiece even = SPiece(HPiece(w.piece[i]) & 0xff) * (SPiece(HPiece(x.piece[i]) << 8) >> 8);
    const SPiece odd = SPiece(HPiece(w.piece[i]) >> 8) * (SPiece(x.piece[i]) >> 8);
    const IPiece e = IPiece(even), o = IPiece(odd);
    return c.piece[i] + ((IPiece(UPiece(e) << 16) >> 16) + (e >> 16)) +
           ((IPiece(UPiece(o) << 16) >> 16) + (o >> 16));
#endif
  });
}
inline Vec dot2(Vec c, IVec w, IVec x) {
  const auto high = [](IPiece p) { return Piece(UPiece(p) & 0xffff0000u); };
  const auto low = [](IPiece p) { return Piece(UPiece(p) << 16); };
  c = fma(each([&](int i) { return high(w.piece[i]); }), each([&](int i) { return high(x.piece[i]); }),
          c);
  return fma(each([&](int i) { return low(w.piece[i]); }), each([&](int i) { return low(x.piece[i]); }),
             c);
}
inline void store_bf16(bf16* p, Vec v) {
  float lanes[LANES];
  store(lanes, v);
  for (int i = 0; i < LANES; ++i) p[i] = to_bf16(lanes[i]);
}
#endif

inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }

inline IVec broadcast_pair(const bf16* p) {  // two bfloat16, or four bytes, to every lane
  int32_t word;
  std::memcpy(&word, p, 4);
  return broadcast_int(word);
}
inline IVec broadcast_bytes(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, 4);
  return broadcast_int(word);
}

// 2^x = 2^n * 2^f with whole n and |f| <= 1/2; 2^f as a polynomial, its coefficients from the highest
// power down.
template <int N>
Vec two_to_the(Vec x, const float (&coefficients)[N]) {
  const Vec whole = round_even(x);
  const Vec f = sub(x, whole);
  Vec p = broadcast(coefficients[0]);
#pragma GCC unroll 8
  for (int i = 1; i < N; ++i) p = fma(p, f, broadcast(coefficients[i]));
  return scale_by_two(p, whole);
}

// e^x to about 1e-7 of its size near 0 and 4e-6 at the ends (x * log2 e is rounded once); below -87
// what it is at -87. Taylor's series to the seventh power.
inline Vec exp(Vec x) {
  static constexpr float SERIES[] = {1.5252734e-5f, 1.5403530e-4f, 1.3333558e-3f, 9.6181291e-3f,
                                     5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f};
  return two_to_the(mul(max(x, broadcast(-87.0f)), broadcast(1.44269504f)), SERIES);
}

// 2^x with a relative error below 3e-6: enough for numbers that become bfloat16. Below -126 what it is
// at -126. The polynomial of least largest error.
inline Vec exp2_short(Vec x) {
  static constexpr float FIT[] = {9.5701013e-3f, 5.5917859e-2f, 2.4024744e-1f, 6.9312179e-1f,
                                  9.9999928e-1f};
  return two_to_the(max(x, broadcast(-126.0f)), FIT);
}

// A scalar twin for the merge of attention parts: the same arithmetic on one lane.
inline float exp(float x) { return std::exp(x < -87.0f ? -87.0f : x); }

inline Vec silu(Vec x) {
  const Vec one = broadcast(1.0f);
  return div(x, add(one, exp(sub(broadcast(0.0f), x))));
}

}  // namespace sapwood
