"""Sampling: which tokens can be drawn and how often, batches, and refused arguments."""

import itertools
import math
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinygpt_np import GPT, Bigram, CharTokenizer, GPTConfig
from tinygpt_np.config import generator
from tinygpt_np.model.sampling import draw, generate, stream_text, weights

V, BLOCK = 7, 4
TABLE = np.random.default_rng(11).standard_normal((V, V))
PROMPT = np.array([3, 0, 5])
SEED_5 = [int(digit) for digit in "502201560131134660460136313134"]
SEED_5_TOP_4 = [int(digit) for digit in "513210660131134660251135222245"]
steady = settings(deadline=None, derandomize=True)


def next_logits(context: np.ndarray) -> np.ndarray:
    """(B, T) -> (B, V): a bigram model."""
    return TABLE[context[:, -1]]


def tokens_after(prompt: np.ndarray, count: int | None, **rules: Any) -> list[Any]:
    """Return the tokens that follow, as lists or numbers."""
    stream = generate(next_logits, prompt, count, **rules)
    return [token.tolist() for token in itertools.islice(stream, 30)]


# draw


@pytest.mark.parametrize("temperature", [0, 5e-324, 1e-200, 1e-3])
def test_a_temperature_near_zero_takes_the_most_likely_token(temperature: float) -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(draw(TABLE, temperature, None, rng), TABLE.argmax(axis=-1))
    if temperature == 0:
        assert rng.random() == np.random.default_rng(0).random()


@steady
@given(st.integers(1, V + 2), st.floats(0.1, 10), st.integers(0, 2**32))
def test_top_k_draws_only_from_the_k_most_likely_tokens(
    k: int, temperature: float, seed: int
) -> None:
    drawn = draw(TABLE, temperature, k, np.random.default_rng(seed))
    likeliest = np.argsort(-TABLE, axis=-1)[:, :k]
    assert (likeliest == drawn[:, None]).any(axis=-1).all()


def test_top_k_draws_each_of_the_k_and_ties_with_the_kth() -> None:
    rng = np.random.default_rng(0)
    drawn = draw(np.tile(TABLE[0], (1000, 1)), 3.0, 3, rng)
    assert set(drawn.tolist()) == set(np.argsort(-TABLE[0])[:3].tolist())
    ties = np.tile([1.0, 0.0, 1.0, 1.0], (500, 1))
    assert set(draw(ties, 1.0, 2, rng).tolist()) == {0, 2, 3}


