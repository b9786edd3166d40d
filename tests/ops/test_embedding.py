import numpy as np

from tinygpt_np.ops import embedding

rng = np.random.default_rng(8)
V, C = 11, 4
IDS = np.array([3, 0, 3, 9, 3])
WEIGHT = rng.standard_normal((V, C))


def test_each_row_is_that_of_its_id() -> None:
    rows, _ = embedding.forward(IDS, WEIGHT)
    for row, i in zip(rows, IDS, strict=True):
        assert row.tolist() == WEIGHT[i].tolist()
