"""00:34:53 Training the bigram model

The lecture calls loss.backward() here. By hand it is two lines: the gradient of each row of logits
is its probabilities minus the one-hot target, and these gradients add up in the rows of the table
that the tokens have read.
"""

import numpy as np

from tinygpt_np import Bigram
from tinygpt_np.config import generator
from tinygpt_np.lecture.workbench import load_data
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.text import batches

STEPS, BATCH_SIZE, BLOCK_SIZE, LEARNING_RATE = 4000, 32, 8, 1e-2


def loss_and_gradient(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """table (V, V), tokens x (N,), targets y (N,) -> loss, dtable (V, V)."""
    tokens, targets = np.eye(len(table))[x], np.eye(len(table))[y]  # (N, V) one-hot
    logits = tokens @ table  # (N, V) which is table[x]
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))  # (N, V)
    probs = exps / exps.sum(axis=-1, keepdims=True)  # (N, V)
    loss = -np.log((probs * targets).sum(axis=-1)).mean()  # ()
    # loss = mean of -ln p(target), p = softmax(logits)
    dlogits = (probs - targets) / len(x)  # (N, V)
    # logits = tokens @ table
    dtable = tokens.T @ dlogits  # (V, V) a scatter: row x[n] receives dlogits[n]
    return float(loss), dtable


def main() -> None:
    tokenizer, train, val = load_data()
    V, rng = tokenizer.vocab_size, generator(1337, "data")
    model = Bigram(V, dtype="float64")
    table = model.params["wte.weight"]  # (V, V) the optimizer updates it in place
    tokens, targets = batches.random_batch(train, BATCH_SIZE, BLOCK_SIZE, rng)  # (B, T)
    _, dtable = loss_and_gradient(table, tokens.reshape(-1), targets.reshape(-1))
    by_library = model.loss_and_grads(tokens, targets)[1]["wte.weight"]  # (V, V)
    print("dlogits = (probs - targets) / N, dtable = tokens.T @ dlogits")
    print(f"largest difference from the library: {np.abs(dtable - by_library).max():.1e}\n")

    optimizer, losses = AdamW(model.params, 0.9, 0.999, weight_decay=0.01), list[float]()
    for _ in range(STEPS):
        tokens, targets = batches.random_batch(train, BATCH_SIZE, BLOCK_SIZE, rng)  # (B, T)
        loss, dtable = loss_and_gradient(table, tokens.reshape(-1), targets.reshape(-1))
        optimizer.update(model.params, {"wte.weight": dtable}, LEARNING_RATE)
        losses.append(loss)
    eighths = " ".join(f"{part.mean():.3f}" for part in np.array_split(losses, 8))
    print(f"{STEPS} steps, mean loss of each eighth: {eighths}")
    counts = np.ones((V, V))  # (V, V) starts at 1, so that no pair has probability 0
    np.add.at(counts, (train[:-1], train[1:]), 1)
    counted = -np.log(counts / counts.sum(axis=-1, keepdims=True))[val[:-1], val[1:]].mean()
    print(f"validation loss after {model.loss(val[None, :-1], val[None, 1:]):.3f}")
    print(f"counting the pairs of the training text {counted:.3f}: no table is much better")
    print("in the video: about 2.5, the loss of the last batch alone\n")
    written = model.generate(tokenizer.encode("\n"), 300, seed=1337)
    print(tokenizer.decode(int(token) for token in written))


if __name__ == "__main__":
    main()
