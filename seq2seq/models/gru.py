"""A bidirectional GRU encoder and a GRU decoder with attention.

The encoder is that of Bahdanau et al. (2015, section 3.2, arXiv:1409.0473); the decoder is that of Luong et
al. (2015, sections 3 and 3.3, arXiv:1508.04025), with GRUs in place of LSTMs and a choice of four attention scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.attention_scores import (
    AdditiveAttentionScore,
    AttentionScore,
    DotAttentionScore,
    GeneralAttentionScore,
)
from seq2seq.models.base import DecoderOutput, Memory, OutputLayer, Seq2Seq, State, Vocabulary, beam_rows
from seq2seq.models.copying import CopyDistribution, SourceTokens
from seq2seq.models.embedding import build_embeddings
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.input_feeding import (
    InputFeedingAttention,
    InputFeedingLayer,
    ProjectedMemory,
    attentional_state,
    run_input_feeding,
)
from seq2seq.models.kernels.linear import compute_dtype, pad_rows
from seq2seq.models.kernels.recurrence import run_bidirectional, run_recurrence
from seq2seq.models.masks import additive_mask, safe_padding_mask

RecurrentWeights = list[tuple[Tensor, Tensor]]


def _build_score(config: GRUConfig) -> AttentionScore:
    size, state_size = config.d_model, 2 * config.encoder_size
    if config.attention is GRUAttention.additive:
        return AdditiveAttentionScore(size, state_size, config.attention_size, coverage=config.coverage)
    if config.attention is GRUAttention.general:
        return GeneralAttentionScore(size, state_size)
    return DotAttentionScore(size**-0.5 if config.attention is GRUAttention.scaled_dot else 1.0)


def coverage_loss(weights: Tensor) -> Tensor:
    """Coverage loss Σ_i min(a_i, c_i) of each target position [B, T]: See et al. (2017, eq. 12, arXiv:1704.04368).

    a is the attention `weights` [B, T, S] of the position and c the sum of that of all previous positions. Not computed
    with torch.cumsum, which has no deterministic kernel on GPUs.
    """
    coverage = torch.zeros_like(weights[:, 0])
    losses = []
    for weight in weights.unbind(dim=1):
        losses.append(torch.minimum(weight, coverage).sum(dim=-1))
        coverage = coverage + weight
    return torch.stack(losses, dim=1)


@dataclass
class GRUState(State):
    """State of incremental decoding with a GRU.

    Attributes:
        hidden: states of the layers [L, N, D].
        input_feed: the previous attentional state [N, D].
        memory: the projected encoder states, [B, ...].
        source_tokens: the tokens that may be copied, [B, ...]; None without copying.
        coverage: sum of the attention of all previous positions [N, S] float32; None without coverage.
    """

    hidden: Tensor
    input_feed: Tensor
    memory: ProjectedMemory
    source_tokens: SourceTokens | None
    coverage: Tensor | None
    width: int

    def reorder(self, parents: Tensor) -> None:
        """See `State.reorder`."""
        self._select_rows(beam_rows(parents, self.width))
        self.width = parents.size(1)

    def keep(self, sentences: Tensor) -> None:
        """See `State.keep`."""
        beams = torch.arange(self.width, device=sentences.device)
        self._select_rows((sentences.unsqueeze(1) * self.width + beams).flatten())
        self.memory = ProjectedMemory(*(tensor.index_select(0, sentences) for tensor in self.memory))
        self.source_tokens = None if self.source_tokens is None else self.source_tokens.select(sentences)

    def _select_rows(self, rows: Tensor) -> None:
        self.hidden, self.input_feed = self.hidden.index_select(1, rows), self.input_feed.index_select(0, rows)
        self.coverage = None if self.coverage is None else self.coverage.index_select(0, rows)


class GRU(Seq2Seq):
    """Recurrent encoder and decoder with attention."""

    def __init__(self, config: GRUConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.input_feeding = config.input_feeding
        size, embedding_size, state_size = config.d_model, config.embedding_size, 2 * config.encoder_size
        self.source_embedding, self.target_embedding, tied = build_embeddings(
            vocabulary, embedding_size, config.tie_embeddings
        )
        self.output = OutputLayer(size, vocab_size=vocabulary.target_size, tied=tied, copy=config.copy)
        self.coverage = config.coverage
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.GRU(embedding_size, config.encoder_size, config.encoder_layers, bidirectional=True)
        input_feed_size = size if config.input_feeding else 0
        self.decoder = nn.GRU(embedding_size + input_feed_size, size, config.decoder_layers)
        self.bridge = nn.Linear(state_size, config.decoder_layers * size)
        self.score = _build_score(config)
        self.context_proj = nn.Linear(state_size, size, bias=False)
        self.state_proj = nn.Linear(size, size, bias=False)

    def encode(self, src: Tensor, src_mask: Tensor) -> Memory:
        """See `Seq2Seq.encode`."""
        mask = safe_padding_mask(src_mask)
        x = pad_rows(self.dropout(self.source_embedding(src.t())), dim=1)
        padded_mask = F.pad(mask, (0, 0, 0, x.size(1) - src.size(0)))
        states = run_bidirectional(self.encoder, x, padded_mask, self.dropout)[:, : src.size(0)]
        return Memory(states=states.transpose(0, 1), mask=mask, src=src)

    def decode(self, tgt_in: Tensor, memory: Memory, *, need_attention: bool = False) -> DecoderOutput:
        """See `Seq2Seq.decode`; computes with the rows that `pad_rows` adds to the batch, and drops them at the end."""
        batch_size = tgt_in.size(0)
        x = pad_rows(self.dropout(self.target_embedding(tgt_in.t())), dim=1)
        mask = F.pad(memory.mask, (0, 0, 0, x.size(1) - batch_size), value=True)
        padded = Memory(pad_rows(memory.states), mask, memory.src)
        projected, hidden = self._project_memory(padded), self._initial_hidden(padded)
        input_gates = self._input_gates(x)  # [T, B, 3D]
        if self.input_feeding:
            features, weights = self._decode_with_input_feeding(input_gates, hidden, projected)
        else:
            y = self._run_layers(input_gates, hidden, self._recurrent_weights(input_gates))[-1].transpose(0, 1)
            if self.coverage:
                features, weights = self._attend_with_coverage(y, projected)
            else:
                features, weights = self.maybe_checkpoint(self._attend, y, projected)
        features, weights = features[:batch_size], weights[:batch_size]
        output = self._decoder_output(features, weights, self.source_tokens(memory), need_attention=need_attention)
        if self.coverage:
            output.coverage_loss = coverage_loss(weights)
        return output

    def start(self, memory: Memory, *, width: int = 1) -> GRUState:
        """See `Seq2Seq.start`."""
        hidden = self._initial_hidden(memory).repeat_interleave(width, dim=1)
        projected = self._project_memory(memory)
        coverage = self._initial_coverage(projected)
        return GRUState(
            hidden=hidden,
            input_feed=torch.zeros_like(hidden[0]),
            memory=projected,
            source_tokens=self.source_tokens(memory),
            coverage=None if coverage is None else coverage.squeeze(1).repeat_interleave(width, dim=0),
            width=width,
        )

    def step(self, tokens: Tensor, state: State, *, need_attention: bool) -> DecoderOutput:
        """See `Seq2Seq.step`."""
        state = cast(GRUState, state)
        input_gates = self._input_gates(self.dropout(self.target_embedding(tokens))).unsqueeze(0)
        if self.input_feeding:
            input_gates = input_gates + F.linear(state.input_feed, self._input_feed_weight())
        states = self._run_layers(input_gates, state.hidden, self._recurrent_weights(input_gates))  # L of [1, N, D]
        state.hidden = torch.cat(states)
        query = states[-1].view(-1, state.width, states[-1].size(-1))  # [B, K, D]
        coverage = None if state.coverage is None else state.coverage.view(*query.shape[:2], -1)
        features, weights = self._attend(query, state.memory, coverage)
        state.input_feed = features.flatten(0, 1)
        weights = weights.flatten(0, 1)
        if state.coverage is not None:
            state.coverage = state.coverage + weights
        return self._decoder_output(state.input_feed, weights, state.source_tokens, need_attention=need_attention)

    def _decoder_output(
        self, features: Tensor, weights: Tensor, source_tokens: SourceTokens | None, *, need_attention: bool
    ) -> DecoderOutput:
        """Output from attentional states [*, D] and their attention weights [*, S]."""
        features = self.dropout(features)
        if source_tokens is not None:
            return DecoderOutput(features, weights, CopyDistribution.from_attention(weights, source_tokens))
        return DecoderOutput(features, weights if need_attention else None)

    def _decode_with_input_feeding(
        self, input_gates: Tensor, hidden: Tensor, memory: ProjectedMemory
    ) -> tuple[Tensor, Tensor]:
        """Attentional states [B, T, D] and attention weights [B, T, S]; each position depends on the previous one."""
        dtype, (steps, rows, _) = compute_dtype(input_gates), input_gates.shape
        layers = []
        for layer, (weight_hh, bias_hh) in enumerate(self._recurrent_weights(input_gates)):
            gates, weight_ih, dropout_mask = input_gates, self._input_feed_weight(), None
            if layer:
                gates = self._parameter("bias_ih", layer).expand(steps, rows, -1)
                weight_ih = self._parameter("weight_ih", layer)
                if self.training and self.dropout.p:
                    ones = torch.ones(steps, rows, weight_ih.size(1), dtype=dtype, device=weight_ih.device)
                    dropout_mask = self.dropout(ones)
            tensors = (gates.to(dtype), weight_ih.to(dtype), weight_hh.squeeze(0), bias_hh.squeeze(0))
            layers.append(InputFeedingLayer(*tensors, dropout_mask))
        projections = (self.state_proj.weight, self.score.query_weight())
        attention = InputFeedingAttention(
            ProjectedMemory(memory.keys.to(dtype), memory.values.to(dtype), memory.additive_mask),
            torch.cat([weight for weight in projections if weight is not None]).to(dtype),
            self.score.scorer_class,
            self.score.scorer_weights(),
            self.coverage,
        )
        result: tuple[Tensor, Tensor] = run_input_feeding(layers, hidden, attention)
        return result

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a loop over time, see `run_recurrence`
    def _attend_with_coverage(self, queries: Tensor, memory: ProjectedMemory) -> tuple[Tensor, Tensor]:
        """`_attend` position by position, since coverage depends on the attention of all previous positions."""
        coverage = self._initial_coverage(memory)
        features, weights = [], []
        for query in torch.split(queries, 1, dim=1):
            feature, weight = self.maybe_checkpoint(self._attend, query, memory, coverage)
            coverage = None if coverage is None else coverage + weight
            features.append(feature)
            weights.append(weight)
        return torch.cat(features, dim=1), torch.cat(weights, dim=1)

    def _initial_coverage(self, memory: ProjectedMemory) -> Tensor | None:
        """Coverage [B, 1, S] before the first step; None without coverage."""
        return torch.zeros_like(memory.additive_mask) if self.coverage else None

    def _run_layers(self, input_gates: Tensor, hidden: Tensor, recurrent: RecurrentWeights) -> list[Tensor]:
        """States [T, B, D] of each layer, from the first layer's input gates [T, B, 3D] and `hidden` [L, B, D]."""
        states: list[Tensor] = []
        for layer in range(self.decoder.num_layers):
            if layer:
                weight_ih, bias_ih = self._parameter("weight_ih", layer), self._parameter("bias_ih", layer)
                input_gates = F.linear(self.dropout(states[-1]), weight_ih, bias_ih)
            y = run_recurrence(input_gates.unsqueeze(0), hidden[layer].unsqueeze(0), recurrent[layer])
            states.append(y.squeeze(0))
        return states

    def _attend(self, query: Tensor, memory: ProjectedMemory, coverage: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attentional states of queries h [B, T, D], and their attention weights [B, T, S]."""
        scores = self.score(query, memory.keys, coverage)
        return attentional_state(scores, self.state_proj(query), memory)

    def _project_memory(self, memory: Memory) -> ProjectedMemory:
        keys = self.score.project_keys(memory.states)
        return ProjectedMemory(keys, self.context_proj(memory.states), additive_mask(memory.mask).unsqueeze(1))

    def _initial_hidden(self, memory: Memory) -> Tensor:
        """Initial decoder states [L, B, D]: tanh(W m), where m is the mean encoder state.

        Sennrich et al. (2017, section 2, arXiv:1703.04357); padding states are zeros and do not contribute.
        """
        mean = memory.states.sum(dim=1) / memory.mask.sum(dim=1, keepdim=True)
        first = torch.tanh(self.bridge(mean))
        return first.view(first.size(0), self.decoder.num_layers, -1).transpose(0, 1)

    def _input_gates(self, embedded: Tensor) -> Tensor:
        """Contribution [*, 3D] of embeddings [*, E] to the gates of the first decoder layer."""
        weight = self._parameter("weight_ih", 0)[:, : embedded.size(-1)]
        return F.linear(embedded, weight, self._parameter("bias_ih", 0))

    def _recurrent_weights(self, input_gates: Tensor) -> RecurrentWeights:
        """U [1, 3D, D] and its bias [1, 3D] of each layer, cast once for all steps."""
        dtype, layers = compute_dtype(input_gates), range(self.decoder.num_layers)
        stems = ("weight_hh", "bias_hh")
        pairs = ((self._parameter(stem, layer).to(dtype).unsqueeze(0) for stem in stems) for layer in layers)
        return [(weight, bias) for weight, bias in pairs]

    def _input_feed_weight(self) -> Tensor:
        return self._parameter("weight_ih", 0)[:, self.target_embedding.embedding_dim :]

    def _parameter(self, stem: str, layer: int) -> Tensor:
        return cast(Tensor, getattr(self.decoder, f"{stem}_l{layer}"))
