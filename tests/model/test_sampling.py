"""Sampling: which token is drawn, from what context, and what is refused."""

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
    """The tokens that follow, as lists or numbers."""
    stream = generate(next_logits, prompt, count, **rules)
    return [token.tolist() for token in itertools.islice(stream, 30)]


# draw


def test_temperature_zero_takes_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(draw(TABLE, 0, None, rng), TABLE.argmax(axis=-1))


def test_temperature_zero_does_not_move_the_generator() -> None:
    rng = np.random.default_rng(0)
    draw(TABLE, 0, None, rng)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("temperature", [1e-3, 1e-200, 5e-324])
def test_a_temperature_near_zero_takes_the_likeliest(temperature: float) -> None:
    drawn = draw(TABLE, temperature, None, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, TABLE.argmax(axis=-1))


def test_top_1_takes_the_likeliest() -> None:
    logits = np.tile(TABLE, (100, 1))
    np.testing.assert_array_equal(
        draw(logits, 5.0, 1, np.random.default_rng(0)), logits.argmax(axis=-1)
    )


@steady
@given(st.integers(1, V + 2), st.floats(0.1, 10), st.integers(0, 2**32))
def test_top_k_draws_from_the_k_likeliest_only(k: int, temperature: float, seed: int) -> None:
    drawn = draw(TABLE, temperature, k, np.random.default_rng(seed))
    likeliest = np.argsort(-TABLE, axis=-1)[:, :k]
    assert (likeliest == drawn[:, None]).any(axis=-1).all()


def test_top_k_draws_every_one_of_the_k_likeliest() -> None:
    logits = np.tile(TABLE[0], (1000, 1))
    drawn = draw(logits, 3.0, 3, np.random.default_rng(0))
    assert set(drawn.tolist()) == set(np.argsort(-TABLE[0])[:3].tolist())


def test_top_k_keeps_those_as_likely_as_the_kth() -> None:
    logits = np.tile([1.0, 0.0, 1.0, 1.0], (500, 1))
    assert set(draw(logits, 1.0, 2, np.random.default_rng(0)).tolist()) == {0, 2, 3}


