"""00:38:00 Port our code to a script

How do we know that the model gets better, when the loss of a single batch jumps up and down? The
notebook becomes a program: the settings at the top, the model from `bigram.py`, and a loss that is
less noisy, because it is the mean over many batches of each split.
"""

import numpy as np

from tinygpt_np import Bigram
from tinygpt_np.config import generator
from tinygpt_np.lecture.workbench import try_it
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.text import batches, corpus
from tinygpt_np.text.tokenizers import CharTokenizer

BATCH_SIZE, BLOCK_SIZE, SEED = 32, 8, 1337
STEPS, LEARNING_RATE, EVAL_INTERVAL, EVAL_ITERS = 3000, 1e-2, 500, 200


def draw(
    ids: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random batch: tokens and targets (B, T)."""
    return batches.random_batch(ids, BATCH_SIZE, BLOCK_SIZE, rng)


def estimate_loss(model: Bigram, ids: np.ndarray, seed: int = SEED) -> float:
    """Return the mean loss of EVAL_ITERS batches, which the seed decides."""
    rng, losses = np.random.default_rng(seed), list[float]()
    for _ in range(EVAL_ITERS):
        losses.append(model.loss(*draw(ids, rng)))
    return float(np.mean(losses))


def main() -> None:
    # %% A loss that is less noisy
    # The mean of n independent losses varies √n times less than one of them. So we expect the mean
    # over 200 batches to vary 14 times less, and changes of a few thousandths become visible.

    text = corpus.load("shakespeare").text
    tokenizer = CharTokenizer.from_text(text)
    train, val = corpus.split(tokenizer.encode(text), BLOCK_SIZE)
    model = Bigram(tokenizer.vocab_size, seed=SEED)
    rng = generator(SEED, "data")
    single = np.std([model.loss(*draw(train, rng)) for _ in range(500)])
    means = np.std([estimate_loss(model, train, seed) for seed in range(20)])
    print(f"standard deviation of the loss of one batch: {single:.4f}")
    print(f"expected for the mean of {EVAL_ITERS} batches: {single / EVAL_ITERS**0.5:.4f}")
    print(f"measured from 20 means: {means:.4f}")
    print(f"So few means leave an uncertainty of 1/√40, which is {40**-0.5:.0%}.")

    # %% Training
    # Both losses are printed, on the training and on the validation part. A table has V² numbers,
    # and there are far more pairs of characters in the text. So small a table cannot memorise the
    # text, and we expect both losses to fall alike.

    optimizer = AdamW(model.params, beta1=0.9, beta2=0.999, weight_decay=0.01)
    rng = generator(SEED, "data")
    print(f"{tokenizer.vocab_size**2:,} numbers for {len(train):,} characters")
    for step in range(STEPS + 1):
        if step % EVAL_INTERVAL == 0:
            on_train = estimate_loss(model, train)
            on_val = estimate_loss(model, val)
            print(f"step {step:4}: train loss {on_train:.4f}, val loss {on_val:.4f}")
        _, grads = model.loss_and_grads(*draw(train, rng))
        optimizer.update(model.params, grads, LEARNING_RATE)
    print("\nin the video: train loss 4.7305, val loss 4.7241 at step 0, and 2.4738, 2.4911")
    print("at step 2700. Its text and random numbers are others; table and recipe are the")
    print("same. The validation part is other plays, so a small difference remains.")

    # %% What it writes
    # The loss is that of chapter 5, so the text should look the same: likely pairs, and no words.
    # To do better, a token has to look further back than one character.

    written = model.generate(tokenizer.encode("\n"), 300, seed=SEED)
    print(tokenizer.decode(int(token) for token in written))

    # %% Try it
    # `tinygpt train` is the same script for a GPT: settings, batches, an estimate of both losses,
    # and a sample. Its smallest preset looks back 16 characters.

    try_it(
        "tinygpt train --preset smoke",
        "Does it get below the loss of the table, and after how many steps?",
    )


if __name__ == "__main__":
    main()
