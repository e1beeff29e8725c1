"""Every key of the search section, through a run and `load(...)`, against all outputs that there can be.

The run's vocabulary has ten tokens, so that up to a length of three all hypotheses can be listed, each with what the
model says of it when it reads it as training does; what search finds follows from that list by the documented formulas.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seq2seq.inference.generator import GenerationOutput, Generator
from seq2seq.pipeline.load import load

PAD, BOS, EOS = 0, 2, 3
LIMIT = 3
TEXTS = ["dbd", "eab bcd", "abc dea bad cab", "dae eed bad"]
WIDE = ("search.beam_size=400", f"search.max_length={LIMIT}", "search.n_best=8")  # there are 400 hypotheses

Open = Callable[..., Generator]


@pytest.fixture(scope="module")
def searched(train_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a GRU that copies and has coverage, and has just begun to learn."""
    short = ("optim.lr=0.01", "trainer.max_steps=24", "trainer.eval_every=24", "trainer.save_every=24")
    out = tmp_path_factory.mktemp("searched")
    folder: Path = train_run(out, "tokenizer.byte_fallback=false", *short, model="copying").folder
    return folder


@pytest.fixture(scope="module")
def opened(searched: Path) -> Open:
    """A generator of the run with overrides."""
    return lambda *overrides: load(searched, overrides=["trainer.device=cpu", *overrides])


@dataclass(frozen=True)
class Possible:
    """A hypothesis, and what the model says of it.

    Attributes:
        tokens: The end of sentence last, unless it is cut off.
        coverage: Sum over the source's words of the logarithm of the attention they got, at most 1 each.
    """

    tokens: tuple[str, ...]
    log_prob: float
    coverage: float


Lists = dict[int, dict[str, list[Possible]]]


@pytest.fixture(scope="module")
def possible(opened: Open) -> Lists:
    """All hypotheses of at most two and of at most LIMIT tokens, of each text."""
    generator = opened()
    return {limit: {text: listed(generator, text, limit) for text in TEXTS} for limit in (2, LIMIT)}


@torch.no_grad()
def predicted(generator: Generator, text: str, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N, T + 1, V] and attention [N, T + 1, words] after each token of `targets` [N, T]."""
    (model,) = generator.models
    src = torch.tensor([[*generator.tokenizers.source.encode_batch([text])[0], EOS]]).repeat(len(targets), 1)
    tgt_in = torch.cat([torch.full((len(targets), 1), BOS), targets], dim=1)
    hidden = model.decode(tgt_in, model.encode(src, src > 0), need_attention=True)
    assert hidden.attention is not None
    return model.output.log_probs(hidden), hidden.attention[:, :, :-1]


def listed(generator: Generator, text: str, limit: int) -> list[Possible]:
    vocabulary = generator.tokenizers.target
    letters = [token for token in range(vocabulary.vocab_size) if token not in (PAD, BOS, EOS)]
    found = []
    for length in range(1, limit + 1):
        lasts = [EOS, *letters] if length == limit else [EOS]
        ids = torch.tensor(
            [[*start, last] for start in itertools.product(letters, repeat=length - 1) for last in lasts]
        )
        log_probs, attention = predicted(generator, text, ids[:, :-1])
        sums = log_probs.gather(2, ids[:, :, None]).double().sum((1, 2)).tolist()
        covered = attention.double().sum(1).clamp(1e-10, 1.0).log().sum(1).tolist()
        pieces = [tuple(vocabulary.pieces(row)) for row in ids.tolist()]
        found += [Possible(*each) for each in zip(pieces, sums, covered, strict=True)]
    return found


def wu(length: int, power: float = 1.0) -> float:
    return float(((5 + length) / 6) ** power)


def repeats(tokens: Sequence[str], order: int) -> bool:
    grams = [tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1)]
    return len(grams) > len(set(grams))


@pytest.fixture(scope="module")
def by_default(opened: Open) -> list[list[GenerationOutput]]:
    return opened(*WIDE).generate_nbest(TEXTS)


def normalized(one: Possible) -> float:
    return one.log_prob / wu(len(one.tokens))


@pytest.mark.parametrize(
    ("settings", "score", "allowed"),
    [
        ("", normalized, None),
        ("n_best=3", normalized, None),
        ("length_penalty=5", lambda one: one.log_prob / wu(len(one.tokens), 5), None),
        ("length_normalization=none", lambda one: one.log_prob, None),
        ("length_normalization=average", lambda one: one.log_prob / len(one.tokens), None),
        ("coverage_penalty=0.4", lambda one: normalized(one) + 0.4 * one.coverage, None),
        ("max_length=2", normalized, None),
        ("min_length=3", normalized, lambda tokens: len(tokens) == 3),
        ("no_repeat_ngram=1", normalized, lambda tokens: not repeats(tokens, 1)),
        ("no_repeat_ngram=2", normalized, lambda tokens: not repeats(tokens, 2)),
    ],
)
def test_a_wide_beam_finds_the_best_of_all(
    opened: Open, possible: Lists, by_default: list[list[GenerationOutput]], settings: str, score: Any, allowed: Any
) -> None:
    found = opened(*WIDE, *(f"search.{setting}" for setting in settings.split())).generate_nbest(TEXTS)
    for text, outputs in zip(TEXTS, found, strict=True):
        every = possible[2 if settings == "max_length=2" else LIMIT][text]
        best = sorted((one for one in every if allowed is None or allowed(one.tokens)), key=score, reverse=True)
        best = best[: 3 if settings == "n_best=3" else 8]
        assert [tuple(output.tokens) for output in outputs] == [one.tokens for one in best]
        assert [output.score for output in outputs] == pytest.approx([score(one) for one in best], abs=1e-4)
        assert [output.log_prob for output in outputs] == pytest.approx([one.log_prob for one in best], abs=1e-4)
    assert (tokens(found) != tokens(by_default)) == bool(settings)


def tokens(found: list[list[GenerationOutput]]) -> list[list[list[str]]]:
    return [[output.tokens for output in outputs] for outputs in found]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_beam_size(opened: Open, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The decoder goes on with so many hypotheses; a single one takes the most probable token each time."""
    generator = opened(f"search.beam_size={size}", "search.max_length=6")
    (model,) = generator.models
    step, rows = model.step, []
    monkeypatch.setattr(model, "step", lambda ids, *rest, **more: rows.append(len(ids)) or step(ids, *rest, **more))
    ((output,),) = generator.generate_nbest(TEXTS[1:2])
    assert rows == [1, *[size] * (len(rows) - 1)]
    if size == 1:
        greedy = torch.empty(1, 0, dtype=torch.int64)
        while greedy.size(1) < 6 and EOS not in greedy:
            greedy = torch.cat([greedy, predicted(generator, TEXTS[1], greedy)[0][:, -1].argmax(1)[:, None]], dim=1)
        assert output.tokens == generator.tokenizers.target.pieces(greedy[0].tolist())


