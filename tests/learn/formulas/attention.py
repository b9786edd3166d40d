import numpy as np

from tinygpt_np.ops import dropout, softmax


def heads_of(rows, B, H):
    return rows.reshape(B, -1, H, rows.shape[1] // H).transpose(0, 2, 1, 3)


def rows_of(heads):
    B, H, T, D = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(B * T, H * D)


def softmax_backward(dp, p):
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


def backward_lines(dy, saved):
    q, k, v, kept, saved_probs, saved_kept, kv_heads = saved
    B, H, T, D = q.shape
    # y = merge_heads(heads)
    dheads = heads_of(dy, B, H)
    # heads = kept @ v
    dkept = dheads @ v.mT
    dv = kept.mT @ dheads
    # kept, saved_kept = dropout.forward(probs, mask)
    dprobs = dropout.backward(dkept, saved_kept)
    # probs, saved_probs = softmax.forward(masked)
    dmasked = softmax.backward(dprobs, saved_probs)
    # masked = np.where(visible, scores, HIDDEN)
    dscores = np.where(np.tri(T, dtype=bool), dmasked, 0)
    # scores = products * scale
    dproducts = dscores * D**-0.5
    # products = q @ k.mT
    dq = dproducts @ k
    dk = dproducts.mT @ q
    # v = values[:, shared], k = keys[:, shared]
    dvalues = dv.reshape(B, kv_heads, -1, T, D).sum(axis=2)
    dkeys = dk.reshape(B, kv_heads, -1, T, D).sum(axis=2)
    # q, keys, values = np.split(parts, ends, axis=1)
    dparts = np.concatenate([dq, dkeys, dvalues], axis=1)
    # parts = split_heads(qkv, batch, all_heads)
    return rows_of(dparts)


def backward_closed(dy, saved):
    q, k, v, kept, (p, _), (mask,), J = saved
    B, H, T, D = q.shape
    do = heads_of(dy, B, H)
    dp = do @ v.swapaxes(-1, -2)
    if mask is not None:
        dp = dp * mask
    ds = softmax_backward(dp, p) / np.sqrt(D)
    dk, dv = ds.swapaxes(-1, -2) @ q, kept.swapaxes(-1, -2) @ do
    dk, dv = (each.reshape(B, J, H // J, T, D).sum(2) for each in (dk, dv))
    return np.hstack([rows_of(ds @ k), rows_of(dk), rows_of(dv)])


def backward_einsum(dy, saved):
    q, k, v, kept, saved_probs, saved_kept, J = saved
    B, H, T, D = q.shape
    probs, mask = saved_probs[0], saved_kept[0]
    g = dy.reshape(B, T, H, D)
    dprobs = np.einsum("bthd,bhsd->bhts", g, v)
    dprobs = dprobs if mask is None else np.einsum("bhts,bhts->bhts", dprobs, mask)
    mean = np.einsum("bhts,bhts->bht", dprobs, probs)
    dS = np.einsum("bhts,bhts->bhts", probs, dprobs - mean[..., None]) / D**0.5
    group = (np.arange(H)[:, None] // (H // J) == np.arange(J)).astype(float)
    dq = np.einsum("bhts,bhsd->bthd", dS, k)
    dk = np.einsum("hj,bhts,bhtd->bsjd", group, dS, q)
    dv = np.einsum("hj,bhts,bthd->bsjd", group, kept, g)
    return np.concatenate([dq, dk, dv], axis=2).reshape(B * T, -1)


def backward_loops_over_heads(dy, saved):
    q, k, v, kept, (probs, _), (mask,), J = saved
    B, H, T, D = q.shape
    dqkv = np.zeros((B * T, (H + 2 * J) * D))
    for b in range(B):
        rows = slice(b * T, (b + 1) * T)
        for h in range(H):
            j = h // (H // J)
            at_q = slice(h * D, (h + 1) * D)
            at_k = slice((H + j) * D, (H + j + 1) * D)
            at_v = slice((H + J + j) * D, (H + J + j + 1) * D)
            g = dy[rows, at_q]
            dp = g @ v[b, h].T
            if mask is not None:
                dp *= mask[b, h]
            ds = softmax_backward(dp, probs[b, h]) / D**0.5
            dqkv[rows, at_q] = ds @ k[b, h]
            dqkv[rows, at_k] += ds.T @ q[b, h]
            dqkv[rows, at_v] += kept[b, h].T @ g
    return dqkv


def backward_loops_over_tokens(dy, saved):
    q, k, v, kept, (probs, _), (mask,), J = saved
    B, H, T, D = q.shape
    dq, dk, dv = np.zeros(q.shape), np.zeros((B, J, T, D)), np.zeros((B, J, T, D))
    for b, h, t in np.ndindex(B, H, T):
        j = h * J // H
        g = dy[b * T + t, h * D : (h + 1) * D]
        p = probs[b, h, t]
        dp = np.zeros(T)
        for s in range(t + 1):
            dv[b, j, s] += kept[b, h, t, s] * g
            dp[s] = g @ v[b, h, s]
            if mask is not None:
                dp[s] *= mask[b, h, t, s]
        mean = dp @ p
        for s in range(t + 1):
            dscore = p[s] * (dp[s] - mean) / np.sqrt(D)
            dq[b, h, t] += dscore * k[b, h, s]
            dk[b, j, s] += dscore * q[b, h, t]
    return rows_of(np.concatenate([dq, dk, dv], axis=1))


def backward_jacobians(dy, saved):
    q, k, v, kept, saved_probs, saved_kept, n_kv_head = saved
    B, H, T, D = q.shape
    dout = heads_of(dy, B, H)
    dprobs = dropout.backward(dout @ v.mT, saved_kept)
    dscores = np.zeros_like(dprobs)
    for i in np.ndindex(B, H, T):
        p = saved_probs[0][i]
        dscores[i] = (np.diag(p) - np.outer(p, p)) @ dprobs[i]
    dscores /= D**0.5
    shape = (B, n_kv_head, H // n_kv_head, T, D)
    dk = (dscores.mT @ q).reshape(shape).sum(axis=2)
    dv = (kept.mT @ dout).reshape(shape).sum(axis=2)
    return np.concatenate([rows_of(each) for each in (dscores @ k, dk, dv)], axis=1)


def backward_add_at(dy, saved):
    q, k, v, kept, saved_probs, saved_kept, J = saved
    B, H, T, D = q.shape
    shared = np.arange(H) // (H // J)
    dheads = heads_of(dy, B, H)
    dscores = softmax.backward(dropout.backward(dheads @ v.mT, saved_kept), saved_probs)
    dscores = dscores * D**-0.5
    dkeys, dvalues = np.zeros((B, J, T, D)), np.zeros((B, J, T, D))
    np.add.at(dkeys, (slice(None), shared), dscores.mT @ q)
    np.add.at(dvalues, (slice(None), shared), kept.mT @ dheads)
    return rows_of(np.concatenate([dscores @ k, dkeys, dvalues], axis=1))


def backward_in_place(dy, saved):
    q, k, v, kept, (probs, total), (mask,), J = saved
    B, H, T, D = q.shape
    dqkv = np.zeros((B, T, H + 2 * J, D))
    g = dy.reshape(B, T, H, D).transpose(0, 2, 1, 3)
    d = g @ v.mT
    if mask is not None:
        d *= mask
    d *= probs
    d -= d.sum(axis=-1, keepdims=True) * probs
    d /= np.sqrt(D)
    dqkv[:, :, :H] = (d @ k).transpose(0, 2, 1, 3)
    dk, dv = d.mT @ q, kept.mT @ g
    for h in range(H):
        j = h // (H // J)
        dqkv[:, :, H + j] += dk[:, h]
        dqkv[:, :, H + J + j] += dv[:, h]
    return dqkv.reshape(B * T, -1)


def backward_one_head(dy, saved):
    def one_head(g, q, k, v, kept, p, m):
        dp = (g @ v.T) * m
        ds = (dp - np.sum(dp * p, axis=1, keepdims=True)) * p / q.shape[1] ** 0.5
        return ds @ k, ds.T @ q, kept.T @ g

    q, k, v, kept, (probs, _), (mask,), J = saved
    B, H, T, D = q.shape
    mask = np.ones_like(probs) if mask is None else mask
    g = heads_of(dy, B, H)
    R = H // J
    sequences = []
    for b in range(B):
        each = [one_head(*(a[b, h] for a in (g, q, k, v, kept, probs, mask))) for h in range(H)]
        dq, dk, dv = zip(*each)
        dk = [sum(dk[j * R : (j + 1) * R]) for j in range(J)]
        dv = [sum(dv[j * R : (j + 1) * R]) for j in range(J)]
        sequences.append(np.concatenate([*dq, *dk, *dv], axis=1))
    return np.concatenate(sequences)


def backward_groups(dy, saved):
    q, k, v, kept, (probs, _), (mask,), J = saved
    B, H, T, D = q.shape
    R = H // J

    def grouped(a):
        return a.reshape(B, J, R, *a.shape[2:])

    # Each group reads its keys and values once: R·T queries and T keys.
    keys, values = k[:, ::R], v[:, ::R]
    dout = grouped(heads_of(dy, B, H)).reshape(B, J, R * T, D)
    dprobs = (dout @ values.mT).reshape(B, H, T, T)
    if mask is not None:
        dprobs = mask * dprobs
    dscores = softmax_backward(dprobs, probs) * D**-0.5
    tall = dscores.reshape(B, J, R * T, T)
    dq = (tall @ keys).reshape(B, H, T, D)
    dkeys = tall.mT @ q.reshape(B, J, R * T, D)
    dvalues = kept.reshape(B, J, R * T, T).mT @ dout
    return rows_of(np.concatenate([dq, dkeys, dvalues], axis=1))
