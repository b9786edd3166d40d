"""Convert a run, a saved model or a nanoGPT checkpoint to a folder that transformers loads."""

from pathlib import Path

from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage import files, nanogpt
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.text import corpus as data
from tinygpt_np.text import tokenizers
from tinygpt_np.text.corpus import BYTE_ORDER_MARK
from tinygpt_np.text.tokenizers import CharTokenizer, Tokenizer
from tinygpt_np.training import runs


def convert(
    source: str, out: Path, text: str | None = None, tokenizer_path: str = ""
) -> tuple[GPT, Tokenizer | None]:
    """Write the folder `out`, which must not exist, from a ckpt.pt, a run or another model.

    Parameters
    ----------
    source : str
        A ckpt.pt, or a model as runs.find finds it.
    out : Path
        The new folder.
    text : str, optional
        For a model of characters without a tokenizer, as in every ckpt.pt: the text that it was
        trained on (see data.load), for the vocabulary.
    tokenizer_path : str
        For another model without a tokenizer: the files of its tokenizer.

    Returns
    -------
    tuple of GPT and Tokenizer or None
        What was written. Only a model with as many tokens as GPT-2 may have no tokenizer.

    Raises
    ------
    CheckpointError
        If the source is no such model, or its tokenizer is missing or does not fit.
    """
    files.refuse_existing(out)
    if Path(source).is_file():
        config, params = nanogpt.load(Path(source))
        model, tokenizer = GPT(config, params=params), None
    else:
        model, tokenizer = runs.read(runs.find(source))
    if tokenizer is None:
        tokenizer = tokenizer_for(model, source, text, tokenizer_path)
    elif text is not None or tokenizer_path:
        raise ValueError(
            f"--text and --tokenizer-path are for a model without a tokenizer; {source} has its own"
        )
    model.save_pretrained(out, tokenizer)
    return model, tokenizer


def tokenizer_for(
    model: GPT, source: str, text: str | None, tokenizer_path: str
) -> Tokenizer | None:
    """Return the tokenizer that a text or its files make; None for GPT-2's, which is known."""
    if text is not None:
        return characters(text, model.vocab_size)
    if tokenizer_path:
        tokenizer = tokenizers.from_path(Path(tokenizer_path))
        runs.check_vocabulary(Path(source), model, tokenizer)
        return tokenizer
    if model.vocab_size < runs.GPT2_TOKENS:
        raise CheckpointError(
            f"{source} has a model of {model.vocab_size} tokens, but no tokenizer, and could not "
            "be sampled: add --text FILE, the text that a model of characters was trained on, or "
            "--tokenizer-path PATH, the files of its tokenizer"
        )
    return None


def characters(text: str, vocab_size: int) -> CharTokenizer:
    """Return nanoGPT's characters: those of the text, sorted; it keeps them in a pickle.

    A byte order mark is one of them, if the file was prepared by nanoGPT.
    """
    corpus = data.load(text, keep_mark=True)
    plain = CharTokenizer.from_text(corpus.text.removeprefix(BYTE_ORDER_MARK))
    for found in (plain, CharTokenizer.from_text(corpus.text)):
        if found.vocab_size == vocab_size:
            return found
    raise CheckpointError(
        f"{corpus.name} has {plain.vocab_size} characters, but the model was trained on "
        f"{vocab_size}: it is another text"
    )
