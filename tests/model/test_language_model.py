"""What every model offers: checks of what it is given, loss, logits."""

import numpy as np
import pytest

from tinygpt_np import GPT, Bigram, GPTConfig
from tinygpt_np.model.language_model import LanguageModel

V, T = 7, 4
CONFIG = GPTConfig(vocab_size=V, block_size=T, n_layer=1, n_head=2, n_embd=6)
TOKENS = np.array([[3, 0, 6, 1], [5, 2, 2, 4]])
TARGETS = np.array([[0, 6, 1, 5], [2, 2, 4, 3]])


@pytest.fixture(scope="module")
def model() -> GPT:
    return GPT(CONFIG, dtype="float64")


def changed(array: np.ndarray, place: tuple[int, int], value: int) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def test_float_tokens_are_refused(model: GPT) -> None:
    with pytest.raises(TypeError, match="tokens must be an array of integers, not float64"):
        model.logits(TOKENS.astype(np.float64))


def test_a_list_of_tokens_is_refused(model: GPT) -> None:
    with pytest.raises(TypeError, match="tokens must be an array of integers, not list"):
        model.logits([[1, 2]])  # pyright: ignore[reportArgumentType]


def test_bool_tokens_are_refused(model: GPT) -> None:
    with pytest.raises(TypeError, match="tokens must be an array of integers, not bool"):
        model.logits(TOKENS.astype(np.bool_))


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3)])
def test_tokens_that_are_not_a_batch_of_rows_are_refused(
    model: GPT, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"tokens must be \(B, T\)") as caught:
        model.logits(np.zeros(shape, np.int64))
    assert f"not {shape}" in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_batch_is_refused(model: GPT, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"tokens must be \(B, T\) with B ≥ 1 and 1 ≤ T"):
        model.logits(np.zeros(shape, np.int64))


def test_tokens_longer_than_the_block_are_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match=r"T ≤ block_size = 4, not \(2, 5\)"):
        model.logits(np.zeros((2, 5), np.int64))


def test_tokens_as_long_as_the_block_are_taken(model: GPT) -> None:
    assert model.logits(TOKENS).shape == (2, T, V)


@pytest.mark.parametrize("value", [V, -1])
def test_a_token_out_of_range_is_named_with_its_place(model: GPT, value: int) -> None:
    with pytest.raises(ValueError, match=r"\[0, 7\)") as caught:
        model.logits(changed(TOKENS, (1, 2), value))
    assert f"tokens[1, 2] is {value}" in str(caught.value)


@pytest.mark.parametrize("value", [V, -2])
def test_a_target_out_of_range_is_named_with_its_place(model: GPT, value: int) -> None:
    with pytest.raises(ValueError, match=r"\[-1, 7\)") as caught:
        model.loss(TOKENS, changed(TARGETS, (0, 3), value))
    assert f"targets[0, 3] is {value}" in str(caught.value)


def test_float_targets_are_refused(model: GPT) -> None:
    with pytest.raises(TypeError, match="targets must be an array of integers, not float32"):
        model.loss(TOKENS, TARGETS.astype(np.float32))


def test_targets_of_another_shape_are_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match=r"targets must be \(2, 4\) like tokens, not \(2, 3\)"):
        model.loss(TOKENS, TARGETS[:, :3])


def test_targets_that_are_all_ignored_are_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match="every target is -1"):
        model.loss(TOKENS, np.full_like(TARGETS, -1))


def test_loss_and_grads_checks_its_targets_too(model: GPT) -> None:
    with pytest.raises(ValueError, match="every target is -1"):
        model.loss_and_grads(TOKENS, np.full_like(TARGETS, -1))


def test_the_loss_is_the_mean_of_minus_log_softmax_at_the_targets(model: GPT) -> None:
    exps = np.exp(model.logits(TOKENS))
    probs = exps / exps.sum(axis=-1, keepdims=True)
    right = np.take_along_axis(probs, TARGETS[..., None], axis=-1)
    assert model.loss(TOKENS, TARGETS) == pytest.approx(-np.log(right).mean(), rel=1e-13)


