import numpy as np


def softmax_jacobian(p):
    return np.diag(p) - np.outer(p, p)


def backward_lines(dprobs, saved):
    probs, total = saved
    exps = probs * total
    # probs = exps / total
    dexps = dprobs / total
    dtotal = (-dprobs * exps / total**2).sum(-1, keepdims=True)
    # total = exps.sum(axis=-1, keepdims=True)
    dexps = dexps + dtotal * np.ones_like(exps)
    # exps = np.exp(shifted)
    dshifted = exps * dexps
    # shifted = x - largest
    dx = dshifted
    return dx


def backward_closed(dprobs, saved):
    p = saved[0]
    return p * (dprobs - np.sum(p * dprobs, axis=-1, keepdims=True))


def backward_jacobian_rows(dprobs, saved):
    probs, _ = saved
    V = probs.shape[-1]
    dx = np.zeros_like(probs).reshape(-1, V)
    for n, (p, g) in enumerate(zip(probs.reshape(-1, V), dprobs.reshape(-1, V))):
        dx[n] = softmax_jacobian(p) @ g
    return dx.reshape(probs.shape)


def backward_jacobian_batch(dprobs, saved):
    probs, _ = saved
    jacobian = probs[..., :, None] * (np.eye(probs.shape[-1]) - probs[..., None, :])
    return (jacobian @ dprobs[..., None])[..., 0]


def backward_einsum(dprobs, saved):
    probs, total = saved
    expected = np.einsum("...v,...v->...", probs, dprobs)
    return probs * dprobs - np.einsum("...v,...->...v", probs, expected)


def backward_loops(dprobs, saved):
    probs, _ = saved
    V = probs.shape[-1]
    dx = np.zeros(probs.shape)
    for index in np.ndindex(probs.shape[:-1]):
        p, g = probs[index], dprobs[index]
        for i in range(V):
            for j in range(V):
                if i == j:
                    dx[index + (i,)] += g[j] * p[j] * (1 - p[i])
                else:
                    dx[index + (i,)] -= g[j] * p[j] * p[i]
    return dx


def backward_logarithm(dprobs, saved):
    # log p = x - log sum exp x
    p, _ = saved
    dlog = dprobs * p
    return dlog - p * dlog.sum(axis=-1)[..., np.newaxis]


def backward_in_place(dprobs, saved):
    probs, _ = saved
    dx = dprobs.copy()
    dx *= probs
    mean = dx.sum(axis=-1, keepdims=True)
    dx -= mean * probs
    return dx


def backward_reciprocal(dprobs, saved):
    probs, total = saved
    exps = probs * total
    inverse = 1 / total
    # probs = exps * inverse
    dinverse = (dprobs * exps).sum(axis=-1, keepdims=True)
    # inverse = 1 / total
    dtotal = -dinverse * inverse**2
    return (dprobs * inverse + dtotal) * exps


def backward_comprehension(dprobs, saved):
    def one_row(g, p):
        return (g - g @ p) * p

    probs = saved[0]
    rows = zip(dprobs.reshape(-1, probs.shape[-1]), probs.reshape(-1, probs.shape[-1]))
    return np.stack([one_row(g, p) for g, p in rows]).reshape(probs.shape)
