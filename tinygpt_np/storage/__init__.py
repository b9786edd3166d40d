"""Read and write files: parameters, checkpoints, and the folders of GPT-2."""
