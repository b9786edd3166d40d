"""The models: GPT and bigram, their optimizer, and sampling from them."""
