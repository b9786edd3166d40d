"""00:09:28 Tokenization, train/val split

Text becomes integers. Here a token is a character; larger pieces make shorter texts, at the price
of a larger vocabulary. tiktoken and SentencePiece, which cut so, are shown where installed.
"""

import io
from collections.abc import Callable
from importlib import import_module

import numpy as np

from tinygpt_np.lecture.workbench import text_and_splits

SENTENCE = "hii there, my lord"


def gpt2() -> tuple[int, list[int], list[str]]:
    """The sentence in GPT-2's vocabulary, by tiktoken: vocabulary size, ids, pieces."""
    model = import_module("tiktoken").get_encoding("gpt2")
    ids: list[int] = model.encode(SENTENCE)
    return model.n_vocab, ids, [model.decode([i]) for i in ids]


def learned(text: str) -> tuple[int, list[int], list[str]]:
    """The sentence in a vocabulary that SentencePiece learns from the text: the same three."""
    library, file = import_module("sentencepiece"), io.BytesIO()
    learn, lines = library.SentencePieceTrainer.train, iter(text.splitlines())
    learn(sentence_iterator=lines, model_writer=file, vocab_size=500, minloglevel=2)
    model = library.SentencePieceProcessor(model_proto=file.getvalue())
    return model.vocab_size(), model.encode(SENTENCE), model.encode(SENTENCE, out_type=str)


def show(package: str, cut: Callable[[], tuple[int, list[int], list[str]]]) -> None:
    """Prints the sentence as `cut` cuts it, or a line that says why it cannot."""
    try:
        size, ids, pieces = cut()
        print(f"{package:<15}{len(ids)} of {size:,} tokens: {ids}\n{'':15}{pieces}")
    except ImportError:
        print(f"{package:<15}not installed; pip install {package} shows it")
    except (OSError, ValueError) as error:
        print(f"{package:<15}its vocabulary cannot be downloaded: {type(error).__name__}")


def main() -> None:
    tokenizer, train, val = text_and_splits()
    ids = tokenizer.encode(SENTENCE)  # (T,)
    print(f"one sentence, three ways to cut it: {SENTENCE!r}\n")
    print(f"characters     {len(ids)} of {tokenizer.vocab_size} tokens:")
    print(f"               {ids.tolist()}")
    print(f"  and back     {tokenizer.decode(ids)!r}")
    show("tiktoken", gpt2)
    show("sentencepiece", lambda: learned(tokenizer.decode(train[:200_000])))

    print(f"\nthe whole text becomes {len(train) + len(val):,} integers, and starts")
    print(np.array2string(train[:60], max_line_width=100))
    print(f"\nthe first 90 % is to train on ({len(train):,}), the rest to validate ({len(val):,}).")
    print("It is cut by position: validation is a part of the text never seen.")


if __name__ == "__main__":
    main()
