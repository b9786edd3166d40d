#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* c (M, N) = a (M, D) b (D, N); b is (N, D) if it is transposed. */
static void product(const float *a, const float *b, float *restrict c, int64_t M, int64_t N,
                    int64_t D, int transposed) {
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            float total = 0;
            for (int64_t d = 0; d < D; d++)
                total += a[i * D + d] * (transposed ? b[j * D + d] : b[d * N + j]);
            c[i * N + j] = total;
        }
}

void orthogonalize(const float *x, float *y, int64_t B, int64_t C, int64_t K) {
    int tall = C > K;
    int64_t M = tall ? K : C, N = tall ? C : K;
    float *gram = malloc(M * M * sizeof(float)), *p = malloc(M * M * sizeof(float));
    float *now = malloc(M * N * sizeof(float)), *after = malloc(M * N * sizeof(float));
    for (; B--; x += C * K, y += C * K) {
        double norm = 0;
        for (int64_t i = 0; i < C * K; i++) norm += (double)x[i] * x[i];
        norm = sqrt(norm) + 1e-7;
        for (int64_t i = 0; i < M; i++)
            for (int64_t j = 0; j < N; j++)
                now[i * N + j] = (tall ? x[j * K + i] : x[i * K + j]) / norm;
        for (int step = 0; step < 5; step++) {
            product(now, now, gram, M, M, N, 1);
            product(gram, gram, p, M, M, M, 0);
            for (int64_t i = 0; i < M * M; i++) p[i] = -4.7750f * gram[i] + 2.0315f * p[i];
            product(p, now, after, M, N, M, 0);
            for (int64_t i = 0; i < M * N; i++) now[i] = 3.4445f * now[i] + after[i];
        }
        for (int64_t i = 0; i < M; i++)
            for (int64_t j = 0; j < N; j++)
                y[tall ? j * K + i : i * K + j] = now[i * N + j];
    }
    free(gram), free(p), free(now), free(after);
}
