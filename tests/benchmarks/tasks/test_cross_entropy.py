"""What cross-entropy costs."""

from costs import assert_costs
from counting import Array, Number, total

from benchmarks.tasks import Sizes

SIZES = {"N": 5, "V": 7}


def compute(logits: Array, targets: Array, losses: Array, sizes: Sizes) -> None:
    N, V = sizes["N"], sizes["V"]
    # One of them does not count.
    scale, zero = Number(logits.ledger, 1 / (N - 1)), Number(logits.ledger, 0)
    for n in range(N):
        target = targets[n]
        if target == -1:
            losses[n] = zero
            for v in range(V):
                logits[n, v] = zero
            continue
        row = [logits[n, v] for v in range(V)]
        largest = row[0]
        for logit in row[1:]:
            largest = largest.larger(logit)
        exps = [(logit - largest).exp() for logit in row]
        whole = total(exps)
        losses[n] = whole.log() + (largest - row[target])
        share = scale / whole
        for v in range(V):
            dlogit = exps[v] * share
            logits[n, v] = dlogit - scale if v == target else dlogit


def test_it_costs_what_it_says() -> None:
    assert_costs("cross_entropy", "loss and gradient", SIZES, compute)
