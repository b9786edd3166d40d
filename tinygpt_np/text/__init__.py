"""Texts, tokenizers, and the datasets that models are trained on."""
