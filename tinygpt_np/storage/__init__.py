"""Files, checkpoints, the names of parameters, and the formats of GPT-2, Llama and nanoGPT."""
