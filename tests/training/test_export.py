"""nanoGPT's checkpoints, runs and saved models are converted to folders of transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.nanogpt_checkpoints import CONFIG, VOCABULARY, contents, generic
from helpers.optional import needs
from helpers.tiny_run import TEXT

from tinygpt_np import GPT, CharTokenizer, GPTConfig
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.training import runs
from tinygpt_np.training.export import convert

torch: Any = needs("torch")


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Return the path of the text that the models of these tests were trained on."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return str(tmp_path / "text.txt")


@pytest.mark.parametrize(("source", "dtype"), [("ckpt.pt", "float32"), ("saved", "float64")])
def test_a_model_is_converted_exactly_with_the_characters_of_its_text(
    tmp_path: Path, text: str, source: str, dtype: str
) -> None:
    model = generic(replace(CONFIG, bias=source == "saved"), dtype)
    if source == "saved":
        model.save(tmp_path / source)
    else:
        torch.save(contents(model), tmp_path / source)
    convert(str(tmp_path / source), tmp_path / "out", text)
    found, tokenizer = runs.load(tmp_path / "out", dtype=dtype)
    assert found.config == CONFIG  # A GPT-2 has biases; those of the nanoGPT are zeros.
    for name, param in model.params.items():
        np.testing.assert_array_equal(found.params[name], param, err_msg=name)
    assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()


LLAMA = replace(
    CONFIG, norm="rms_norm", positions="rotary_halves", activation="swiglu", tied_head=False
)


@pytest.mark.parametrize("config", [CONFIG, LLAMA], ids=["GPT-2", "Llama"])
def test_a_folder_of_transformers_is_converted_to_a_copy(tmp_path: Path, config: GPTConfig) -> None:
    generic(config).save_pretrained(tmp_path / "gpt", CharTokenizer.from_text(TEXT))
    convert(str(tmp_path / "gpt"), tmp_path / "out", None)
    for path in (tmp_path / "gpt").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("characters", [VOCABULARY, VOCABULARY + 1])
def test_a_byte_order_mark_is_a_character_if_the_model_has_one_more(
    tmp_path: Path, characters: int
) -> None:
    torch.save(contents(generic(replace(CONFIG, vocab_size=characters))), tmp_path / "ckpt.pt")
    (tmp_path / "text.txt").write_text("\ufeff" + TEXT, encoding="utf-8")
    _, tokenizer = convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", str(tmp_path / "text.txt"))
    assert isinstance(tokenizer, CharTokenizer)
    assert tokenizer.vocab_size == characters
    assert ("\ufeff" in tokenizer.vocabulary) == (characters > VOCABULARY)


def test_a_source_that_does_not_fit_is_refused(tmp_path: Path, trained: Path) -> None:
    torch.save(contents(generic(CONFIG)), tmp_path / "ckpt.pt")
    (tmp_path / "text.txt").write_text("abc" * 99, encoding="utf-8")
    with pytest.raises(CheckpointError, match="has 3 characters, but the model was trained on 18"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", str(tmp_path / "text.txt"))
    with pytest.raises(ValueError, match=r"a model without a tokenizer; .*/run has its own"):
        convert(str(trained), tmp_path / "out", "shakespeare")
    (path := tmp_path / "tokenizer.json").write_text('{"vocabulary": ["a", "b"]}')
    with pytest.raises(CheckpointError, match="has 2 tokens, but the model has 18"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out", None, str(path))
    (tmp_path / "out").mkdir()
    for source in (str(trained), "nothing"):  # Refused before anything is read.
        with pytest.raises(CheckpointError, match="exists already, and nothing is overwritten"):
            convert(source, tmp_path / "out", None)


def test_a_model_without_a_tokenizer_is_converted_only_with_one(
    tmp_path: Path, text: str, trained: Path
) -> None:
    torch.save(contents(generic(CONFIG)), tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=r"18 tokens, but no tokenizer.*add --text FILE"):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder = runs.last_checkpoint(trained)[0]
    ways = ({"text": text}, {"tokenizer_path": str(folder)})
    for number, way in enumerate(ways):
        convert(str(tmp_path / "ckpt.pt"), tmp_path / f"out-{number}", **way)
        # The converted folder can be sampled, and converted again.
        convert(str(tmp_path / f"out-{number}"), tmp_path / f"again-{number}")
        _, tokenizer = runs.load(tmp_path / f"again-{number}")
        assert tokenizer.files() == CharTokenizer.from_text(TEXT).files()


def test_a_ckpt_with_gpt2s_tokens_needs_no_tokenizer(tmp_path: Path) -> None:
    config = GPTConfig(vocab_size=50304, block_size=4, n_layer=1, n_head=1, n_embd=2, bias=True)
    torch.save(contents(GPT(config)), tmp_path / "ckpt.pt")
    for source, out in (("ckpt.pt", "out"), ("out", "again")):
        model, tokenizer = convert(str(tmp_path / source), tmp_path / out)
        assert (model.vocab_size, tokenizer) == (50304, None)
