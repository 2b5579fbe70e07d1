// Rotary position embedding (Su et al., 2021), Hugging Face's order: element i turns with i + half.
#pragma once
#include "simd.h"

namespace sapwood {

// cos and sin of position * frequency, times `scale`; `half` of each. Angles in float32, as the
// models were trained with.
inline void rope_angles(int position, const float* frequencies, int half, float scale, float* cos,
                        float* sin) {
  for (int i = 0; i < half; ++i) {
    const float angle = float(position) * frequencies[i];
    cos[i] = std::cos(angle) * scale;
    sin[i] = std::sin(angle) * scale;
  }
}

// Turns one head of 2 * half numbers in place.
inline void rotate(float* head, const float* cos, const float* sin, int half) {
  int i = 0;
  for (; i + LANES <= half; i += LANES) {
    const Vec a = load(head + i), b = load(head + half + i), c = load(cos + i), s = load(sin + i);
    store(head + i, sub(mul(a, c), mul(b, s)));
    store(head + half + i, add(mul(b, c), mul(a, s)));
  }
  for (; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] - b * sin[i];
    head[half + i] = b * cos[i] + a * sin[i];
  }
}

namespace scalar {

inline void rotate(float* head, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; ++i) {
    const double a = head[i], b = head[half + i];
    head[i] = float(a * double(cos[i]) - b * double(sin[i]));
    head[half + i] = float(b * double(cos[i]) + a * double(sin[i]));
  }
}

}  // namespace scalar
}  // namespace sapwood
