import numpy as np


def backward_lines(dloss, saved):
    log_probs, total, chosen, counted, count = saved
    # loss = summed / -count
    dsummed = dloss / -count
    # summed = picked.sum()
    dpicked = np.full(chosen.shape, dsummed)
    # picked = log_probs * chosen
    dlog_probs = dpicked * chosen
    # log_probs = shifted - log_total
    dshifted = dlog_probs.copy()
    dlog_total = -dlog_probs.sum(axis=-1, keepdims=True)
    # log_total = np.log(total)
    dtotal = dlog_total / total
    # total = exps.sum(axis=-1, keepdims=True)
    dexps = np.broadcast_to(dtotal, chosen.shape)
    # exps = np.exp(shifted)
    dshifted += dexps * np.exp(log_probs) * total
    # shifted = logits - largest
    return dshifted


def backward_closed(dloss, saved):
    log_probs, _, chosen, counted, count = saved
    return (np.exp(log_probs) - chosen) * counted[:, None] * (dloss / count)


def backward_loops(dloss, saved):
    log_probs, total, chosen, counted, M = saved
    N, V = log_probs.shape
    dlogits = np.zeros((N, V))
    for n in range(N):
        if not counted[n]:
            continue
        for v in range(V):
            p = np.exp(log_probs[n, v])
            dlogits[n, v] = dloss / M * (p - 1 if chosen[n, v] else p)
    return dlogits


def backward_jacobians(dloss, saved):
    log_probs, _, chosen, _, count = saved
    dlog_probs = chosen * (-dloss / count)
    dlogits = np.empty_like(log_probs)
    for n in range(len(dlogits)):
        p = np.exp(log_probs[n])
        jacobian = np.eye(len(p)) - p  # row i: the derivatives of log p_i
        dlogits[n] = dlog_probs[n] @ jacobian
    return dlogits


def backward_in_place(dloss, saved):
    log_probs, total, chosen, counted, count = saved
    dlogits = np.exp(log_probs)
    rows = np.flatnonzero(counted)
    dlogits[rows, chosen[rows].argmax(axis=1)] -= 1
    dlogits[~counted] = 0
    dlogits *= dloss
    dlogits /= count
    return dlogits


def backward_where(dloss, saved):
    log_probs, total, chosen, counted, count = saved
    p = np.exp(log_probs)
    difference = np.where(chosen, p - 1, p)
    return np.where(counted[:, None], difference, 0) / count * dloss


def backward_one_hot(dloss, saved):
    logp, _, chosen, counted, count = saved
    targets = chosen.argmax(axis=1)
    labels = np.eye(logp.shape[1])[targets]
    row_weight = counted / count
    return dloss * row_weight[:, np.newaxis] * (np.exp(logp) - labels)


def backward_einsum(dloss, saved):
    log_probs, _, chosen, counted, count = saved
    probs = np.exp(log_probs)
    return np.einsum("n,nv->nv", dloss * counted / count, probs - chosen)


def backward_log_softmax(dloss, saved):
    def log_softmax_backward(g, logp):
        return g - np.exp(logp) * g.sum(axis=1, keepdims=True)

    log_probs, _, chosen, _, count = saved
    each = -dloss / count
    return log_softmax_backward(np.where(chosen, each, 0.0), log_probs)


def backward_one_expression(dloss, saved):
    return dloss / saved[4] * (saved[2].any(1, keepdims=True) * np.exp(saved[0]) - saved[2])
