"""Our recurrence against torch.nn.GRU on packed sequences; tolerance 1e-5 in float32, 0.02 in bfloat16."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.recurrence import run_decoder, run_encoder

LENGTHS = torch.tensor([3, 7, 1, 5])


def packed(gru: nn.GRU, x: torch.Tensor) -> torch.Tensor:
    return pad_packed_sequence(gru(pack_padded_sequence(x, LENGTHS, enforce_sorted=False))[0])[0]


@pytest.mark.parametrize("layers", [1, 2])
def test_encoder_equals_packed_gru_in_value_and_gradient(layers):
    torch.manual_seed(1)
    gru = nn.GRU(6, 5, layers, bidirectional=True)
    x = torch.randn(7, 4, 6, requires_grad=True)
    mask = torch.arange(7) < LENGTHS.unsqueeze(1)
    ours, theirs = run_encoder(gru, x, mask, Dropout(0.0)), packed(gru, x)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    into = [x, *gru.parameters()]
    seed = torch.randn_like(ours)
    for got, want in zip(torch.autograd.grad(ours, into, seed), torch.autograd.grad(theirs, into, seed), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_encoder_under_autocast_stays_near_float32():
    torch.manual_seed(2)
    gru = nn.GRU(6, 5, 2, bidirectional=True)
    x, mask = torch.randn(7, 4, 6), torch.arange(7) < LENGTHS.unsqueeze(1)
    with torch.autocast("cpu", torch.bfloat16):
        ours = run_encoder(gru, x, mask, Dropout(0.0))
    assert ours.dtype is torch.bfloat16
    torch.testing.assert_close(ours.float(), packed(gru, x), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("layers", [1, 2])
def test_decoder_states_equal_torch_gru(layers):
    torch.manual_seed(3)
    config = GRUConfig(d_model=8, encoder_size=4, embedding_size=6, decoder_layers=layers, input_feeding=False)
    model = build_model(config, Vocabulary(20, 20, True)).eval()
    src, tokens = torch.randint(4, 20, (3, 6)), torch.randint(4, 20, (5, 3))
    state = model.start(model.encode(src, model.source_mask(src)), model.pack_decoder())
    first, states = state.hidden, []
    for step_tokens in tokens:
        model.step(step_tokens, state, need_attention=False)
        states.append(state.hidden)
    expected, last = model.decoder(model.target_embedding(tokens), first)
    torch.testing.assert_close(torch.stack([hidden[-1] for hidden in states]), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(states[-1], last, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_torchs_own_gru_computes_what_the_kernels_do(rate):
    """The path of GPUs, forced on the CPU: values and gradients, with the same dropout between the layers."""
    torch.manual_seed(4)
    encoder, decoder, dropout = nn.GRU(6, 5, 2, bidirectional=True), nn.GRU(6, 5, 3), Dropout(rate)
    x = torch.randn(7, 4, 6, requires_grad=True)
    mask, initial = torch.ones(4, 7, dtype=torch.bool), torch.randn(3, 4, 5, requires_grad=True)

    def gradients(cudnn):
        torch.manual_seed(5)
        encoded = run_encoder(encoder, x, mask, dropout, _cudnn=cudnn)
        decoded = run_decoder(decoder, x, initial, dropout, _cudnn=cudnn)
        total = encoded.square().sum() + decoded.square().sum()
        return encoded, decoded, *torch.autograd.grad(total, [x, initial, *encoder.parameters(), *decoder.parameters()])

    torch.testing.assert_close(gradients(True), gradients(False), atol=1e-5, rtol=1e-5)


def test_torchs_own_gru_ignores_padding_and_autocast():
    torch.manual_seed(6)
    gru = nn.GRU(6, 5, 2, bidirectional=True)
    x, mask = torch.randn(9, 4, 6), torch.arange(9) < LENGTHS.unsqueeze(1)
    ours = run_encoder(gru, x, mask, Dropout(0.0), _cudnn=False)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = run_encoder(gru, x, mask, Dropout(0.0), _cudnn=True)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers", [1, 3])
def test_a_gpu_computes_what_the_kernels_do_on_the_cpu(layers):
    torch.manual_seed(7)
    encoder, decoder = nn.GRU(6, 5, layers, bidirectional=True), nn.GRU(6, 5, layers)
    x, initial = torch.randn(7, 4, 6), torch.randn(layers, 4, 5)
    mask = torch.arange(7) < LENGTHS.unsqueeze(1)

    def states(device):
        encoder.to(device), decoder.to(device)
        encoded = run_encoder(encoder, x.to(device), mask.to(device), Dropout(0.0))
        return encoded, run_decoder(decoder, x.to(device), initial.to(device), Dropout(0.0))

    expected = states("cpu")
    torch.testing.assert_close([y.cpu() for y in states("cuda")], list(expected), atol=1e-5, rtol=1e-5)
