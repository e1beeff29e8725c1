"""Keys of `metrics`: which scores a user gets, and how they count. The packages themselves are the oracles."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

Results = dict[str, Any]
Evaluate = Callable[..., Results]

# What `saying` answers in part, in other forms of its words, the other way round, in other case, and not at all.
REFERENCES = [
    "The dogs were barking, loudly.",
    "The dog barked, loudly. A cat sleeps!",
    "Two cats slept! The dogs were barking, loudly.",
    "the dogs were barking loudly two cats slept",
    "Nothing like it happened.",
]
SENTENCES = [
    "The birds sang in the trees today. Dogs barked. Two cats were there.",
    "A cat sleeps! Nobody saw that. The dog ran away.",
    "Dogs. Cats. Birds.",
    "Barking dogs seldom bite. Cats never do. It was loud.",
    "Something happened.",
]
SOURCES = [f"{lead} {reference}" for lead, reference in zip(SENTENCES, REFERENCES, strict=True)]


@pytest.fixture(scope="module")
def scored(evaluate: Evaluate, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Evaluates on SOURCES and REFERENCES."""
    folder = tmp_path_factory.mktemp("scored")
    records = [{"source": source, "target": target} for source, target in zip(SOURCES, REFERENCES, strict=True)]
    (folder / "mine.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return lambda *overrides: evaluate(f"+data.test.mine.path={folder}/mine.jsonl", *overrides)


@pytest.fixture(scope="module")
def plain(scored: Evaluate) -> Results:
    """Results with the defaults of all keys but `names`, and `bootstrap`, of which `saying` wants none."""
    return scored("metrics.names=[bleu,chrf,rouge1,rouge2,rougeLsum]")


@pytest.fixture(scope="module")
def changed(scored: Evaluate) -> Results:
    """Results with another value of every key; a test looks at what follows from its own."""
    return scored(
        "metrics.names=[bleu,rouge1,rougeLsum]", "metrics.bleu_tokenize=char", "metrics.rouge_stemmer=false",
        "metrics.rouge_split=sentences", "metrics.bootstrap=40", "metrics.summary_statistics=true",
        "metrics.baselines=[lead,oracle]", "metrics.lead_sentences=2", "metrics.lead_words=4",
    )  # fmt: skip


@pytest.fixture(scope="module")
def outputs(plain: Results, saying: Path) -> list[str]:
    return (saying / "evaluations" / "best" / "mine.txt").read_text(encoding="utf-8").splitlines()


def rouge(name: str, outputs: list[str], references: list[str] = REFERENCES, *, stem: bool = True) -> float:
    """The mean F1 x 100 of rouge-score."""
    scorer = RougeScorer([name], use_stemmer=stem)
    pairs = zip(references, outputs, strict=True)
    return 100 * sum(scorer.score(reference, output)[name].fmeasure for reference, output in pairs) / len(outputs)


def by_line(texts: list[str]) -> list[str]:
    return [re.sub(r"(?<=[.!]) ", "\n", text) for text in texts]


def test_names_are_what_is_computed(plain: Results, changed: Results, outputs: list[str]) -> None:
    from sacrebleu.metrics import CHRF

    losses = {"loss", "ppl", "accuracy"}
    scores = plain["test"]["mine"]
    assert scores.keys() == {"bleu", "chrf", "rouge1", "rouge2", "rougeLsum"} | losses
    assert scores["chrf"]["score"] == pytest.approx(CHRF(word_order=2).corpus_score(outputs, [REFERENCES]).score)
    assert scores["rouge2"]["score"] == pytest.approx(rouge("rouge2", outputs))
    assert changed["baselines"]["mine"]["lead"].keys() >= {"bleu", "rouge1", "rougeLsum"}
    assert not changed["test"]["mine"].keys() & {"chrf", "rouge2"}


def test_names_are_what_validation_computes(saying: Path) -> None:
    tags = {json.loads(line)["tag"] for line in (saying / "metrics.jsonl").read_text(encoding="utf-8").splitlines()}
    valid = {tag for tag in tags if tag.startswith("valid/")}
    assert valid == {"valid/loss", "valid/ppl", "valid/accuracy", "valid/bleu"}


def test_bleu_counts_the_tokens_of_the_tokenizer_named(plain: Results, changed: Results, outputs: list[str]) -> None:
    from sacrebleu.metrics import BLEU

    assert plain["test"]["mine"]["bleu"]["score"] == pytest.approx(BLEU().corpus_score(outputs, [REFERENCES]).score)
    found = changed["test"]["mine"]["bleu"]
    assert found["score"] == pytest.approx(BLEU(tokenize="char").corpus_score(outputs, [REFERENCES]).score)
    assert "tok:char" in found["signature"]


def test_bootstrap_is_the_number_of_resamples(
    plain: Results, changed: Results, outputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """sacrebleu's interval with as many resamples is as wide; `saying` asks for none."""
    from sacrebleu.metrics import BLEU

    assert not plain["test"]["mine"]["bleu"].keys() & {"low", "high"}
    found = changed["test"]["mine"]["bleu"]
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    expected = BLEU(tokenize="char").corpus_score(outputs, [REFERENCES], n_bootstrap=40)
    assert (found["high"] - found["low"]) / 2 == pytest.approx(expected._ci, abs=1e-4)
    assert "bs:40|" in found["signature"]


def test_rouge_compares_stems_or_whole_words(plain: Results, changed: Results, outputs: list[str]) -> None:
    stems, whole = plain["test"]["mine"]["rouge1"]["score"], changed["test"]["mine"]["rouge1"]["score"]
    assert stems == pytest.approx(rouge("rouge1", outputs, stem=True))
    assert whole == pytest.approx(rouge("rouge1", outputs, stem=False))
    assert whole < stems


def test_rouge_lsum_takes_sentences_apart_where_told(plain: Results, changed: Results, outputs: list[str]) -> None:
    """One of the references has the sentences the other way round."""
    assert plain["test"]["mine"]["rougeLsum"]["score"] == pytest.approx(rouge("rougeLsum", outputs))
    found = changed["test"]["mine"]["rougeLsum"]["score"]
    assert found == pytest.approx(rouge("rougeLsum", by_line(outputs), by_line(REFERENCES), stem=False))
    assert found > rouge("rougeLsum", outputs, stem=False)


def test_summaries_are_described_where_asked_for(plain: Results, changed: Results, outputs: list[str]) -> None:
    words = {
        side: [re.findall("[a-z]+", text.lower()) for text in texts]
        for side, texts in (("outputs", outputs), ("references", REFERENCES), ("sources", SOURCES))
    }
    count = {side: sum(map(len, found)) for side, found in words.items()}
    pairs = zip(words["outputs"], words["sources"], strict=True)
    novel = sum(word not in source for output, source in pairs for word in output)
    scores = changed["test"]["mine"]
    assert scores["length_ratio"]["score"] == pytest.approx(100 * count["outputs"] / count["references"])
    assert scores["novel_1grams"]["score"] == pytest.approx(100 * novel / count["outputs"])
    assert changed["baselines"]["mine"]["reference"]["length_ratio"]["score"] == pytest.approx(100)
    assert not plain["test"]["mine"].keys() & scores.keys() - {"bleu", "rouge1", "rougeLsum", "loss", "ppl", "accuracy"}


def test_baselines_are_scored_beside_the_model(plain: Results, changed: Results) -> None:
    """The oracle finds each reference in its source."""
    assert plain["baselines"] == {}
    found = changed["baselines"]["mine"]
    assert found.keys() == {"lead", "oracle", "reference"}
    assert found["oracle"]["rouge1"]["score"] == pytest.approx(100)


def test_the_lead_has_so_many_sentences_and_words_at_most(changed: Results) -> None:
    """Two sentences of three or more, and four words: either cuts some of the sources."""
    leads = [" ".join(" ".join(text.split("\n")[:2]).split()[:4]) for text in by_line(SOURCES)]
    assert len({len(lead.split()) for lead in leads}) > 1
    score = changed["baselines"]["mine"]["lead"]["rouge1"]["score"]
    assert score == pytest.approx(rouge("rouge1", leads, stem=False))
