#include <math.h>
#include <stdint.h>

void loss_and_gradient(float *restrict logits, const int64_t *restrict targets,
                       float *restrict losses, int64_t N, int64_t V) {
    int64_t count = 0;
    for (int64_t n = 0; n < N; n++) count += targets[n] >= 0;
    float scale = 1.0f / (count > 0 ? count : 1);
    for (int64_t n = 0; n < N; n++, logits += V) {
        if (targets[n] < 0) {
            losses[n] = 0;
            for (int64_t v = 0; v < V; v++) logits[v] = 0;
            continue;
        }
        float logit = logits[targets[n]], largest = logits[0], total = 0;
        for (int64_t v = 1; v < V; v++) largest = logits[v] > largest ? logits[v] : largest;
        for (int64_t v = 0; v < V; v++) {
            logits[v] = expf(logits[v] - largest);
            total += logits[v];
        }
        losses[n] = logf(total) + largest - logit;
        for (int64_t v = 0; v < V; v++) logits[v] *= scale / total;
        logits[targets[n]] -= scale;
    }
}
