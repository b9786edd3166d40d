def rotated(first, second, cos, sin):
    cos, sin = cos[:, None], sin[:, None]  # (T, 1, R)
    return first * cos - second * sin, first * sin + second * cos


def halves(x, cos, sin):
    x[..., 0, :], x[..., 1, :] = rotated(x[..., 0, :], x[..., 1, :], cos, sin)


def interleaved(pairs, cos, sin):
    pairs[..., 0], pairs[..., 1] = rotated(pairs[..., 0], pairs[..., 1], cos, sin)
