from __future__ import annotations

import math

import pytest
import torch

from seq2seq.models.base import Vocabulary
from seq2seq.search.coverage_penalty import Coverage

VOCABULARY = Vocabulary(12, 12, joint=True)


def coverage(src: list[list[int]]) -> Coverage:
    return Coverage(0.5, torch.tensor(src), VOCABULARY)


def test_what_got_less_than_one_costs_its_logarithm() -> None:
    of_source = coverage([[5, 6, 7, 3]])
    assert of_source.add(torch.tensor([[0.2, 0.3, 0.4, 0.1]])).item() == pytest.approx(0.5 * math.log(0.2 * 0.3 * 0.4))
    # 7 now has 1.3, which counts as 1; the end of sentence never counts.
    assert of_source.add(torch.tensor([[0.0, 0.1, 0.9, 0.0]])).item() == pytest.approx(0.5 * math.log(0.2 * 0.4))


def test_padding_counts_nothing_and_no_attention_costs_a_finite_price() -> None:
    of_source = coverage([[5, 6, 3], [5, 3, 0], [3, 0, 0]])
    penalties = of_source.add(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert penalties.flatten().tolist() == pytest.approx([0.5 * math.log(1e-10), 0.5 * math.log(1e-10), 0.0])


def test_sums_go_with_their_beams_and_sentences() -> None:
    of_source = coverage([[5, 6, 3], [7, 8, 3]])
    of_source.add(torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]))
    of_source.reorder(torch.tensor([[0, 0], [0, 0]]))
    of_source.add(torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]))
    of_source.reorder(torch.tensor([[1, 0], [1, 1]]))
    of_source.keep(torch.tensor([1, 0]))
    penalties = of_source.add(torch.zeros(4, 3))
    half = 0.5 * math.log(0.25 * 0.75)
    assert penalties.flatten().tolist() == pytest.approx([half, half, math.log(0.5), 0.0])
