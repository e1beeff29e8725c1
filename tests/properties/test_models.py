"""What must hold of every model, whatever the family and its options; float32, tolerance 1e-5."""

import itertools

import pytest
import torch

from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.objective import Objective
from seq2seq.models.transformer_config import (
    Activation,
    CopyAttention,
    NormPlacement,
    PositionKind,
    TransformerAttention,
    TransformerConfig,
)

V = 30
VOCABULARY = Vocabulary(V, V, joint=True)
LENGTHS = [5, 1, 7, 3]


def gru(**changes) -> GRUConfig:
    sizes = {"d_model": 12, "encoder_size": 6, "embedding_size": 10, "attention_size": 8, "dropout": 0.1}
    return GRUConfig(**(sizes | changes))


def transformer(**changes) -> TransformerConfig:
    sizes = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2}
    return TransformerConfig(**(sizes | changes))


CONFIGS = {
    f"gru-{kind.value}-{'fed' if fed else 'free'}-{layers}": gru(
        attention=kind, input_feeding=fed, encoder_layers=layers, decoder_layers=layers
    )
    for kind in GRUAttention
    for fed in (True, False)
    for layers in (1, 2)
} | {
    f"transformer-{norm.value}-{kind.value}": transformer(norm=norm, attention=kind)
    for norm in NormPlacement
    for kind in TransformerAttention
}
CONFIGS["transformer-deep"] = transformer(encoder_layers=3, decoder_layers=3)
CONFIGS["transformer-learned-gelu"] = transformer(
    positions=PositionKind.learned, activation=Activation.gelu, max_positions=32
)

CONFIGS |= {f"transformer-copy-{kind.value}": transformer(copy=True, copy_attention=kind) for kind in CopyAttention}
CONFIGS |= {
    f"gru-{'copy-' if copy else ''}coverage-{'fed' if fed else 'free'}": gru(
        copy=copy, coverage=True, input_feeding=fed, decoder_layers=2
    )
    for copy in (True, False)
    for fed in (True, False)
}
CONFIGS["gru-copy-dot"] = gru(copy=True, attention=GRUAttention.scaled_dot)

every_model = pytest.mark.parametrize("name", CONFIGS)


def build(name: str):
    torch.manual_seed(5)
    model = build_model(CONFIGS[name], VOCABULARY).eval()
    with torch.no_grad():  # sharper than at the start of training, so that mistakes show
        for parameter in model.parameters():
            parameter.mul_(1.2)
        if getattr(CONFIGS[name], "coverage", False):
            model.score.coverage.normal_()  # starts at zero
    return model


