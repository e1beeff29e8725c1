"""The encoder-decoder Transformer: Vaswani et al. (2017, section 3, arXiv:1706.03762)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from seq2seq.errors import UserError
from seq2seq.models.attention import MultiHeadAttention, attend, attendable, attention_weights, causal_mask
from seq2seq.models.base import LARGEST_SIZE, Hidden, Memory, Output, Seq2Seq, State, Vocabulary, beam_rows
from seq2seq.models.copying import Copying, SourceTokens
from seq2seq.models.dropout import Dropout
from seq2seq.models.embedding import LearnedPositions, SinusoidalPositions, TieEmbeddings, build_embeddings


class TransformerAttention(str, Enum):
    """Scores of the attention: divided by the square root of the head size, or as they are."""

    scaled_dot = "scaled_dot"
    dot = "dot"


class Activation(str, Enum):
    """Between the two layers of the feed-forward block."""

    relu = "relu"
    gelu = "gelu"


class NormPlacement(str, Enum):
    """Where layer normalisation sits: after each residual sum (the paper's), or before each block."""

    post = "post"
    pre = "pre"


class PositionKind(str, Enum):
    """Fixed sinusoids, which reach any length, or a learned table with a limit."""

    sinusoidal = "sinusoidal"
    learned = "learned"


class CopyAttention(str, Enum):
    """By which attention the Transformer copies.

    Of the last layer's attention over the source its first head or the mean of its heads, or a head of its own behind
    the last layer.
    """

    head = "head"
    mean = "mean"
    own = "own"


@dataclass
class TransformerConfig:
    """The shape of a Transformer; the defaults suit corpora of tens of thousands of short sentences.

    Attributes:
        d_ff: inner size of the feed-forward block.
        dropout: on embeddings and on each block's output.
        attention_dropout: on the attention weights.
        activation_dropout: inside the feed-forward block.
        max_positions: length of the learned table of positions; sinusoids go on beyond it.
        copy: mix in copying source tokens by their attention (See et al., 2017, section 2.2, arXiv:1704.04368); one
            tokenizer for both sides.
        copy_attention: which attention that is.
    """

    family: str = "transformer"
    d_model: int = 256
    d_ff: int = 1024
    num_heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    activation: Activation = Activation.relu
    norm: NormPlacement = NormPlacement.post
    positions: PositionKind = PositionKind.sinusoidal
    max_positions: int = 1024
    attention: TransformerAttention = TransformerAttention.scaled_dot
    tie_embeddings: TieEmbeddings = TieEmbeddings.all
    copy: bool = False
    copy_attention: CopyAttention = CopyAttention.own

    def __post_init__(self) -> None:
        """Checks what no single type can say.

        Raises:
            UserError: naming the key.
        """
        for name in ("d_model", "d_ff", "num_heads", "encoder_layers", "decoder_layers", "max_positions"):
            if not 1 <= getattr(self, name) <= LARGEST_SIZE:
                raise UserError(f"model.{name}={getattr(self, name)} must be from 1 to {LARGEST_SIZE:,}")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"model.{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.d_model % self.num_heads:
            raise UserError(f"model.d_model={self.d_model} is not divisible by model.num_heads={self.num_heads}")
        if self.d_model % 2:
            raise UserError(f"model.d_model={self.d_model} must be even: positions are pairs of sine and cosine")


class FeedForward(nn.Module):
    """Two linear layers with a non-linearity between: section 3.3 of the paper."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_ff)
        self.fc2 = nn.Linear(config.d_ff, config.d_model)
        self.activation = nn.ReLU() if config.activation is Activation.relu else nn.GELU()
        self.dropout = Dropout(config.activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[*, D] to [*, D]."""
        y: Tensor = self.fc2(self.dropout(self.activation(self.fc1(x))))
        return y


class Residual(nn.Module):
    """The frame around a block: normalisation before it or after the residual sum, dropout on its output.

    Pre-norm: Xiong et al. (2020, figure 1b, arXiv:2002.04745).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model, eps=1e-5)
        self.dropout = Dropout(config.dropout)
        self.pre = config.norm is NormPlacement.pre

    def enter(self, x: Tensor) -> Tensor:
        """What the block reads, of the stream `x` [*, D]."""
        return cast(Tensor, self.norm(x)) if self.pre else x

    def leave(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream after the block said `y` [*, D]."""
        total = self.dropout.add(x, y)
        return total if self.pre else cast(Tensor, self.norm(total))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attn = _attention(config)
        self.self_attn_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, S, D] to [B, S, D] under `mask` [B, 1, S]."""
        x = self.self_attn_residual.leave(x, self.self_attn(self.self_attn_residual.enter(x), mask))
        return self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))


@dataclass
class LayerCache:
    """One decoder layer's keys and values.

    Attributes:
        keys, values: of the target so far, [N, H, t, D/H]; None before the first token.
        memory_keys, memory_values: of the source, [B, H, S, D/H], once a sentence.
    """

    keys: Tensor | None
    values: Tensor | None
    memory_keys: Tensor
    memory_values: Tensor

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Appends keys and values [N, H, 1, D/H] of the next position; returns all so far."""
        if self.keys is None or self.values is None:
            self.keys, self.values = k, v
        else:
            self.keys, self.values = torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)
        return self.keys, self.values

    def take(self, rows: Tensor) -> None:
        """Makes row i go on from the old row `rows[i]`."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention over the source, feed-forward.

    The source weights it gives are those of the head to copy by, or else the mean over the heads.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        one_head = config.copy and config.copy_attention is CopyAttention.head
        self.shown_heads = 1 if one_head else config.num_heads
        self.self_attn = _attention(config)
        self.self_attn_residual = Residual(config)
        self.encoder_attn = _attention(config)
        self.encoder_attn_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor, memory: Memory, *, need_attention: bool) -> tuple[Tensor, Tensor | None]:
        """[B, T, D] to [B, T, D] under the causal `mask` [1, T, T]; source weights [B, T, S] if needed."""
        x = self.self_attn_residual.leave(x, self.self_attn(self.self_attn_residual.enter(x), mask))
        k, v = self.encoder_attn.project(memory.states, parts="kv")
        return self._after_self(x, (k, v, memory.mask), need_attention=need_attention)

    def step(self, x: Tensor, cache: LayerCache, mask: Tensor, *, need_attention: bool) -> tuple[Tensor, Tensor | None]:
        """One position a row: [B, K, D] to [B, K, D], K the beams of a sentence; advances `cache`.

        The beams of a sentence attend to its source together, as K queries to one set of keys.
        """
        attn = self.self_attn
        entered = self.self_attn_residual.enter(x)
        q, k, v = attn.project(entered.flatten(0, 1).unsqueeze(1), parts="qkv")
        keys, values = cache.extend(k, v)
        y = attn.merge(attend(q, keys, values, None, scale=attn.scale, dropout=attn.dropout))
        x = self.self_attn_residual.leave(x, y.view_as(x))
        source = (cache.memory_keys, cache.memory_values, mask)
        return self._after_self(x, source, need_attention=need_attention)

    def _after_self(
        self, x: Tensor, source: tuple[Tensor, Tensor, Tensor], *, need_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What follows self-attention: `source` is keys and values [B, H, S, D/H] and mask [B, S]."""
        attn, (k, v, mask) = self.encoder_attn, source
        (q,) = attn.project(self.encoder_attn_residual.enter(x), parts="q")
        y = attn.merge(attend(q, k, v, mask.unsqueeze(1), scale=attn.scale, dropout=attn.dropout))
        weights = None
        if need_attention:
            heads = slice(self.shown_heads)
            weights = attention_weights(q[:, heads], k[:, heads], mask.unsqueeze(1), scale=attn.scale).mean(dim=1)
        x = self.encoder_attn_residual.leave(x, y)
        x = self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))
        return x, weights


