"""00:14:27 Data loader: batches of chunks of data

A chunk of nine tokens holds eight examples, one for each context length. So the model learns to
continue from one character as well as from eight.
"""

from tinygpt_np.config import generator
from tinygpt_np.lecture.workbench import load_data
from tinygpt_np.text import batches

BATCH_SIZE, BLOCK_SIZE = 4, 8


def main() -> None:
    tokenizer, train, _ = load_data()
    chunk = train[: BLOCK_SIZE + 1]  # (T+1,)
    print(f"a chunk of {len(chunk)} tokens: {chunk.tolist()}, that is {tokenizer.decode(chunk)!r}")
    print(f"the {BLOCK_SIZE} examples in it:\n")
    x, y = chunk[:-1], chunk[1:]  # (T,)
    for t in range(BLOCK_SIZE):
        context, target = tokenizer.decode(x[: t + 1]), tokenizer.decode([int(y[t])])
        print(f"  after {context!r:<12} comes {target!r}    {x[: t + 1].tolist()} -> {y[t]}")

    print("\nin the video: [18, 47, 56, 57, 58, 1, 15, 47, 58], that is 'First Cit'")

    rng = generator(1337, "data")
    tokens, targets = batches.random_batch(train, BATCH_SIZE, BLOCK_SIZE, rng)  # (B, T)
    print(f"\na batch: {BATCH_SIZE} chunks from random places, stacked for one pass")
    print(f"\ntokens {tokens.shape}\n{tokens}")
    print(f"targets {targets.shape}, the same text shifted by one\n{targets}\n\nas text:")
    for row, target_row in zip(tokens, targets, strict=True):
        print(f"  {tokenizer.decode(row)!r:<14} -> {tokenizer.decode(target_row)!r}")
    print(f"\n{BATCH_SIZE} x {BLOCK_SIZE} = {targets.size} examples in one batch, as in the video")
    print("in the video: the first row is [24, 43, 58, 5, 57, 1, 46, 43], \"Let's he\"; PyTorch's")
    print("generator draws other places, and its text is another")


if __name__ == "__main__":
    main()
