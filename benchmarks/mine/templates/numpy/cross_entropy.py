import numpy as np


def loss_and_gradient(logits, targets, losses):
    counted = targets >= 0
    rows, columns = np.arange(len(targets)), np.where(counted, targets, 0)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[rows, columns]
    np.exp(logits, out=logits)
    totals = logits.sum(axis=1)
    losses[...] = counted * (np.log(totals) - chosen)
    logits /= totals[:, None]
    logits[rows, columns] -= 1
    logits *= (counted / np.float32(max(counted.sum(), 1))).astype(np.float32)[:, None]
