#include <math.h>
#include <stdint.h>

void forward(const float *restrict halves, float *restrict y, int64_t N, int64_t F) {
    for (int64_t n = 0; n < N; n++, halves += 2 * F, y += F)
        for (int64_t i = 0; i < F; i++) y[i] = halves[i] / (1 + expf(-halves[i])) * halves[F + i];
}

void backward(const float *restrict dy, const float *restrict halves, float *restrict dhalves, int64_t N,
              int64_t F) {
    for (int64_t n = 0; n < N; n++, dy += F, halves += 2 * F, dhalves += 2 * F)
        for (int64_t i = 0; i < F; i++) {
            float gate = 1 / (1 + expf(-halves[i]));
            dhalves[i] = dy[i] * halves[F + i] * (gate + halves[i] * gate * (1 - gate));
            dhalves[F + i] = dy[i] * halves[i] * gate;
        }
}
