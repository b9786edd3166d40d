/* A peak or a bandwidth, measured by a plain C program: limits NAME THREADS BYTES

   Prints the FLOPs or bytes of a sample, then the seconds of each sample. NAME is peak, or triad,
   which computes a = b + c/2 with arrays of so many bytes in all, and counts four arrays: a cache
   line that is written is first fetched. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define ACCUMULATORS 12
#define WARM_UP 20 /* samples that are not printed */
#define SAMPLES 9
#define SAMPLE_SECONDS 4e-3

typedef float vector __attribute__((vector_size(4 * WIDTH)));
typedef struct {
    float *a, *b, *c;
    long count;
} arrays;

static int peak, threads;
static long times = 1;
static arrays parts[1024];
static pthread_barrier_t barrier;
static volatile float start = 1, result; /* unknown to the compiler */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

static void multiply_add(void) {
    vector sums[ACCUMULATORS], factor, term, total;
    for (int lane = 0; lane < WIDTH; lane++) factor[lane] = 0.5f, term[lane] = 1e-7f;
    for (int each = 0; each < ACCUMULATORS; each++) sums[each] = term * start;
    for (long time = 0; time < times; time++) {
#pragma GCC unroll 12
        for (int each = 0; each < ACCUMULATORS; each++) sums[each] = sums[each] * factor + term;
    }
    total = sums[0];
    for (int each = 1; each < ACCUMULATORS; each++) total += sums[each];
    result = total[0];
}

static void triad(float *restrict a, const float *restrict b, const float *restrict c, long count) {
    for (long i = 0; i < count; i++) a[i] = b[i] + 0.5f * c[i];
}

static void work(arrays *part) {
    if (peak) {
        multiply_add();
        return;
    }
    for (long time = 0; time < times; time++) {
        triad(part->a, part->b, part->c, part->count);
        __asm__ volatile("" : : "r"(part->a) : "memory");
    }
}

static void *serve(void *part) {
    for (;;) {
        pthread_barrier_wait(&barrier);
        work(part);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static double sample(void) {
    double began = now();
    if (threads > 1) pthread_barrier_wait(&barrier);
    work(&parts[0]);
    if (threads > 1) pthread_barrier_wait(&barrier);
    return now() - began;
}

static float *filled(long count, float value) {
    void *memory;
    if (posix_memalign(&memory, 64, 4 * count)) exit(1);
    for (long i = 0; i < count; i++) ((float *)memory)[i] = value;
    return memory;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    peak = !strcmp(arguments[1], "peak");
    threads = atoi(arguments[2]);
    if (threads < 1 || threads > 1024) return 2;
    long size = peak ? WIDTH : atol(arguments[3]) / threads / 12 / 128 * 128;
    pthread_barrier_init(&barrier, NULL, threads);
    for (int each = 0; each < threads; each++)
        parts[each] = (arrays){filled(size, 0), filled(size, 1), filled(size, 2), size};
    double spent = 0;
    while (spent < SAMPLE_SECONDS / 2) {
        times *= 2, spent = now();
        work(&parts[0]), spent = now() - spent;
    }
    pthread_t thread;
    for (int each = 1; each < threads; each++)
        if (pthread_create(&thread, NULL, serve, &parts[each])) return 1;
    printf("%.0f\n", (peak ? 2.0 * WIDTH * ACCUMULATORS : 16.0 * size) * times * threads);
    for (int each = 0; each < WARM_UP; each++) sample();
    for (int each = 0; each < SAMPLES; each++) printf("%.9f\n", sample());
    return 0;
}
