import numpy as np
import pytest
from helpers.kernel_twins import normals

from tinygpt_np.compiled.kernels import muon
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.model.optimizer import Muon

_, normal = normals(18)
# Square, wide, tall; a panel, several, and incomplete ones; one row and one column.
SHAPES = [
    (64, 64),
    (70, 70),
    (130, 150),
    (128, 300),
    (300, 128),
    (9, 200),
    (1, 33),
    (33, 1),
    (1, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_an_update_of_some_columns_is_the_truth_but_for_rounding(
    shape: tuple[int, int], scale: float
) -> None:
    rows, columns = shape
    param, grad, first = (normal(rows, columns + 8) for _ in range(3))
    before = param.copy(), first.copy()
    part = slice(5, 5 + columns)
    truth = Muon({"w": param.astype(float)}, {"w": [part]}, 0.9, 1.0, 0, 0, 0.1)
    params = {"w": param.astype(float)}
    truth.first["w"] = first.astype(float)
    truth.update(params, {"w": grad.astype(float) * scale}, 0.02)
    buffers = muon.make_buffers(Arena(), rows * columns, min(shape))
    for buffer in buffers[:3]:
        buffer[...] = np.nan
    muon.update(param, grad, first, part.start, part.stop, (scale, 0.02, 0.1, 0.9), buffers)
    np.testing.assert_allclose(first[:, part], truth.first["w"][:, part], rtol=0, atol=1e-6)
    np.testing.assert_allclose(param[:, part], params["w"][:, part], rtol=0, atol=2e-6)
    for found, old in zip((param, first), before, strict=True):
        for others in (slice(0, 5), slice(5 + columns, None)):
            np.testing.assert_array_equal(found[:, others], old[:, others])
