import numpy as np
import pytest

import tinygpt_np as tg

rng = np.random.default_rng(12)
V = 7
TOKENS = rng.integers(0, V, (3, 5))


def test_the_logits_of_a_token_are_its_row_of_the_table() -> None:
    model = tg.Bigram(V)
    logits = model.logits(TOKENS)
    for place in np.ndindex(TOKENS.shape):
        assert logits[place].tolist() == model.params["wte.weight"][TOKENS[place]].tolist()
    # Sequences may have any length, and only the last token counts.
    assert model.logits(np.zeros((1, 1000), np.int64)).shape == (1, 1000, V)
    texts = [list(model.generate(np.array(prompt), 9, seed=2)) for prompt in ([1, 2, 5], [6, 5])]
    assert texts[0] == texts[1]


def test_an_empty_vocabulary_is_refused() -> None:
    for make in (tg.Bigram, tg.GPTConfig):
        with pytest.raises(ValueError, match="vocab_size must be positive, not 0"):
            make(vocab_size=0)