def test_ignored_targets_leave_the_loss_over_the_rest(model: GPT) -> None:
    ignored = TARGETS.copy()
    ignored[1] = -1
    rest = model.loss(TOKENS[:1], TARGETS[:1])
    assert model.loss(TOKENS, ignored) == pytest.approx(rest, rel=1e-13)


def test_ignored_targets_leave_the_gradients_over_the_rest(model: GPT) -> None:
    ignored = TARGETS.copy()
    ignored[1] = -1
    _, grads = model.loss_and_grads(TOKENS, ignored)
    _, rest = model.loss_and_grads(TOKENS[:1], TARGETS[:1])
    for name, grad in grads.items():
        assert np.linalg.norm(grad - rest[name]) <= 1e-13 * np.linalg.norm(rest[name]), name


def test_loss_and_loss_and_grads_agree(model: GPT) -> None:
    assert model.loss_and_grads(TOKENS, TARGETS)[0] == model.loss(TOKENS, TARGETS)


def test_gradients_have_the_names_and_shapes_of_the_parameters(model: GPT) -> None:
    _, grads = model.loss_and_grads(TOKENS, TARGETS)
    assert {n: g.shape for n, g in grads.items()} == {n: p.shape for n, p in model.params.items()}


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64"])
def test_tokens_and_targets_may_be_of_any_integer_type(model: GPT, dtype: str) -> None:
    loss = model.loss(TOKENS.astype(dtype), TARGETS.astype(dtype))
    assert loss == model.loss(TOKENS, TARGETS)


def test_a_token_out_of_range_is_refused_by_generate_at_the_call(model: GPT) -> None:
    with pytest.raises(ValueError, match=r"\[0, 7\)"):
        model.generate(np.array([1, V]), 3)


def test_generate_names_the_place_in_the_prompt_it_was_given(model: GPT) -> None:
    prompt = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, V, 6]])  # Two longer than the block.
    with pytest.raises(ValueError, match=r"tokens\[1, 4\] is 7"):
        model.generate(prompt, 3)


def test_a_model_with_no_decoder_of_its_own_reads_the_latest_tokens_anew(model: GPT) -> None:
    text = np.random.default_rng(0).integers(0, V, (2, 9))
    read = LanguageModel.decoder(model, 2)
    read(text[:, :3])
    for end in range(4, 10):
        expected = model.logits(text[:, max(0, end - T) : end])[:, -1]
        np.testing.assert_array_equal(read(text[:, end - 1 : end]), expected)


def test_a_bigrams_decoder_gives_the_row_of_the_last_token() -> None:
    bigram = Bigram(V)
    found = bigram.decoder(2)(TOKENS)
    np.testing.assert_array_equal(found, bigram.params["wte.weight"][TOKENS[:, -1]])


def test_a_bigram_takes_texts_of_any_length() -> None:
    assert Bigram(V).logits(np.zeros((1, 1000), np.int64)).shape == (1, 1000, V)


@pytest.mark.parametrize("dtype", ["float16", "int64", "double"])
def test_a_dtype_other_than_float32_and_float64_is_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match='must be "float32" or "float64"'):
        GPT(CONFIG, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_have_the_dtype_of_the_model(dtype: str) -> None:
    assert GPT(CONFIG, dtype=dtype).logits(TOKENS).dtype == dtype


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_model_says_its_size(backend: str) -> None:
    gpt = GPT(CONFIG, backend=backend)
    expected = "1 layer, 2 heads, 6 channels, block 4, vocabulary 7, float32"
    assert repr(gpt) == f"<GPT: 516 parameters, {expected}, {backend}>"
    bigram = Bigram(1234, dtype="float64", backend=backend)
    size = "1,522,756 parameters, vocabulary 1,234, float64"
    assert repr(bigram) == f"<Bigram: {size}, {backend}>"


def test_a_model_with_operations_of_its_own_says_so(model: GPT) -> None:
    other = Bigram(2)
    other.ops = None
    assert repr(other).endswith("other operations>")
