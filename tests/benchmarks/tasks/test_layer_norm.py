"""What layer norm costs."""

from costs import assert_costs
from counting import Array, total

from benchmarks.tasks import Sizes
from tinygpt_np.ops.layer_norm import EPSILON

SIZES = {"N": 3, "C": 7}


def compute_forward(x: Array, weight: Array, bias: Array, y: Array, sizes: Sizes) -> None:
    C = sizes["C"]
    for n in range(sizes["N"]):
        row = [x[n, c] for c in range(C)]
        mean = total(row) / C
        centered = [value - mean for value in row]
        std = (total([value * value for value in centered]) / C + EPSILON).sqrt()
        for c in range(C):
            y[n, c] = centered[c] / std * weight[c] + bias[c]


def compute_backward(
    dy: Array, x: Array, weight: Array, dx: Array, dweight: Array, dbias: Array, sizes: Sizes
) -> None:
    N, C = sizes["N"], sizes["C"]
    means = dy.ledger.array(x.values.mean(axis=-1))
    rstds = dy.ledger.array(1 / (x.values.var(axis=-1) + EPSILON) ** 0.5)
    for array in (means, rstds):
        dy.ledger.sizes[id(array)] = 4
    moments = [(n, means[n], rstds[n]) for n in range(N)]
    xhats = [[(x[n, c] - mean) * rstd for c in range(C)] for n, mean, rstd in moments]
    for c in range(C):
        dweight[c] = total([dy[n, c] * xhats[n][c] for n in range(N)])
        dbias[c] = total([dy[n, c] for n in range(N)])
    for n, _, rstd in moments:
        dxhat = [dy[n, c] * weight[c] for c in range(C)]
        ones = total(dxhat) / C
        slope = total([a * b for a, b in zip(dxhat, xhats[n], strict=True)]) / C
        for c in range(C):
            dx[n, c] = (dxhat[c] - ones - xhats[n][c] * slope) * rstd


def test_its_forward_costs_what_it_says() -> None:
    assert_costs("layer_norm", "forward", SIZES, compute_forward)


def test_its_backward_costs_what_it_says() -> None:
    assert_costs("layer_norm", "backward", SIZES, compute_backward)
