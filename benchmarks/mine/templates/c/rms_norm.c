#include <math.h>
#include <stdint.h>

void forward(const float *restrict stream, const float *restrict weight, float *restrict normed,
             int64_t N, int64_t C) {
    for (int64_t n = 0; n < N; n++, stream += C, normed += C) {
        float square = 0;
        for (int64_t c = 0; c < C; c++) square += stream[c] * stream[c];
        float rstd = 1 / sqrtf(square / C + 1e-5f);
        for (int64_t c = 0; c < C; c++) normed[c] = stream[c] * rstd * weight[c];
    }
}

void backward(const float *restrict dnormed, const float *restrict stream,
              const float *restrict weight, const float *restrict rstd, float *restrict dstream,
              float *restrict dweight, int64_t N, int64_t C) {
    for (int64_t c = 0; c < C; c++) dweight[c] = 0;
    for (int64_t n = 0; n < N; n++, dnormed += C, stream += C, dstream += C) {
        float slope = 0;
        for (int64_t c = 0; c < C; c++) {
            float xhat = stream[c] * rstd[n];
            slope += dnormed[c] * weight[c] * xhat;
            dweight[c] += dnormed[c] * xhat;
        }
        for (int64_t c = 0; c < C; c++)
            dstream[c] = (dnormed[c] * weight[c] - stream[c] * rstd[n] * slope / C) * rstd[n];
    }
}
