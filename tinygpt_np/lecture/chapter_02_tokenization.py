"""00:09:28 Tokenization, train/val split

Text becomes integers. Here a token is a character. Larger tokens, such as GPT-2's byte pairs or
SentencePiece's pieces, make shorter sequences at the price of a larger vocabulary.
"""

from collections.abc import Callable

import numpy as np

from tinygpt_np.lecture.workbench import load_data
from tinygpt_np.text.tokenizers import (
    GPT2Tokenizer,
    MissingPackageError,
    SentencePieceTokenizer,
    Tokenizer,
    TokenizerError,
)

SENTENCE = "hii there, my lord"


def show(name: str, make: Callable[[], Tokenizer]) -> None:
    """Print the tokens of the sentence, or a line that explains why there are none."""
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
    tokenizer, train, val = load_data()
    text = tokenizer.decode(train)
    print(f"one sentence, split in three ways: {SENTENCE!r}\n")
    show("char", lambda: tokenizer)
    show("gpt2", GPT2Tokenizer.from_cache)
    show("sentencepiece", lambda: SentencePieceTokenizer.train(text))

    print("\nin the video: 'hii there' is 46 47 47 1 58 46 43 56 43 in its 65 characters, which")
    print("start with '\\n', ' ', '!', '$'; without '$' and '3' the ids are lower.")
    print("For GPT-2: 71 4178 612")

    print(f"\nthe whole text becomes {len(train) + len(val):,} integers, and starts")
    print(np.array2string(train[:60], max_line_width=100))
    print(f"\nthe first 90 % is for training ({len(train):,}), the rest to validate ({len(val):,})")
    print("in the video: 1,003,854 and 111,540, of a shorter text")
    print("It is split by position: the validation part is text that training never sees.")


if __name__ == "__main__":
    main()
