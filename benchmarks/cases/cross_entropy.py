"""Cross-entropy with its gradient in one step, as in training: dlogits overwrite the logits.

The losses are those of the rows, 0 for a target of -1; dlogits are the gradient of their mean.
"""

import numpy as np

from benchmarks.cases import Arrays, Direction, Expected, unchecked
from benchmarks.cases.flops import EXP_FLOPS
from benchmarks.cases.rounding import EXP, TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import cross_entropy
from tinygpt_np.ops.cross_entropy import IGNORE_INDEX

SWEPT = "V"
# exp(FAR) overflows in float32, and exp(-FAR) underflows.
FAR = 150


def sizes(part: MicroBatch) -> Sizes:
    """Return N rows for a vocabulary of V tokens."""
    return {"N": part.rows, "V": part.vocab}


def with_targets(rng: np.random.Generator, logits: np.ndarray, **_: object) -> Arrays:
    """Return logits and targets: first and last column in the first and last row, one ignored.

    At the other end of these rows is a logit so large that the target's probability underflows.
    """
    N, V = len(logits), int(logits.shape[1])
    logits[0, -1] = logits[-1, 0] = FAR
    targets = rng.integers(0, V, N)
    targets[[0, N // 2, -1]] = 0, IGNORE_INDEX, V - 1
    return {"logits": logits, "targets": targets}


def truth(logits: np.ndarray, targets: np.ndarray) -> dict[str, Expected]:
    """Bound the errors; an absolute error of an exponent is a relative one of its exponential.

    So the total is off by its own roundings and by the mean of |shifted|·U, and what is computed
    from it by roundings of numbers up to |shifted|, |max|, the logarithm and -log of a probability:
    some kernels subtract the maximum from a logit first, some add it to the logarithm first.
    """
    _, saved = unchecked(cross_entropy.forward)(logits, targets)
    dlogits = unchecked(cross_entropy.backward)(1.0, saved)
    log_probs, total, chosen, counted, count = saved
    log_total, probs = np.log(total), np.exp(log_probs)
    largest = logits.max(axis=-1, keepdims=True)
    shift = largest - logits
    mean_shift = (probs * shift).sum(axis=-1, keepdims=True)
    sizes = shift + np.abs(largest) + log_total - log_probs
    roundings = EXP + logits.shape[-1] + mean_shift + 2 * sizes + 3
    losses = -(log_probs * chosen).sum(axis=-1)
    losses_off = (gamma(roundings) * chosen).sum(axis=-1)
    # A product with the scale, and at the target a difference of rounded numbers.
    off = probs * gamma(roundings + EXP + 3) + gamma(3) * chosen
    return {
        "logits": Expected(dlogits, (off / count + TINY) * counted[:, None]),
        "losses": Expected(losses, losses_off),
    }


DIRECTIONS = {
    "loss and gradient": Direction(
        {"logits": "NV", "targets": "N"}, {"losses": "N"}, truth, edit=with_targets,
        changed=("logits",), known=("targets",),
        # In rows that are not ignored V - 1 comparisons, V differences, V exponentials, V - 1 sums;
        # for the loss a logarithm and two sums; for the gradient V products and a difference.
        # A row is ignored if there are at least three.
        flops=lambda size: (size.N - (size.N > 2)) * ((4 + EXP_FLOPS) * size.V + 3),
        # An ignored row is written, but need not be read. The targets are int64.
        bytes=lambda size: 4 * (2 * size.N - 1) * size.V + (8 + 4) * size.N,
    )
}  # fmt: skip
