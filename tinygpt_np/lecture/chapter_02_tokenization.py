"""00:09:28 Tokenization, train/val split

Text becomes integers. Here a token is a character; larger pieces make shorter texts, at the price
of a larger vocabulary. GPT-2's byte pairs and SentencePiece's pieces are such.
"""

from collections.abc import Callable

import numpy as np

from tinygpt_np.lecture.workbench import text_and_splits
from tinygpt_np.tokenizers import (
    GPT2Tokenizer,
    MissingPackageError,
    SentencePieceTokenizer,
    Tokenizer,
    TokenizerError,
)

SENTENCE = "hii there, my lord"


def show(name: str, make: Callable[[], Tokenizer]) -> None:
    """Prints the sentence as a tokenizer cuts it, or a line that says why it cannot."""
    try:
        tokenizer = make()
    except MissingPackageError as error:
        print(f"{name:<15}{error}")
        return
    except TokenizerError:
        print(f"{name:<15}cannot be downloaded; tinygpt tokenize hii --tokenizer {name} says more")
        return
    ids = tokenizer.encode(SENTENCE)  # (T,)
    pieces = list(tokenizer.stream(ids.tolist()))
    print(f"{name:<15}{len(ids)} of {tokenizer.vocab_size:,} tokens:")
    print(f"{'':15}{ids.tolist()}")
    print(f"{'':15}{'|'.join(pieces)}")
    print(f"{'  and back':<15}{tokenizer.decode(ids)!r}")


def main() -> None:
    tokenizer, train, val = text_and_splits()
    text = tokenizer.decode(train)
    print(f"one sentence, three ways to cut it: {SENTENCE!r}\n")
    show("char", lambda: tokenizer)
    show("gpt2", GPT2Tokenizer.from_cache)
    show("sentencepiece", lambda: SentencePieceTokenizer.train(text))

    print(f"\nthe whole text becomes {len(train) + len(val):,} integers, and starts")
    print(np.array2string(train[:60], max_line_width=100))
    print(f"\nthe first 90 % is to train on ({len(train):,}), the rest to validate ({len(val):,}).")
    print("It is cut by position: validation is a part of the text never seen.")


if __name__ == "__main__":
    main()
