from __future__ import annotations

from typing import Any

import pytest
import torch

from seq2seq.models.base import Vocabulary
from seq2seq.models.transformer import Transformer
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.models.transformer_decoding import KVCache

VOCABULARY = Vocabulary(40, 40, joint=True)


@torch.no_grad()
def test_cache_keeps_entries_and_sentences_while_it_grows() -> None:
    """Compares with plain concatenation at each step, over several doublings, while sentences are dropped."""
    torch.manual_seed(0)
    whole = torch.randn(9, 2, 2, 0, 4)
    cache = KVCache(whole)
    for step in range(60):
        entries = torch.randn(whole.size(0), 2, 2, 1 + step % 4, 4)
        cache.append(entries)
        whole = torch.cat([whole, entries], dim=3)
        if step % 11 == 10 and whole.size(0) > 2:
            rows = torch.randperm(whole.size(0))[:-1]
            cache.keep(rows, (rows != torch.arange(len(rows))).nonzero().squeeze(1))
            whole = whole[rows]
        keys, values = cache.read()
        assert torch.equal(keys, whole[:, :, 0].flatten(0, 1))
        assert torch.equal(values, whole[:, :, 1].flatten(0, 1))
    assert whole.size(3) > 128


@pytest.mark.parametrize("width", [1, 5])
@torch.no_grad()
def test_operators_and_memory_of_a_step(operators: Any, width: int) -> None:
    """Counts operators without views, and checks that no step copies a layer's cache."""
    config = TransformerConfig(d_model=64, d_ff=64, num_heads=4, decoder_layers=3)
    model = Transformer(config, VOCABULARY).eval()
    src = torch.randint(4, 40, (16, 5))
    state = model.start(model.encode(src, model.source_mask(src)), model.pack_decoder(), width=width)
    tokens, parents = torch.full((16 * width,), 2), torch.arange(width).flip(0).repeat(16, 1)
    for _ in range(40):
        model.step(tokens, state, need_attention=False)
        state.reorder(parents)
    with operators() as found:
        model.step(tokens, state, need_attention=False)
        state.reorder(parents)
    entries = 41 * width
    scores, layer_cache = 16 * 4 * width * entries * 4, 16 * 2 * 64 * entries * 4
    assert found.counts.total() - found.views <= 27 * 3 + 20
    assert found.largest <= max(scores, layer_cache // 4)