def chi_square(drawn: np.ndarray, probs: np.ndarray) -> float:
    expected = len(drawn) * probs
    return float(((np.bincount(drawn, minlength=len(probs)) - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_softmax_says(temperature: float) -> None:
    exps = np.exp(TABLE[2] / temperature)
    drawn = draw(np.tile(TABLE[2], (20_000, 1)), temperature, None, np.random.default_rng(4))
    # Chi-square with V - 1 = 6 degrees of freedom is above 22.46 once in a thousand times.
    assert chi_square(drawn, exps / exps.sum()) < 22.46


def test_top_k_leaves_the_odds_between_the_k_as_they_were() -> None:
    likeliest = np.sort(np.argsort(-TABLE[2])[:3])
    exps = np.exp(TABLE[2][likeliest])
    drawn = draw(np.tile(TABLE[2], (20_000, 1)), 1.0, 3, np.random.default_rng(4))
    # Chi-square with 2 degrees of freedom is above 13.82 once in a thousand times.
    assert chi_square(np.searchsorted(likeliest, drawn), exps / exps.sum()) < 13.82


# top_p


def kept(row: np.ndarray, top_p: float, temperature: float = 1.0, top_k: int | None = None) -> Any:
    """The tokens of one row that may be drawn."""
    return set(np.flatnonzero(weights(row[None], temperature, top_k, top_p)).tolist())


def nucleus(probs: list[float], top_p: float) -> set[int]:
    """The definition: a token is kept if all likelier tokens together are below top_p."""
    mass = [math.fsum(q for q in probs if q > p) for p in probs]
    assume(all(abs(each - top_p) > 1e-9 for each in mass))
    return {token for token, each in enumerate(mass) if each < top_p}


@steady
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=9),  # Few values, so that many are equal.
    st.floats(1e-6, 1 - 1e-6),
    st.sampled_from([0.3, 1.0, 2.5]),
)
def test_top_p_keeps_what_its_definition_keeps(
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
def test_top_p_reached_exactly_is_enough_and_equally_likely_tokens_stay_together(
    top_p: float, expected: set[int]
) -> None:
    # Probabilities 1/4, 1/2, tiny, 1/4: the sums are exact.
    row = np.array([math.log(0.5), 0, -60, math.log(0.5)])
    assert kept(row, top_p) == expected


def test_top_p_counts_the_probabilities_after_temperature_and_top_k() -> None:
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


def test_top_p_leaves_the_odds_between_those_it_keeps_as_they_were() -> None:
    likeliest = np.sort(np.argsort(-TABLE[2])[:3])
    exps = np.exp(TABLE[2])
    top_p = float(np.sort(exps)[::-1][:3].sum() / exps.sum()) - 1e-6
    drawn = draw(np.tile(TABLE[2], (20_000, 1)), 1.0, None, np.random.default_rng(4), top_p)
    expected = exps[likeliest] / exps[likeliest].sum()
    # Chi-square with 2 degrees of freedom is above 13.82 once in a thousand times.
    assert chi_square(np.searchsorted(likeliest, drawn), expected) < 13.82


def test_top_p_1_draws_as_without_it() -> None:
    assert tokens_after(PROMPT, 30, seed=5, top_p=1.0) == tokens_after(PROMPT, 30, seed=5)


def test_the_text_of_a_seed_does_not_change_from_version_to_version() -> None:
    assert tokens_after(PROMPT, 30, seed=5) == SEED_5
    assert tokens_after(PROMPT, 30, seed=5, temperature=2.0, top_k=4) == SEED_5_TOP_4


@pytest.mark.parametrize(("point", "token"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_ends_of_the_unit_interval_draw_tokens_that_can_be(point: float, token: int) -> None:
    rng = Mock(spec=np.random.Generator)
    rng.random.return_value = np.array([[point]])
    logits = np.array([[-np.inf, 0.3, -np.inf, 0.1, -np.inf]])
    assert draw(logits, 1.0, None, rng) == token


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4, 1e4 - 50]], np.float32)
    assert draw(logits, 1e-50, None, np.random.default_rng(0)) == 0


def test_draw_leaves_its_logits_as_they_were() -> None:
    logits = TABLE.copy()
    draw(logits, 0.7, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(logits, TABLE)


# generate


def test_greedy_follows_the_argmax() -> None:
    expected: list[int] = []
    for _ in range(9):
        expected.append(int(TABLE[[*PROMPT.tolist(), *expected][-1]].argmax()))
    assert tokens_after(PROMPT, 9, temperature=0) == expected


def test_top_1_is_greedy() -> None:
    greedy = tokens_after(PROMPT, 9, temperature=0)
    assert tokens_after(PROMPT, 9, temperature=3.0, top_k=1) == greedy


def test_the_same_seed_gives_the_same_tokens() -> None:
    assert tokens_after(PROMPT, 20, seed=5) == tokens_after(PROMPT, 20, seed=5)


def test_another_seed_gives_other_tokens() -> None:
    assert tokens_after(PROMPT, 20, seed=5) != tokens_after(PROMPT, 20, seed=6)


def test_without_a_seed_the_tokens_differ_from_time_to_time() -> None:
    # 30 tokens: the likeliest text of this table is drawn twice in a row less than once in 10^9.
    assert tokens_after(PROMPT, None) != tokens_after(PROMPT, None)


def test_one_text_yields_single_tokens() -> None:
    assert [token.shape for token in generate(next_logits, PROMPT, 3)] == [()] * 3


def test_a_batch_of_texts_yields_a_token_for_each() -> None:
    prompts = np.array([[3, 0, 5], [1, 1, 6]])
    assert [token.shape for token in generate(next_logits, prompts, 3)] == [(2,)] * 3


def test_each_text_of_a_batch_goes_on_from_its_own_prompt() -> None:
    rows = zip(*tokens_after(np.array([[3, 0, 5], [1, 6, 2]]), 9, temperature=0), strict=True)
    alone = [tokens_after(np.array(prompt), 9, temperature=0) for prompt in ([3, 0, 5], [1, 6, 2])]
    assert [list(row) for row in rows] == alone


def test_the_model_is_given_the_prompt_and_then_each_token_drawn() -> None:
    given: list[list[list[int]]] = []

    def spy(tokens: np.ndarray) -> np.ndarray:
        given.append(tokens.tolist())
        return next_logits(tokens)

    prompts = np.array([[3, 0, 5], [1, 6, 2]])
    drawn = [token.tolist() for token in generate(spy, prompts, 4, seed=1)]
    assert given == [prompts.tolist(), *([[one], [other]] for one, other in drawn[:-1])]


def test_zero_new_tokens_yield_nothing() -> None:
    assert tokens_after(PROMPT, 0) == []


def test_none_goes_on_without_end() -> None:
    stream = generate(next_logits, PROMPT, None, seed=0)
    assert len(list(itertools.islice(stream, 1000))) == 1000


def test_generate_leaves_the_prompt_as_it_was() -> None:
    prompt = PROMPT.copy()
    tokens_after(prompt, 9)
    np.testing.assert_array_equal(prompt, PROMPT)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be zero or more, not -1"),
        ({"temperature": -0.5}, "temperature must be finite and zero or more, not -0.5"),
        ({"temperature": np.inf}, "temperature must be finite and zero or more, not inf"),
        ({"temperature": np.nan}, "temperature must be finite and zero or more, not nan"),
        ({"top_k": 0}, "top_k must be 1 or more, not 0"),
        ({"top_k": -2}, "top_k must be 1 or more, not -2"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
        ({"top_p": np.nan}, "top_p must be above 0 and at most 1, not nan"),
        ({"tokens": np.zeros((), int)}, r"tokens must be .* not \(\)"),
        ({"tokens": np.zeros(0, int)}, r"tokens must be .* not \(0,\)"),
        ({"tokens": np.zeros((2, 0), int)}, r"tokens must be .* not \(2, 0\)"),
        ({"tokens": np.zeros((0, 2), int)}, r"tokens must be .* not \(0, 2\)"),
        ({"tokens": np.zeros((1, 2, 3), int)}, r"tokens must be .* not \(1, 2, 3\)"),
    ],
)
def test_a_bad_argument_is_refused_at_the_call(rules: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"tokens": PROMPT, "max_new_tokens": 5, **rules}
    with pytest.raises(ValueError, match=message):
        generate(next_logits, **arguments)


# Through a model


@pytest.fixture(scope="module")
def model() -> GPT:
    """A GPT whose weights are of order one, so that its greedy text is no mere repetition."""
    config = GPTConfig(vocab_size=V, block_size=BLOCK, n_layer=1, n_head=2, n_embd=6)
    model = GPT(config, dtype="float64")
    rng = np.random.default_rng(8)
    model.params = {name: rng.standard_normal(p.shape) for name, p in model.params.items()}
    return model


def test_a_gpts_greedy_text_is_the_argmax_of_its_logits_also_past_the_window(model: GPT) -> None:
    text: list[int] = PROMPT.tolist()
    for token in model.generate(PROMPT, 12, temperature=0):
        assert token == model.logits(np.array([text[-BLOCK:]]))[0, -1].argmax()
        text.append(int(token))


def uncached(
    model: GPT, prompts: np.ndarray, temperature: float, top_k: int | None, seed: int
) -> np.ndarray:
    """prompts (B, T) -> the 12 tokens that follow (B, 12), each from the whole window anew."""
    rng, text = generator(seed, "sampling"), prompts
    for _ in range(12):
        drawn = draw(model.logits(text[:, -BLOCK:])[:, -1], temperature, top_k, rng)
        text = np.concatenate([text, drawn[:, None]], axis=1)
    return text[:, prompts.shape[1] :]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (4.0, None), (6.0, 3), (0, None)])
