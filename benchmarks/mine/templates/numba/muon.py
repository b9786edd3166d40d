import numba
import numpy as np


@numba.njit
def product(a, b, c):
    for i in range(a.shape[0]):
        c[i] = 0
        for k in range(a.shape[1]):
            for j in range(b.shape[1]):
                c[i, j] += a[i, k] * b[k, j]


@numba.njit
def orthogonalize(x, y):
    tall = x.shape[1] > x.shape[2]
    m = min(x.shape[1], x.shape[2])
    gram, square = np.empty((m, m), np.float32), np.empty((m, m), np.float32)
    a, b, c = np.float32(3.4445), np.float32(-4.7750), np.float32(2.0315)
    for i in range(x.shape[0]):
        now = np.ascontiguousarray(x[i].T) if tall else x[i].copy()
        after = np.empty_like(now)
        norm = 0.0
        for value in now.flat:
            norm += np.float64(value) ** 2
        now /= np.float32(np.sqrt(norm) + 1e-7)
        for _ in range(5):
            product(now, now.T, gram)
            product(gram, gram, square)
            product(b * gram + c * square, now, after)
            after += a * now
            now, after = after, now
        if tall:
            y[i] = now.T
        else:
            y[i] = now
