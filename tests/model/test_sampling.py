"""Sampling: which tokens can be drawn and how often, batches, and refused arguments."""

import itertools
import math
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinygpt_np import GPT, CharTokenizer, GPTConfig
from tinygpt_np.config import generator
from tinygpt_np.model.sampling import draw, generate, stream_text, weights

V = 7
TABLE = np.random.default_rng(11).standard_normal((V, V))
PROMPT = np.array([3, 0, 5])
steady = settings(deadline=None, derandomize=True)


def next_logits(context: np.ndarray) -> np.ndarray:
    """(B, T) -> (B, V): a bigram model."""
    return TABLE[context[:, -1]]


def tokens_after(prompt: np.ndarray, count: int | None, **rules: Any) -> list[Any]:
    """Return the tokens that follow, as lists or numbers."""
    stream = generate(next_logits, prompt, count, **rules)
    return [token.tolist() for token in itertools.islice(stream, 30)]


# draw


@pytest.mark.parametrize("temperature", [0, 5e-324, 1e-3])
def test_a_temperature_near_zero_takes_the_most_likely_token(temperature: float) -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(draw(TABLE, temperature, None, rng), TABLE.argmax(axis=-1))
    assert draw(np.array([[1e4, -1e4, 1e4 - 50]], np.float32), temperature, None, rng) == 0
    if temperature == 0:
        assert rng.random() == np.random.default_rng(0).random()


def kept(rows: np.ndarray, top_p: float | None, **rules: Any) -> list[set[int]]:
    """Return the tokens of each row that can be drawn."""
    rules = {"temperature": 1.0, "top_k": None} | rules
    return [set(np.flatnonzero(row).tolist()) for row in weights(rows, **rules, top_p=top_p)]


def allowed(logits: list[int], temperature: float, top_k: int, top_p: float) -> set[int]:
    """Return the tokens below which fewer than top_k tokens and a mass below top_p are likelier."""
    exps = [math.exp(logit / temperature) for logit in logits]
    among = [token for token, p in enumerate(exps) if sum(q > p for q in exps) < top_k]
    total = math.fsum(exps[token] for token in among)
    masses = {
        token: math.fsum(exps[each] for each in among if exps[each] > exps[token]) / total
        for token in among
    }
    assume(all(abs(mass - top_p) > 1e-9 for mass in masses.values()))
    return {token for token, mass in masses.items() if mass < top_p}


