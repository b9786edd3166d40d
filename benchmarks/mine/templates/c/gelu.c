#include <math.h>
#include <stdint.h>

static const float SCALE = 0.7978845608f, CUBIC = 0.044715f;  // The first is the root of 2/pi.

void forward(const float *restrict x, float *restrict y, int64_t P) {
    for (int64_t i = 0; i < P; i++)
        y[i] = x[i] / 2 * (1 + tanhf(SCALE * (x[i] + CUBIC * x[i] * x[i] * x[i])));
}

void backward(const float *restrict dy, const float *restrict x, float *restrict dx, int64_t P) {
    for (int64_t i = 0; i < P; i++) {
        float square = x[i] * x[i], tanh = tanhf(SCALE * (x[i] + CUBIC * square * x[i]));
        float bend = (1 - tanh * tanh) * SCALE * (1 + 3 * CUBIC * square);
        dx[i] = dy[i] / 2 * (1 + tanh + x[i] * bend);
    }
}
