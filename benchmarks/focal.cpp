// The sigmoid focal loss of dense float32 targets and its gradient in one pass, as one would write it by hand:
// the yardstick for compiled formulas. gamma is 2, alpha is given. bars.py compiles and calls it.
#include <cmath>
#include <cstdint>

// The sum of the loss; its gradient goes to `gradient`.
extern "C" float focal(const float* logits, const float* targets, float* gradient, int64_t count, float alpha) {
  constexpr int64_t block = 4096;
  double sum = 0;
#pragma omp parallel for reduction(+ : sum) schedule(static)
  for (int64_t b = 0; b < (count + block - 1) / block; b++) {
    const int64_t begin = b * block, end = begin + block < count ? begin + block : count;
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = begin; i < end; i++) {
      const float x = logits[i], t = targets[i];
      const float e = expf(-fabsf(x)), r = 1.f / (1.f + e);
      const float p = x >= 0 ? r : e * r;
      const float ce = fmaxf(x, 0.f) - x * t + log1pf(e);
      const float miss = 1 - (p * t + (1 - p) * (1 - t));
      const float weight = alpha * t + (1 - alpha) * (1 - t);
      part += weight * miss * miss * ce;
      gradient[i] = weight * miss * (miss * (p - t) + 2 * ce * (1 - 2 * t) * p * (1 - p));
    }
    sum += part;
  }
  return (float)sum;
}
