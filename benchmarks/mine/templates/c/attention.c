#include <math.h>
#include <stdint.h>
#include <stdlib.h>

// part: 0 for q, 1 for k, 2 for v.
#define AT(array, b, t, part, h, d) array[(((b * T + t) * 3 + part) * H + h) * D + d]
#define PROB(b, h, t, s) probs[((b * H + h) * T + t) * T + s]

static float *probabilities(const float *qkv, int64_t B, int64_t T, int64_t H, int64_t D) {
    float *probs = calloc(B * H * T * T, sizeof(float)), scale = 1 / sqrtf(D);
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < H; h++)
            for (int64_t t = 0; t < T; t++) {
                float largest = -INFINITY, total = 0;
                for (int64_t s = 0; s <= t; s++) {
                    float score = 0;
                    for (int64_t d = 0; d < D; d++)
                        score += AT(qkv, b, t, 0, h, d) * AT(qkv, b, s, 1, h, d);
                    PROB(b, h, t, s) = score * scale;
                    largest = fmaxf(largest, score * scale);
                }
                for (int64_t s = 0; s <= t; s++)
                    total += PROB(b, h, t, s) = expf(PROB(b, h, t, s) - largest);
                for (int64_t s = 0; s <= t; s++) PROB(b, h, t, s) /= total;
            }
    return probs;
}

void forward(const float *qkv, float *y, int64_t B, int64_t T, int64_t H, int64_t D) {
    float *probs = probabilities(qkv, B, T, H, D);
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < T; t++)
            for (int64_t h = 0; h < H; h++, y += D) {
                for (int64_t d = 0; d < D; d++) y[d] = 0;
                for (int64_t s = 0; s <= t; s++)
                    for (int64_t d = 0; d < D; d++)
                        y[d] += PROB(b, h, t, s) * AT(qkv, b, s, 2, h, d);
            }
    free(probs);
}

// Called untimed with inputs of the forward; what it returns is `saved`, and is freed for you.
float *backward_save(const float *qkv, int64_t B, int64_t T, int64_t H, int64_t D) {
    return probabilities(qkv, B, T, H, D);
}

void backward(const float *dy, const float *qkv, float *dqkv,
              int64_t B, int64_t T, int64_t H, int64_t D, const float *saved) {
    const float *probs = saved, scale = 1 / sqrtf(D);
    float *dprobs = malloc(T * sizeof(float));
    for (int64_t i = 0; i < B * T * 3 * H * D; i++) dqkv[i] = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < T; t++)
            for (int64_t h = 0; h < H; h++, dy += D) {
                float mean = 0;
                for (int64_t s = 0; s <= t; s++) {
                    dprobs[s] = 0;
                    for (int64_t d = 0; d < D; d++) dprobs[s] += dy[d] * AT(qkv, b, s, 2, h, d);
                    mean += PROB(b, h, t, s) * dprobs[s];
                }
                for (int64_t s = 0; s <= t; s++) {
                    float prob = PROB(b, h, t, s), dscore = prob * (dprobs[s] - mean) * scale;
                    for (int64_t d = 0; d < D; d++) {
                        AT(dqkv, b, t, 0, h, d) += dscore * AT(qkv, b, s, 1, h, d);
                        AT(dqkv, b, s, 1, h, d) += dscore * AT(qkv, b, t, 0, h, d);
                        AT(dqkv, b, s, 2, h, d) += prob * dy[d];
                    }
                }
            }
    free(dprobs);
}
