"""The mutants that change no gradient, each with the reason why.

Every other mutant must be noticed; these must not be.
"""

# By room, function, and the statement before and after.
EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    (
        "attention", "backward",
        "batch, n_head, time, head_size = q.shape",
        "batch, n_head, time, head_size = v.shape",
    ): "queries and values have one shape",
    (
        "attention", "backward",
        "visible = np.tri(time, dtype=bool)",
        "visible = np.tri(time, dtype=bool, k=1)",
    ): "exp of a hidden score is 0, so softmax's backward gives exactly 0 there already",
    (
        "attention", "backward",
        "dscores = np.where(visible, dmasked, 0)",
        "dscores = dmasked",
    ): "exp of a hidden score is 0, so softmax's backward gives exactly 0 there already",
    (
        "attention", "backward",
        "dproducts = dscores * scale",
        "dproducts = dmasked * scale",
    ): "exp of a hidden score is 0, so softmax's backward gives exactly 0 there already",
    (
        "cross_entropy", "backward",
        "dlogits = (probs - chosen) * counted[:, None] * (float(dloss) / count)",
        "dlogits = (probs - chosen) * counted[:, None] * counted[:, None] * (float(dloss) / count)",
    ): "counted is 0 or 1, and so is its square",
    (
        "cross_entropy", "backward_steps",
        "dlog_probs = dpicked * chosen",
        "dlog_probs = dpicked * chosen * chosen",
    ): "chosen is 0 or 1, and so is its square",
    (
        "cross_entropy", "backward_steps",
        "dshifted = dlog_probs.copy()",
        "dshifted = dlog_probs",
    ): "dlog_probs is read no more once dshifted is added to",
    (
        "cross_entropy", "backward_steps",
        "dlog_total = -dlog_probs.sum(axis=-1, keepdims=True)",
        "dlog_total = -dshifted.sum(axis=-1, keepdims=True)",
    ): "dshifted is still a copy of dlog_probs here",
    (
        "cross_entropy", "backward_steps",
        "dexps = np.zeros_like(exps) + dtotal",
        "dexps = dtotal",
    ): "the zeros only give it its shape, and the next line broadcasts",
    (
        "cross_entropy", "backward_steps",
        "dexps = np.zeros_like(exps) + dtotal",
        "dexps = np.zeros_like(log_probs) + dtotal",
    ): "of exps only the shape counts here, and log_probs has the same",
    (
        "embedding", "backward",
        "dweight = np.zeros(shape, dtype=drows.dtype)",
        "dweight = -np.zeros(shape, dtype=drows.dtype)",
    ): "-0 is 0",
    (
        "embedding", "backward",
        "dweight = np.zeros(shape, dtype=drows.dtype)",
        "dweight = np.zeros(shape, dtype=drows.dtype) / 2",
    ): "0/2 is 0",
    (
        "embedding", "backward",
        "dweight = np.zeros(shape, dtype=drows.dtype)",
        "dweight = np.zeros(shape, dtype=np.ones_like(drows).dtype)",
    ): "of drows only the dtype counts here, and ones_like keeps it",
    (
        "layer_norm", "backward_steps",
        "dsquare = np.zeros_like(xhat) + dvar / xhat.shape[-1]",
        "dsquare = dvar / xhat.shape[-1]",
    ): "the zeros only give it its shape, and the next line broadcasts",
    (
        "layer_norm", "backward_steps",
        "dx = dcentered.copy()",
        "dx = dcentered",
    ): "dcentered is read no more once dx is added to",
    (
        "layer_norm", "backward_steps",
        "dmean = -dcentered.sum(axis=-1, keepdims=True)",
        "dmean = -dx.sum(axis=-1, keepdims=True)",
    ): "dx is still a copy of dcentered here",
}  # fmt: skip
