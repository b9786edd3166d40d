"""01:37:49 Scaling up the model, dropout: the GPT

All pieces together are `model/gpt.py`: embeddings, blocks, layer norms, and a head tied to the
embeddings. Dropout comes last: during training, a random part of the values is set to zero, so
that no part can rely on another.
"""

import numpy as np

from tinygpt_np import GPT, GPTConfig, ops
from tinygpt_np.config import PRESETS, generator
from tinygpt_np.lecture.workbench import load_data, split_loss
from tinygpt_np.model.optimizer import AdamW, clip, global_norm
from tinygpt_np.storage.parameters import param_shapes
from tinygpt_np.text import batches

STEPS, B, T, LEARNING_RATE = 300, 16, 32, 4e-3
# A step of preset lecture with compiled kernels; see "What loss to expect" in training/README.md.
LECTURE_STEP_SECONDS = 7


def main() -> None:
    tokenizer, train, val = load_data()
    V, rng, dropout_rng = tokenizer.vocab_size, generator(1337, "data"), generator(1337, "dropout")
    x = np.ones(10_000)  # (N,)
    y, saved = ops.dropout.forward(x, ops.dropout.draw_mask(x.shape, 0.2, dropout_rng, x.dtype))
    dx = ops.dropout.backward(x, saved)  # (N,)
    print("dropout 0.2 on ten thousand ones: " + " ".join(f"{v:.2f}" for v in y[:8]) + " ...")
    dropped = f"{np.mean(y == 0):.1%}"
    print(f"  {dropped} are dropped, the rest scaled up, the mean stays: {y.mean():.3f}")
    print(f"  backward, dx = dy · mask; where y is 0, dx is 0: {np.array_equal(dx == 0, y == 0)}\n")

    model = GPT(GPTConfig(vocab_size=V, block_size=T, n_layer=2, n_head=4, n_embd=128, dropout=0.1))
    size, before = sum(param.size for param in model.params.values()), split_loss(model, val)
    optimizer, losses = AdamW(model.params, 0.9, 0.99, weight_decay=0.1), list[float]()
    for step in range(STEPS):
        tokens, targets = batches.random_batch(train, B, T, rng)  # (B, T)
        masks = model.draw_masks(B, T, dropout_rng)
        loss, grads = model.loss_and_grads(tokens, targets, masks)
        rate = LEARNING_RATE * min(1, (step + 1) / 30) * (1 - step / STEPS)
        optimizer.update(model.params, clip(grads, global_norm(grads), 1.0), rate)
        losses.append(loss)
    quarters = " ".join(f"{part.mean():.3f}" for part in np.array_split(losses, 4))
    print(f"GPT, 2 layers, 4 heads, 128 channels: {size:,} parameters")
    print(f"  {STEPS} steps, loss by quarters {quarters}")
    print(f"  validation loss before {before:.3f}, after {split_loss(model, val):.3f}")

    tokens, targets = batches.random_batch(val, B, T, rng)  # (B, T)
    draws = [model.draw_masks(B, T, dropout_rng) for _ in range(3)]
    losses = [model.loss_and_grads(tokens, targets, masks)[0] for masks in draws]
    print("  one batch under three draws of dropout", " ".join(f"{v:.3f}" for v in losses), end="")
    print(f"; without, as it samples, {model.loss(tokens, targets):.3f}\n")
    print(tokenizer.decode(int(i) for i in model.generate(tokenizer.encode("\n"), 200, seed=1337)))

    preset = PRESETS["lecture"]
    lecture = sum(map(np.prod, param_shapes(preset.gpt(V)).values()))
    hours = preset.max_iters * LECTURE_STEP_SECONDS / 3600
    print(f"\n{STEPS} steps are a start. tinygpt train takes {PRESETS['cpu'].max_iters:,}, and")
    print("tinygpt train --preset lecture trains the model at the lecture's end:")
    steps = f"{preset.max_iters:,} steps of about {LECTURE_STEP_SECONDS} s each"
    print(f"  {lecture:,} parameters, {steps}")
    print(f"  (measured on two cores of a server), so about {hours:.0f} hours")
    print("in the video: validation loss 1.48 after about 15 minutes on a GPU (A100)")


if __name__ == "__main__":
    main()
