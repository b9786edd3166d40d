"""00:07:52 Reading and exploring the data

What a language model of characters sees: one long string, and the set of characters in it.
"""

from tinygpt_np import data


def main() -> None:
    text = data.load("shakespeare").text
    print("length of the text in characters:", f"{len(text):,}")
    print("\nthe first 1000 characters:\n")
    print(text[:1000])

    chars = sorted(set(text))
    print("\nall the characters that occur, in order:", repr("".join(chars)))
    print("vocabulary size:", len(chars))


if __name__ == "__main__":
    main()
