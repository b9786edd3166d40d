"""00:22:11 Simplest baseline: bigram language model, loss, generation

How good is a model that knows nothing? The model is a table with one row per character: the scores,
called logits, of the character that follows it. Untrained, it should have the loss of a uniform
guess, ln V. Its loss is higher, in the video too (4.8786 instead of 4.17), and this chapter shows
why.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.config import generator
from tinygpt_np.lecture.workbench import load_data, try_it
from tinygpt_np.text import batches


def main() -> None:
    # %% The table and its loss
    # Each token looks up its row of the table. Softmax turns the row into probabilities, and the
    # loss is the mean of -ln p(target). A table of random numbers knows nothing about the text, so
    # each of the V characters should get about 1/V, and we expect a loss of ln V.

    tokenizer, train, _ = load_data()
    V, rng = tokenizer.vocab_size, generator(1337, "init")
    # (B, T), those of chapter 3
    tokens, targets = batches.random_batch(train, 4, 8, generator(1337, "data"))
    x, y = tokens.reshape(-1), targets.reshape(-1)  # (N,)

    table = rng.standard_normal((V, V))  # (V, V)
    logits = table[x]  # (N, V)
    probs, _ = ops.softmax.forward(logits)  # (N, V)
    loss = -np.log(probs[np.arange(len(y)), y]).mean()  # ()
    print(f"tokens {tokens.shape} -> logits {logits.shape}: {V} scores for each token")
    print("                                      here     in the video")
    print(f"expected: a uniform guess, ln V       {np.log(V):.4f}   4.1744")
    print(f"loss, the mean of -ln p(target)       {loss:.4f}   4.8786")
    print(f"  by ops.cross_entropy                {ops.cross_entropy.forward(logits, y)[0]:.4f}")
    print(f"vocabulary size, V                    {V}       65")

    # %% Why is the loss higher than ln V?
    # The scores are not equal: they prefer some characters, and by chance the wrong ones. The loss
    # is ln Σ exp(l) minus the score of the target. That score is 0 on average, but the mean of
    # exp(l) is √e, not 1. So we expect ln V + 1/2, and a little less for a finite V, because the
    # logarithm of a sum that varies is smaller on average than the logarithm of its mean.
    #
    # If this is the reason, scores near 0 have no preferences, and their loss is ln V.

    # E ln Σ exp(l) = ln V + ln E[exp l] less what the spread of the sum takes
    predicted = np.log(V) + 1 / 2 - (np.e - 1) / (2 * V)
    tables = (rng.standard_normal((V, V)) for _ in range(1000))  # (V, V)
    losses = [ops.cross_entropy.forward(each[x], y)[0] for each in tables]
    spread = np.std(losses)
    small = ops.cross_entropy.forward(0.01 * logits, y)[0]  # ()
    print(f"expected for random scores:  {predicted:.2f}")
    print(f"  1000 tables: {np.mean(losses):.2f} on average, standard deviation {spread:.2f}")
    print(f"expected without preferences: {np.log(V):.2f}")
    print(f"  the first table x 0.01: {small:.2f}")

    # %% Why does the video have another loss?
    # Its batch is as large as this one, but from another text, and PyTorch's generator fills its
    # table. A batch of 32 targets is small, so the loss varies from table to table. Both losses are
    # plausible if they are within about two standard deviations of what we expect.

    here = (loss - predicted) / spread
    video = (4.8786 - predicted - np.log(65 / V)) / spread
    print(f"{abs(here):.1f} standard deviations {side(here)} the expectation (here) and")
    print(f"{abs(video):.1f} {side(video)} it (video)")

    # %% Generation
    # A model that gives probabilities can write: draw a character from the row of the one before,
    # and repeat. The table has seen no text yet, so we expect no words.

    token, written = 0, list[int]()
    for _ in range(70):
        probs, _ = ops.softmax.forward(table[token])  # (V,)
        token = int(rng.choice(V, p=probs))
        written.append(token)
    print(repr(tokenizer.decode(written)))

    # %% Try it
    # A large model should start without preferences too. GPT-2's weights start 50 times smaller
    # than those of this table. What is its first loss?

    try_it(
        "tinygpt train --preset smoke --max-iters 1",
        "Look for the loss at step 0. It is ln V, without the half that random scores add.",
    )


def side(difference: float) -> str:
    """Return "below" or "above" for a difference."""
    return "below" if difference < 0 else "above"


if __name__ == "__main__":
    main()
