import numpy as np


def sum_of_rows(a):
    return a.reshape(-1, a.shape[-1]).sum(axis=0)


def backward_lines(dy, saved):
    xhat, rms, weight = saved
    x = xhat * rms
    # y = xhat if weight is None else xhat * weight
    if weight is None:
        dxhat, dweight = dy, None
    else:
        dxhat = dy * weight
        dweight = (dy * xhat).sum(axis=tuple(range(dy.ndim - 1)))
    # xhat = x / rms
    dx = dxhat / rms
    drms = (-dxhat * x / (rms * rms)).sum(axis=-1, keepdims=True)
    # rms = np.sqrt(padded)
    dpadded = 0.5 * drms / rms
    # padded = mean_square + epsilon
    dmean_square = dpadded
    # mean_square = square.mean(axis=-1, keepdims=True)
    dsquare = np.repeat(dmean_square, x.shape[-1], axis=-1) / x.shape[-1]
    # square = x * x
    dx += dsquare * x + x * dsquare
    return dx, dweight


def backward_closed(dy, saved):
    xhat, rms, weight = saved
    g = dy if weight is None else dy * weight
    dx = (g - xhat * np.mean(g * xhat, axis=-1, keepdims=True)) / rms
    return dx, None if weight is None else sum_of_rows(dy * xhat)


def backward_loops(dy, saved):
    xhat, rms, weight = saved
    C = dy.shape[-1]
    w = np.ones(C) if weight is None else weight
    dx, dw = np.zeros(dy.shape), np.zeros(C)
    for index in np.ndindex(dy.shape[:-1]):
        g = w * dy[index]
        dot = 0.0
        for c in range(C):
            dot += g[c] * xhat[index][c]
            dw[c] += dy[index][c] * xhat[index][c]
        for c in range(C):
            dx[index][c] = (g[c] - xhat[index][c] * dot / C) / rms[index][0]
    return dx, (None if weight is None else dw)


def backward_jacobians(dy, saved):
    xhat, rms, weight = saved
    C = xhat.shape[-1]
    dx = np.empty_like(xhat)
    for i in np.ndindex(xhat.shape[:-1]):
        jacobian = (np.eye(C) - np.outer(xhat[i], xhat[i]) / C) / rms[i]
        if weight is not None:
            jacobian = np.diag(weight) @ jacobian
        dx[i] = dy[i] @ jacobian
    if weight is None:
        return dx, None
    return dx, sum_of_rows(xhat * dy)


def backward_einsum(dy, saved):
    xhat, rms, weight = saved
    g = dy if weight is None else np.einsum("...c,c->...c", dy, weight)
    dot = np.einsum("...c,...c->...", g, xhat)[..., None]
    dx = (g - xhat * dot / g.shape[-1]) / rms
    if weight is None:
        return dx, None
    rows = (-1, weight.size)
    return dx, np.einsum("nc,nc->c", dy.reshape(rows), xhat.reshape(rows))


def backward_matrices(dy, saved):
    xhat, rms, weight = saved
    g = dy * (1 if weight is None else weight)
    column, row = xhat[..., :, None], xhat[..., None, :]
    J = (np.eye(xhat.shape[-1]) - column @ row / xhat.shape[-1]) / rms[..., None]
    dx = np.squeeze(g[..., None, :] @ J, axis=-2)
    dweight = None
    if weight is not None:
        dweight = np.add.reduce((dy * xhat).reshape(-1, len(weight)))
    return dx, dweight


def backward_in_place(dy, saved):
    xhat, rms, weight = saved
    dx, dweight = dy.copy(), None
    if weight is not None:
        dweight = np.sum(dx * xhat, axis=tuple(range(dx.ndim))[:-1])
        dx *= weight
    dx -= (dx * xhat).mean(axis=-1)[..., None] * xhat
    dx /= rms
    return dx, dweight


def backward_power(dy, saved):
    # y = x * r with r = (mean(x²) + ε)^(-1/2)
    xhat, rms, weight = saved
    r, x = rms**-1.0, xhat * rms
    dn = dy if weight is None else weight * dy
    dr = (dn * x).sum(axis=-1, keepdims=True)
    dmean = dr * (-1 / 2) * r**3
    dx = dn * r + dmean * 2 * x / x.shape[-1]
    return dx, None if weight is None else sum_of_rows(dy * x * r)


def backward_comprehension(dy, saved):
    def row(g, n, r):
        return (g - n * (g @ n) / n.size) / r

    xhat, rms, weight = saved
    C = xhat.shape[-1]
    flat, hats, scales = dy.reshape(-1, C), xhat.reshape(-1, C), rms.ravel()
    up = flat if weight is None else flat * weight
    dx = np.array([row(g, n, r) for g, n, r in zip(up, hats, scales)]).reshape(dy.shape)
    dweight = None if weight is None else np.array([flat[:, c] @ hats[:, c] for c in range(C)])
    return dx, dweight


def backward_scaled(dy, saved):
    xhat, rms, weight = saved
    C = dy.shape[-1]
    ones = np.ones((C, C))
    g = dy if weight is None else dy @ np.diag(weight)
    dx = (C * g - xhat * ((g * xhat) @ ones)) / (C * rms)
    if weight is None:
        return dx, None
    rows = dy.reshape(-1, C).T @ xhat.reshape(-1, C)
    return dx, rows.diagonal().copy()
