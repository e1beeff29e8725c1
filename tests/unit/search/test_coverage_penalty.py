from __future__ import annotations

import math

import pytest
import torch

from seq2seq.models.base import Vocabulary
from seq2seq.search.coverage_penalty import CoveragePenalty

VOCABULARY = Vocabulary(12, 12, joint=True)


def coverage_penalty(src: list[list[int]]) -> CoveragePenalty:
    return CoveragePenalty(0.5, torch.tensor(src), VOCABULARY)


def test_attention_below_one_costs_its_logarithm() -> None:
    penalty = coverage_penalty([[5, 6, 7, 3]])
    assert penalty.add(torch.tensor([[0.2, 0.3, 0.4, 0.1]])).item() == pytest.approx(0.5 * math.log(0.2 * 0.3 * 0.4))
    # 7 now has 1.3, which counts as 1; the end of sentence never counts.
    assert penalty.add(torch.tensor([[0.0, 0.1, 0.9, 0.0]])).item() == pytest.approx(0.5 * math.log(0.2 * 0.4))


def test_padding_costs_nothing_and_no_attention_a_finite_penalty() -> None:
    penalty = coverage_penalty([[5, 6, 3], [5, 3, 0], [3, 0, 0]])
    penalties = penalty.add(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert penalties.flatten().tolist() == pytest.approx([0.5 * math.log(1e-10), 0.5 * math.log(1e-10), 0.0])


def test_sums_follow_their_beams_and_sentences() -> None:
    penalty = coverage_penalty([[5, 6, 3], [7, 8, 3]])
    penalty.add(torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]))
    penalty.reorder(torch.tensor([[0, 0], [0, 0]]))
    penalty.add(torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]))
    penalty.reorder(torch.tensor([[1, 0], [1, 1]]))
    penalty.keep(torch.tensor([1, 0]))
    penalties = penalty.add(torch.zeros(4, 3))
    half = 0.5 * math.log(0.25 * 0.75)
    assert penalties.flatten().tolist() == pytest.approx([half, half, math.log(0.5), 0.0])
