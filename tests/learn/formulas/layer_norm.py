import numpy as np


def jacobian(xhat, std):
    C = len(xhat)
    return (np.eye(C) - 1 / C - np.outer(xhat, xhat) / C) / std


def backward_lines(dy, saved):
    xhat, std, weight, no_bias = saved
    centered = xhat * std
    C = xhat.shape[-1]
    # y = scaled if bias is None else scaled + bias
    dscaled = dy
    dbias = None if no_bias else dy.sum(axis=0)
    # scaled = xhat * weight
    dxhat = dscaled * weight
    dweight = (dscaled * xhat).sum(axis=0)
    # xhat = centered / std
    dcentered = dxhat / std
    dstd = -(dxhat * centered / std**2).sum(axis=-1, keepdims=True)
    # std = np.sqrt(padded_var)
    dpadded_var = dstd / (2 * std)
    # padded_var = var + epsilon
    dvar = dpadded_var
    # square.mean(...)
    dsquare = dvar / C * np.ones_like(centered)
    # square = centered * centered
    dcentered += 2 * centered * dsquare
    # centered = x - mean
    dx = dcentered.copy()
    dmean = -dcentered.sum(axis=-1, keepdims=True)
    # mean = x.mean(axis=-1, keepdims=True)
    dx += dmean / C
    return dx, dweight, dbias


def backward_closed(dy, saved):
    xhat, std, weight, no_bias = saved
    g = dy * weight
    dx = (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True)) / std
    return dx, np.sum(dy * xhat, 0), None if no_bias else np.sum(dy, 0)


def backward_loops(dy, saved):
    xhat, std, weight, no_bias = saved
    N, C = dy.shape
    dx, dweight, dbias = np.zeros((N, C)), np.zeros(C), np.zeros(C)
    for n in range(N):
        first = second = 0.0
        for c in range(C):
            first += dy[n, c] * weight[c] / C
            second += dy[n, c] * weight[c] * xhat[n, c] / C
            dweight[c] += dy[n, c] * xhat[n, c]
            dbias[c] += dy[n, c]
        for c in range(C):
            dx[n, c] = (dy[n, c] * weight[c] - first - xhat[n, c] * second) / std[n, 0]
    return dx, dweight, None if no_bias else dbias


def backward_jacobians(dy, saved):
    xhat, std, weight, no_bias = saved
    dx = np.array([jacobian(xhat[n], std[n]) @ (weight * dy[n]) for n in range(len(dy))])
    dweight = (dy.T @ xhat).diagonal().copy()
    dbias = None
    if not no_bias:
        dbias = dy.T @ np.ones(len(dy))
    return dx, dweight, dbias


def backward_einsum(dy, saved):
    xhat, std, w, no_bias = saved
    C = w.size
    inv = 1 / std[:, 0]
    dx = np.einsum("nc,c,n->nc", dy, w, inv)
    dx -= np.einsum("nc,c,n->n", dy, w, inv)[:, None] / C
    dx -= np.einsum("ni,nc,c,nc,n->ni", xhat, dy, w, xhat, inv) / C
    dw = np.einsum("nc,nc->c", dy, xhat)
    return dx, dw, None if no_bias else np.einsum("nc->c", dy)


def backward_projection(dy, saved):
    xhat, std, weight, no_bias = saved
    C = xhat.shape[1]
    center = np.identity(C) - np.ones((C, C)) / C
    dxhat = dy * weight
    along = np.sum(dxhat * xhat, axis=1, keepdims=True) / C
    dx = ((dxhat - along * xhat) / std) @ center
    return dx, np.sum(xhat * dy, axis=0), None if no_bias else dy.sum(0)


def backward_sums(dy, saved):
    xhat, std, weight, no_bias = saved
    n = dy.shape[-1]
    dxhat = weight * dy
    sum1 = dxhat.sum(axis=1, keepdims=True)
    sum2 = (dxhat * xhat).sum(axis=1, keepdims=True)
    dx = (n * dxhat - sum1 - xhat * sum2) / (n * std)
    dgamma = (xhat * dy).sum(axis=0)
    dbeta = dy.sum(axis=0) if not no_bias else None
    return dx, dgamma, dbeta


def backward_in_place(dy, saved):
    xhat, std, weight, no_bias = saved
    dx = dy * weight
    correlation = np.mean(dx * xhat, axis=1, keepdims=True)
    dx -= dx.mean(axis=1, keepdims=True)
    dx -= correlation * xhat
    dx /= std
    dw = dy.copy()
    dw *= xhat
    return dx, dw.sum(axis=0), None if no_bias else np.add.reduce(dy, axis=0)


def backward_mean_and_variance(dy, saved):
    xhat, std, weight, no_bias = saved
    C = xhat.shape[1]
    xmu, ivar = xhat * std, 1.0 / std
    dxhat = dy * weight
    dvar = np.sum(dxhat * xmu, axis=1, keepdims=True) * -0.5 * ivar**3
    dmu = np.sum(dxhat * -ivar, axis=1, keepdims=True) + dvar * np.mean(
        -2 * xmu, axis=1, keepdims=True
    )
    dx = dxhat * ivar + dvar * 2 * xmu / C + dmu / C
    return dx, np.sum(dy * xhat, axis=0), None if no_bias else np.sum(dy, axis=0)


def backward_comprehension(dy, saved):
    def one_row(g, row, s):
        g = g - row * (g @ row) / len(row)
        return (g - g.mean()) / s

    xhat, std, weight, no_bias = saved
    dx = np.stack([one_row(*each) for each in zip(dy * weight, xhat, std)])
    dweight = np.array([a @ b for a, b in zip(dy.T, xhat.T)])
    return dx, dweight, None if no_bias else np.array([column.sum() for column in dy.T])
