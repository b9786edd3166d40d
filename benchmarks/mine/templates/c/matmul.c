#include <stdint.h>

void forward(const float *restrict x, const float *restrict weight, float *restrict y,
             int64_t N, int64_t C, int64_t K) {
    for (int64_t n = 0; n < N; n++) {
        for (int64_t k = 0; k < K; k++) y[n * K + k] = 0;
        for (int64_t c = 0; c < C; c++)
            for (int64_t k = 0; k < K; k++) y[n * K + k] += x[n * C + c] * weight[c * K + k];
    }
}

void dx(const float *restrict dy, const float *restrict weight, float *restrict dx,
        int64_t N, int64_t C, int64_t K) {
    for (int64_t n = 0; n < N; n++)
        for (int64_t c = 0; c < C; c++) {
            float total = 0;
            for (int64_t k = 0; k < K; k++) total += dy[n * K + k] * weight[c * K + k];
            dx[n * C + c] = total;
        }
}

void dweight(const float *restrict x, const float *restrict dy, float *restrict dweight,
             int64_t N, int64_t C, int64_t K) {
    for (int64_t i = 0; i < C * K; i++) dweight[i] = 0;
    for (int64_t n = 0; n < N; n++)
        for (int64_t c = 0; c < C; c++)
            for (int64_t k = 0; k < K; k++) dweight[c * K + k] += x[n * C + c] * dy[n * K + k];
}
