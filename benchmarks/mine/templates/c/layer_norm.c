#include <math.h>
#include <stdint.h>

void forward(const float *restrict x, const float *restrict weight, const float *restrict bias,
             float *restrict y, int64_t N, int64_t C) {
    for (int64_t n = 0; n < N; n++, x += C, y += C) {
        float mean = 0, var = 0;
        for (int64_t c = 0; c < C; c++) mean += x[c];
        mean /= C;
        for (int64_t c = 0; c < C; c++) var += (x[c] - mean) * (x[c] - mean);
        float rstd = 1 / sqrtf(var / C + 1e-5f);
        for (int64_t c = 0; c < C; c++) y[c] = (x[c] - mean) * rstd * weight[c] + bias[c];
    }
}

void backward(const float *restrict dy, const float *restrict x, const float *restrict weight,
              const float *restrict mean, const float *restrict rstd, float *restrict dx,
              float *restrict dweight, float *restrict dbias, int64_t N, int64_t C) {
    for (int64_t c = 0; c < C; c++) dweight[c] = dbias[c] = 0;
    for (int64_t n = 0; n < N; n++, dy += C, x += C, dx += C) {
        float ones = 0, slope = 0;
        for (int64_t c = 0; c < C; c++) {
            float xhat = (x[c] - mean[n]) * rstd[n];
            ones += dy[c] * weight[c];
            slope += dy[c] * weight[c] * xhat;
            dweight[c] += dy[c] * xhat;
            dbias[c] += dy[c];
        }
        for (int64_t c = 0; c < C; c++) {
            float xhat = (x[c] - mean[n]) * rstd[n];
            dx[c] = (dy[c] * weight[c] - ones / C - xhat * slope / C) * rstd[n];
        }
    }
}
