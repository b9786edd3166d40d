"""Convert a run, a saved model or a nanoGPT checkpoint to a folder that transformers loads."""

from pathlib import Path

from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage import files, nanogpt
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.text import corpus, tokenizers
from tinygpt_np.text.corpus import BYTE_ORDER_MARK
from tinygpt_np.text.tokenizers import CharTokenizer, Tokenizer
from tinygpt_np.training import runs


def convert(
    source: str, out: Path, text: str | None = None, tokenizer_path: str = ""
) -> tuple[GPT, Tokenizer | None]:
    """Convert a ckpt.pt, or a model that runs.find knows, to a new folder, and return its contents.

    text: for a character-level model without a tokenizer, such as every ckpt.pt, the text it was
    trained on. tokenizer_path: for another model without a tokenizer, the files of its tokenizer.
    The tokenizer is None only for a vocabulary of GPT-2's size. Raise CheckpointError if the source
    is not such a model, or its tokenizer is missing or does not fit.
    """
    files.refuse_existing(out)
    if Path(source).is_file():
        config, params = nanogpt.load(Path(source))
        model, tokenizer = GPT(config, params=params), None
    else:
        _, model, tokenizer = runs.load_model(source)
    if tokenizer is None:
        tokenizer = make_tokenizer(model, source, text, tokenizer_path)
    elif text is not None or tokenizer_path:
        raise ValueError(
            f"--text and --tokenizer-path are for a model without a tokenizer; {source} has its own"
        )
    model.save_pretrained(out, tokenizer)
    return model, tokenizer


def make_tokenizer(
    model: GPT, source: str, text: str | None, tokenizer_path: str
) -> Tokenizer | None:
    """Return the tokenizer for a text or from its files; None for GPT-2's, which is known."""
    if text is not None:
        return char_tokenizer(text, model.vocab_size)
    if tokenizer_path:
        tokenizer = tokenizers.from_path(Path(tokenizer_path))
        runs.check_vocabulary(Path(source), model, tokenizer)
        return tokenizer
    if model.vocab_size < runs.GPT2_TOKENS:
        raise CheckpointError(
            f"{source} has a model of {model.vocab_size} tokens, but no tokenizer to sample with: "
            "add --text FILE, the text that a character-level model was trained on, or "
            "--tokenizer-path PATH, the files of its tokenizer"
        )
    return None


def char_tokenizer(text: str, vocab_size: int) -> CharTokenizer:
    """Return the sorted characters of a text, the vocabulary that nanoGPT keeps in a pickle."""
    loaded = corpus.load(text, keep_mark=True)
    plain = CharTokenizer.from_text(loaded.text.removeprefix(BYTE_ORDER_MARK))
    # nanoGPT counts a byte order mark as a character.
    for tokenizer in (plain, CharTokenizer.from_text(loaded.text)):
        if tokenizer.vocab_size == vocab_size:
            return tokenizer
    raise CheckpointError(
        f"{loaded.name} has {plain.vocab_size} characters, but the model was trained on "
        f"{vocab_size}: it is another text"
    )
