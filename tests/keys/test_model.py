"""Every key of the model section: sizes by formula, functions against torch.nn with the same weights.

A model is compared both as training reads it (`decode`) and as search does (`start` and `step`).
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import FAMILIES, LIMITS, SMALL, SRC, TGT, V, built
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.config import saved
from seq2seq.config.parse import parse
from seq2seq.errors import UserError
from seq2seq.models.base import DecoderOutput, Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUAttention
from seq2seq.models.objective import Objective
from seq2seq.models.transformer_config import TransformerAttention
from seq2seq.pipeline.load import load


@torch.no_grad()
def read(model: Seq2Seq) -> DecoderOutput:
    """What the decoder says about TGT, after a check that search is told the same, log-probabilities included."""
    memory = model.encode(SRC, model.source_mask(SRC))
    hidden = model.decode(TGT, memory, need_attention=True)
    packed = model.pack_decoder()
    state = model.start(memory, packed)
    for position, tokens in enumerate(TGT.t()):
        step = model.step(tokens, state, need_attention=True)
        close(step.features, hidden.features[:, position])
        close(step.attention, hidden.attention[:, position])
        close(model.output.log_probs(step, packed.output), model.output.log_probs(hidden)[:, position])
    return hidden


def close(actual: Tensor | None, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def count(model: Seq2Seq) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def size(family: str, **settings: Any) -> int:
    """Parameters of the small model with `settings`, by formula."""
    sizes = {**SMALL[family], **settings}
    d, encoders, decoders = sizes["d_model"], sizes["encoder_layers"], sizes["decoder_layers"]
    if family == "transformer":
        attention, norm = 4 * d * (d + 1), 2 * d
        feed_forward = sizes["d_ff"] * (d + 1) + d * (sizes["d_ff"] + 1)
        both = encoders * (attention + feed_forward + 2 * norm) + decoders * (2 * attention + feed_forward + 3 * norm)
        return V * d + both
    embedded, states = sizes["embedding_size"], 2 * sizes["encoder_size"]

    def layer(inputs: int, state: int) -> int:
        return 3 * state * (inputs + state + 2)  # three gates with two biases each

    encoder = 2 * layer(embedded, states // 2) + 2 * (encoders - 1) * layer(states, states // 2)
    decoder = layer(embedded + d, d) + (decoders - 1) * layer(d, d) + (states + 1) * decoders * d  # with first states
    attention = sizes["attention_size"] * (d + states + 2)  # W q + U h + b, and v
    features = (states + d) * d + (0 if d == embedded else d * embedded)
    return int(V * embedded + encoder + decoder + attention + features)


NO_SIZES = ("dropout", "num_heads", "max_positions")


@pytest.mark.parametrize(
    ("family", "key"), [(family, key) for family in FAMILIES for key in SMALL[family] if key not in NO_SIZES]
)
def test_sizes(family: str, key: str) -> None:
    """The parameters are as many as the formula says, training gives each a gradient, and search uses them too."""
    changed = {key: SMALL[family][key] + 2}
    model = built(family, **changed)
    assert count(model) == size(family, **changed) != size(family)
    read(model)
    rows = torch.arange(TGT.numel())
    Objective(model)(SRC, TGT, rows, TGT.flatten(), 0.0).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_family() -> None:
    typical = {"gru": "decoder.weight_hh_l0", "transformer": "decoder.0.self_attn.q_proj.weight"}
    for family in FAMILIES:
        config = parse({"model": {"family": family}})
        names = build_model(config.model, Vocabulary(V, V, joint=True)).state_dict()
        assert [other for other, name in typical.items() if name in names] == [family]


def torch_layer(ours: nn.Module, kind: type[nn.Module], *, heads: int, q_scale: float, **settings: Any) -> nn.Module:
    """torch's layer with the weights of one of ours; queries times `q_scale`."""
    blocks = {"self_attn": "self_attn", "encoder_attn": "multihead_attn"}
    weights: dict[str, Tensor] = {}
    for name, part in itertools.product(blocks.keys() & dict(ours.named_children()), ("weight", "bias")):
        block = ours.get_submodule(name)
        q, k, v, out = (getattr(block.get_submodule(f"{each}_proj"), part) for each in ("q", "k", "v", "out"))
        weights[f"{blocks[name]}.in_proj_{part}"] = torch.cat([q * q_scale, k, v])
        weights[f"{blocks[name]}.out_proj.{part}"] = out
    layers = {"linear1": ours.feed_forward.fc1, "linear2": ours.feed_forward.fc2}
    norms = [module for module in ours.modules() if isinstance(module, nn.LayerNorm)]
    layers |= {f"norm{number}": norm for number, norm in enumerate(norms, 1)}
    weights |= {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in ("weight", "bias")}
    inner, width = ours.feed_forward.fc1.weight.shape
    layer = kind(width, heads, inner, dropout=0.0, batch_first=True, **settings)
    layer.load_state_dict(weights)
    return layer