@steady
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=9),  # Few values, so that many are equal.
    st.sampled_from([0.3, 1.0, 2.5]),
    st.integers(1, 11),
    st.floats(1e-6, 1 - 1e-6),
)
def test_top_k_and_top_p_keep_the_tokens_of_their_definition(
    logits: list[int], temperature: float, top_k: int, top_p: float
) -> None:
    rows = np.array([logits, logits[::-1]], np.float32)
    expected = [allowed(row.tolist(), temperature, top_k, top_p) for row in rows]
    assert kept(rows, top_p, temperature=temperature, top_k=top_k) == expected


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(1e-9, {1}), (0.5, {1}), (0.51, {0, 1, 3}), (0.76, {0, 1, 3}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_ties_and_stops_when_it_is_reached_exactly(
    top_p: float, expected: set[int]
) -> None:
    # Probabilities 1/4, 1/2, tiny, 1/4: the sums are exact.
    rows = np.array([[math.log(0.5), 0, -60, math.log(0.5)]])
    assert kept(rows, top_p) == [expected]


@pytest.mark.parametrize(("temperature", "top_k"), [(0.5, None), (2.0, None), (1.0, 3)])
def test_tokens_are_drawn_with_their_relative_probabilities(
    temperature: float, top_k: int | None
) -> None:
    rng, rows = np.random.default_rng(4), np.tile(TABLE[2], (20_000, 1))
    drawn = draw(rows, temperature, top_k, rng)
    likeliest = np.argsort(-TABLE[2])[:top_k]
    exps = np.exp(TABLE[2][likeliest] / temperature)
    expected = len(drawn) * exps / exps.sum()
    counts = np.bincount(drawn, minlength=V)
    assert counts[likeliest].sum() == len(drawn)
    # Chi-square with 6 and 2 degrees of freedom is larger once in a thousand times.
    largest = 13.82 if top_k else 22.46
    assert ((counts[likeliest] - expected) ** 2 / expected).sum() < largest


def test_the_tokens_of_a_seed_are_the_same_in_every_version() -> None:
    digits = "".join(map(str, tokens_after(PROMPT, 30, seed=5)))
    assert digits == "502201560131134660460136313134"
    digits = "".join(map(str, tokens_after(PROMPT, 30, seed=5, temperature=2.0, top_k=4)))
    assert digits == "513210660131134660251135222245"


@pytest.mark.parametrize(("point", "token"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_ends_of_the_unit_interval_draw_possible_tokens(point: float, token: int) -> None:
    rng = Mock(spec=np.random.Generator)
    rng.random.return_value = np.array([[point]])
    logits = np.array([[-np.inf, 0.3, -np.inf, 0.1, -np.inf]])
    assert draw(logits, 1.0, None, rng) == token


# generate


def test_without_a_seed_the_tokens_are_random_and_may_be_none_or_unlimited() -> None:
    # Two random sequences of 30 tokens are equal with a probability below 1e-9.
    assert tokens_after(PROMPT, None) != tokens_after(PROMPT, None)
    assert tokens_after(PROMPT, 0) == []
    stream = generate(next_logits, PROMPT, None, seed=0)
    assert len(list(itertools.islice(stream, 1000))) == 1000


def test_the_model_is_given_the_prompt_and_then_each_token_drawn() -> None:
    given: list[list[list[int]]] = []

    def spy(tokens: np.ndarray) -> np.ndarray:
        given.append(tokens.tolist())
        return next_logits(tokens)

    prompts = np.array([[3, 0, 5], [1, 6, 2]])
    drawn = [token.tolist() for token in generate(spy, prompts, 4, seed=1)]
    assert given == [prompts.tolist(), *([[one], [other]] for one, other in drawn[:-1])]
    assert [token.shape for token in generate(next_logits, PROMPT, 3)] == [()] * 3


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


@pytest.mark.parametrize(("temperature", "top_k"), [(4.0, None), (6.0, 3), (0, None)])
def test_a_gpt_draws_the_tokens_of_its_whole_forward_without_running_it(
    temperature: float, top_k: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GPT(GPTConfig(vocab_size=V, block_size=4, n_layer=1, n_head=2, n_embd=6), 0, "float64")
    rng = np.random.default_rng(8)
    model.params = {name: rng.standard_normal(p.shape) for name, p in model.params.items()}
    prompts = np.random.default_rng(6).integers(0, V, (3, 2))
    rng, text = generator(9, "sampling"), prompts
    for _ in range(12):
        drawn = draw(model.logits(text[:, -4:])[:, -1], temperature, top_k, rng)
        text = np.concatenate([text, drawn[:, None]], axis=1)
    monkeypatch.setattr(model, "forward", Mock(side_effect=AssertionError))
    found = list(model.generate(prompts, 12, temperature, top_k, seed=9))
    np.testing.assert_array_equal(np.stack(found, axis=1), text[:, 2:])


# Text


def repeat(tokens: np.ndarray) -> np.ndarray:
    """Return logits (B, V) of which the last token's is the largest."""
    return np.eye(5)[tokens[:, -1]]


@pytest.mark.parametrize(
    ("vocabulary", "prompt", "expected"),
    [
        ("ab\ncd", "bad", "ddd"),
        ("ab\ncd", "", "\n\n\n"),  # An empty prompt is a new line,
        ("xabcd", "", "xxx"),  # or else the first character of the vocabulary.
    ],
)
def test_text_continues_the_prompt(vocabulary: str, prompt: str, expected: str) -> None:
    made = stream_text(repeat, CharTokenizer(vocabulary), prompt, 3, temperature=0)
    assert "".join(made) == expected


def test_text_is_the_tokens_that_are_generated() -> None:
    tokenizer = CharTokenizer("abcde")
    rules: dict[str, Any] = {"temperature": 9.0, "top_k": 4, "seed": 3, "top_p": 0.9}
    made = list(stream_text(repeat, tokenizer, "bad", 20, **rules))
    assert [len(char) for char in made] == [1] * 20
    ids = generate(repeat, tokenizer.encode("bad"), 20, **rules)
    assert "".join(made) == tokenizer.decode([int(token) for token in ids])
