"""Text and tokens: corpora, tokenizers, and the data sets that models train on."""
