import numpy as np


def to_halves(a):
    return np.concatenate([a[..., 0::2], a[..., 1::2]], axis=-1)


def to_pairs(a):
    P = a.shape[-1] // 2
    out = np.empty_like(a)
    out[..., 0::2], out[..., 1::2] = a[..., :P], a[..., P:]
    return out


def channels(size, interleaved):
    order = np.arange(size)
    return order.reshape(-1, 2).T if interleaved else order.reshape(2, -1)


def backward_lines(dy, saved):
    cos, sin, interleaved = saved
    # y = interleave(turned) if interleaved else turned
    dturned = to_halves(dy) if interleaved else dy
    # turned = np.concatenate([turned_first, turned_second], axis=-1)
    dturned_first, dturned_second = np.split(dturned, 2, axis=-1)
    # turned_second = first_sin + second_cos
    dfirst_sin, dsecond_cos = dturned_second, dturned_second
    # turned_first = first_cos - second_sin
    dfirst_cos, dsecond_sin = dturned_first, -dturned_first
    # the four products
    dsecond = dsecond_sin * sin + dsecond_cos * cos
    dfirst = dfirst_sin * sin + dfirst_cos * cos
    # first, second = np.split(halves, 2, axis=-1)
    dhalves = np.concatenate([dfirst, dsecond], axis=-1)
    # halves = deinterleave(x) if interleaved else x
    return to_pairs(dhalves) if interleaved else dhalves


def backward_slices(dy, saved):
    cos, sin, interleaved = saved
    P = dy.shape[-1] // 2
    a, b = (slice(0, P), slice(P, None))
    if interleaved:
        a, b = slice(0, None, 2), slice(1, None, 2)
    dx = np.zeros(dy.shape)
    dx[..., a] = dy[..., a] * cos + dy[..., b] * sin
    dx[..., b] = dy[..., b] * cos - dy[..., a] * sin
    return dx


def backward_complex(dy, saved):
    cos, sin, interleaved = saved
    first, second = channels(dy.shape[-1], interleaved)
    # y = x e^{iφ}, so dx = dy e^{-iφ}
    turned = (dy[..., first] + 1j * dy[..., second]) * (cos - 1j * sin)
    dx = np.empty_like(dy)
    dx[..., first] = turned.real
    dx[..., second] = turned.imag
    return dx


def backward_loops(dy, saved):
    cos, sin, interleaved = saved
    T, H, E = dy.shape[-3:]
    P = E // 2
    dx = np.zeros_like(dy)
    for index in np.ndindex(dy.shape[:-1]):
        t = index[-2]
        for p in range(P):
            i, j = (2 * p, 2 * p + 1) if interleaved else (p, p + P)
            c, s = cos[t, 0, p], sin[t, 0, p]
            dx[index][i] = c * dy[index][i] + s * dy[index][j]
            dx[index][j] = c * dy[index][j] - s * dy[index][i]
    return dx


def backward_jacobians(dy, saved):
    def rotation(c, s):
        R = np.zeros((dy.shape[-1], dy.shape[-1]))
        a, b = channels(dy.shape[-1], interleaved)
        R[a, a], R[a, b] = c, -s
        R[b, a], R[b, b] = s, c
        return R

    cos, sin, interleaved = saved
    dx = np.empty(dy.shape)
    for t in range(dy.shape[-3]):
        dx[..., t, :, :] = dy[..., t, :, :] @ rotation(cos[t, 0], sin[t, 0])
    return dx


def backward_einsum(dy, saved):
    cos, sin, interleaved = saved
    c, s = cos[:, 0], sin[:, 0]
    R = np.array([[c, -s], [s, c]])
    P = c.shape[-1]
    if interleaved:
        pairs = dy.reshape(*dy.shape[:-1], P, 2)
        return np.einsum("ijtp,...thpi->...thpj", R, pairs).reshape(dy.shape)
    pairs = dy.reshape(*dy.shape[:-1], 2, P)
    return np.einsum("ijtp,...thip->...thjp", R, pairs).reshape(dy.shape)


def backward_rotate_half(dy, saved):
    cos, sin, interleaved = saved
    g = to_halves(dy) if interleaved else dy
    P = g.shape[-1] // 2
    other = np.concatenate([g[..., P:], -g[..., :P]], axis=-1)
    dx = g * np.concatenate([cos, cos], axis=-1) + other * np.concatenate([sin, sin], axis=-1)
    if interleaved:
        dx = to_pairs(dx)
    return dx


def backward_turned_back(dy, saved):
    def rotate(a, b, cos, sin):
        return a * cos - b * sin, a * sin + b * cos

    cos, sin, interleaved = saved
    if interleaved:
        back = rotate(dy[..., ::2], dy[..., 1::2], cos, -sin)
        return np.stack(back, axis=-1).reshape(dy.shape)
    return np.concatenate(rotate(*np.split(dy, 2, axis=-1), cos, -sin), axis=-1)


def backward_roll(dy, saved):
    cos, sin, interleaved = saved
    P = dy.shape[-1] // 2
    if interleaved:
        partner = dy.reshape(*dy.shape[:-1], P, 2)[..., ::-1].reshape(dy.shape)
        c, s = np.repeat(cos, 2, axis=-1), np.repeat(sin, 2, axis=-1)
        sign = np.tile([1, -1], P)
    else:
        partner = np.roll(dy, P, axis=-1)
        c, s = np.tile(cos, 2), np.tile(sin, 2)
        sign = np.repeat([1, -1], P)
    return dy * c + partner * sign * s


def backward_in_place(dy, saved):
    cos, sin, interleaved = saved
    first, second = channels(dy.shape[-1], interleaved)
    da, db = dy[..., first].copy(), dy[..., second].copy()
    rest = da * sin
    da *= cos
    da += db * sin
    db *= cos
    db -= rest
    dx = np.concatenate([da, db], axis=-1)
    return dx[..., np.argsort(np.concatenate([first, second]))]
