"""Cross-entropy with its gradient in one go, as training needs both: dlogits replace the logits.

The losses are those of the rows, nothing for a target of -1; dlogits are of their mean, 1/M each.
"""

import numpy as np

from benchmarks.rounding import EXP, TINY, gamma
from benchmarks.tasks import Arrays, Direction, Sizes, Truth, normal, outliers, plain
from tinygpt_np.ops import cross_entropy
from tinygpt_np.ops.cross_entropy import IGNORE_INDEX

SIZES = {
    "cpu": {"N": 192, "V": 65},
    "lecture": {"N": 512, "V": 65},
    "gpt2": {"N": 128, "V": 50257},
    "awkward": {"N": 101, "V": 67},
}
# The exponential of it is no float32, nor that of what it is above the others.
FAR = 150


def inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """The first target is the first column, the last the last; one between does not count.

    At the other end of their rows is a logit beside which theirs have no probability in float32.
    """
    N, V = sizes["N"], sizes["V"]
    logits = outliers(normal(rng, N, V), rng, 20)
    logits[0, -1] = logits[-1, 0] = FAR
    targets = rng.integers(0, V, N)
    targets[0], targets[-1] = 0, V - 1
    targets[N // 2 : N // 2 + ignored(sizes)] = IGNORE_INDEX
    return {"logits": logits, "targets": targets}


def ignored(sizes: Sizes) -> int:
    return int(sizes["N"] > 1)


def outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"losses": (sizes["N"],)}


def truth(inputs: Arrays) -> dict[str, Truth]:
    """An error of what goes into an exp is a relative one of what comes out, and with log back.

    So the total is off by its own roundings and the mean of |shifted|·U, and what is made of it by
    those of numbers no larger than |shifted|, |largest|, the logarithm and -log of a probability:
    some take the largest from a logit first, some add it to the logarithm first.
    """
    logits, targets = inputs["logits"].astype(np.float64), inputs["targets"]
    _, saved = plain(cross_entropy.forward)(logits, targets)
    dlogits = plain(cross_entropy.backward)(1.0, saved)
    log_probs, total, chosen, counted, count = saved
    log_total, probs = np.log(total), np.exp(log_probs)
    largest = logits.max(axis=-1, keepdims=True)
    shift = largest - logits
    mean_shift = (probs * shift).sum(axis=-1, keepdims=True)
    sizes = shift + np.abs(largest) + log_total - log_probs
    roundings = EXP + logits.shape[-1] + mean_shift + 2 * sizes + 3
    losses = -(log_probs * chosen).sum(axis=-1)
    losses_off = (gamma(roundings) * chosen).sum(axis=-1)
    # A product with the scale, and at the target a difference, of numbers that are rounded.
    off = probs * gamma(roundings + EXP + 3) + gamma(3) * chosen
    return {
        "logits": Truth(dlogits, (off / count + TINY) * counted[:, None]),
        "losses": Truth(losses, losses_off),
    }


def flops(sizes: Sizes) -> int:
    """Of each row that counts: V - 1 comparisons, V differences, V exponentials, V - 1 sums.

    Then the logarithm, and two sums for the loss; the share of each, V products, and a difference.
    The scale 1/M is given.
    """
    return (sizes["N"] - ignored(sizes)) * (5 * sizes["V"] + 3)


def bytes_of(sizes: Sizes) -> int:
    """A row that does not count is written, but need not be read."""
    N, V = sizes["N"], sizes["V"]
    return 4 * (N - ignored(sizes)) * V + 4 * N * V + (8 + 4) * N


DIRECTIONS = {
    "loss and gradient": Direction(inputs, outputs, truth, flops, bytes_of, changed=("logits",))
}