class CopyHead(nn.Module):
    """A head of attention that nothing but copying uses: softmax(W_q x · W_k h / sqrt(D)).

    Vaswani et al. (2017, eq. 1, arXiv:1706.03762) for the weights; x is what the decoder says, h the encoder.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.scale = d_model**-0.5

    def keys(self, states: Tensor) -> Tensor:
        """Of encoder states [B, S, D], once a source: [B, S, D]."""
        y: Tensor = self.k_proj(states)
        return y

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Weights [B, T, S] float32 of features [B, T, D] under the source mask [B, S]."""
        q, k = self.q_proj(x).unsqueeze(1), keys.unsqueeze(1)
        return attention_weights(q, k, mask.unsqueeze(1), scale=self.scale).squeeze(1)


@dataclass
class TransformerState(State):
    """Where a Transformer decoder stands.

    Attributes:
        layers: their caches.
        mask: of the sources [B, S].
        tokens: what may be copied, [B, ...]; None without copying.
        copy_keys: [B, S, D] of the copy head; None without one.
        position: how many target tokens were read.
    """

    layers: list[LayerCache]
    mask: Tensor
    tokens: SourceTokens | None
    copy_keys: Tensor | None
    width: int
    position: int = 0

    def reorder(self, parents: Tensor) -> None:
        """See `State.reorder`."""
        rows = beam_rows(parents, self.width)
        for layer in self.layers:
            layer.take(rows)
        self.width = parents.size(1)

    def keep(self, sentences: Tensor) -> None:
        """See `State.keep`."""
        beams = torch.arange(self.width, device=sentences.device)
        rows = (sentences.unsqueeze(1) * self.width + beams).flatten()
        self.mask = self.mask.index_select(0, sentences)
        self.tokens = None if self.tokens is None else self.tokens.take(sentences)
        self.copy_keys = None if self.copy_keys is None else self.copy_keys.index_select(0, sentences)
        for layer in self.layers:
            layer.take(rows)
            layer.memory_keys = layer.memory_keys.index_select(0, sentences)
            layer.memory_values = layer.memory_values.index_select(0, sentences)


