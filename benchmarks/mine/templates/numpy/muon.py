import numpy as np


def orthogonalize(x, y):
    tall = x.shape[1] > x.shape[2]
    for i in range(len(x)):
        now = x[i].T if tall else x[i]
        now = now / (np.linalg.norm(now) + 1e-7)
        for _ in range(5):
            gram = now @ now.T
            now = 3.4445 * now + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ now
        y[i] = now.T if tall else now
