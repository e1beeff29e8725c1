"""Whatever text is given: one output for each, which can be written; the same as alone."""

import json

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from seq2seq.errors import UserError
from seq2seq.inference.generator import Generator
from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.families import FAMILIES
from seq2seq.pipeline.results import one_line
from seq2seq.search.config import SearchConfig
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import train_tokenizers

COST = 2  # some 20 ms a search

CORPUS = ["zero one two", "three four five", "six\nseven", "世界 é 🙂 a", "nine"] * 3
SIZES = {
    "gru": {"d_model": 8, "embedding_size": 8, "encoder_size": 4, "attention_size": 4, "copy": True},
    "transformer": {"d_model": 8, "d_ff": 8, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1},
}
ODD = [
    *("</s>", "<pad>", "<unk>", "▁", "⁇", "\0", "\u2028", "\x85", "\r", "\n", "\n\n", "\ufeff", "\u202e"),
    *("e\u0301" * 20, "\U0010ffff", "\ufffe", "\U0001f468\u200d\U0001f469", "\ufdfa", " ", "\u200b"),
    *("a" * 300, "<0x0A>", "<line break>"),
]
TEXT = st.one_of(st.text(max_size=20), st.lists(st.sampled_from(ODD) | st.text(max_size=3), max_size=6).map("".join))


@pytest.fixture(scope="session", params=["word", "char", "bpe"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def generator(request: pytest.FixtureRequest, kind: str) -> Generator:
    """A random model, which says anything and ends at any time."""
    config = TokenizerConfig(kind=TokenizerKind(kind), vocab_size={"word": 30, "char": 320, "bpe": 300}[kind])
    tokenizers = train_tokenizers(lambda: iter(CORPUS), lambda: iter(CORPUS), config, seed=1)
    schema = FAMILIES[request.param]
    torch.manual_seed(1)
    size = tokenizers.source.vocab_size
    model = build_model(schema(**SIZES[request.param]), Vocabulary(size, size, joint=True)).eval()
    search = SearchConfig(beam_size=3, n_best=2, max_length=8, batch_size=4)
    return Generator([model], tokenizers, search, device=torch.device("cpu"), max_source_length=12, seed=1)


@given(st.lists(TEXT, max_size=6))
@example(["", " ", "\n", "a"])
@example(ODD)
@torch.inference_mode()
def test_every_text_has_its_output(generator: Generator, texts: list[str]) -> None:
    found = generator.generate_nbest(texts)
    assert len(found) == len(texts)
    for text, outputs in zip(texts, found, strict=True):
        assert outputs
        for output in outputs:
            json.dumps(output.text, ensure_ascii=False).encode()
            assert one_line(output.text).encode().count(b"\n") == 0
            assert "".join(output.tokens).encode() is not None
        if not text.strip():
            assert [output.text for output in outputs] == [""]
    if texts:
        alone = generator.generate_nbest(texts[:1])[0]
        assert [one.text for one in alone] == [one.text for one in found[0]]


@given(TEXT, st.characters(categories=["Cs"]), TEXT)
def test_half_a_character_is_refused(generator: Generator, before: str, half: str, after: str) -> None:
    with pytest.raises(UserError, match="surrogate"):
        generator.generate([before + half + after])
