"""Training learns: models write random sequences backwards, and copy names that no training text holds."""

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

Sequences = list[tuple[str, ...]]

SYMBOLS = tuple(f"s{number}" for number in range(12))
NAMES = tuple(f"name{number}" for number in range(1000))  # a few times each in training
NEW_NAMES = tuple(f"new{number}" for number in range(50))  # never
LONGEST = 8  # of the training sequences

SETTINGS = (
    "tokenizer=word", "tokenizer.word_tokenizer=whitespace", "tokenizer.joint=true", "optim.lr=0.005",
    "optim.schedule=cosine", "optim.warmup_steps=50", "trainer.batch_tokens=600", "trainer.eval_examples=0",
    "trainer.log_every=50", "trainer.eval_every=10000", "trainer.save_every=10000", "search.beam_size=1",
)  # fmt: skip
GRU = ("model.d_model=64", "model.embedding_size=64", "model.encoder_size=64", "model.attention_size=64",
       "model.dropout=0")  # fmt: skip
TRANSFORMER = ("model.d_model=64", "model.d_ff=128", "model.num_heads=4", "model.encoder_layers=2",
               "model.decoder_layers=2", "model.norm=pre", "model.dropout=0")  # fmt: skip
BACKWARDS = {
    "gru": (*GRU, "trainer.max_steps=250"),
    "transformer": (*TRANSFORMER, "trainer.max_steps=600"),
}
# Label smoothing keeps the embeddings of tokens that never come from drifting away together.
COPYING = {
    "gru": (*GRU, "trainer.max_steps=400", "trainer.label_smoothing=0.1"),
    "transformer": (*TRANSFORMER, "model.d_model=128", "model.encoder_layers=1", "model.decoder_layers=1",
                    "optim.lr=0.003", "trainer.max_steps=500", "trainer.label_smoothing=0.1"),
}  # fmt: skip


class Corpus:
    """Random sequences, each drawn once, in files.

    Args:
        folder: Of the files.
        backwards: Whether a target is its source backwards, or the source itself.
    """

    def __init__(self, folder: Path, *, backwards: bool):
        self.folder = folder
        self.backwards = backwards
        self.overrides: list[str] = []
        self._random = random.Random(1)
        self._drawn: set[tuple[str, ...]] = set()

    def add(
        self, key: str, count: int, *, lengths: Sequence[int] = range(3, LONGEST + 1), names: Sequence[str] = ()
    ) -> Sequences:
        """Writes pairs and returns their targets; with `names`, one of them is in each."""
        sources: Sequences = []
        while len(sources) < count:
            source = self._random.choices(SYMBOLS, k=self._random.choice(lengths))
            if names:
                source[self._random.randrange(len(source))] = self._random.choice(names)
            if tuple(source) not in self._drawn:
                self._drawn.add(tuple(source))
                sources.append(tuple(source))
        targets = [source[::-1] for source in sources] if self.backwards else sources
        name = key.removeprefix("+").replace(".", "_")
        for side, texts in (("source", sources), ("target", targets)):
            path = self.folder / f"{name}.{side}"
            path.write_text("".join(f"{' '.join(text)}\n" for text in texts), encoding="utf-8")
            self.overrides.append(f"{key}.{side}={path}")
        return targets

    def words(self, split: str) -> set[str]:
        """All that are in the files of a part."""
        texts = [path.read_text(encoding="utf-8") for path in self.folder.glob(f"data_{split}*")]
        assert len(texts) == 2
        return {word for text in texts for word in text.split()}


def accuracy(run: Any, test_set: str, targets: Sequences) -> float:
    """Share of output tokens that are right, position by position; what is missing or too much is wrong."""
    outputs = [tuple(text.split()) for text in run.outputs(test_set)]
    assert len(outputs) == len(targets)
    pairs = list(zip(outputs, targets, strict=True))
    right = sum(a == b for output, target in pairs for a, b in zip(output, target, strict=False))
    return right / sum(max(map(len, pair)) for pair in pairs)


def accuracy_of(words: Collection[str], run: Any, test_set: str, targets: Sequences) -> float:
    """Share of the targets' tokens in `words` that the outputs have at the same position."""
    outputs = [text.split() for text in run.outputs(test_set)]
    hits = [
        place < len(output) and output[place] == token
        for output, target in zip(outputs, targets, strict=True)
        for place, token in enumerate(target)
        if token in words
    ]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("family", ["gru", pytest.param("transformer", marks=pytest.mark.slow)])
def test_sequences_are_written_backwards(family: str, train_run: Any, tmp_path: Path, record_property: Any) -> None:
    """None of them is in training; how it goes with one more token than in training is only told."""
    corpus = Corpus(tmp_path, backwards=True)
    corpus.add("data.train", 6000)
    corpus.add("data.valid", 20)
    targets = corpus.add("data.test.back", 300)
    longer = corpus.add("+data.test.longer", 200, lengths=[LONGEST + 1])
    settings = (*SETTINGS, *BACKWARDS[family], "trainer.label_smoothing=0", *corpus.overrides)
    run = train_run(tmp_path / "out", *settings, model=family)
    found = {"accuracy": accuracy(run, "back", targets), "one_token_longer": accuracy(run, "longer", longer)}
    for name, value in found.items():
        record_property(name, value)
    print(family, found)
    assert found["accuracy"] > 0.99


@pytest.mark.parametrize(
    ("family", "copy"),
    [
        ("gru", True),
        pytest.param("gru", False, marks=pytest.mark.slow),
        pytest.param("transformer", True, marks=pytest.mark.slow),
        pytest.param("transformer", False, marks=pytest.mark.slow),
    ],
)
def test_names_that_training_never_saw_come_by_copying_only(
    family: str, copy: bool, train_run: Any, tmp_path: Path, record_property: Any
) -> None:
    """The vocabulary has them, so a model without copying could write them too; trained alike, it hardly does."""
    corpus = Corpus(tmp_path, backwards=False)
    corpus.add("data.train", 6000, names=NAMES)
    corpus.add("data.valid", 20, names=NAMES)
    targets = corpus.add("data.test.back", 200, names=NEW_NAMES)
    assert not corpus.words("train") & set(NEW_NAMES)
    reserved = f"tokenizer.user_symbols=[{','.join(NEW_NAMES)}]"
    settings = (*SETTINGS, *COPYING[family], f"model.copy={copy}", reserved, *corpus.overrides)
    run = train_run(tmp_path / "out", *settings, model=family)
    found = {"new_names": accuracy_of(NEW_NAMES, run, "back", targets), "all": accuracy(run, "back", targets)}
    for name, value in found.items():
        record_property(name, value)
    print(family, copy, found)
    if copy:
        assert min(found.values()) > 0.95
    else:
        assert found["new_names"] < 0.3
