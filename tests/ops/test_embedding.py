import numpy as np

from tinygpt_np.ops import embedding

rng = np.random.default_rng(8)
V, C = 11, 4
IDS = np.array([3, 0, 3, 9, 3])
WEIGHT, DROWS = rng.standard_normal((V, C)), rng.standard_normal((len(IDS), C))


def test_each_row_is_that_of_its_id() -> None:
    rows, _ = embedding.forward(IDS, WEIGHT)
    for row, i in zip(rows, IDS, strict=True):
        assert row.tolist() == WEIGHT[i].tolist()


def test_the_gradients_of_a_repeated_id_add_up() -> None:
    _, saved = embedding.forward(IDS, WEIGHT)
    dweight = embedding.backward(DROWS, saved)
    np.testing.assert_allclose(dweight[3], DROWS[0] + DROWS[2] + DROWS[4], rtol=1e-15)


def test_a_vocabulary_of_one_gathers_all_gradients() -> None:
    rows, saved = embedding.forward(np.zeros(len(IDS), dtype=np.int64), WEIGHT[:1])
    np.testing.assert_array_equal(rows, WEIGHT[[0] * len(IDS)])
    np.testing.assert_array_equal(embedding.backward(DROWS, saved), [sum(DROWS)])