def sinusoids(length: int, width: int) -> Tensor:
    """sin(p / 10000^(2i/D)) for all i, then the cosines."""
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@torch.no_grad()
def torch_transformer(
    model: Any, *, num_heads: int = 2, activation: str = "relu", norm: str = "post", positions: str = "sinusoidal",
    attention: str = "scaled_dot",
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Encoder states [B, S, D], features [B, T, D] and the last layer's attention [B, H, T, S], by torch.nn's layers.

    torch divides scores by the square root of the head size; queries that are larger by this undo it.
    """
    width = model.target_embedding.embedding_dim
    settings: dict[str, Any] = {
        "heads": num_heads,
        "q_scale": (width / num_heads) ** 0.5 if attention == "dot" else 1.0,
        "activation": activation,
        "norm_first": norm == "pre",
    }

    def embedded(ids: Tensor, table: nn.Embedding, learned: Any) -> Tensor:
        places = sinusoids(ids.size(1), width) if positions == "sinusoidal" else learned.weight[: ids.size(1)]
        return table(ids) * width**0.5 + places

    def ended(x: Tensor, last: Any) -> Tensor:
        return F.layer_norm(x, (width,), last.weight, last.bias) if norm == "pre" else x

    x = embedded(SRC, model.source_embedding, model.source_positions)
    for layer in model.encoder:
        x = torch_layer(layer, nn.TransformerEncoderLayer, **settings)(x, src_key_padding_mask=SRC == 0)
    states = ended(x, model.encoder_norm)
    x = embedded(TGT, model.target_embedding, model.target_positions)
    seen: list[Tensor] = []
    for layer in model.decoder:
        theirs: Any = torch_layer(layer, nn.TransformerDecoderLayer, **settings)
        theirs.multihead_attn.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {"need_weights": True, "average_attn_weights": False}),
            with_kwargs=True,
        )
        theirs.multihead_attn.register_forward_hook(lambda *call: seen.append(call[2][1]))
        future = torch.ones(TGT.size(1), TGT.size(1), dtype=torch.bool).triu(1)
        x = theirs(x, states, tgt_mask=future, memory_key_padding_mask=SRC == 0)
    return states, ended(x, model.decoder_norm), seen[-1]


KINDS: dict[str, tuple[Any, ...]] = {
    "num_heads": (1, 4), "activation": ("relu", "gelu"), "norm": ("post", "pre"),
    "positions": ("sinusoidal", "learned"),
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in KINDS.items() for value in values])
def test_the_transformer_computes_what_torch_does(key: str, value: Any) -> None:
    model = built("transformer", encoder_layers=2, decoder_layers=2, **{key: value})
    close(read(model).features, torch_transformer(model, **{key: value})[1])


@torch.no_grad()
def torch_gru(
    model: Any, *, attention: str = "additive", input_feeding: bool = True, coverage: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Features [B, T, D], attention [B, T, S] and coverage loss [B, T], position by position with torch.nn's GRU."""
    lengths = (SRC > 0).sum(1)
    packed = pack_padded_sequence(model.source_embedding(SRC), lengths, batch_first=True)
    states, _ = pad_packed_sequence(model.encoder(packed)[0], batch_first=True)
    first = torch.tanh(model.bridge(states.sum(1) / lengths[:, None]))
    hidden = first.unflatten(1, (model.decoder.num_layers, -1)).transpose(0, 1).contiguous()
    feed, had = torch.zeros_like(hidden[0]), torch.zeros(SRC.shape)
    found = []
    for tokens in TGT.t():
        x = model.target_embedding(tokens)
        y, hidden = model.decoder(torch.cat([x, feed], 1)[None] if input_feeding else x[None], hidden)
        query = y[0, :, None]  # [B, 1, D]
        if attention == "additive":
            inner = model.score.q_proj(query) + model.score.k_proj(states)
            inner = inner + had[:, :, None] * model.score.coverage if coverage else inner
            scores = model.score.v(inner.tanh())[:, :, 0]
        elif attention == "general":
            scores = (query * (states @ model.score.k_proj.weight.t())).sum(2)
        else:
            assert attention in ("dot", "scaled_dot"), "write down the formula of a new score here"
            scores = (query * states).sum(2) / (query.size(2) ** 0.5 if attention == "scaled_dot" else 1.0)
        weights = scores.masked_fill(SRC == 0, -torch.inf).softmax(1)
        context = (weights[:, :, None] * states).sum(1)
        feed = torch.tanh(model.context_proj(context) + model.state_proj(y[0]))
        found.append((feed, weights, torch.minimum(weights, had).sum(1)))
        had = had + weights
    features, attended, coverage_loss = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
    return features, attended, coverage_loss


@pytest.mark.parametrize(
    ("family", "value"),
    [
        *(("gru", each.value) for each in GRUAttention),
        *(("transformer", each.value) for each in TransformerAttention),
    ],
)
def test_attention(family: str, value: str) -> None:
    if family == "transformer":
        model = built(family, attention=value)
        _, features, by_head = torch_transformer(model, attention=value)
        weights = by_head.mean(1)
    else:
        model = built(family, attention=value, encoder_size=4)
        features, weights, _ = torch_gru(model, attention=value)
    hidden = read(model)
    close(hidden.features, features)
    close(hidden.attention, weights)


@pytest.mark.parametrize("value", [True, False])
def test_input_feeding(value: bool) -> None:
    model = built("gru", input_feeding=value)
    close(read(model).features, torch_gru(model, input_feeding=value)[0])
    assert count(model) == size("gru") - (0 if value else 3 * 8 * 8)


@pytest.mark.parametrize("feeding", [True, False])
def test_coverage(feeding: bool) -> None:
    model = built("gru", coverage=True, input_feeding=feeding)
    features, weights, coverage_loss = torch_gru(model, coverage=True, input_feeding=feeding)
    hidden = read(model)
    close(hidden.features, features)
    close(hidden.attention, weights)
    close(hidden.coverage_loss, coverage_loss)
    plain = built("gru", input_feeding=feeding)
    assert count(model) - count(plain) == 7  # attention_size
    assert read(plain).coverage_loss is None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("value", "tables"), [("all", 1), ("decoder", 2), ("none", 3)])