class Transformer(Seq2Seq):
    """Encoder and decoder stacks over shared or separate embeddings."""

    def __init__(self, config: TransformerConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.scale = config.d_model**0.5
        size = config.d_model
        self.source_embedding, self.target_embedding, tied = build_embeddings(vocabulary, size, config.tie_embeddings)
        self.output = Output(size, vocab_size=vocabulary.target_size, tied=tied, copy=config.copy)
        positions = SinusoidalPositions if config.positions is PositionKind.sinusoidal else LearnedPositions
        self.source_positions = positions(size, config.max_positions)
        self.target_positions = positions(size, config.max_positions)
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        # A pre-norm stack leaves its stream unnormalised, so one more normalisation ends it.
        final = nn.LayerNorm if config.norm is NormPlacement.pre else nn.Identity
        self.encoder_norm = final(size)
        self.decoder_norm = final(size)
        own_head = config.copy and config.copy_attention is CopyAttention.own
        self.copy_head = CopyHead(size) if own_head else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def encode(self, src: Tensor, src_mask: Tensor) -> Memory:
        """See `Seq2Seq.encode`."""
        mask = attendable(src_mask)
        x = self._embed(self.source_embedding(src), self.source_positions(0, src.size(1)))
        for layer in self.encoder:
            x = self.run(layer, x, mask.unsqueeze(1))
        return Memory(states=self.encoder_norm(x), mask=mask, src=src)

    def decode(self, tgt_in: Tensor, memory: Memory, *, need_attention: bool = False) -> Hidden:
        """See `Seq2Seq.decode`; padding comes last, so the causal mask keeps it from every real position."""
        x = self._embed(self.target_embedding(tgt_in), self.target_positions(0, tgt_in.size(1)))
        mask = causal_mask(tgt_in.size(1), tgt_in.device)
        weights = None
        need_weights = self._needs_weights(need_attention)
        for layer in self.decoder:
            last = layer is self.decoder[-1]
            x, weights = self.run(partial(layer, need_attention=need_weights and last), x, mask, memory)
        features = self.decoder_norm(x)
        if self.copy_head is not None:
            weights = self.copy_head(features, self.copy_head.keys(memory.states), memory.mask)
        return _hidden(features, weights, self.source_tokens(memory))

    def start(self, memory: Memory, *, width: int = 1) -> TransformerState:
        """See `Seq2Seq.start`."""
        layers = []
        for layer in self.decoder:
            k, v = cast(DecoderLayer, layer).encoder_attn.project(memory.states, parts="kv")
            layers.append(LayerCache(None, None, k.contiguous(), v.contiguous()))
        return TransformerState(
            layers=layers,
            mask=memory.mask,
            tokens=self.source_tokens(memory),
            copy_keys=None if self.copy_head is None else self.copy_head.keys(memory.states),
            width=width,
        )

    def step(self, tokens: Tensor, state: State, *, need_attention: bool = False) -> Hidden:
        """See `Seq2Seq.step`."""
        state = cast(TransformerState, state)
        x = self._embed(self.target_embedding(tokens), self.target_positions(state.position, 1))
        x = x.view(-1, state.width, x.size(-1))  # [B, K, D]
        weights = None
        need_weights = self._needs_weights(need_attention)
        for layer, cache in zip(self.decoder, state.layers, strict=True):
            last = layer is self.decoder[-1]
            step = cast(DecoderLayer, layer).step
            x, weights = step(x, cache, state.mask, need_attention=need_weights and last)
        state.position += 1
        features = self.decoder_norm(x)
        if self.copy_head is not None and state.copy_keys is not None:
            weights = self.copy_head(features, state.copy_keys, state.mask)
        return _hidden(features.flatten(0, 1), None if weights is None else weights.flatten(0, 1), state.tokens)

    def _needs_weights(self, need_attention: bool) -> bool:
        """Whether the last layer is to give its attention: a copy head's own takes its place."""
        return self.copy_head is None and (need_attention or self.output.copies)

    def _embed(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Section 3.4 of the paper: embeddings times the square root of D, plus positions, dropped out.

        Under bfloat16 autocast the stream itself is bfloat16: the CPU's kernels for mixed types are slow.
        """
        x = rows * self.scale + positions
        device = x.device.type
        if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.bfloat16:
            x = x.to(torch.bfloat16)
        return cast(Tensor, self.dropout(x))


def _attention(config: TransformerConfig) -> MultiHeadAttention:
    scaled = config.attention is TransformerAttention.scaled_dot
    return MultiHeadAttention(config.d_model, config.num_heads, scaled=scaled, dropout=config.attention_dropout)


def _hidden(features: Tensor, weights: Tensor | None, tokens: SourceTokens | None) -> Hidden:
    if tokens is None:
        return Hidden(features, weights)
    assert weights is not None, "copying goes by attention"
    return Hidden(features, weights, Copying.evenly(weights, tokens))
