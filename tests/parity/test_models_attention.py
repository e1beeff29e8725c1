"""Attention and Transformer layers against torch.nn with copied weights, float32, tolerance 1e-5."""

import pytest
import torch
from torch import nn

from seq2seq.models.base import Memory
from seq2seq.models.embedding import sinusoids
from seq2seq.models.kernels.attention import attend, reference_attend
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.selection import use_kernels
from seq2seq.models.masks import causal_mask
from seq2seq.models.transformer import DecoderLayer, EncoderLayer, MultiHeadAttention
from seq2seq.models.transformer_config import Activation, NormPlacement, TransformerConfig

B, S, T, D, H = 3, 6, 5, 16, 4


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        for i, layer in enumerate((ours.q_proj, ours.k_proj, ours.v_proj)):
            layer.weight.copy_(theirs.in_proj_weight[i * D : (i + 1) * D])
            layer.bias.copy_(torch.randn(D))
            theirs.in_proj_bias[i * D : (i + 1) * D] = layer.bias
    ours.out_proj.load_state_dict(theirs.out_proj.state_dict())


def copy_residual_norms(pairs) -> None:
    for ours, theirs in pairs:
        with torch.no_grad():
            theirs.weight.copy_(torch.randn(D))
            theirs.bias.copy_(torch.randn(D))
        ours.norm.load_state_dict(theirs.state_dict())


def padding_mask() -> torch.Tensor:
    return torch.arange(S) < torch.tensor([[6], [1], [4]])


def config(norm: str, activation: str) -> TransformerConfig:
    return TransformerConfig(
        d_model=D, d_ff=32, num_heads=H, dropout=0.0,
        norm=NormPlacement(norm), activation=Activation(activation),
    )  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_equals_torch(causal):
    torch.manual_seed(1)
    ours, theirs = MultiHeadAttention(config("pre", "relu")), nn.MultiheadAttention(D, H, batch_first=True)
    copy_attention(ours, theirs)
    x, pad = torch.randn(B, S, D), padding_mask()
    mask = causal_mask(S, x.device) & pad.unsqueeze(1) if causal else pad.unsqueeze(1)
    expected, _ = theirs(
        x,
        x,
        x,
        key_padding_mask=~pad,
        need_weights=False,
        attn_mask=~causal_mask(S, x.device)[0] if causal else None,
    )
    torch.testing.assert_close(ours(*ours.project(x, parts="qkv"), mask), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("times", [1, 120], ids=["short", "long"])  # the long ones go through the fused kernel
def test_attention_matches_its_definition_in_value_and_gradient(times):
    torch.manual_seed(2)
    q, k, v = tensors = [torch.randn(B, H, times * n, 8, requires_grad=True) for n in (T, S, S)]
    assert (q.size(2) * k.size(2) > 512 * 512) == (times > 1)
    mask = padding_mask().repeat(1, times).unsqueeze(1)
    y = attend(*tensors, mask, scale=0.3, dropout=Dropout(0.0))
    scores = (0.3 * q @ k.transpose(2, 3)).masked_fill(~mask.unsqueeze(1), float("-inf"))
    expected = scores.softmax(-1) @ v
    torch.testing.assert_close(reference_attend(*tensors, mask, scale=0.3, dropout=Dropout(0.0)), expected)
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)
    our_grads, their_grads = (torch.autograd.grad(each.square().sum(), tensors) for each in (y, expected))
    for ours, theirs in zip(our_grads, their_grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_gradients_of_unfused_attention_match_its_values(rate):
    """Finite differences in float64; each evaluation drops the same weights."""
    torch.manual_seed(3)
    tensors = [torch.randn(2, 2, n, 3, dtype=torch.float64, requires_grad=True) for n in (T, S, S)]
    mask = padding_mask()[:2].unsqueeze(1)

    def attended(*qkv):
        torch.manual_seed(4)
        return attend(*qkv, mask, scale=0.3, dropout=Dropout(rate))

    with use_kernels(True):
        assert torch.autograd.gradcheck(attended, tensors)
        unfused = attended(*tensors)
    torch.testing.assert_close(attended(*tensors), unfused)
    assert torch.autograd.gradgradcheck(attended, tensors)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_equals_torch(norm, activation):
    torch.manual_seed(3)
    ours = EncoderLayer(config(norm, activation))
    theirs = nn.TransformerEncoderLayer(
        D, H, 32, dropout=0.0, activation=activation, batch_first=True, norm_first=norm == "pre"
    )
    copy_attention(ours.self_attn, theirs.self_attn)
    ours.feed_forward.fc1.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.fc2.load_state_dict(theirs.linear2.state_dict())
    copy_residual_norms([(ours.self_attn_residual, theirs.norm1), (ours.feed_forward_residual, theirs.norm2)])
    x, pad = torch.randn(B, S, D), padding_mask()
    expected = theirs(x, src_key_padding_mask=~pad)
    torch.testing.assert_close(ours(x, pad.unsqueeze(1))[pad], expected[pad], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_decoder_layer_equals_torch_with_gradients(norm, activation):
    torch.manual_seed(4)
    ours = DecoderLayer(config(norm, activation))
    theirs = nn.TransformerDecoderLayer(
        D, H, 32, dropout=0.0, activation=activation, batch_first=True, norm_first=norm == "pre"
    )
    copy_attention(ours.self_attn, theirs.self_attn)
    copy_attention(ours.encoder_attn, theirs.multihead_attn)
    ours.feed_forward.fc1.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.fc2.load_state_dict(theirs.linear2.state_dict())
    copy_residual_norms(
        [
            (ours.self_attn_residual, theirs.norm1),
            (ours.encoder_attn_residual, theirs.norm2),
            (ours.feed_forward_residual, theirs.norm3),
        ]
    )
    x, states = torch.randn(B, T, D, requires_grad=True), torch.randn(B, S, D, requires_grad=True)
    pad, causal = padding_mask(), causal_mask(T, x.device)
    expected = theirs(x, states, tgt_mask=~causal[0], memory_key_padding_mask=~pad)
    actual, weights = ours(x, causal, Memory(states, pad, pad.long()), need_attention=True)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    for got, want in zip(
        torch.autograd.grad(actual.square().sum(), (x, states)),
        torch.autograd.grad(expected.square().sum(), (x, states)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T))
    assert (weights[1, :, 1:] == 0).all()


def test_sinusoids_equal_closed_form():
    table = sinusoids(40, 12)
    for position in (0, 1, 7, 39):
        for i in range(6):
            angle = torch.tensor(position / 10000 ** (2 * i / 12), dtype=torch.float64)
            assert table[position, i].item() == pytest.approx(angle.sin().item(), abs=1e-6)
            assert table[position, 6 + i].item() == pytest.approx(angle.cos().item(), abs=1e-6)
