import pytest
import torch

from seq2seq.errors import UserError
from seq2seq.models.base import PackedDecoder, Vocabulary, beam_rows
from seq2seq.models.build import build_model
from seq2seq.models.config import TieEmbeddings
from seq2seq.models.families import FAMILIES
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.transformer_config import PositionKind, TransformerConfig
from seq2seq.search.decoder import ModelDecoder

JOINT = Vocabulary(20, 20, joint=True)
SMALL = {
    "gru": GRUConfig(d_model=8, encoder_size=4),
    "transformer": TransformerConfig(d_model=8, num_heads=2),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tie", TieEmbeddings)
def test_tying_shares_exactly_the_named_embeddings(family, tie):
    config = FAMILIES[family](tie_embeddings=tie)
    model = build_model(config, JOINT)
    source, target, output = (
        model.source_embedding.weight, model.target_embedding.weight, model.output.weight,
    )  # fmt: skip
    assert (source is target) == (tie is TieEmbeddings.all)
    assert (target is output) == (tie is not TieEmbeddings.none)


@pytest.mark.parametrize("family", FAMILIES)
def test_tying_all_needs_one_vocabulary(family):
    with pytest.raises(UserError, match=r"model\.tie_embeddings=all"):
        build_model(SMALL[family], Vocabulary(20, 21, joint=False))


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: TransformerConfig(d_model=250, num_heads=8), r"model\.d_model=250.*model\.num_heads=8"),
        (lambda: TransformerConfig(d_model=15, num_heads=3), r"model\.d_model=15"),
        (lambda: TransformerConfig(dropout=1.0), r"model\.dropout=1\.0"),
        (lambda: TransformerConfig(decoder_layers=0), r"model\.decoder_layers=0"),
        (lambda: GRUConfig(encoder_size=-1), r"model\.encoder_size=-1"),
        (lambda: TransformerConfig(d_ff=65_537), r"model\.d_ff=65537 must be from 1 to 65,536"),
        (lambda: GRUConfig(attention=GRUAttention.dot), r"model\.d_model=256"),
        (lambda: GRUConfig(dropout=-0.1), r"model\.dropout=-0\.1"),
    ],
)
def test_config_errors_name_the_key(build, key):
    with pytest.raises(UserError, match=key):
        build()


def test_transformer_projections_start_xavier_uniform_with_zero_bias():
    """Glorot and Bengio (2010, equation 16): uniform, with a bound that depends on the shape."""
    torch.manual_seed(1)
    model = build_model(TransformerConfig(d_model=32, num_heads=2, d_ff=96), JOINT)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert {tuple(layer.weight.shape) for layer in layers} == {(32, 32), (96, 32), (32, 96)}
    for layer in layers:
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_the_largest_size_is_allowed():
    assert TransformerConfig(d_ff=65_536).d_ff == GRUConfig(encoder_size=65_536).encoder_size


@pytest.mark.parametrize("family", FAMILIES)
def test_pretrained_rows_are_copied_where_found(family):
    torch.manual_seed(1)
    config = FAMILIES[family](tie_embeddings=TieEmbeddings.none)
    model = build_model(config, JOINT)
    before = model.source_embedding.weight.detach().clone()
    weights, found = torch.randn_like(before), torch.arange(20) % 3 == 0
    model.load_embeddings("source", weights, found=found)
    after = model.source_embedding.weight.detach()
    assert torch.equal(after[found], weights[found])
    assert torch.equal(after[~found], before[~found])
    with pytest.raises(UserError, match=r"tokenizer\.target_vectors"):
        model.load_embeddings("target", torch.randn(20, 3), found=found)


def test_sinusoids_grow_beyond_the_initial_table():
    sizes = {"d_model": 8, "num_heads": 2, "positions": PositionKind.sinusoidal}
    long, short = (build_model(TransformerConfig(max_positions=n, **sizes), JOINT).eval() for n in (64, 4))
    short.load_state_dict(long.state_dict())
    src = torch.full((1, 9), 5)
    with torch.inference_mode():  # as in evaluation: the grown table must also work in training
        expected, states = (model.encode(src, src != 0).states for model in (long, short))
    torch.testing.assert_close(states, expected)
    short.train().encode(src, src != 0).states.sum().backward()
    assert not short.source_positions.table.is_inference()


def test_learned_positions_reject_longer_sequences():
    config = TransformerConfig(d_model=8, num_heads=2, positions=PositionKind.learned, max_positions=4)
    model = build_model(config, JOINT).eval()
    src = torch.full((1, 5), 5)
    assert model.encode(src[:, :4], src[:, :4] != 0).states.shape == (1, 4, 8)
    with pytest.raises(UserError, match=r"model\.max_positions=4 positions, but a sequence has 5 tokens"):
        model.encode(src, src != 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_build_on_the_meta_device(family):
    with torch.device("meta"):
        model = build_model(SMALL[family], JOINT)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_state_dict_round_trip(family):
    first, second = build_model(SMALL[family], JOINT).eval(), build_model(SMALL[family], JOINT).eval()
    second.load_state_dict(first.state_dict())
    src, tgt = torch.full((2, 3), 5), torch.full((2, 4), 6)
    outputs = [m.decode(tgt, m.encode(src, src != 0)).features for m in (first, second)]
    assert torch.equal(*outputs)


def test_beam_rows():
    assert beam_rows(torch.tensor([[2, 0], [1, 1]]), 3).tolist() == [2, 0, 4, 4]


@pytest.mark.parametrize("family", SMALL)
@torch.no_grad()
def test_a_packed_decoder_serves_many_searches_until_the_weights_change(family: str) -> None:
    torch.manual_seed(0)
    model = build_model(SMALL[family], JOINT).eval()
    src = torch.tensor([[5, 6, 3]])
    packed = [model.pack_decoder()]

    def prediction(packed: list[PackedDecoder] | None) -> torch.Tensor:
        return ModelDecoder([model], src, packed=packed).step(torch.tensor([2])).log_probs

    before = prediction(packed)
    assert torch.equal(prediction(packed), before)
    assert torch.equal(prediction(None), before)
    for parameter in model.parameters():
        parameter.mul_(1.5)
    assert not torch.allclose(prediction(None), before)


@pytest.mark.parametrize("tie", TieEmbeddings)
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_start_with_the_documented_scale(family, tie):
    """N(0, 1/size), for learned positions too, and zeros for padding."""
    torch.manual_seed(1)
    learned = {"positions": PositionKind.learned, "max_positions": 300} if family == "transformer" else {}
    sizes = {"d_model": 64} if family == "transformer" else {"d_model": 64, "embedding_size": 64}
    model = build_model(FAMILIES[family](tie_embeddings=tie, **sizes, **learned), Vocabulary(300, 300, joint=True))
    tables = {name: p for name, p in model.named_parameters() if p.shape == (300, 64)}
    assert len(tables) == {"all": 1, "decoder": 2, "none": 3}[tie.value] + (2 if learned else 0)
    for name, table in tables.items():
        assert float(table.detach().std()) == pytest.approx(64**-0.5, rel=0.05), name
        assert float(table.detach().mean()) == pytest.approx(0, abs=0.005), name
    assert not model.source_embedding.weight[0].any()
    assert not model.target_embedding.weight[0].any()
