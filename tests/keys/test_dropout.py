"""The dropout keys of the model section: each drops its share where it should, and nothing elsewhere."""

import itertools
from typing import Any

import pytest
import torch
from small_models import SRC, built
from torch import Tensor, nn

RATE, ROWS = 0.25, 2000  # the standard deviation of a share is 0.01


@torch.no_grad()
def zeros_in_transformer(model: Any) -> dict[str, float]:
    """Shares of zeros where nothing but dropout makes any, in single positions: attention has one weight, and it is 1.

    A pre-norm model hands each state of its stream to a normalisation, so what a block added is a difference of two.
    """
    shares: dict[str, float] = {}
    stream: list[Tensor] = []

    def share(name: str, x: Tensor) -> None:
        shares[name] = (x == 0).double().mean().item()

    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, args: stream.append(args[0]))
        elif name.endswith(("out_proj", "fc2")):
            module.register_forward_pre_hook(lambda _, args, name=name: share(name, args[0]))
    ids = torch.full((ROWS, 1), 5)
    model.decode(ids, model.encode(ids, ids > 0))
    for side, states in (("encoder", stream[:3]), ("decoder", stream[3:])):
        share(f"{side} embedding", states[0])
        for block, (before, after) in enumerate(itertools.pairwise(states)):
            share(f"{side} block {block}", after - before)
    return shares


@torch.no_grad()
def zeros_in_gru(model: Any) -> dict[str, float]:
    """Shares of dropped inputs of the last layers, and of zeros among the features.

    Of the inputs of these layers only the first counts, those of other layers do not. Then the encoder's state at a
    single position, and the decoder's attention at its first one, are either as without any input or something else.
    """
    ids, many = torch.full((ROWS, 1), 5), SRC[:1].repeat(ROWS, 1)
    memory = model.encode(many, many > 0)
    results = {
        "encoder": lambda: model.encode(ids, ids > 0).states,
        "decoder": lambda: model.decode(ids, memory, need_attention=True).attention,
    }
    shares = {}
    for name, result in results.items():
        stack = getattr(model, name)
        weights = {key: weight for key, weight in stack.named_parameters() if key.startswith("weight_ih")}
        for weight in weights.values():
            weight.zero_()
        without = result()
        for key, weight in weights.items():
            weight[:, 0] = float(f"_l{stack.num_layers - 1}" in key)
        shares[name] = ((result() - without).abs().amax(-1) < 1e-6).double().mean().item()
    return shares | {"features": (model.decode(ids, memory).features == 0).double().mean().item()}


@pytest.mark.parametrize(
    ("family", "settings", "place"),
    [
        ("gru", {"dropout": RATE}, ""),
        ("gru", {"dropout": RATE, "encoder_layers": 2, "decoder_layers": 2}, ""),
        ("gru", {"dropout": RATE, "encoder_layers": 2, "decoder_layers": 2, "input_feeding": False}, ""),
        ("transformer", {"dropout": RATE}, "coder "),
        ("transformer", {"attention_dropout": RATE}, "out_proj"),
        ("transformer", {"activation_dropout": RATE}, "fc2"),
    ],
)
def test_dropout_in_its_place(family: str, settings: dict[str, Any], place: str) -> None:
    torch.manual_seed(0)
    for training in (True, False):
        if family == "gru":
            shares = zeros_in_gru(built(family, **settings).train(training))
        else:
            shares = zeros_in_transformer(built(family, norm="pre", activation="gelu", **settings).train(training))
        assert len(shares) == (3 if family == "gru" else 12)
        expected = {name: RATE if training and place in name else 0.0 for name in shares}
        assert shares == pytest.approx(expected, abs=0.05)
