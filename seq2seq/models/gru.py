"""A bidirectional GRU encoder and a GRU decoder with attention.

The encoder is that of Bahdanau et al. (2015, section 3.2, arXiv:1409.0473); the decoder is that of Luong et
al. (2015, sections 3 and 3.3, arXiv:1508.04025), with GRUs for its LSTMs and any of four attention scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.attention import attendable, score_bias
from seq2seq.models.base import DecoderOutput, Memory, Output, Seq2Seq, State, Vocabulary, beam_rows
from seq2seq.models.copying import Copying, SourceTokens
from seq2seq.models.dropout import Dropout
from seq2seq.models.embedding import build_embeddings
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.input_feeding import Attended, FedAttention, FedLayer, attentional_state, run_fed
from seq2seq.models.linear import compute_dtype, pad_rows
from seq2seq.models.recurrent import run_bidirectional, run_gates
from seq2seq.models.scores import AdditiveScore, DotScore, GeneralScore, Score

RecurrentWeights = list[tuple[Tensor, Tensor]]


def _build_score(config: GRUConfig) -> Score:
    size, memory = config.d_model, 2 * config.encoder_size
    if config.attention is GRUAttention.additive:
        return AdditiveScore(size, memory, config.attention_size, coverage=config.coverage)
    if config.attention is GRUAttention.general:
        return GeneralScore(size, memory)
    return DotScore(size**-0.5 if config.attention is GRUAttention.scaled_dot else 1.0)


def repeated_attention(weights: Tensor) -> Tensor:
    """Σ_i min(a_i, c_i) of each target position [B, T], c being the attention [B, T, S] of all positions before it.

    The coverage loss of See et al. (2017, eq. 12, arXiv:1704.04368). Not by a cumulative sum, which has no
    deterministic kernel on GPUs.
    """
    coverage = torch.zeros_like(weights[:, 0])
    repeated = []
    for weight in weights.unbind(dim=1):
        repeated.append(torch.minimum(weight, coverage).sum(dim=-1))
        coverage = coverage + weight
    return torch.stack(repeated, dim=1)


@dataclass
class GRUState(State):
    """Where a GRU decoder stands.

    Attributes:
        hidden: states of the layers [L, N, D].
        feed: the last attentional state [N, D].
        attended: what is attended to, [B, ...].
        tokens: what may be copied, [B, ...]; None without copying.
        coverage: sum of all attention so far [N, S] float32; None without coverage.
    """

    hidden: Tensor
    feed: Tensor
    attended: Attended
    tokens: SourceTokens | None
    coverage: Tensor | None
    width: int

    def reorder(self, parents: Tensor) -> None:
        """See `State.reorder`."""
        self._take(beam_rows(parents, self.width))
        self.width = parents.size(1)

    def keep(self, sentences: Tensor) -> None:
        """See `State.keep`."""
        beams = torch.arange(self.width, device=sentences.device)
        self._take((sentences.unsqueeze(1) * self.width + beams).flatten())
        old = self.attended
        self.attended = Attended(*(tensor.index_select(0, sentences) for tensor in (old.keys, old.values, old.bias)))
        self.tokens = None if self.tokens is None else self.tokens.take(sentences)

    def _take(self, rows: Tensor) -> None:
        self.hidden, self.feed = self.hidden.index_select(1, rows), self.feed.index_select(0, rows)
        self.coverage = None if self.coverage is None else self.coverage.index_select(0, rows)


class GRU(Seq2Seq):
    """Recurrent encoder and decoder with attention between them."""

    def __init__(self, config: GRUConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.input_feeding = config.input_feeding
        size, embedded, memory = config.d_model, config.embedding_size, 2 * config.encoder_size
        self.source_embedding, self.target_embedding, tied = build_embeddings(
            vocabulary, embedded, config.tie_embeddings
        )
        self.output = Output(size, vocab_size=vocabulary.target_size, tied=tied, copy=config.copy)
        self.coverage = config.coverage
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.GRU(embedded, config.encoder_size, config.encoder_layers, bidirectional=True)
        fed = size if config.input_feeding else 0
        self.decoder = nn.GRU(embedded + fed, size, config.decoder_layers)
        self.bridge = nn.Linear(memory, config.decoder_layers * size)
        self.score = _build_score(config)
        self.context_proj = nn.Linear(memory, size, bias=False)
        self.state_proj = nn.Linear(size, size, bias=False)

    def encode(self, src: Tensor, src_mask: Tensor) -> Memory:
        """See `Seq2Seq.encode`."""
        mask = attendable(src_mask)
        x = pad_rows(self.dropout(self.source_embedding(src.t())), dim=1)
        real = F.pad(mask, (0, 0, 0, x.size(1) - src.size(0)))
        states = run_bidirectional(self.encoder, x, real, self.dropout)[:, : src.size(0)]
        return Memory(states=states.transpose(0, 1), mask=mask, src=src)

    def decode(self, tgt_in: Tensor, memory: Memory, *, need_attention: bool = False) -> DecoderOutput:
        """See `Seq2Seq.decode`; goes on with examples added by `pad_rows`, which are dropped at the end."""
        count = tgt_in.size(0)
        x = pad_rows(self.dropout(self.target_embedding(tgt_in.t())), dim=1)
        mask = F.pad(memory.mask, (0, 0, 0, x.size(1) - count), value=True)
        padded = Memory(pad_rows(memory.states), mask, memory.src)
        attended, hidden = self._prepare(padded), self._initial(padded)
        gates = self._input_gates(x)  # [T, B, 3D]
        if self.input_feeding:
            features, weights = self._decode_fed(gates, hidden, attended)
        else:
            y = self._run_layers(gates, hidden, self._recurrent_weights(gates))[-1].transpose(0, 1)
            if self.coverage:
                features, weights = self._attend_in_turn(y, attended)
            else:
                features, weights = self.run(self._attend, y, attended)
        features, weights = features[:count], weights[:count]
        result = self._hidden(features, weights, self.source_tokens(memory), need_attention=need_attention)
        if self.coverage:
            result.repetition = repeated_attention(weights)
        return result

    def start(self, memory: Memory, *, width: int = 1) -> GRUState:
        """See `Seq2Seq.start`."""
        hidden = self._initial(memory).repeat_interleave(width, dim=1)
        attended = self._prepare(memory)
        coverage = self._no_coverage(attended)
        return GRUState(
            hidden=hidden,
            feed=torch.zeros_like(hidden[0]),
            attended=attended,
            tokens=self.source_tokens(memory),
            coverage=None if coverage is None else coverage.squeeze(1).repeat_interleave(width, dim=0),
            width=width,
        )

    def step(self, tokens: Tensor, state: State, *, need_attention: bool) -> DecoderOutput:
        """See `Seq2Seq.step`."""
        state = cast(GRUState, state)
        gates = self._input_gates(self.dropout(self.target_embedding(tokens))).unsqueeze(0)
        if self.input_feeding:
            gates = gates + F.linear(state.feed, self._feed_weight())
        states = self._run_layers(gates, state.hidden, self._recurrent_weights(gates))  # L of [1, N, D]
        state.hidden = torch.cat(states)
        query = states[-1].view(-1, state.width, states[-1].size(-1))  # [B, K, D]
        coverage = None if state.coverage is None else state.coverage.view(*query.shape[:2], -1)
        features, weights = self._attend(query, state.attended, coverage)
        state.feed = features.flatten(0, 1)
        weights = weights.flatten(0, 1)
        if state.coverage is not None:
            state.coverage = state.coverage + weights
        return self._hidden(state.feed, weights, state.tokens, need_attention=need_attention)

    def _hidden(
        self, features: Tensor, weights: Tensor, tokens: SourceTokens | None, *, need_attention: bool
    ) -> DecoderOutput:
        """Of attentional states [*, D] and the attention [*, S] behind them."""
        features = self.dropout(features)
        if tokens is not None:
            return DecoderOutput(features, weights, Copying.evenly(weights, tokens))
        return DecoderOutput(features, weights if need_attention else None)

    def _decode_fed(self, gates: Tensor, hidden: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        """Attentional states [B, T, D] and attention [B, T, S] where each position needs those of the one before."""
        dtype, (steps, rows, _) = compute_dtype(gates), gates.shape
        layers = []
        for layer, (weight, bias) in enumerate(self._recurrent_weights(gates)):
            base, w, keep = gates, self._feed_weight(), None
            if layer:
                base = self._layer("bias_ih", layer).expand(steps, rows, -1)
                w = self._layer("weight_ih", layer)
                if self.training and self.dropout.p:
                    keep = self.dropout(torch.ones(steps, rows, w.size(1), dtype=dtype, device=w.device))
            layers.append(FedLayer(base.to(dtype), w.to(dtype), weight.squeeze(0), bias.squeeze(0), keep))
        projections = (self.state_proj.weight, self.score.query_weight())
        attention = FedAttention(
            Attended(attended.keys.to(dtype), attended.values.to(dtype), attended.bias),
            torch.cat([weight for weight in projections if weight is not None]).to(dtype),
            self.score.comparison,
            self.score.weights(),
            self.coverage,
        )
        found: tuple[Tensor, Tensor] = run_fed(layers, hidden, attention)
        return found

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a loop over time, see `run_gates`
    def _attend_in_turn(self, queries: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        """`_attend` with the loop that coverage forces: each position needs the attention of those before."""
        coverage = self._no_coverage(attended)
        features, weights = [], []
        for query in torch.split(queries, 1, dim=1):
            feature, weight = self.run(self._attend, query, attended, coverage)
            coverage = None if coverage is None else coverage + weight
            features.append(feature)
            weights.append(weight)
        return torch.cat(features, dim=1), torch.cat(weights, dim=1)

    def _no_coverage(self, attended: Attended) -> Tensor | None:
        """Coverage [B, 1, S] before the first step."""
        return torch.zeros_like(attended.bias) if self.coverage else None

    def _run_layers(self, gates: Tensor, hidden: Tensor, recurrent: RecurrentWeights) -> list[Tensor]:
        """States [T, B, D] of each layer from the first one's input gates [T, B, 3D] and [L, B, D]."""
        states: list[Tensor] = []
        for layer in range(self.decoder.num_layers):
            if layer:
                w, b = self._layer("weight_ih", layer), self._layer("bias_ih", layer)
                gates = F.linear(self.dropout(states[-1]), w, b)
            y = run_gates(gates.unsqueeze(0), hidden[layer].unsqueeze(0), recurrent[layer])
            states.append(y.squeeze(0))
        return states

    def _attend(self, query: Tensor, attended: Attended, coverage: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attentional states of queries h [B, T, D], and the weights [B, T, S] behind them."""
        scores = self.score(query, attended.keys, coverage)
        return attentional_state(scores, self.state_proj(query), attended)

    def _prepare(self, memory: Memory) -> Attended:
        keys = self.score.keys(memory.states)
        return Attended(keys, self.context_proj(memory.states), score_bias(memory.mask).unsqueeze(1))

    def _initial(self, memory: Memory) -> Tensor:
        """First decoder states [L, B, D]: tanh(W m), m the mean encoder state.

        Sennrich et al. (2017, section 2, arXiv:1703.04357); padding states are zeros and drop out of the sum.
        """
        mean = memory.states.sum(dim=1) / memory.mask.sum(dim=1, keepdim=True)
        first = torch.tanh(self.bridge(mean))
        return first.view(first.size(0), self.decoder.num_layers, -1).transpose(0, 1)

    def _input_gates(self, embedded: Tensor) -> Tensor:
        """What embeddings [*, E] contribute to the first decoder layer's gates [*, 3D]."""
        weight = self._layer("weight_ih", 0)[:, : embedded.size(-1)]
        return F.linear(embedded, weight, self._layer("bias_ih", 0))

    def _recurrent_weights(self, gates: Tensor) -> RecurrentWeights:
        """U [1, 3D, D] and its bias [1, 3D] of each layer, cast once for all steps."""
        dtype, layers = compute_dtype(gates), range(self.decoder.num_layers)
        stems = ("weight_hh", "bias_hh")
        pairs = ((self._layer(stem, layer).to(dtype).unsqueeze(0) for stem in stems) for layer in layers)
        return [(weight, bias) for weight, bias in pairs]

    def _feed_weight(self) -> Tensor:
        return self._layer("weight_ih", 0)[:, self.target_embedding.embedding_dim :]

    def _layer(self, stem: str, layer: int) -> Tensor:
        return cast(Tensor, getattr(self.decoder, f"{stem}_l{layer}"))
