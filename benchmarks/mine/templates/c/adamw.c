#include <math.h>
#include <stdint.h>

void update(float *restrict param, const float *restrict grad, float *restrict first,
            float *restrict second, float scale, float learning_rate, float weight_decay,
            float beta1, float beta2, float epsilon, float correction1, float correction2,
            int64_t P) {
    for (int64_t i = 0; i < P; i++) {
        float g = grad[i] * scale;
        first[i] += (1 - beta1) * (g - first[i]);
        second[i] += (1 - beta2) * (g * g - second[i]);
        param[i] *= 1 - learning_rate * weight_decay;
        param[i] -= learning_rate / correction1 * first[i]
                  / (sqrtf(second[i] / correction2) + epsilon);
    }
}
