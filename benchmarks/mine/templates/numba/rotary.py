import numba


@numba.njit
def halves(x, cos, sin):
    B, T, H, _, R = x.shape
    for b in range(B):
        for t in range(T):
            for h in range(H):
                for i in range(R):
                    first, second = x[b, t, h, 0, i], x[b, t, h, 1, i]
                    x[b, t, h, 0, i] = first * cos[t, i] - second * sin[t, i]
                    x[b, t, h, 1, i] = first * sin[t, i] + second * cos[t, i]


@numba.njit
def interleaved(pairs, cos, sin):
    B, T, H, R, _ = pairs.shape
    for b in range(B):
        for t in range(T):
            for h in range(H):
                for i in range(R):
                    first, second = pairs[b, t, h, i, 0], pairs[b, t, h, i, 1]
                    pairs[b, t, h, i, 0] = first * cos[t, i] - second * sin[t, i]
                    pairs[b, t, h, i, 1] = first * sin[t, i] + second * cos[t, i]
