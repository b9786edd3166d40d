"""00:07:52 Reading and exploring the data

A character-level language model sees one long string and the set of characters in it.
"""

from tinygpt_np.text import corpus


def main() -> None:
    text = corpus.load("shakespeare").text
    print("length of the text in characters:", f"{len(text):,}")
    print("\nthe first 1000 characters:\n")
    print(text[:1000])

    chars = sorted(set(text))
    print("\nall the distinct characters, sorted:", repr("".join(chars)))
    print("vocabulary size:", len(chars))
    print("\nin the video: 1,115,394 characters, vocabulary size 65; that text is tiny")
    print("Shakespeare, this one is nine plays from other editions, without its '$' and '3'")


if __name__ == "__main__":
    main()
