"""00:09:28 Tokenization, train/val split

A model computes with numbers: how does text become integers? Here a token is a character. Larger
tokens, such as GPT-2's byte pairs or SentencePiece's pieces, make shorter sequences at the price of
a larger vocabulary.
"""

from collections.abc import Callable

import numpy as np

from tinygpt_np.lecture.workbench import load_data, try_it
from tinygpt_np.text import corpus
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
        print(f"{name}\n  {error}")
        return
    except TokenizerError:
        print(f"{name}\n  cannot be downloaded; see tinygpt tokenize hii --tokenizer {name}")
        return
    ids = tokenizer.encode(SENTENCE)  # (T,)
    pieces = "|".join(tokenizer.stream(ids.tolist()))
    print(f"{name}: {len(ids)} of {tokenizer.vocab_size:,} tokens")
    print(f"  {ids.tolist()}\n  {pieces}")


def main() -> None:
    # %% A number for each character
    # The simplest tokenizer numbers the sorted characters of the text, and looks them up. Nothing
    # is lost, so decoding must give the sentence back, and the sentence must have one token for
    # each of its characters.

    text = corpus.load("shakespeare").text
    chars = sorted(set(text))
    number = {char: i for i, char in enumerate(chars)}
    ids = [number[char] for char in SENTENCE]  # (T,)
    back = "".join(chars[i] for i in ids)
    print(f"expected: {len(SENTENCE)} tokens")
    print(f"{len(ids)} tokens: {ids}")
    print(f"and back: {back!r}")
    print("\nin the video: 'hii there' is 46 47 47 1 58 46 43 56 43 in its 65 characters,")
    print("which start with '\\n', ' ', '!', '$'; without '$' and '3' the ids are lower.")

    # %% Larger tokens
    # A vocabulary with frequent pieces of words needs fewer tokens for the same sentence. The model
    # then has fewer steps to take and sees more text in a context of the same length, but each step
    # is a choice among more tokens, and the tables of the model grow with V. We expect fewer
    # tokens, the larger the vocabulary is. The lecture stays with characters, because they keep V
    # small.

    tokenizer, train, val = load_data()
    training_text = tokenizer.decode(train)
    makers: dict[str, Callable[[], Tokenizer]] = {
        "char": lambda: tokenizer,
        "sentencepiece": lambda: SentencePieceTokenizer.train(training_text),
        "gpt2": GPT2Tokenizer.from_cache,
    }
    for name, make in makers.items():
        show(name, make)
    print("\nin the video, GPT-2's tokens of 'hii there': 71 4178 612, of 50,257")

    # %% A part to train on, and a part to validate
    # A model could memorise the text instead of learning how English works. To tell the difference,
    # the last tenth is kept away from training. It is cut by position, not at random: neighbouring
    # characters belong together, so a random choice would leave most of each validation sentence in
    # the training part.

    expected = round(0.9 * len(text))
    print(f"the whole text becomes {len(train) + len(val):,} integers, and starts")
    print(np.array2string(train[:40], max_line_width=80))
    print(f"expected: {expected:,} for training, {len(text) - expected:,} to validate")
    print(f"the split of the library: {len(train):,} and {len(val):,}")
    print("in the video: 1,003,854 and 111,540, of a shorter text")

    # %% Try it
    # SentencePiece learns its pieces from the text. Give it a smaller vocabulary than 1,024.

    try_it(
        "tinygpt tokenize 'my lord' --tokenizer sentencepiece --vocab-size 400",
        "Does it still have a token for the word lord, or does it spell it? (The "
        "package sentencepiece is needed: pip install 'tinygpt-np[tokenizers]'.)",
    )


if __name__ == "__main__":
    main()
