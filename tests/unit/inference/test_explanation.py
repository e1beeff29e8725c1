from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seq2seq.inference.explanation import add_attention, forced_explanation
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.search.config import SearchConfig, SearchPrecision
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.search import search

SIZE = 12
VOCABULARY = Vocabulary(SIZE, SIZE, joint=True)
SRC = torch.tensor([[5, 6, 7, 5, 3], [8, 3, 0, 0, 0]])
TGT = torch.tensor([[2, 5, 9, 6, 3], [2, 8, 3, 0, 0]])


def build(seed: int, *, family: str = "transformer", copy: bool = True) -> Seq2Seq:
    torch.manual_seed(seed)
    if family == "gru":
        return build_model(GRUConfig(d_model=8, embedding_size=8, encoder_size=4, copy=copy), VOCABULARY).eval()
    config = TransformerConfig(d_model=8, d_ff=16, num_heads=2, encoder_layers=1, decoder_layers=1, copy=copy)
    return build_model(config, VOCABULARY).eval()


def explained(models: list[Seq2Seq], src: Tensor, config: SearchConfig) -> list[list[Hypothesis]]:
    found = search(models, src, config)
    add_attention(found, models, src, precision=config.precision)
    return found


def shares(model: Seq2Seq, sentence: int, length: int) -> tuple[Tensor, Tensor]:
    """Of each target token, straight from the definition: probability of its being generated, and of its being copied.

    Both [length]; their sum is the token's probability.
    """
    src, tgt = SRC[sentence : sentence + 1], TGT[sentence, : length + 1]
    hidden = model.decode(tgt[None, :-1], model.encode(src, model.source_mask(src)), need_attention=True)
    generated = (hidden.features[0] @ model.output.weight.t()).softmax(-1)[torch.arange(length), tgt[1:]]
    if model.output.gate is None:
        return generated, torch.zeros(length)
    generates = model.output.gate(hidden.features[0]).sigmoid().squeeze(1)
    assert hidden.attention is not None
    same = src[0] == tgt[1:, None]  # [length, S]
    return generates * generated, (1 - generates) * (hidden.attention[0] * same).sum(1)


@torch.no_grad()
@pytest.mark.parametrize(
    "models",
    [
        [build(0)],
        [build(0, family="gru")],
        [build(0), build(1)],
        [build(0), build(1, copy=False), build(2, family="gru")],
    ],
    ids=["transformer", "gru", "two", "one of three does not copy"],
)
def test_copied_is_the_share_of_a_token_that_copying_gives(models: list[Seq2Seq]) -> None:
    attention, copied = forced_explanation(models, SRC, TGT)
    assert copied is not None
    assert attention.shape == (2, 4, 5)
    torch.testing.assert_close(attention.sum(2)[TGT[:, 1:] != 0], torch.ones(6))
    for sentence, length in enumerate((4, 2)):
        generated, copying = torch.stack([torch.stack(shares(m, sentence, length)) for m in models]).sum(0)
        torch.testing.assert_close(copied[sentence, :length], copying / (generated + copying))
    assert copied[1, 2:].tolist() == [0.0, 0.0]
    assert copied[0, 1] == 0  # token 9 is not in the source
    assert (copied[0, [0, 2]] > 0.01).all()


def test_every_hypothesis_is_explained() -> None:
    models = [build(0), build(1)]
    config = SearchConfig(beam_size=3, n_best=3, max_length=6)
    plain = search(models, SRC, config)
    found = explained(models, SRC, config)
    for source, hypotheses, others in zip(SRC, found, plain, strict=True):
        for hypothesis, other in zip(hypotheses, others, strict=True):
            assert hypothesis.ids == other.ids
            assert other.copied is None
            assert hypothesis.copied is not None
            assert len(hypothesis.copied) == hypothesis.length
            assert all(0 <= share <= 1 for share in hypothesis.copied)
            ids = [*hypothesis.ids, 3][: hypothesis.length]
            assert [share > 0 for share in hypothesis.copied] == [token in source for token in ids]


def test_sentences_may_have_different_numbers_of_hypotheses() -> None:
    models = [build(0)]
    found = search(models, SRC, SearchConfig(beam_size=2, n_best=2, max_length=6))
    del found[0][1:]
    add_attention(found, models, SRC, precision=SearchPrecision.fp32)
    assert [[hypothesis.attention is not None for hypothesis in each] for each in found] == [[True], [True, True]]


def test_without_copying_only_attention() -> None:
    (hypothesis,), _ = explained([build(0, copy=False)], SRC, SearchConfig(beam_size=1, max_length=6))
    assert hypothesis.attention is not None
    assert hypothesis.copied is None


def test_attention_has_a_row_a_token() -> None:
    models = [build(0, copy=False), build(1, copy=False)]
    config = SearchConfig(beam_size=3, n_best=3, max_length=6)
    plain = search(models, SRC, config)
    found = explained(models, SRC, config)
    for hypotheses, others, length in zip(found, plain, (5, 2), strict=True):
        for hypothesis, other in zip(hypotheses, others, strict=True):
            assert other.attention is None
            assert hypothesis.ids == other.ids
            assert hypothesis.attention is not None
            assert hypothesis.attention.shape == (hypothesis.length, length)
            torch.testing.assert_close(hypothesis.attention.sum(1), torch.ones(hypothesis.length))


def test_attention_is_that_of_the_steps() -> None:
    model = build(0, copy=False)
    (hypothesis,), _ = explained([model], SRC, SearchConfig(beam_size=1, max_length=6))
    src = SRC[:1]
    rows = []
    with torch.no_grad():
        state = model.start(model.encode(src, model.source_mask(src)), model.pack_decoder())
        for token in [2, *hypothesis.ids][: hypothesis.length]:
            attention = model.step(torch.tensor([token]), state, need_attention=True).attention
            assert attention is not None
            rows.append(attention)
    assert hypothesis.attention is not None
    torch.testing.assert_close(hypothesis.attention, torch.cat(rows), atol=1e-5, rtol=1e-4)