def chi_square(drawn: np.ndarray, probs: np.ndarray) -> float:
    expected = len(drawn) * probs
    return float(((np.bincount(drawn, minlength=len(probs)) - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_with_the_probabilities_of_softmax(temperature: float) -> None:
    exps = np.exp(TABLE[2] / temperature)
    drawn = draw(np.tile(TABLE[2], (20_000, 1)), temperature, None, np.random.default_rng(4))
    # Chi-square with V - 1 = 6 degrees of freedom is above 22.46 once in a thousand times.
    assert chi_square(drawn, exps / exps.sum()) < 22.46


# top_p


def kept(row: np.ndarray, top_p: float, temperature: float = 1.0, top_k: int | None = None) -> Any:
    """Return the tokens of one row that can be drawn."""
    return set(np.flatnonzero(weights(row[None], temperature, top_k, top_p)).tolist())


def nucleus(probs: list[float], top_p: float) -> set[int]:
    """Return the tokens for which all more likely tokens together are below top_p."""
    mass = [math.fsum(q for q in probs if q > p) for p in probs]
    assume(all(abs(each - top_p) > 1e-9 for each in mass))
    return {token for token, each in enumerate(mass) if each < top_p}


@steady
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=9),  # Few values, so that many are equal.
    st.floats(1e-6, 1 - 1e-6),
    st.sampled_from([0.3, 1.0, 2.5]),
)
def test_top_p_keeps_the_tokens_of_its_definition(
    logits: list[int], top_p: float, temperature: float
) -> None:
    exps = [math.exp(logit / temperature) for logit in logits]
    probs = [each / math.fsum(exps) for each in exps]
    row = np.array(logits, np.float32)
    assert kept(row, top_p, temperature) == nucleus(probs, top_p)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(1e-9, {1}), (0.5, {1}), (0.51, {0, 1, 3}), (0.76, {0, 1, 3}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_ties_and_stops_when_it_is_reached_exactly(
    top_p: float, expected: set[int]
) -> None:
    # Probabilities 1/4, 1/2, tiny, 1/4: the sums are exact.
    row = np.array([math.log(0.5), 0, -60, math.log(0.5)])
    assert kept(row, top_p) == expected


def test_top_p_uses_the_probabilities_after_temperature_and_top_k() -> None:
    row = np.log([0.4, 0.3, 0.2, 0.1])
    assert kept(row, 0.65) == {0, 1}
    assert kept(row, 0.65, temperature=10.0) == {0, 1, 2}  # All near 1/4.
    assert kept(row, 0.65, top_k=3) == {0, 1}  # 4/9 and 3/9.
    assert kept(row, 0.42, top_k=3) == {0}
    assert kept(row, 0.42) == {0, 1}
    assert kept(row, 0.999, top_k=2) == {0, 1}


def test_top_p_is_applied_to_each_row_of_a_batch() -> None:
    rows = np.log([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6], [1 / 3, 1 / 3, 1 / 3]])
    found = weights(rows, 1.0, None, 0.5) > 0
    np.testing.assert_array_equal(found, [[True, False, False], [False, False, True], [True] * 3])
    drawn = draw(np.repeat(rows, 300, axis=0), 1.0, None, np.random.default_rng(0), 0.5)
    assert [set(part.tolist()) for part in np.split(drawn, 3)] == [{0}, {2}, {0, 1, 2}]


def test_the_kept_tokens_have_their_relative_probabilities() -> None:
    likeliest = np.sort(np.argsort(-TABLE[2])[:3])
    drawn = draw(np.tile(TABLE[2], (20_000, 1)), 1.0, 3, np.random.default_rng(4))
    expected = np.exp(TABLE[2][likeliest]) / np.exp(TABLE[2][likeliest]).sum()
    # Chi-square with 2 degrees of freedom is above 13.82 once in a thousand times.
    assert chi_square(np.searchsorted(likeliest, drawn), expected) < 13.82


def test_the_tokens_of_a_seed_are_the_same_in_every_version() -> None:
    assert tokens_after(PROMPT, 30, seed=5) == SEED_5
    assert tokens_after(PROMPT, 30, seed=5, temperature=2.0, top_k=4) == SEED_5_TOP_4


@pytest.mark.parametrize(("point", "token"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_ends_of_the_unit_interval_draw_possible_tokens(point: float, token: int) -> None:
    rng = Mock(spec=np.random.Generator)
    rng.random.return_value = np.array([[point]])
    logits = np.array([[-np.inf, 0.3, -np.inf, 0.1, -np.inf]])
    assert draw(logits, 1.0, None, rng) == token


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4, 1e4 - 50]], np.float32)
    assert draw(logits, 1e-50, None, np.random.default_rng(0)) == 0


# generate


def test_without_a_seed_the_tokens_are_random() -> None:
    # Two random sequences of 30 tokens are equal with a probability below 1e-9.
    assert tokens_after(PROMPT, None) != tokens_after(PROMPT, None)


def test_a_token_has_the_shape_of_the_batch() -> None:
    assert [token.shape for token in generate(next_logits, PROMPT, 3)] == [()] * 3
    prompts = np.array([[3, 0, 5], [1, 1, 6]])
    assert [token.shape for token in generate(next_logits, prompts, 3)] == [(2,)] * 3


def test_the_model_is_given_the_prompt_and_then_each_token_drawn() -> None:
    given: list[list[list[int]]] = []

    def spy(tokens: np.ndarray) -> np.ndarray:
        given.append(tokens.tolist())
        return next_logits(tokens)

    prompts = np.array([[3, 0, 5], [1, 6, 2]])
    drawn = [token.tolist() for token in generate(spy, prompts, 4, seed=1)]
    assert given == [prompts.tolist(), *([[one], [other]] for one, other in drawn[:-1])]


def test_the_number_of_tokens_may_be_zero_or_unlimited() -> None:
    assert tokens_after(PROMPT, 0) == []
    stream = generate(next_logits, PROMPT, None, seed=0)
    assert len(list(itertools.islice(stream, 1000))) == 1000


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be zero or more, not -1"),
        ({"temperature": np.inf}, "temperature must be finite and zero or more, not inf"),
        ({"temperature": np.nan}, "temperature must be finite and zero or more, not nan"),
        ({"top_k": 0}, "top_k must be 1 or more, not 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": np.nan}, "top_p must be above 0 and at most 1, not nan"),
        ({"tokens": np.zeros((), int)}, r"tokens must be .* not \(\)"),
        ({"tokens": np.zeros((0, 2), int)}, r"tokens must be .* not \(0, 2\)"),
        ({"tokens": np.zeros((1, 2, 3), int)}, r"tokens must be .* not \(1, 2, 3\)"),
    ],
)
def test_a_wrong_argument_is_refused_at_the_call(rules: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"tokens": PROMPT, "max_new_tokens": 5, **rules}
    with pytest.raises(ValueError, match=message):
        generate(next_logits, **arguments)


