#include <math.h>
#include <stdint.h>

void forward(const float *restrict x, float *restrict probs, int64_t N, int64_t V) {
    for (int64_t n = 0; n < N; n++, x += V, probs += V) {
        float largest = x[0], total = 0;
        for (int64_t v = 1; v < V; v++) largest = x[v] > largest ? x[v] : largest;
        for (int64_t v = 0; v < V; v++) {
            probs[v] = expf(x[v] - largest);
            total += probs[v];
        }
        for (int64_t v = 0; v < V; v++) probs[v] /= total;
    }
}

void backward(const float *restrict dprobs, const float *restrict probs, float *restrict dx,
              int64_t N, int64_t V) {
    for (int64_t n = 0; n < N; n++, dprobs += V, probs += V, dx += V) {
        float mean = 0;
        for (int64_t v = 0; v < V; v++) mean += dprobs[v] * probs[v];
        for (int64_t v = 0; v < V; v++) dx[v] = probs[v] * (dprobs[v] - mean);
    }
}
