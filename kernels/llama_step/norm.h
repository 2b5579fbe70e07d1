// Root mean square norm (Zhang and Sennrich, 2019): y = x / sqrt(mean(x^2) + eps) * weight.
#pragma once
#include "simd.h"

namespace sapwood {

// One row; `count` is any number. `out` may be `x`.
inline void rms_norm(const float* x, const float* weight, int count, float eps, float* out) {
  Vec squares = broadcast(0.0f);
  int i = 0;
  for (; i + LANES <= count; i += LANES) {
    const Vec v = load(x + i);
    squares = fma(v, v, squares);
  }
  float sum = sum_lanes(squares);
  for (; i < count; ++i) sum += x[i] * x[i];
  const float inverse = 1.0f / std::sqrt(sum / float(count) + eps);
  const Vec factor = broadcast(inverse);
  for (i = 0; i + LANES <= count; i += LANES)
    store(out + i, mul(mul(load(x + i), factor), load(weight + i)));
  for (; i < count; ++i) out[i] = x[i] * inverse * weight[i];
}

namespace scalar {

inline void rms_norm(const float* x, const float* weight, int count, float eps, float* out) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += double(x[i]) * double(x[i]);
  const double inverse = 1.0 / std::sqrt(sum / count + double(eps));
  for (int i = 0; i < count; ++i) out[i] = float(double(x[i]) * inverse * double(weight[i]));
}

}  // namespace scalar
}  // namespace sapwood