@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK + 2])
def test_a_gpt_draws_the_tokens_it_would_draw_without_keeping_anything(
    model: GPT, temperature: float, top_k: int | None, length: int
) -> None:
    prompts = np.random.default_rng(length).integers(0, V, (3, length))
    found = list(model.generate(prompts, 12, temperature, top_k, seed=9))
    expected = uncached(model, prompts, temperature, top_k, seed=9)
    np.testing.assert_array_equal(np.stack(found, axis=1), expected)


def test_a_gpt_generates_without_its_forward_of_whole_windows(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(model.generate(PROMPT, 6, seed=2))
    monkeypatch.setattr(model, "forward", Mock(side_effect=AssertionError))
    assert list(model.generate(PROMPT, 6, seed=2)) == expected


def test_a_model_refuses_bad_rules_at_the_call(model: GPT) -> None:
    with pytest.raises(ValueError, match="top_k must be 1 or more"):
        model.generate(PROMPT, 5, top_k=0)


def test_a_bigrams_text_depends_on_the_last_token_alone() -> None:
    bigram = Bigram(V)
    texts = [list(bigram.generate(np.array(p), 9, seed=2)) for p in ([1, 2, 5], [6, 5])]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64"])
def test_a_prompt_may_be_of_any_integer_type(model: GPT, dtype: str) -> None:
    found = list(model.generate(PROMPT.astype(dtype), 6, seed=2))
    assert found == list(model.generate(PROMPT, 6, seed=2))


# Text


@pytest.fixture(scope="module")
def repeater() -> GPT:
    """A GPT whose most likely token is always the last one: its blocks add nothing."""
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


def test_text_without_a_number_of_tokens_does_not_end(repeater: GPT) -> None:
    made = stream_text(repeater.decoder(1), CharTokenizer("abcde"), "bad", None)
    assert len(list(itertools.islice(made, 100))) == 100


def test_an_unknown_character_in_the_prompt_is_refused(repeater: GPT) -> None:
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\) at position 1"):
        stream_text(repeater.decoder(1), CharTokenizer("abcde"), "bé", 3)