def sources(lengths=LENGTHS, width=None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(6)
    rows = [torch.randint(4, V, (n,), generator=generator) for n in LENGTHS]
    src = torch.zeros(len(lengths), width or max(lengths), dtype=torch.int64)
    for i, n in enumerate(lengths):
        src[i, :n] = rows[LENGTHS.index(n)]
    return src


def targets(steps=6) -> torch.Tensor:
    tokens = torch.randint(4, V, (len(LENGTHS), steps), generator=torch.Generator().manual_seed(7))
    tokens[:, 0] = VOCABULARY.bos_id
    return tokens


def encode(model, src):
    return model.encode(src, model.source_mask(src))


@every_model
@torch.no_grad()
def test_stepwise_equals_teacher_forced(name):
    model, tgt = build(name), targets()
    memory = encode(model, sources())
    whole = model.decode(tgt, memory, need_attention=True)
    log_probs = model.output.log_probs(whole)
    state = model.start(memory, model.pack_decoder())
    for t in range(tgt.size(1)):
        one = model.step(tgt[:, t], state, need_attention=True)
        torch.testing.assert_close(one.features, whole.features[:, t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.attention, whole.attention[:, t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.output.log_probs(one), log_probs[:, t], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.attention.sum(-1), torch.ones(tgt.shape))
    assert whole.attention.dtype is torch.float32
    assert (whole.attention[1, :, 1:] == 0).all(), "padding was attended"
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(tgt.shape))


@every_model
@torch.no_grad()
def test_reorder_and_keep_equal_recomputation(name):
    """Beams fan out, swap places, sentences leave; each row then equals a run over its own history."""
    model = build(name)
    src = sources()
    memory = encode(model, src)
    state = model.start(memory, model.pack_decoder())
    count, generator = len(LENGTHS), torch.Generator().manual_seed(8)
    history = torch.full((count, 1, 1), VOCABULARY.bos_id)  # [B, K, t]
    alive = torch.arange(count)
    for t in range(6):
        hidden = model.step(history[:, :, -1].flatten(), state, need_attention=False)
        flat = history.flatten(0, 1)
        rows = alive.repeat_interleave(history.size(1))
        expected = model.decode(flat, encode(model, src[rows]))
        torch.testing.assert_close(hidden.features, expected.features[:, -1], atol=1e-5, rtol=1e-5)
        log_probs = model.output.log_probs(expected)[:, -1]
        torch.testing.assert_close(model.output.log_probs(hidden), log_probs, atol=1e-5, rtol=1e-5)
        width = 3 if t != 3 else 2
        parents = torch.randint(history.size(1), (len(alive), width), generator=generator)
        state.reorder(parents)
        history = history.gather(1, parents.unsqueeze(-1).expand(-1, -1, history.size(2)))
        history = torch.cat([history, torch.randint(4, V, (len(alive), width, 1), generator=generator)], dim=2)
        if t in (1, 4):
            stay = torch.arange(len(alive))[t % 2 :].flip(0)[: -1 if t == 4 else None]
            state.keep(stay)
            history, alive = history[stay], alive[stay]
    assert 0 < len(alive) < count


@every_model
@torch.no_grad()
def test_start_with_width_equals_repeated_sentences(name):
    model = build(name)
    memory = encode(model, sources())
    wide, narrow = model.start(memory, model.pack_decoder(), width=2), model.start(memory, model.pack_decoder())
    tokens = targets()[:, 1]
    two = model.step(tokens.repeat_interleave(2), wide, need_attention=False).features
    one = model.step(tokens, narrow, need_attention=False).features
    torch.testing.assert_close(two, one.repeat_interleave(2, dim=0), atol=1e-5, rtol=1e-5)


@every_model
@torch.no_grad()
def test_neighbours_and_padding_change_nothing(name):
    model, tgt = build(name), targets()
    together = model.decode(tgt, encode(model, sources(width=11))).features
    for i, length in enumerate(LENGTHS):
        alone = model.decode(tgt[i : i + 1, :4], encode(model, sources([length]))).features
        torch.testing.assert_close(together[i : i + 1, :4], alone, atol=1e-5, rtol=1e-5)


@every_model
def test_rows_of_padding_give_no_nan(name):
    model = build(name).train()
    src, tgt = sources(), targets()
    src[2] = 0
    tgt[2] = 0
    sums = Objective(model)(src, tgt, torch.arange(12), torch.randint(4, V, (12,)), 0.1)
    sums.loss.backward()
    assert sums.loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_model
def test_loss_of_a_batch_is_the_sum_over_its_sentences(name):
    model = build(name)
    objective, src, tgt = Objective(model), sources(), targets()
    labels = torch.randint(4, V, tgt.shape)
    rows = torch.arange(tgt.numel())

    def gradients(losses):
        return torch.autograd.grad(losses, list(model.parameters()), allow_unused=True)

    whole = objective(src, tgt, rows, labels.flatten(), 0.1)
    parts = [
        objective(src[i : i + 1, :n], tgt[i : i + 1], torch.arange(tgt.size(1)), labels[i], 0.1)
        for i, n in enumerate(LENGTHS)
    ]
    torch.testing.assert_close(whole.loss, sum(p.loss for p in parts), atol=1e-3, rtol=1e-5)
    for got, want in zip(gradients(whole.loss), gradients(sum(p.loss for p in parts)), strict=True):
        if want is not None:
            torch.testing.assert_close(got, want, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "coverage" in name])
@torch.no_grad()
def test_the_coverage_loss_is_attention_to_what_was_attended_to(name):
    """Against the definition, one number at a time, on the attention of the steps."""
    model, tgt = build(name), targets()
    memory = encode(model, sources())
    coverage_loss = model.decode(tgt, memory).coverage_loss
    state, steps = model.start(memory, model.pack_decoder()), []
    for t in range(tgt.size(1)):
        steps.append(model.step(tgt[:, t], state, need_attention=True).attention.tolist())
    for b, t in itertools.product(range(tgt.size(0)), range(tgt.size(1))):
        before = [sum(steps[u][b][i] for u in range(t)) for i in range(max(LENGTHS))]
        expected = sum(min(now, then) for now, then in zip(steps[t][b], before, strict=True))
        assert coverage_loss[b, t].item() == pytest.approx(expected, abs=1e-5)
    assert coverage_loss[0].max() > 0.1


@pytest.mark.parametrize("kind", ["copy-coverage", "coverage"])
@torch.no_grad()
def test_coverage_changes_where_the_decoder_looks(kind):
    covered = build(f"gru-{kind}-fed")
    memory, tgt = encode(covered, sources()), targets()
    looked = covered.decode(tgt, memory, need_attention=True).attention
    covered.score.coverage.zero_()
    blind = covered.decode(tgt, memory, need_attention=True).attention
    torch.testing.assert_close(looked[:, 0], blind[:, 0])
    assert not torch.allclose(looked[:, 1], blind[:, 1])


@every_model
@pytest.mark.filterwarnings("error")
def test_activations_computed_anew_give_the_same_gradients(name):
    model = build(name).train()
    labels = torch.randint(4, V, (24,))
    found = []
    for model.checkpoint_activations in (False, True):
        torch.manual_seed(9)  # dropout draws the same masks, in the second forward pass too
        sums = Objective(model)(sources(), targets(), torch.arange(24), labels, 0.1)
        found.append([sums.loss, *torch.autograd.grad(sums.loss + sums.coverage_loss, list(model.parameters()))])
    for kept, anew in zip(*found, strict=True):
        assert torch.equal(kept, anew)


@every_model
def test_every_parameter_learns(name):
    model = build(name).train()
    sums = Objective(model)(sources(), targets(), torch.arange(24), torch.randint(4, V, (24,)), 0.1)
    sums.loss.backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("name", ["gru-additive-fed-2", "gru-dot-free-1", "transformer-post-scaled_dot"])
def test_bfloat16_autocast_stays_near_float32(name):
    torch.manual_seed(5)
    model = build_model(CONFIGS[name], VOCABULARY).eval()
    labels = torch.randint(4, V, (24,))
    exact = Objective(model)(sources(), targets(), torch.arange(24), labels, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = Objective(model)(sources(), targets(), torch.arange(24), labels, 0.1)
    assert coarse.loss.dtype is torch.float32
    torch.testing.assert_close(coarse.loss, exact.loss, atol=0.0, rtol=0.01)
    coarse.loss.backward()
    assert all(p.grad is None or p.grad.dtype is torch.float32 for p in model.parameters())
