from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from seq2seq.inference.generator import Generator
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.search.config import SearchConfig
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.tokenizers.base import UNK_ID, Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz \n"
SIZE = 4 + len(LETTERS)


class Letters(Tokenizer):
    """A letter a token, digits unknown; others that it does not know vanish, as what a normaliser removes."""

    vocab_size = SIZE

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        known = LETTERS + string.digits
        return [[4 + LETTERS.index(c) if c in LETTERS else UNK_ID for c in text if c in known] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(LETTERS[i - 4] for i in ids if i >= 4)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return ["</s>" if i == 3 else LETTERS[i - 4] if i >= 4 else "?" for i in ids]

    def is_byte(self, token_id: int) -> bool:
        return False

    def fingerprint(self) -> str:
        return "letters"

    def settings(self) -> dict[str, str | bool | int | float]:
        return {"kind": "letters"}

    def save(self, folder: Path, name: str) -> Path:
        raise NotImplementedError


class Pair:
    """Both sides' tokenizer."""

    source = target = Letters()
    joint = True


@pytest.fixture(scope="module")
def model() -> Seq2Seq:
    torch.manual_seed(3)
    config = TransformerConfig(d_model=16, d_ff=32, num_heads=2, encoder_layers=1, decoder_layers=1)
    return build_model(config, Vocabulary(SIZE, SIZE, joint=True)).eval()


def generator(model: Seq2Seq, *, max_source_length: int = 50, **settings: object) -> Generator:
    values = {"beam_size": 2, "max_length": 8, "batch_size": 3, **settings}
    return Generator(
        [model],
        Pair(),  # type: ignore[arg-type]
        SearchConfig(**values),  # type: ignore[arg-type]
        device=torch.device("cpu"),
        max_source_length=max_source_length,
        seed=5,
    )


TEXTS = ["the cat", "", "a", "   ", "dogs and cats and dogs", "go home", "\t", "xyz", "i see", "é!"]


@pytest.mark.parametrize("settings", [{"beam_size": 1}, {}, {"sampling": True}])
def test_order_blank_lines_and_batch_size(model: Seq2Seq, settings: dict[str, object]) -> None:
    outputs = generator(model, **settings).generate(TEXTS)
    assert len(outputs) == len(TEXTS)
    for text, output in zip(TEXTS, outputs, strict=True):
        if not text.strip() or text == "é!":  # nothing of the last one is in the vocabulary
            assert output == ""
    for batch in ({"batch_size": 1}, {"batch_size": 2}, {"batch_size": 100}, {"batch_tokens": 1}, {"batch_tokens": 30}):
        assert generator(model, **settings, **batch).generate(TEXTS) == outputs
    if not settings.get("sampling"):
        assert [generator(model, **settings).generate([text])[0] for text in TEXTS] == outputs


def test_batches_hold_sources_of_like_lengths_within_both_limits(
    model: Seq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def fake_search(models: object, src: torch.Tensor, *rest: object, **options: object) -> list[list[Hypothesis]]:
        shapes.append(tuple(src.shape))
        return [[Hypothesis([], 0.0, 0.0, ended=True)] for _ in src]

    monkeypatch.setattr("seq2seq.inference.generator.search", fake_search)
    texts = ["a" * length for length in (1, 9, 3, 4, 19, 1, 2, 1, 0)]  # and an end of sentence each
    generator(model, batch_size=3, batch_tokens=15).generate(texts)
    assert shapes == [(1, 20), (1, 10), (3, 5), (3, 2)]


def test_n_best_and_labels(model: Seq2Seq) -> None:
    found = generator(model, n_best=2).generate_nbest(TEXTS, need_attention=True)
    assert [len(outputs) for outputs in found] == [2, 1, 2, 1, 2, 2, 1, 2, 2, 1]
    blank = found[1][0]
    assert (blank.text, blank.tokens, blank.source_tokens, blank.attention) == ("", [], [], None)
    for text, outputs in zip(TEXTS, found, strict=True):
        if len(outputs) == 1:
            continue
        assert outputs[0].score >= outputs[1].score
        for output in outputs:
            assert output.source_tokens == [*text, "</s>"]
            assert "".join(output.tokens).replace("</s>", "").replace("?", "") == output.text
            assert output.attention is not None
            assert output.attention.shape == (len(output.tokens), len(output.source_tokens))
            np.testing.assert_allclose(output.attention.sum(1), 1, atol=1e-5)
    plain = generator(model, n_best=2).generate_nbest(TEXTS)
    assert [[o.text for o in outputs] for outputs in plain] == [[o.text for o in f] for f in found]
    assert all(o.attention is None for outputs in plain for o in outputs)


def test_copied_tokens_are_said(model: Seq2Seq) -> None:
    config = TransformerConfig(d_model=16, d_ff=32, num_heads=2, encoder_layers=1, decoder_layers=1, copy=True)
    copying = build_model(config, Vocabulary(SIZE, SIZE, joint=True)).eval()
    for text, (output,) in zip(TEXTS, generator(copying).generate_nbest(TEXTS, need_attention=True), strict=True):
        if not output.tokens:
            assert output.copied is None
            continue
        assert output.copied is not None
        letters = {*text, "</s>"}
        assert [share > 0 for share in output.copied] == [token in letters for token in output.tokens]
    assert all(output.copied is None for (output,) in generator(copying).generate_nbest(TEXTS))
    assert all(output.copied is None for (output,) in generator(model).generate_nbest(TEXTS, need_attention=True))


@pytest.mark.parametrize("settings", [{}, {"sampling": True, "n_best": 2}])
@pytest.mark.parametrize("block", [1, 4, None])
def test_stream_is_generate(model: Seq2Seq, settings: dict[str, object], block: int | None) -> None:
    streamed = list(generator(model, **settings).stream(iter(TEXTS), block=block))
    whole = generator(model, **settings).generate_nbest(TEXTS)
    assert [[o.text for o in outputs] for outputs in streamed] == [[o.text for o in f] for f in whole]


def test_stream_reads_a_block_at_a_time(model: Seq2Seq) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for text in itertools.cycle(TEXTS):
            taken += 1
            yield text

    stream = generator(model).stream(endless(), block=4)
    for _ in range(5):
        next(stream)
    assert taken == 8


def test_a_block_of_long_lines_ends_early(model: Seq2Seq) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "é" * (1 << 21)

    stream = generator(model).stream(endless())
    for _ in range(3):
        assert next(stream)[0].text == ""
    assert taken == 4


def test_texts_that_are_equal_stay_apart_as_hypotheses(model: Seq2Seq) -> None:
    """Subwords spell a text in many ways; here all do, because every token decodes to the same letter."""

    class OneLetter(Letters):
        def decode(self, ids: Sequence[int]) -> str:
            return "x"

    class Both:
        source, target, joint = Letters(), OneLetter(), True

    many = generator(model, beam_size=4, n_best=4)
    many.tokenizers = Both()  # type: ignore[assignment]
    (outputs,) = many.generate_nbest(["the cat"])
    assert [output.text for output in outputs] == ["x"] * 4
    assert len({tuple(output.tokens) for output in outputs}) == 4
    assert [output.score for output in outputs] == sorted((output.score for output in outputs), reverse=True)


def test_long_sources_are_truncated_and_counted(model: Seq2Seq) -> None:
    short = generator(model, max_source_length=5)
    outputs = short.generate_nbest(["abcd", "abcde", "abcdefgh", ""])
    assert short.truncated == 2
    assert outputs[1][0].source_tokens == ["a", "b", "c", "d", "</s>"]
    assert outputs[0][0].text == outputs[1][0].text == outputs[2][0].text


def test_sources_of_unknown_tokens_alone_are_counted(model: Seq2Seq) -> None:
    puzzled = generator(model)
    puzzled.generate_nbest(["12", "ab", "1b", "", "3"])
    assert puzzled.unknown == 2


def test_nothing_in_nothing_out(model: Seq2Seq) -> None:
    assert generator(model).generate([]) == []
    assert list(generator(model).stream([])) == []
