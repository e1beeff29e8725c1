"""A bidirectional GRU encoder and a GRU decoder with attention.

The encoder is that of Bahdanau et al. (2015, section 3.2, arXiv:1409.0473); the decoder is that of Luong et
al. (2015, sections 3 and 3.3, arXiv:1508.04025), with GRUs in place of LSTMs and a choice of attention scores:

    s_t = GRU([y_{t-1}; h̃_{t-1}], s_{t-1}),   a_t = softmax(score(s_t, h)),   c_t = Σ_i a_ti h_i,
    h̃_t = tanh(W_c [c_t; s_t]),   p(y_t) = softmax(W h̃_t)

h are the encoder's states, s the decoder's, y the embedded target tokens, h̃ the attentional states, which are the
features of the output layer. The decoder reads h̃ only with input feeding. `step` computes these equations one position
at a time, `decode` for all positions of a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never, cast

import torch
from torch import Tensor, nn

from seq2seq.models.attention_scores import (
    AdditiveAttentionScore,
    AttentionScore,
    DotAttentionScore,
    GeneralAttentionScore,
)
from seq2seq.models.base import (
    DecoderOutput,
    Memory,
    OutputLayer,
    PackedDecoder,
    Seq2Seq,
    State,
    Vocabulary,
    beam_rows,
)
from seq2seq.models.copying import CopyDistribution, SourceTokens
from seq2seq.models.embedding import build_embeddings
from seq2seq.models.flops import Multiplications, matrix_elements
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.input_feeding import ProjectedMemory, run_input_feeding
from seq2seq.models.kernels.packed_linear import PackedLinear
from seq2seq.models.kernels.padding import on_padded_batch
from seq2seq.models.kernels.recurrence import gru_cell, layer_weights, run_decoder, run_encoder
from seq2seq.models.kernels.selection import not_compiled
from seq2seq.models.masks import additive_mask, safe_padding_mask


def _build_score(config: GRUConfig) -> AttentionScore:
    size, state_size = config.d_model, 2 * config.encoder_size
    if config.attention is GRUAttention.additive:
        return AdditiveAttentionScore(size, state_size, config.attention_size, coverage=config.coverage)
    if config.attention is GRUAttention.general:
        return GeneralAttentionScore(size, state_size)
    if config.attention is GRUAttention.scaled_dot:
        return DotAttentionScore(size**-0.5)
    if config.attention is GRUAttention.dot:
        return DotAttentionScore(1.0)
    assert_never(config.attention)


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
class PackedGRUDecoder(PackedDecoder):
    """See `PackedDecoder`.

    Attributes:
        layers: W and U of each decoder layer.
    """

    layers: list[tuple[PackedLinear, PackedLinear]]


@dataclass
class GRUState(State):
    """State of incremental decoding with a GRU.

    Attributes:
        packed: the decoder's weights.
        hidden: states of the layers [L, N, D].
        input_feed: the previous attentional state [N, D].
        memory: the projected encoder states, [B, ...].
        source_tokens: the tokens that may be copied, [B, ...]; None without copying.
        coverage: sum of the attention of all previous positions [N, S] float32; None without coverage.
    """

    packed: PackedGRUDecoder
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
        """See `Seq2Seq.encode`; each state is that of both directions, [→h_i; ←h_i]."""
        mask = safe_padding_mask(src_mask)
        x = self.dropout(self.source_embedding(src.t()))  # [S, B, E], time-major
        states = run_encoder(self.encoder, x, mask, self.dropout)  # [S, B, 2H]
        return Memory(states=states.transpose(0, 1), mask=mask, src=src)

    def decode(self, tgt_in: Tensor, memory: Memory, *, need_attention: bool = False) -> DecoderOutput:
        """See `Seq2Seq.decode`."""
        y = self.dropout(self.target_embedding(tgt_in.t()))  # [T, B, E], time-major
        features, weights = on_padded_batch(self._decode, y, memory.states, memory.mask)
        output = self._decoder_output(features, weights, self.source_tokens(memory), need_attention=need_attention)
        if self.coverage:
            output.coverage_loss = coverage_loss(weights)
        return output

    def _decode(self, y: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attentional states [B, T, D] and attention [B, T, S] for embeddings y [T, B, E], encoder states and mask."""
        memory, hidden = self._project_memory(states, mask), self._initial_hidden(states, mask)
        if self.input_feeding:
            return run_input_feeding(
                self.decoder,
                y,
                hidden,
                memory,
                attend=self._attend,
                state_weight=self.state_proj.weight,
                score=self.score.incremental(),
                coverage=self.coverage,
                dropout=self.dropout,
            )
        queries = run_decoder(self.decoder, y, hidden, self.dropout).transpose(0, 1)  # [B, T, D]
        if self.coverage:
            return self._attend_with_coverage(queries, memory)
        return self.maybe_checkpoint(self._attend, queries, memory)

    @not_compiled
    def _attend_with_coverage(self, queries: Tensor, memory: ProjectedMemory) -> tuple[Tensor, Tensor]:
        """`_attend` position by position, since coverage depends on the attention of all previous positions."""
        coverage = torch.zeros_like(memory.additive_mask)  # [B, 1, S]
        features, weights = [], []
        for query in torch.split(queries, 1, dim=1):
            feature, weight = self.maybe_checkpoint(self._attend, query, memory, coverage)
            coverage = coverage + weight
            features.append(feature)
            weights.append(weight)
        return torch.cat(features, dim=1), torch.cat(weights, dim=1)

    def pack_decoder(self) -> PackedGRUDecoder:
        """See `Seq2Seq.pack_decoder`."""
        layers = []
        for layer in range(self.decoder.num_layers):
            weight_ih, weight_hh, bias_ih, bias_hh = layer_weights(self.decoder, layer)
            layers.append((PackedLinear([weight_ih], [bias_ih]), PackedLinear([weight_hh], [bias_hh])))
        return PackedGRUDecoder(self.output.pack(), layers)

    def start(self, memory: Memory, packed: PackedDecoder, *, width: int = 1) -> GRUState:
        """See `Seq2Seq.start`."""
        hidden = self._initial_hidden(memory.states, memory.mask).repeat_interleave(width, dim=1)
        projected = self._project_memory(memory.states, memory.mask)
        coverage = torch.zeros_like(projected.additive_mask.squeeze(1)) if self.coverage else None
        return GRUState(
            packed=cast(PackedGRUDecoder, packed),
            hidden=hidden,
            input_feed=torch.zeros_like(hidden[0]),
            memory=projected,
            source_tokens=self.source_tokens(memory),
            coverage=None if coverage is None else coverage.repeat_interleave(width, dim=0),
            width=width,
        )

    def step(self, tokens: Tensor, state: State, *, need_attention: bool) -> DecoderOutput:
        """See `Seq2Seq.step`."""
        state = cast(GRUState, state)
        x = self.target_embedding(tokens)  # [N, E]
        if self.input_feeding:
            x = torch.cat([x, state.input_feed], dim=1)  # [N, E + D]
        states = []
        for (w, u), previous in zip(state.packed.layers, state.hidden, strict=True):
            x = gru_cell(w(x), u(previous), previous)  # s_t, [N, D]
            states.append(x)
        state.hidden = torch.stack(states)
        query = x.unflatten(0, (-1, state.width))  # [B, K, D]
        coverage = None if state.coverage is None else state.coverage.view(*query.shape[:2], -1)
        features, weights = (y.flatten(0, 1) for y in self._attend(query, state.memory, coverage))
        state.input_feed = features
        if state.coverage is not None:
            state.coverage = state.coverage + weights
        return self._decoder_output(features, weights, state.source_tokens, need_attention=need_attention)

    def _attend(self, query: Tensor, memory: ProjectedMemory, coverage: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attentional states h̃ of decoder states s [B, T, D], and their attention a [B, T, S], at least float32.

        W_c is split into two halves, and its context half is applied to the encoder states in advance: the context c is
        a weighted sum of them, so its projection is the same sum of the projected states.
        """
        scores = self.score(query, memory.keys, coverage)
        weights = torch.softmax(scores + memory.additive_mask, dim=-1)  # a
        context = weights.to(memory.values.dtype) @ memory.values  # the context half of W_c times c, [B, T, D]
        total = context + self.state_proj(query)
        return torch.tanh(total.to(weights.dtype)).to(total.dtype), weights  # tanh of bfloat16 is slow

    def multiplications(self) -> Multiplications:
        """See `Seq2Seq.multiplications`."""
        size = self.state_proj.in_features
        of_score = {name: weight.numel() for name, weight in self.score.named_parameters()}
        return Multiplications(
            sentence=matrix_elements(self.bridge),
            source=matrix_elements(self.encoder, self.context_proj) + of_score.get("k_proj.weight", 0),
            target=matrix_elements(self.decoder, self.state_proj) + of_score.get("q_proj.weight", 0),
            output=matrix_elements(self.output),
            cross_pair=of_score.get("v.weight", size) + size,  # a score, and a term of the context
        )

    def _decoder_output(
        self, features: Tensor, weights: Tensor, source_tokens: SourceTokens | None, *, need_attention: bool
    ) -> DecoderOutput:
        """Output from attentional states [*, D] and their attention weights [*, S]."""
        features = self.dropout(features)
        if source_tokens is not None:
            return DecoderOutput(features, weights, CopyDistribution.from_attention(weights, source_tokens))
        return DecoderOutput(features, weights if need_attention else None)

    def _project_memory(self, states: Tensor, mask: Tensor) -> ProjectedMemory:
        keys = self.score.project_keys(states)
        return ProjectedMemory(keys, self.context_proj(states), additive_mask(mask).unsqueeze(1))

    def _initial_hidden(self, states: Tensor, mask: Tensor) -> Tensor:
        """Initial decoder states [L, B, D]: tanh(W m), where m is the mean encoder state.

        Sennrich et al. (2017, section 2, arXiv:1703.04357); padding states are zeros and do not contribute.
        """
        mean = states.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        first = torch.tanh(self.bridge(mean))
        return first.view(first.size(0), self.decoder.num_layers, -1).transpose(0, 1)
