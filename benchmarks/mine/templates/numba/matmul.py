import numba


@numba.njit(fastmath=True)
def forward(x, weight, y):
    y[...] = 0
    for n in range(y.shape[0]):
        for c in range(x.shape[1]):
            for k in range(y.shape[1]):
                y[n, k] += x[n, c] * weight[c, k]


@numba.njit(fastmath=True)
def dx(dy, weight, dx):
    for n in range(dx.shape[0]):
        for c in range(dx.shape[1]):
            total = dx.dtype.type(0)
            for k in range(dy.shape[1]):
                total += dy[n, k] * weight[c, k]
            dx[n, c] = total


@numba.njit(fastmath=True)
def dweight(x, dy, dweight):
    dweight[...] = 0
    for n in range(x.shape[0]):
        for c in range(dweight.shape[0]):
            for k in range(dweight.shape[1]):
                dweight[c, k] += x[n, c] * dy[n, k]
