"""00:38:00 Port our code to a script

The notebook becomes a program: the settings at the top, the model from `bigram.py`, and a loss that
is less noisy, because it is the mean over many batches of each split.
"""

import numpy as np

from tinygpt_np import Bigram
from tinygpt_np.config import generator
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.text import batches, corpus
from tinygpt_np.text.tokenizers import CharTokenizer

BATCH_SIZE, BLOCK_SIZE, SEED = 32, 8, 1337
STEPS, LEARNING_RATE, EVAL_INTERVAL, EVAL_ITERS = 3000, 1e-2, 500, 200


def estimate_loss(model: Bigram, ids: np.ndarray) -> float:
    """Return the mean loss of EVAL_ITERS batches, the same ones at every call."""
    rng = np.random.default_rng(SEED)
    drawn = (batches.random_batch(ids, BATCH_SIZE, BLOCK_SIZE, rng) for _ in range(EVAL_ITERS))
    return float(np.mean([model.loss(tokens, targets) for tokens, targets in drawn]))


def main() -> None:
    text = corpus.load("shakespeare").text
    tokenizer = CharTokenizer.from_text(text)
    train, val = corpus.split(tokenizer.encode(text), BLOCK_SIZE)
    model = Bigram(tokenizer.vocab_size, seed=SEED)
    optimizer = AdamW(model.params, beta1=0.9, beta2=0.999, weight_decay=0.01)
    rng = generator(SEED, "data")
    for step in range(STEPS + 1):
        if step % EVAL_INTERVAL == 0:
            losses = estimate_loss(model, train), estimate_loss(model, val)
            print(f"step {step:4}: train loss {losses[0]:.4f}, val loss {losses[1]:.4f}")
        tokens, targets = batches.random_batch(train, BATCH_SIZE, BLOCK_SIZE, rng)  # (B, T)
        _, grads = model.loss_and_grads(tokens, targets)
        optimizer.update(model.params, grads, LEARNING_RATE)

    print("\nin the video: train loss 4.7305, val loss 4.7241 at step 0, and 2.4738, 2.4911")
    print("at step 2700. Its text and random numbers are others; table and recipe are the same.")
    print("Both losses fall alike: so small a table cannot memorise the text.\n")
    written = model.generate(tokenizer.encode("\n"), max_new_tokens=300, seed=SEED)
    print(tokenizer.decode(int(token) for token in written))


if __name__ == "__main__":
    main()
