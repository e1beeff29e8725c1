"""The corpus that benchmarks run on unless they are given another one, and how a configuration is composed for them."""

from pathlib import Path

import numpy as np

from seq2seq import config as configuration
from seq2seq.config import Config

WORDS = 7900  # a vocabulary of about 8,000


def write_corpus(folder: Path, pairs: int, *, seed: int = 1) -> None:
    """Writes train and valid files of random words, as long as Multi30k's sentences are in 8,000 subwords.

    Sources have 13 tokens in the mean and targets 14, both with a long tail and correlated; words are drawn by Zipf's
    law. What is there already stays.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    words = np.array([f"w{number}" for number in range(WORDS)], dtype=object)
    chances = 1 / np.arange(1, WORDS + 1)
    chances /= chances.sum()
    for split, count in (("valid", min(pairs, 1000)), ("train", pairs)):
        files = {side: folder / f"{split}-{pairs}.{side}" for side in ("src", "tgt")}
        if all(path.exists() for path in files.values()):
            continue
        source = np.exp(random.normal(2.5, 0.33, count)).round().clip(3, 60).astype(int)
        target = (source * np.exp(random.normal(0.05, 0.2, count))).round().clip(3, 70).astype(int)
        for side, lengths in (("src", source), ("tgt", target)):
            drawn = np.split(random.choice(words, lengths.sum(), p=chances), lengths.cumsum()[:-1])
            files[side].write_text("".join(f"{' '.join(line)}\n" for line in drawn), encoding="utf-8")


def corpus_overrides(folder: Path, pairs: int, overrides: list[str]) -> list[str]:
    """The user's overrides; before them those for generated data, which is written, unless they name data."""
    if any(override.partition("=")[0] in ("experiment", "data") for override in overrides):
        return overrides
    folder = folder.resolve()
    write_corpus(folder, pairs)
    return [
        *(f"data.{split}.{key}={folder}/{split}-{pairs}.{side}" for split in ("train", "valid")
          for key, side in (("source", "src"), ("target", "tgt"))),
        "tokenizer=word", "tokenizer.joint=true", "tokenizer.vocab_size=8000",
        f"cache_root={folder}/cache", f"output_root={folder}", *overrides,
    ]  # fmt: skip


def composed(overrides: list[str]) -> Config:
    """The configuration that `seq2seq train` would compose of these overrides."""
    from hydra import compose, initialize_config_dir

    configuration.register_schemas()
    with initialize_config_dir(str(configuration.configs_folder()), version_base="1.3"):
        # the default name comes from Hydra's runtime choices, which `compose` does not have
        return configuration.parse(compose("train", overrides=["name=benchmark", *overrides]))
