"""00:22:11 Simplest baseline: bigram language model, loss, generation

The model is a table with one row per character: the logits of the character that follows it. An
untrained model should have the loss of a uniform guess, ln V. Its loss is higher, in the video too
(4.8786 instead of 4.17), and this chapter shows why.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.config import generator
from tinygpt_np.lecture.workbench import load_data
from tinygpt_np.text import batches


def main() -> None:
    tokenizer, train, _ = load_data()
    V, rng = tokenizer.vocab_size, generator(1337, "init")
    # (B, T), those of chapter 3
    tokens, targets = batches.random_batch(train, 4, 8, generator(1337, "data"))
    x, y = tokens.reshape(-1), targets.reshape(-1)  # (N,)

    table = rng.standard_normal((V, V))  # (V, V)
    logits = table[x]  # (N, V)
    probs, _ = ops.softmax.forward(logits)  # (N, V)
    loss = -np.log(probs[np.arange(len(y)), y]).mean()  # ()
    print(f"tokens {tokens.shape} -> logits {logits.shape}: a row of {V} scores for each token")
    print("                                      here     in the video")
    print(f"loss, the mean of -ln p(target)       {loss:.4f}   4.8786")
    print(f"  by ops.cross_entropy                {ops.cross_entropy.forward(logits, y)[0]:.4f}")
    print(f"loss of a uniform guess, ln V         {np.log(V):.4f}   4.1744")
    print(f"  with a vocabulary of                {V}       65")

    tables = (rng.standard_normal((V, V)) for _ in range(1000))  # (V, V)
    losses = [ops.cross_entropy.forward(each[x], y)[0] for each in tables]
    # E ln Σ exp(l) = ln V + ln E[exp l] less what the spread of the sum takes, (e - 1) / 2V.
    predicted = np.log(V) + 1 / 2 - (np.e - 1) / (2 * V)
    print("\nWhy is it higher? Random scores prefer some characters, and the wrong ones: the mean")
    print(f"of exp(l) is √e, not 1, so about ln V + 1/2 is expected, for finite V {predicted:.2f}.")
    spread = np.std(losses)
    print(f"  1000 tables: {np.mean(losses):.2f} on average, standard deviation {spread:.2f}")
    small = ops.cross_entropy.forward(0.01 * logits, y)[0]  # ()
    print(f"  the same table x 0.01, without preferences: {small:.2f}")
    here, video = (loss - predicted) / spread, (4.8786 - predicted - np.log(65 / V)) / spread
    print("\nWhy does the video have another loss? Its batch is as large as this one, but of")
    print("another text, and PyTorch's generator fills its table. Random tables vary, and both are")
    print(f"plausible: {abs(here):.1f} standard deviations {side(here)} the expectation (here) and")
    print(f"{abs(video):.1f} {side(video)} it (video).\n")

    token, written = 0, list[int]()
    for _ in range(80):
        probs, _ = ops.softmax.forward(table[token])  # (V,)
        token = int(rng.choice(V, p=probs))
        written.append(token)
    print("80 characters from the untrained table, each drawn from the row of the one before:")
    print(repr(tokenizer.decode(written)))


def side(difference: float) -> str:
    """Return "below" or "above" for a difference."""
    return "below" if difference < 0 else "above"


if __name__ == "__main__":
    main()
