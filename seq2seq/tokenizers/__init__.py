"""Text to ids and back: subwords, characters and words, their training and their files."""
