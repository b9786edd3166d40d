"""00:34:53 Training the bigram model

How does a table learn? By small steps against the gradient of its loss. The lecture calls
loss.backward() here. By hand it is two lines: the gradient of each row of logits is its
probabilities minus the one-hot target, and these gradients add up in the rows of the table that the
tokens have read.
"""

import numpy as np

from tinygpt_np import Bigram
from tinygpt_np.config import generator
from tinygpt_np.lecture.workbench import load_data, show_losses, try_it
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.text import batches

STEPS, BATCH_SIZE, BLOCK_SIZE, LEARNING_RATE = 4000, 32, 8, 1e-2


def loss_and_gradient(
    table: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[float, np.ndarray]:
    """table (V, V), tokens x (N,), targets y (N,) -> loss, dtable (V, V)."""
    tokens, targets = np.eye(len(table))[x], np.eye(len(table))[y]  # (N, V)
    logits = tokens @ table  # (N, V) which is table[x]
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))  # (N, V)
    probs = exps / exps.sum(axis=-1, keepdims=True)  # (N, V)
    loss = -np.log((probs * targets).sum(axis=-1)).mean()  # ()
    # loss = mean of -ln p(target), p = softmax(logits)
    dlogits = (probs - targets) / len(x)  # (N, V)
    # logits = tokens @ table
    dtable = tokens.T @ dlogits  # (V, V) row x[n] receives dlogits[n]
    return float(loss), dtable


def main() -> None:
    # %% The gradient by hand
    # The loss of a token is ln Σ exp(l) - l[target]. The derivative of the first term is
    # softmax(l), that of the second is the one-hot target. So a step raises the score of the
    # target, and lowers every other score in proportion to its probability.
    #
    # Two predictions: each row of the gradient sums to 0, because adding a constant to all scores
    # changes no probability. And the row of a character that is not in the batch is 0.

    tokenizer, train, val = load_data()
    V, rng = tokenizer.vocab_size, generator(1337, "data")
    model = Bigram(V, dtype="float64")
    table = model.params["wte.weight"]  # (V, V) the optimizer updates it in place
    # (B, T)
    tokens, targets = batches.random_batch(train, BATCH_SIZE, BLOCK_SIZE, rng)
    x, y = tokens.reshape(-1), targets.reshape(-1)  # (N,)
    _, dtable = loss_and_gradient(table, x, y)
    by_library = model.loss_and_grads(tokens, targets)[1]["wte.weight"]  # (V, V)
    zero = (dtable == 0).all(axis=-1).sum()
    print(f"largest difference from the library: {np.abs(dtable - by_library).max():.1e}")
    print(f"largest sum of a row: {np.abs(dtable.sum(axis=-1)).max():.1e}")
    print(f"expected: {V - len(np.unique(x))} rows of zeros")
    print(f"rows of zeros: {zero}")

    # %% The best table
    # No training is needed to know how good the table can get. The best probabilities of a table
    # are the frequencies of the pairs in the text, and their loss is what training should reach.
    # Each count starts at 1, so that no pair has probability 0.

    counts = np.ones((V, V))  # (V, V)
    np.add.at(counts, (train[:-1], train[1:]), 1)
    frequencies = counts / counts.sum(axis=-1, keepdims=True)  # (V, V)
    counted = -np.log(frequencies[val[:-1], val[1:]]).mean()  # ()
    on_training = -np.log(frequencies[train[:-1], train[1:]]).mean()  # ()
    print(f"counting the pairs of the training text {counted:.3f}: no table is much better")
    print(f"its loss on the training text itself: {on_training:.3f}")
    print("The difference is small, because the table is: it cannot store the text, and the")
    print("pairs of other text have almost the same frequencies.")

    # %% Training
    # We expect the loss to start above ln V, as in chapter 4, and to approach that of counting from
    # above. It gets there slowly: rare characters are in few batches, so their rows are updated
    # rarely.

    optimizer = AdamW(model.params, 0.9, 0.999, weight_decay=0.01)
    losses: list[float] = []
    for _ in range(STEPS):
        tokens, targets = batches.random_batch(train, BATCH_SIZE, BLOCK_SIZE, rng)
        x, y = tokens.reshape(-1), targets.reshape(-1)  # (N,)
        loss, dtable = loss_and_gradient(table, x, y)
        optimizer.update(model.params, {"wte.weight": dtable}, LEARNING_RATE)
        losses.append(loss)
    after = model.loss(val[None, :-1], val[None, 1:])
    show_losses(losses)
    eighths = " ".join(f"{part.mean():.3f}" for part in np.array_split(losses, 8))
    print(f"{STEPS} steps, mean loss of each eighth:\n  {eighths}")
    print(f"expected: a little above {counted:.3f}, the loss of counting")
    print(f"validation loss after {after:.3f}")
    print("in the video: about 2.5, the loss of the last batch alone")

    # %% What it writes
    # The table knows only which character follows which. So we expect pairs that occur in English,
    # line breaks after punctuation, and no words but short ones that arise by chance.

    written = model.generate(tokenizer.encode("\n"), 300, seed=1337)
    print(tokenizer.decode(int(token) for token in written))

    # %% Try it
    # See the backward of the library's bigram next to its forward, line by line.

    try_it(
        "tinygpt study bigram",
        "Which line is tokens.T @ dlogits here? The library adds rows of dlogits up without the "
        "one-hot matrix.",
    )


if __name__ == "__main__":
    main()
