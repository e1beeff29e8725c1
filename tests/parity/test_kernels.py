"""Whole models with their kernels against the same models in plain torch: outputs, losses, gradients, dropout."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seq2seq.models.attention_scores import AttentionScore
from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru import GRU
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.kernels.selection import use_kernels
from seq2seq.models.objective import Objective
from seq2seq.models.transformer_config import TransformerConfig

VOCABULARY = Vocabulary(20, 20, joint=True)
SMALL = {"d_model": 8, "encoder_size": 4, "embedding_size": 6, "attention_size": 5, "dropout": 0.3}
GRUS = [
    *(GRUConfig(**SMALL, attention=attention) for attention in GRUAttention),
    GRUConfig(**SMALL, decoder_layers=2, encoder_layers=2),
    GRUConfig(**SMALL, decoder_layers=2, input_feeding=False),
    GRUConfig(**SMALL, coverage=True, copy=True),
    GRUConfig(**SMALL, coverage=True, input_feeding=False),
]
TRANSFORMER = TransformerConfig(
    d_model=8, d_ff=16, num_heads=2, dropout=0.3, attention_dropout=0.2, activation_dropout=0.2, copy=True
)
CONFIGS = [*GRUS, TRANSFORMER]


def sums(model: nn.Module, seed: int = 5) -> tuple[Tensor, ...]:
    """Loss sums of a padded batch, in training mode, and the gradients of all parameters."""
    generator = torch.Generator().manual_seed(3)
    src, tgt = (torch.randint(4, 20, (3, n), generator=generator) for n in (6, 5))
    src[1, 4:] = 0
    rows = torch.arange(15)[tgt.flatten() != 4]
    torch.manual_seed(seed)
    found = Objective(model)(src, tgt, rows, tgt.flatten()[rows], 0.1)
    total = found.loss + found.coverage_loss
    return found.loss, found.nll, found.coverage_loss, *torch.autograd.grad(total, list(model.parameters()))


def name(config: Any) -> str:
    default = type(config)(**SMALL) if isinstance(config, GRUConfig) else config
    changed = {key: value for key, value in dataclasses.asdict(config).items() if getattr(default, key) != value}
    return "-".join([config.family, *(f"{key}={getattr(value, 'value', value)}" for key, value in changed.items())])


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_kernels_compute_what_plain_torch_does(config: Any) -> None:
    torch.manual_seed(1)
    model = build_model(config, VOCABULARY)
    with use_kernels(False):
        expected = sums(model)
    actual = sums(model)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(sums(model, seed=6)[0], actual[0]), "dropout draws from the generator"


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_second_derivatives_exist_in_plain_torch(config: Any) -> None:
    """Of the loss with respect to the encoder's states, against finite differences of the gradient."""
    torch.manual_seed(2)
    model = build_model(config, VOCABULARY).double().eval()
    src, tgt = torch.tensor([[5, 6, 7, 3]]), torch.tensor([[2, 8, 9]])
    memory = model.encode(src, model.source_mask(src))
    states = memory.states.detach().requires_grad_()

    def gradient(states: Tensor) -> Tensor:
        decoded = model.decode(tgt, dataclasses.replace(memory, states=states))
        loss = model.output.loss(decoded.rows(torch.arange(3)), torch.tensor([8, 9, 3]), 0.1).loss
        return torch.autograd.grad(loss, states, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient, states, fast_mode=True)


class BilinearTanh(AttentionScore):
    """A score that nobody wrote a loop for: tanh(q·W h)."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8, bias=False)

    def project_keys(self, states: Tensor) -> Tensor:
        y: Tensor = self.proj(states)
        return y

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        return torch.tanh(query @ keys.transpose(1, 2))


@pytest.mark.parametrize("input_feeding", [True, False])
def test_a_score_without_a_hand_written_form_trains_and_decodes(input_feeding: bool) -> None:
    torch.manual_seed(3)
    model = build_model(GRUConfig(**SMALL, input_feeding=input_feeding), VOCABULARY)
    assert isinstance(model, GRU)
    model.score = BilinearTanh()
    gradients = dict(zip([n for n, _ in model.named_parameters()], sums(model)[3:], strict=True))
    assert gradients["score.proj.weight"].abs().sum() > 0
    model.eval()
    src, tgt = torch.tensor([[5, 6, 7, 3]]), torch.tensor([[2, 8, 9]])
    with torch.no_grad():
        memory = model.encode(src, model.source_mask(src))
        whole = model.decode(tgt, memory).features
        state = model.start(memory, model.pack_decoder())
        steps = [model.step(tgt[:, t], state, need_attention=False).features for t in range(3)]
    torch.testing.assert_close(torch.stack(steps, dim=1), whole, atol=1e-6, rtol=1e-5)
