#include <stdint.h>

void forward(const float *restrict hidden, float *restrict squares, int64_t P) {
    for (int64_t i = 0; i < P; i++) squares[i] = hidden[i] > 0 ? hidden[i] * hidden[i] : 0;
}

void backward(const float *restrict dsquares, const float *restrict hidden,
              float *restrict dhidden, int64_t P) {
    for (int64_t i = 0; i < P; i++) dhidden[i] = hidden[i] > 0 ? 2 * dsquares[i] * hidden[i] : 0;
}
