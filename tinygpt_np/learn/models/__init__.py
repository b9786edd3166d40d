"""Sources of exercises about whole models, in the style of ops/."""

from tinygpt_np.learn.models import micro_batches

__all__ = ["micro_batches"]
