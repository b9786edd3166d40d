import numpy as np
import pytest

import tinygpt_np as tg

rng = np.random.default_rng(12)
V = 7
TOKENS, TARGETS = rng.integers(0, V, (2, 3, 5))


def test_the_logits_of_a_token_are_its_row_of_the_table() -> None:
    model = tg.Bigram(V)
    logits = model.logits(TOKENS)
    for place in np.ndindex(TOKENS.shape):
        assert logits[place].tolist() == model.params["wte.weight"][TOKENS[place]].tolist()
    # Sequences may have any length, and only the last token counts.
    assert model.logits(np.zeros((1, 1000), np.int64)).shape == (1, 1000, V)
    texts = [list(model.generate(np.array(prompt), 9, seed=2)) for prompt in ([1, 2, 5], [6, 5])]
    assert texts[0] == texts[1]


def test_the_gradient_equals_the_complex_step() -> None:
    report = tg.gradcheck.check_model(tg.Bigram(V, dtype="float64"), TOKENS, TARGETS)
    row, loss = report.rows
    assert loss.ok
    assert (row.name, row.oracle, row.verdict) == ("wte.weight", "complex step", "ok"), report
    assert row.relative < 1e-12


def test_a_table_of_log_frequencies_reaches_the_entropy_of_the_pairs() -> None:
    counts = rng.integers(1, 9, (V, V)).astype(np.float64)
    tokens, targets = np.repeat(
        np.indices((V, V)).reshape(2, 1, -1), counts.astype(int).flat, axis=2
    )
    model = tg.Bigram(V, dtype="float64")
    model.params["wte.weight"] = np.log(counts)
    conditional = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(counts * np.log(conditional)).sum() / counts.sum()
    assert model.loss(tokens, targets) == pytest.approx(entropy, rel=1e-12)
    assert np.abs(model.loss_and_grads(tokens, targets)[1]["wte.weight"]).max() < 1e-15


def test_an_empty_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size must be positive, not 0"):
        tg.Bigram(0)
