"""00:22:11 Simplest baseline: bigram language model, loss, generation

A table with a row for each character: the logits of what follows it. Untrained, it should be as
surprised as one who knows nothing, ln V; it is more surprised, and the reason is worth knowing.
"""

import numpy as np

from tinygpt_np import data, ops
from tinygpt_np.config import generator
from tinygpt_np.lecture.workbench import text_and_splits


def main() -> None:
    tokenizer, train, _ = text_and_splits()
    V, rng = tokenizer.vocab_size, generator(1337, "init")
    tokens, targets = data.random_batch(train, 32, 8, generator(1337, "data"))  # (B, T)
    x, y = tokens.reshape(-1), targets.reshape(-1)  # (N,)

    table = rng.standard_normal((V, V))  # (V, V)
    logits = table[x]  # (N, V)
    probs, _ = ops.softmax.forward(logits)  # (N, V)
    loss = -np.log(probs[np.arange(len(y)), y]).mean()  # ()
    print(f"tokens {tokens.shape} -> logits {logits.shape}: a row of {V} scores for each token")
    print(f"loss, the mean of -ln p(target)    {loss:.4f}")
    print(f"  ops.cross_entropy says           {ops.cross_entropy.forward(logits, y)[0]:.4f}")
    print(f"loss of a uniform guess, ln V      {np.log(V):.4f}  (V is {V}; the lecture's 65: 4.17)")

    tables = (rng.standard_normal((V, V)) for _ in range(1000))  # (V, V)
    losses = [ops.cross_entropy.forward(each[x], y)[0] for each in tables]
    # E ln Σ exp(l) = ln V + ln E[exp l] less what the spread of the sum takes, (e - 1) / 2V.
    predicted = np.log(V) + 1 / 2 - (np.e - 1) / (2 * V)
    print(
        "\nWhy higher? Random scores are firm opinions, and wrong: exp(l) is √e in the mean, not 1,"
    )
    print(f"so ln V + 1/2 is to be expected, or {predicted:.2f}, as V is finite.")
    print(f"  1000 tables: {np.mean(losses):.2f} on average, give or take {np.std(losses):.2f}")
    small = ops.cross_entropy.forward(0.01 * logits, y)[0]  # ()
    print(f"  the same table x 0.01, no opinions left: {small:.2f}\n")

    token, written = 0, list[int]()
    for _ in range(80):
        probs, _ = ops.softmax.forward(table[token])  # (V,)
        token = int(rng.choice(V, p=probs))
        written.append(token)
    print("80 characters from the untrained table, each drawn from the row of the one before:")
    print(repr(tokenizer.decode(written)))


if __name__ == "__main__":
    main()
