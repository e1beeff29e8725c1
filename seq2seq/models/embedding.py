"""Token embeddings with weight tying, and position encodings."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from seq2seq.errors import UserError
from seq2seq.models.base import Vocabulary
from seq2seq.models.config import TieEmbeddings


def build_embeddings(
    vocabulary: Vocabulary, size: int, tie: TieEmbeddings
) -> tuple[nn.Embedding, nn.Embedding, nn.Parameter | None]:
    """Source and target embeddings of `size` features, and the weight that the output layer shares, if any.

    Raises:
        UserError: if `tie` is `all` but source and target do not share a vocabulary.
    """
    if tie is TieEmbeddings.all and not vocabulary.joint:
        raise UserError(
            "model.tie_embeddings=all needs one vocabulary for both sides: "
            "set tokenizer.joint=true or model.tie_embeddings=decoder"
        )
    target = _embedding(vocabulary.target_size, size, vocabulary.pad_id)
    source = target
    if tie is not TieEmbeddings.all:
        source = _embedding(vocabulary.source_size, size, vocabulary.pad_id)
    return source, target, None if tie is TieEmbeddings.none else cast(nn.Parameter, target.weight)


def _embedding(num_embeddings: int, size: int, pad_id: int) -> nn.Embedding:
    """An embedding drawn from N(0, 1/size), which suits the tied output layer; the padding row is zero."""
    embedding = nn.Embedding(num_embeddings, size, padding_idx=pad_id)
    nn.init.normal_(embedding.weight, std=size**-0.5)
    with torch.no_grad():
        embedding.weight[pad_id].zero_()
    return embedding


def sinusoids(length: int, size: int) -> Tensor:
    """Position encodings [length, size] float32, from position 0: sin(p / 10000^(2i/size)), then the cosines.

    Vaswani et al. (2017, section 3.5, arXiv:1706.03762); differs in that all sines come before all
    cosines instead of alternating, a permutation of features that other toolkits' layouts expect.
    """
    frequencies = torch.exp(torch.arange(0, size, 2, dtype=torch.float64) * (-math.log(10000.0) / size))
    angles = torch.arange(length, dtype=torch.float64).unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class SinusoidalPositions(nn.Module):
    """Fixed position encodings; the table grows when a longer sequence needs it.

    Args:
        size: even number of features.
        length: initial number of positions.
    """

    table: Tensor

    def __init__(self, size: int, length: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(length, size), persistent=False)

    def forward(self, start: int, length: int) -> Tensor:
        """Encodings [length, size] of the positions from `start`."""
        end = start + length
        if end > self.table.size(0):
            with torch.inference_mode(False):  # a table made during evaluation must also work in training
                self.table = sinusoids(2 * end, self.table.size(1)).to(self.table.device)
        return self.table[start:end]


class LearnedPositions(nn.Module):
    """Learned position embeddings up to a maximum length."""

    def __init__(self, size: int, length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, size))
        nn.init.normal_(self.weight, std=size**-0.5)

    def forward(self, start: int, length: int) -> Tensor:
        """Encodings [length, size] of the positions from `start`.

        Raises:
            UserError: if the sequence is longer than the table.
        """
        limit = self.weight.size(0)
        if start + length > limit:
            raise UserError(
                f"model.positions=learned has model.max_positions={limit} positions, but a sequence has "
                f"{start + length} tokens: lower data.max_source_length, data.max_target_length or search.max_length"
            )
        return self.weight[start : start + length]
