"""00:14:27 Data loader: batches of chunks of data

The text is too long for one step of training: what does the model see at once? It sees a batch of
short sequences, which the video calls chunks. A sequence of nine tokens holds eight examples, one
for each context length. So the model learns to continue from one character as well as from eight.
"""

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.lecture.workbench import load_data, try_it
from tinygpt_np.text import batches

BATCH_SIZE, BLOCK_SIZE = 4, 8


def main() -> None:
    # %% Many examples in one sequence
    # To predict a token, the model may use all tokens before it, up to `block_size` of them. So the
    # targets are the same text, shifted by one, and each position is an example of its own. We
    # expect as many examples as the context has tokens, although the sequence has one token more.

    tokenizer, train, _ = load_data()
    sequence = train[: BLOCK_SIZE + 1]  # (T+1,)
    x, y = sequence[:-1], sequence[1:]  # (T,)
    print(f"{len(sequence)} tokens: {sequence.tolist()}, that is {tokenizer.decode(sequence)!r}")
    print(f"expected: {BLOCK_SIZE} examples\n")
    for t in range(BLOCK_SIZE):
        context, target = x[: t + 1], y[t]
        after = f"after {tokenizer.decode(context)!r:<12}"
        comes = f"comes {tokenizer.decode([int(target)])!r}"
        print(f"  {after} {comes}    {context.tolist()} -> {target}")
    print("\nin the video: [18, 47, 56, 57, 58, 1, 15, 47, 58], that is 'First Cit'")

    # %% A batch
    # A processor is fastest with many equal operations at once, so several sequences are stacked.
    # They do not see each other. They come from random places: neighbouring sequences are alike,
    # and the gradient of a few of them would say little about the rest of the text.

    rng = generator(1337, "data")
    # (B, T)
    tokens, targets = batches.random_batch(train, BATCH_SIZE, BLOCK_SIZE, rng)
    same = np.array_equal(tokens[:, 1:], targets[:, :-1])
    print(f"tokens {tokens.shape}\n{tokens}")
    print(f"targets {targets.shape}\n{targets}")
    print(f"the targets are the tokens, shifted by one: {same}\n\nas text:")
    for row, target_row in zip(tokens, targets, strict=True):
        print(f"  {tokenizer.decode(row)!r:<14} -> {tokenizer.decode(target_row)!r}")
    print(f"\n{BATCH_SIZE} x {BLOCK_SIZE} = {targets.size} examples in one batch, as in the video")
    print('in the video: the first row is [24, 43, 58, 5, 57, 1, 46, 43], "Let\'s he";')
    print("PyTorch's generator draws other places, and its text is another")

    # %% How much of the text is in a batch?
    # The places are drawn independently, so some are drawn twice and some never. After n draws that
    # each take one of n parts, the chance that a part was never drawn is (1 - 1/n)^n, which is
    # about 1/e.

    size = BATCH_SIZE * BLOCK_SIZE
    starts = rng.integers(len(train) - BLOCK_SIZE, size=len(train) // BLOCK_SIZE)
    seen = np.zeros(len(train), bool)  # (M,)
    seen[starts[:, None] + np.arange(BLOCK_SIZE)] = True
    print(f"one batch: {size / len(train):.4%} of the training text")
    print(f"as many tokens as the text has, about {len(train) // size:,} batches")
    print(f"  expected: {1 - np.exp(-1):.1%} of the text has been seen")
    print(f"  measured: {seen.mean():.1%}")

    # %% Try it
    # A larger batch makes a more reliable gradient and a slower step. Train a small model with one
    # sequence in each batch, and then with 16.

    try_it(
        "tinygpt train --preset smoke --batch-size 1 --max-iters 300",
        "Compare the validation loss and the time with those of --batch-size 16.",
    )


if __name__ == "__main__":
    main()
