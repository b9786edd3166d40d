#include <stdint.h>

static void rotate(float *first, float *second, float c, float s) {
    float a = *first, b = *second;
    *first = a * c - b * s;
    *second = a * s + b * c;
}

void halves(float *restrict x, const float *restrict cos, const float *restrict sin, int64_t B,
            int64_t T, int64_t H, int64_t R) {
    for (int64_t n = 0; n < B * T; n++)
        for (int64_t h = 0; h < H; h++, x += 2 * R)
            for (int64_t i = 0; i < R; i++)
                rotate(x + i, x + R + i, cos[n % T * R + i], sin[n % T * R + i]);
}

void interleaved(float *restrict pairs, const float *restrict cos, const float *restrict sin,
                 int64_t B, int64_t T, int64_t H, int64_t R) {
    for (int64_t n = 0; n < B * T; n++)
        for (int64_t h = 0; h < H; h++, pairs += 2 * R)
            for (int64_t i = 0; i < R; i++)
                rotate(pairs + 2 * i, pairs + 2 * i + 1, cos[n % T * R + i], sin[n % T * R + i]);
}