def test_max_length_ratio(opened: Open) -> None:
    """10 + ratio x source tokens; each word of a source has four, and its end is one."""
    lengths = [4 * len(text.split()) + 1 for text in TEXTS]
    for ratio, room in ((1.5, 1.5), ("null", math.inf)):
        limits = ("search.min_length=40", "search.max_length=40", f"search.max_length_ratio={ratio}")
        outputs = opened("search.beam_size=2", *limits).generate_nbest(TEXTS)
        assert [len(best.tokens) for (best,) in outputs] == [min(40, 10 + room * length // 1) for length in lengths]


def test_batch(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are encoded so many at once, the longest first, and outputs are the same."""
    texts = ["bad", "dea cab dea bad", "eab bcd", "abc abc dab ade bad", "dae eed bad"]
    sizes: dict[str, list[tuple[int, int]]] = {
        "batch_size=128": [(5, 21)],
        "batch_size=2": [(2, 21), (2, 13), (1, 5)],
        "batch_tokens=40": [(1, 21), (2, 17), (2, 9)],
        "batch_tokens=16": [(1, 21), (1, 17), (1, 13), (1, 9), (1, 5)],
    }
    found = []
    for setting, expected in sizes.items():
        generator = opened("search.beam_size=2", "search.max_length=8", f"search.{setting}")
        seen = recorded(generator.models[0], monkeypatch)
        found.append(tokens(generator.generate_nbest(texts)))
        assert seen == expected
    assert all(outputs == found[0] for outputs in found)


def recorded(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of sources that the model is going to encode."""
    encode, seen = model.encode, []
    monkeypatch.setattr(model, "encode", lambda src, mask: seen.append(tuple(src.shape)) or encode(src, mask))
    return seen


def test_precision(opened: Open, possible: Lists) -> None:
    """float32 is exact; float16 has 3 bits more than bfloat16, so it comes nearer to that."""
    errors = []
    for precision in ("fp32", "fp16", "bf16"):
        found = opened(*WIDE, f"search.precision={precision}").generate_nbest(TEXTS)
        exact = [{one.tokens: one.log_prob for one in possible[LIMIT][text]} for text in TEXTS]
        errors.append(max(abs(o.log_prob - e[tuple(o.tokens)]) for e, os in zip(exact, found, strict=True) for o in os))
    assert errors[0] < 1e-5 < 3 * errors[1] < errors[2] < 0.3


SAMPLED = ("search.sampling=true", "search.n_best=2000", "search.max_length=1", "search.seed=3")


@pytest.mark.parametrize("setting", ["sampling=true", "temperature=3", "top_k=2", "top_p=0.7"])
def test_samples_have_the_distribution(opened: Open, setting: str) -> None:
    """Of first tokens, 2,000 of them: the standard error of a share is at most 0.011."""
    generator = opened(*SAMPLED, f"search.{setting}")
    pieces = generator.tokenizers.target.pieces(range(10))
    for text, outputs in zip(TEXTS[:2], generator.generate_nbest(TEXTS[:2]), strict=True):
        log_probs = predicted(generator, text, torch.empty(1, 0, dtype=torch.int64))[0][0, 0]
        p = {piece: math.exp(value) for piece, value in zip(pieces, log_probs.tolist(), strict=True)}
        plain = share({piece: value for piece, value in p.items() if piece not in ("<pad>", "<s>")})
        order = sorted(plain, key=lambda piece: -plain[piece])
        held = list(itertools.accumulate(plain[piece] for piece in order))
        expected = {
            "sampling=true": plain,
            "temperature=3": share({piece: value ** (1 / 3) for piece, value in plain.items()}),
            "top_k=2": share({piece: plain[piece] for piece in order[:2]}),
            "top_p=0.7": share({piece: plain[piece] for piece in order[: 1 + sum(total < 0.7 for total in held)]}),
        }[setting]
        drawn = share(Counter(output.tokens[0] for output in outputs))
        assert drawn.keys() <= expected.keys()
        assert drawn == pytest.approx({piece: expected[piece] for piece in drawn}, abs=0.05)
        furthest = max(abs(expected.get(piece, 0.0) - value) for piece, value in plain.items())
        assert furthest > 0.1 or setting == "sampling=true"


def share(weights: dict[str, float] | Counter[str]) -> dict[str, float]:
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def test_samples_are_scored_by_the_same_formulas(opened: Open, possible: Lists) -> None:
    lengths = ("search.min_length=2", "search.length_normalization=average", "search.length_penalty=0.5")
    rest = ("search.max_length=3", "search.n_best=20", "search.no_repeat_ngram=1", "search.coverage_penalty=0.4")
    for text, outputs in zip(TEXTS, opened(*SAMPLED, *lengths, *rest).generate_nbest(TEXTS), strict=True):
        known = {one.tokens: one for one in possible[LIMIT][text]}
        drawn = [known[tuple(output.tokens)] for output in outputs]
        scores = [one.log_prob / len(one.tokens) ** 0.5 + 0.4 * one.coverage for one in drawn]
        assert [output.score for output in outputs] == pytest.approx(scores, abs=1e-4)
        assert scores == pytest.approx(sorted(scores, reverse=True))
        assert not any(repeats(one.tokens, 1) or len(one.tokens) < 2 for one in drawn)


def test_seed(opened: Open) -> None:
    """It is the run's where it is null, as it is by default."""
    few = ("search.sampling=true", "search.n_best=5", "search.max_length=4")

    def drawn(*overrides: str) -> list[list[list[str]]]:
        return tokens(opened(*few, *overrides).generate_nbest(TEXTS))

    assert drawn("search.seed=7", "seed=5") == drawn("search.seed=null", "seed=7") != drawn("seed=8")


# Every key, none at its default.
SAMPLING = ("temperature", "top_k", "top_p", "seed")
TYPED: dict[str, Any] = {
    "beam_size": 4, "length_penalty": 0.3, "length_normalization": "average", "coverage_penalty": 0.2, "min_length": 3,
    "max_length": 14, "max_length_ratio": 0.2, "batch_size": 3, "batch_tokens": 40, "n_best": 4, "sampling": True,
    "temperature": 1.5, "top_k": 6, "top_p": 0.9, "no_repeat_ngram": 2, "precision": "bf16", "seed": 11,
}  # fmt: skip


@pytest.mark.parametrize("sampling", [False, True])
def test_generate_and_evaluate_search_as_load_does(
    opened: Open, searched: Path, corpus: Path, tmp_path: Path, sampling: bool
) -> None:
    from seq2seq.cli import commands

    settings = {key: value for key, value in TYPED.items() if sampling or key not in SAMPLING}
    settings |= {"sampling": sampling}
    if sampling:
        del settings["beam_size"]
    typed = [f"search.{key}={str(value).lower()}" for key, value in settings.items()]
    texts = (corpus / "test.src").read_text(encoding="utf-8").splitlines()
    expected = opened(*typed).generate_nbest(texts)
    arguments = [f"run={searched}", "trainer.device=cpu", *typed]
    commands.run("generate", [*arguments, f"input={corpus}/test.src", f"output={tmp_path}/out.jsonl", "format=jsonl"])
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [[one["tokens"] for one in record["nbest"]] for record in records] == tokens(expected)
    commands.run("evaluate", arguments)
    place = searched / "evaluations" / "best"
    assert json.loads((place / "results.json").read_text(encoding="utf-8"))["search"].items() >= settings.items()
    said = (place / "back.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert said == [outputs[0].text for outputs in expected]
