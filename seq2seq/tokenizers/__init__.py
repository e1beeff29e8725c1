"""Tokenizers for subwords, characters and words: encoding, decoding, training, saving and loading."""