def test_tie_embeddings(family: str, value: str, tables: int) -> None:
    width = {"embedding_size": 8} if family == "gru" else {}
    model = built(family, tie_embeddings=value, **width)
    weights = (model.source_embedding.weight, model.target_embedding.weight, model.output.weight)
    assert [weight.data_ptr() == weights[1].data_ptr() for weight in weights] == [tables < 2, True, tables < 3]
    assert count(model) == size(family, **width) + (tables - 1) * V * 8
    hidden = read(model)
    close(model.output.log_probs(hidden), F.linear(hidden.features, weights[2]).log_softmax(-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_copy(family: str) -> None:
    """The next token is generated with probability g, else it is the source token that attention falls on."""
    model: Any = built(family, copy=True)
    hidden = read(model)
    with torch.no_grad():
        g = model.output.gate(hidden.features).sigmoid()
        features = hidden.features if family == "transformer" else model.output.projection(hidden.features)
        generated = F.linear(features, model.output.weight).softmax(-1)
        copied = hidden.attention @ F.one_hot(SRC, V).float()
        close(model.output.log_probs(hidden).exp(), g * generated + (1 - g) * copied)
        model.output.gate.bias.fill_(-50.0)  # never generates
        only_copied = model.output.log_probs(read(model)).exp()
    assert set(only_copied.argmax(-1)[0].tolist()) <= set(SRC[0].tolist())
    assert read(built(family)).copying is None


@pytest.mark.parametrize("value", ["head", "mean", "own"])
def test_copy_attention(value: str) -> None:
    model: Any = built("transformer", copy=True, copy_attention=value, decoder_layers=2)
    states, features, by_head = torch_transformer(model)
    if value == "own":
        scores = model.copy_head.q_proj(features) @ model.copy_head.k_proj(states).transpose(1, 2) / 8**0.5
        expected = scores.masked_fill((SRC == 0)[:, None], -torch.inf).softmax(-1)
    else:
        expected = by_head[:, 0] if value == "head" else by_head.mean(1)
    hidden = read(model)
    close(hidden.attention, expected)
    assert hidden.copying is not None
    close(hidden.copying.attention.view_as(expected), expected)


def test_max_positions() -> None:
    """A learned table has as many rows on each side, and no position lies beyond them."""
    model = built("transformer", positions="learned", max_positions=5)
    assert count(model) == size("transformer") + 2 * 5 * 8
    longer = torch.full((1, 6), 5)
    memory = model.encode(longer[:, :5], longer[:, :5] > 0)
    state = model.start(memory, model.pack_decoder())
    model.decode(longer[:, :5], memory)
    for _ in range(5):
        model.step(longer[0, :1], state, need_attention=False)
    for call, arguments in (
        (model.encode, (longer, longer > 0)),
        (model.decode, (longer, memory)),
        (partial(model.step, need_attention=False), (longer[0, :1], state)),
    ):
        with pytest.raises(UserError, match=r"model\.max_positions=5 positions, but a sequence has 6 tokens"):
            call(*arguments)
    with pytest.raises(UserError, match=r"data\.max_source_length=5 is above model\.max_positions=4"):
        built("transformer", positions="learned", max_positions=4)
    fixed = built("transformer", positions="sinusoidal", max_positions=4)
    assert fixed.encode(longer, longer > 0).states.isfinite().all()


# Every key of each family, none at its default but those that exclude one another.
TYPED: dict[str, dict[str, Any]] = {
    "gru": {
        "d_model": 20, "embedding_size": 12, "encoder_size": 10, "encoder_layers": 2, "decoder_layers": 2,
        "dropout": 0.3, "input_feeding": False, "attention": "additive", "attention_size": 9,
        "tie_embeddings": "decoder", "copy": True, "coverage": True,
    },
    "transformer": {
        "d_model": 24, "d_ff": 40, "num_heads": 3, "encoder_layers": 2, "decoder_layers": 1, "dropout": 0.2,
        "attention_dropout": 0.1, "activation_dropout": 0.15, "activation": "gelu", "norm": "pre",
        "positions": "learned", "max_positions": 64, "attention": "dot", "tie_embeddings": "none", "copy": True,
        "copy_attention": "mean",
    },
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_has_the_model_that_was_typed(family: str, train_run: Any, tmp_path: Path) -> None:
    """What is saved, and loaded again, has every key's value; and training drops out, which nothing else shows."""
    limits = ("data.max_source_length=60", "data.max_target_length=60", "tokenizer.joint=true")

    def run_of(name: str, settings: dict[str, Any]) -> Any:
        values = {key: str(value).lower() if isinstance(value, bool) else value for key, value in settings.items()}
        short = ("trainer.max_steps=2", "optim.warmup_steps=0", "trainer.samples=0", *limits)
        return train_run(tmp_path / name, *(f"model.{key}={values[key]}" for key in values), *short, model=family)

    run = run_of("typed", TYPED[family])
    section = saved.to_mapping(saved.load(run.folder / "config.yaml"))["model"]
    assert section == {"family": family, **TYPED[family]}
    model = load(run.folder, overrides=["trainer.device=cpu"]).models[0]
    asked_for = build_model(parse({"model": section, **LIMITS}).model, model.vocabulary).state_dict()
    assert {k: w.shape for k, w in model.state_dict().items()} == {k: w.shape for k, w in asked_for.items()}
    kept = run_of("kept", {key: 0 if "dropout" in key else value for key, value in TYPED[family].items()}).weights()
    assert not all(torch.equal(weight, kept[name]) for name, weight in run.weights().items())