# Through a model


@pytest.fixture(scope="module")
def model() -> GPT:
    """Return a GPT with weights of order one, whose greedy text does not repeat itself."""
    config = GPTConfig(vocab_size=V, block_size=BLOCK, n_layer=1, n_head=2, n_embd=6)
    model = GPT(config, dtype="float64")
    rng = np.random.default_rng(8)
    model.params = {name: rng.standard_normal(p.shape) for name, p in model.params.items()}
    return model


def uncached(
    model: GPT, prompts: np.ndarray, temperature: float, top_k: int | None, seed: int
) -> np.ndarray:
    """Return the 12 tokens after prompts (B, T), each computed from the whole context."""
    rng, text = generator(seed, "sampling"), prompts
    for _ in range(12):
        drawn = draw(model.logits(text[:, -BLOCK:])[:, -1], temperature, top_k, rng)
        text = np.concatenate([text, drawn[:, None]], axis=1)
    return text[:, prompts.shape[1] :]


@pytest.mark.parametrize(("temperature", "top_k"), [(4.0, None), (6.0, 3), (0, None)])
@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK + 2])
def test_a_gpt_draws_the_same_tokens_without_a_cache(
    model: GPT, temperature: float, top_k: int | None, length: int
) -> None:
    prompts = np.random.default_rng(length).integers(0, V, (3, length))
    found = list(model.generate(prompts, 12, temperature, top_k, seed=9))
    expected = uncached(model, prompts, temperature, top_k, seed=9)
    np.testing.assert_array_equal(np.stack(found, axis=1), expected)


def test_a_gpt_generates_without_its_whole_forward(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(model.generate(PROMPT, 6, seed=2))
    monkeypatch.setattr(model, "forward", Mock(side_effect=AssertionError))
    assert list(model.generate(PROMPT, 6, seed=2)) == expected


def test_a_bigram_uses_only_the_last_token() -> None:
    bigram = Bigram(V)
    texts = [list(bigram.generate(np.array(p), 9, seed=2)) for p in ([1, 2, 5], [6, 5])]
    assert texts[0] == texts[1]


def test_a_prompt_may_have_any_integer_dtype(model: GPT) -> None:
    found = list(model.generate(PROMPT.astype(np.uint64), 6, seed=2))
    assert found == list(model.generate(PROMPT, 6, seed=2))


# Text


@pytest.fixture(scope="module")
def repeater() -> GPT:
    """Return a GPT whose most likely token is always the last one: its blocks add nothing."""
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=2, n_embd=6))
    for name, param in model.params.items():
        model.params[name] = np.zeros_like(param)
    model.params["wte.weight"] = np.eye(5, 6, dtype=np.float32)
    model.params["ln_f.weight"] = np.ones(6, np.float32)
    return model


@pytest.mark.parametrize(
    ("vocabulary", "prompt", "expected"),
    [
        ("ab\ncd", "bad", "ddd"),
        ("ab\ncd", "", "\n\n\n"),  # An empty prompt is a new line,
        ("xabcd", "", "xxx"),  # or else the first character of the vocabulary.
    ],
)
def test_text_continues_the_prompt(
    repeater: GPT, vocabulary: str, prompt: str, expected: str
) -> None:
    tokenizer = CharTokenizer(vocabulary)
    made = stream_text(repeater.decoder(1), tokenizer, prompt, 3, temperature=0)
    assert "".join(made) == expected


def test_text_is_the_tokens_that_the_model_generates(repeater: GPT) -> None:
    tokenizer = CharTokenizer("abcde")
    rules: dict[str, Any] = {"temperature": 9.0, "top_k": 4, "seed": 3, "top_p": 0.9}
    made = list(stream_text(repeater.decoder(1), tokenizer, "bad", 20, **rules))
    assert [len(char) for char in made] == [1] * 20
    ids = repeater.generate(tokenizer.encode("bad"), 20, **rules)
    assert "".join(made) == tokenizer.decode([int(token) for token in ids])
