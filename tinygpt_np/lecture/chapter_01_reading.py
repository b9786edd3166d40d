"""00:07:52 Reading and exploring the data

What does a character-level language model see, and how much is there to learn from? It sees one
long string and the set of characters in it.
"""

import numpy as np

from tinygpt_np.lecture.workbench import try_it
from tinygpt_np.text import corpus


def main() -> None:
    # %% The text
    # Everything that the model will know about English comes from this string. An English word has
    # about 4.5 letters, and a space or a sign follows it, so we expect about 5.5 characters per
    # word.

    text = corpus.load("shakespeare").text
    words = text.split()
    print(f"length of the text in characters: {len(text):,} (in the video: 1,115,394)")
    print(f"characters per word: {len(text) / len(words):.2f}")
    print("\nthe first 1000 characters:\n")
    print(text[:1000])

    # %% The characters
    # The distinct characters are the vocabulary: the model chooses one of them at each step. We
    # expect 26 small and 26 capital letters, the space and the line break, and some signs.

    chars = sorted(set(text))
    letters = sum(char.isalpha() for char in chars)
    print("all the distinct characters, sorted:\n" + repr("".join(chars)))
    print(f"expected: {26 + 26 + 2}, and some signs")
    print(f"vocabulary size: {len(chars)}, of which {letters} are letters (in the video: 65)")
    print("The video's text is tiny Shakespeare. This one is nine plays from other")
    print("editions, without its '$' and '3'.")

    # %% How hard is it to guess a character?
    # A model that knows only how many characters there are gives each of them 1/V, and pays ln V
    # nats per character. Characters are not equally frequent, though: a model that knows how often
    # each occurs pays the entropy of these frequencies, which is lower. Both are guesses without
    # any context, so every model of this lecture should get below them.

    ids = np.searchsorted(chars, list(text))  # (M,)
    frequencies = np.bincount(ids) / len(ids)  # (V,)
    uniform = np.log(len(chars))
    entropy = -(frequencies * np.log(frequencies)).sum()  # ()
    often = np.argsort(-frequencies)[:5]  # (5,)
    top = ", ".join(f"{chars[i]!r} {frequencies[i]:.1%}" for i in often)
    print(f"the most frequent characters: {top}")
    print(f"loss of a guess that knows V alone, ln V: {uniform:.2f}")
    print(f"loss of a guess that knows the frequencies: {entropy:.2f}")
    print("Chapter 5 looks at one character of context, and pays less than either.")

    # %% Try it
    # The vocabulary is what the text contains, and nothing else. What happens to a text with a
    # character that is not in it?

    try_it(
        "tinygpt tokenize 'It costs $3'",
        "The message names the character: a model of characters has no number for one that it has "
        "never seen. Chapter 2 shows tokens that can spell any text.",
    )


if __name__ == "__main__":
    main()
