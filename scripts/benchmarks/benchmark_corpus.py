"""The generated corpus that benchmarks use by default, and the composition of their configuration."""

from pathlib import Path

import numpy as np

from seq2seq.config.compose import compose
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config

SYLLABLES = [first + last for first in "bdfgklmnprstvwz" for last in ("a", "e", "i", "o", "u", "an", "er", "ist")]
SIDES = ("source", "target")


def write_corpus(folder: Path, pairs: int, *, words: int, seed: int = 1) -> None:
    """Writes train and valid files of random words with the sentence lengths of Multi30k in 8,000 subwords.

    Sources have 13 tokens on average and targets 14, long-tailed and correlated; words of one to four syllables are
    drawn by Zipf's law. Existing files are kept.

    Args:
        folder: Where to write.
        pairs: Sentence pairs in the training set; the validation set has at most a thousand.
        words: Number of distinct words.
        seed: For everything random.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    spellings = {"".join(random.choice(SYLLABLES, random.integers(1, 5))) for _ in range(3 * words)}
    lexicon = np.array(sorted(spellings, key=lambda word: (len(word), word))[:words], dtype=object)
    probs = 1 / np.arange(1, len(lexicon) + 1)
    probs /= probs.sum()
    for split, count in (("valid", min(pairs, 1000)), ("train", pairs)):
        files = [folder / f"{split}.{side}" for side in SIDES]
        if all(path.exists() for path in files):
            continue
        source = np.exp(random.normal(2.5, 0.33, count)).round().clip(3, 60).astype(int)
        target = (source * np.exp(random.normal(0.05, 0.2, count))).round().clip(3, 70).astype(int)
        for path, lengths in zip(files, (source, target), strict=True):
            drawn = np.split(random.choice(lexicon, lengths.sum(), p=probs), lengths.cumsum()[:-1])
            path.write_text("".join(f"{' '.join(line)}\n" for line in drawn), encoding="utf-8")


def corpus_overrides(folder: Path, pairs: int, overrides: list[str], *, tokenizer: str = "word") -> list[str]:
    """Returns the user's overrides; unless they name data, generates a corpus and puts its overrides before them.

    Args:
        folder: Receives the corpus, the cache and runs.
        pairs: Sentence pairs in the generated training set.
        overrides: The user's overrides.
        tokenizer: For the generated data: `word`, which makes each word a token, or one of subwords.
    """
    if any(override.partition("=")[0] in ("experiment", "data") for override in overrides):
        return overrides
    words = 7900 if tokenizer == "word" else 12_000
    folder = folder.resolve() / f"{pairs}-pairs-{words}-words"
    write_corpus(folder, pairs, words=words)
    return [
        *(f"data.{split}.{side}={folder}/{split}.{side}" for split in ("train", "valid") for side in SIDES),
        f"tokenizer={tokenizer}", "tokenizer.joint=true", "tokenizer.vocab_size=8000",
        f"cache_root={folder}/cache", f"output_root={folder}", *overrides,
    ]  # fmt: skip


def compose_config(overrides: list[str]) -> Config:
    """Composes the configuration as `seq2seq train` would with these overrides."""
    # the default name comes from Hydra's runtime choices, which `compose` does not have
    return parse(compose("train", ["name=benchmark", *overrides]))
