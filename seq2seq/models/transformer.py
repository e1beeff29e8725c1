"""The encoder-decoder Transformer: Vaswani et al. (2017, arXiv:1706.03762); sections and equations are theirs.

An encoder layer is self-attention and a feed-forward block, a decoder layer has cross-attention to the encoder's output
between the two. Each block reads and adds to the residual stream x:

    post-norm (section 3.1): x ← LayerNorm(x + block(x)),   pre-norm: x ← x + block(LayerNorm(x))

`forward` computes all positions of a sequence; `DecoderLayer.step` computes the same one position at a time.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.base import DecoderOutput, Memory, OutputLayer, PackedDecoder, Seq2Seq, State, Vocabulary
from seq2seq.models.copying import CopyDistribution, SourceTokens
from seq2seq.models.embedding import LearnedPositions, SinusoidalPositions, build_embeddings
from seq2seq.models.flops import Multiplications, matrix_elements
from seq2seq.models.kernels.attention import attend, attention_weights
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.linear import Linear, linear
from seq2seq.models.kernels.padding import on_padded_rows
from seq2seq.models.masks import additive_mask, causal_mask, safe_padding_mask
from seq2seq.models.transformer_config import (
    Activation,
    CopyAttention,
    NormPlacement,
    PositionKind,
    TransformerAttention,
    TransformerConfig,
)
from seq2seq.models.transformer_decoding import (
    LayerCache,
    PackedLayer,
    PackedTransformerDecoder,
    TransformerState,
    attend_to_cache,
    pack,
)

_POSITIONS = {PositionKind.sinusoidal: SinusoidalPositions, PositionKind.learned: LearnedPositions}


class MultiHeadAttention(nn.Module):
    """Multi-head attention: section 3.2.2.

    Concat(head_1, ..., head_H) W^O, where head_i = Attention(x W_i^Q, y W_i^K, y W_i^V) and Attention(q, k, v) =
    softmax(q kᵀ / √(D/H)) v. The projections of all heads are one matrix.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        size, self.num_heads = config.d_model, config.num_heads
        scaled = config.attention is TransformerAttention.scaled_dot
        self.scale = (size // self.num_heads) ** -0.5 if scaled else 1.0
        self.q_proj = Linear(size, size)
        self.k_proj = Linear(size, size)
        self.v_proj = Linear(size, size)
        self.out_proj = Linear(size, size)
        self.dropout = Dropout(config.attention_dropout)

    def project(self, x: Tensor, *, parts: str) -> list[Tensor]:
        """Projects `x` [B, T, D] with the layer of each letter of `parts` ("q", "k", "v"): [B, H, T, D/H] each.

        Uses one matrix product for all of them, so that the backward pass computes the gradient of `x` in one go.
        """
        layers = [{"q": self.q_proj, "k": self.k_proj, "v": self.v_proj}[part] for part in parts]
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        projected = linear(x, weight, bias).chunk(len(parts), dim=-1)
        return [y.view(*y.shape[:2], self.num_heads, -1).transpose(1, 2) for y in projected]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attends with projected heads [B, H, T, D/H] under `mask` [B or 1, T or 1, S]: [B, T, D]."""
        heads = attend(q, k, v, mask, scale=self.scale, dropout=self.dropout)  # eq. 1, [B, H, T, D/H]
        return self.out_proj(heads.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Position-wise feed-forward block: eq. 2, with a choice of the activation."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.d_model, config.d_ff)
        self.fc2 = Linear(config.d_ff, config.d_model)
        self.relu = config.activation is Activation.relu
        self.dropout = Dropout(config.activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """max(0, x W_1 + b_1) W_2 + b_2, from [*, D] to [*, D]."""
        return on_padded_rows(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        inner = linear(x, self.fc1.weight, self.fc1.bias, relu=self.relu)  # [M, d_ff]
        return self.fc2(self.dropout(inner if self.relu else F.gelu(inner)))


class Residual(nn.Module):
    """Residual connection around a block, with dropout (section 5.4) and post-norm or pre-norm.

    Pre-norm: Xiong et al. (2020, figure 1b, arXiv:2002.04745).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model, eps=1e-5)
        self.dropout = Dropout(config.dropout)
        self.pre_norm = config.norm is NormPlacement.pre

    def block_input(self, x: Tensor) -> Tensor:
        """The block's input from the residual stream `x` [*, D]: normalised in pre-norm."""
        return self.norm(x) if self.pre_norm else x

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Adds the block's output `y` [*, D] to the residual stream `x`; normalises the sum in post-norm."""
        total = self.dropout.add(x, y)
        return total if self.pre_norm else self.norm(total)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(config)
        self.self_attn_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps [B, S, D] to [B, S, D] under the padding mask `mask` [B, 1, S]."""
        q, k, v = self.self_attn.project(self.self_attn_residual.block_input(x), parts="qkv")
        x = self.self_attn_residual.add(x, self.self_attn(q, k, v, mask))
        return self.feed_forward_residual.add(x, self.feed_forward(self.feed_forward_residual.block_input(x)))


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward block.

    Returned attention weights are the mean of the first `num_returned_heads` cross-attention heads: all of them, or the
    one that is used for copying.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        copy_head_only = config.copy and config.copy_attention is CopyAttention.head
        self.num_returned_heads = 1 if copy_head_only else config.num_heads
        self.self_attn = MultiHeadAttention(config)
        self.self_attn_residual = Residual(config)
        self.encoder_attn = MultiHeadAttention(config)
        self.encoder_attn_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor, memory: Memory, *, need_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Maps [B, T, D] to [B, T, D] under the causal `mask` [1, T, T]; attention weights [B, T, S] if requested."""
        q, k, v = self.self_attn.project(self.self_attn_residual.block_input(x), parts="qkv")
        x = self.self_attn_residual.add(x, self.self_attn(q, k, v, mask))
        attn, padding_mask = self.encoder_attn, memory.mask.unsqueeze(1)
        k, v = attn.project(memory.states, parts="kv")
        (q,) = attn.project(self.encoder_attn_residual.block_input(x), parts="q")
        y, weights = attn(q, k, v, padding_mask), None
        if need_attention:
            heads = slice(self.num_returned_heads)
            weights = attention_weights(q[:, heads], k[:, heads], padding_mask, scale=attn.scale).mean(dim=1)
        x = self.encoder_attn_residual.add(x, y)
        x = self.feed_forward_residual.add(x, self.feed_forward(self.feed_forward_residual.block_input(x)))
        return x, weights

    def pack(self) -> PackedLayer:
        """The weights that `step` reads."""
        own, cross, feed_forward = self.self_attn, self.encoder_attn, self.feed_forward
        return PackedLayer(
            self_qkv=pack(own.q_proj, own.k_proj, own.v_proj),
            self_out=pack(own.out_proj),
            cross_q=pack(cross.q_proj),
            cross_kv=pack(cross.k_proj, cross.v_proj),
            cross_out=pack(cross.out_proj),
            fc1=pack(feed_forward.fc1),
            fc2=pack(feed_forward.fc2),
            num_heads=own.num_heads,
        )

    def step(
        self, x: Tensor, packed: PackedLayer, cache: LayerCache, beam_mask: Tensor, source_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes one position of each row, without gradients or dropout.

        Args:
            x: [B, K, D].
            packed: the layer's weights.
            cache: the keys and values of the position are appended to it.
            beam_mask: additive mask of the target entries [B × H, K, P + K], the new entries last.
            source_mask: additive mask of the source positions [B × H, K, S].

        Returns:
            [B, K, D], and the cross-attention weights [B, H, K, S] float32.
        """
        qkv = packed.split_heads(packed.self_qkv(self.self_attn_residual.block_input(x)), 3)  # [B, H, 3, K, D/H]
        cache.target.append(qkv[:, :, 1:])
        y, _ = attend_to_cache(qkv[:, :, 0], cache.target, beam_mask, scale=self.self_attn.scale)
        x = self.self_attn_residual.add(x, packed.self_out(y))
        q = packed.split_heads(packed.cross_q(self.encoder_attn_residual.block_input(x)), 1)
        y, weights = attend_to_cache(q[:, :, 0], cache.source, source_mask, scale=self.encoder_attn.scale)
        x = self.encoder_attn_residual.add(x, packed.cross_out(y))
        relu = self.feed_forward.relu
        inner = packed.fc1(self.feed_forward_residual.block_input(x), relu=relu)
        return self.feed_forward_residual.add(x, packed.fc2(inner if relu else F.gelu(inner))), weights


class CopyHead(nn.Module):
    """A separate attention head for copying only: softmax(W_q x · W_k h / sqrt(D)).

    Vaswani et al. (2017, eq. 1, arXiv:1706.03762) for the weights; x are decoder features, h encoder states.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.scale = d_model**-0.5

    def project_keys(self, states: Tensor) -> Tensor:
        """Keys [B, S, D] of encoder states [B, S, D]; computed once per source."""
        return self.k_proj(states)

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Attention weights [B, T, S] float32 of features [B, T, D] under the source mask [B, S]."""
        q, k = self.q_proj(x).unsqueeze(1), keys.unsqueeze(1)
        return attention_weights(q, k, mask.unsqueeze(1), scale=self.scale).squeeze(1)


class Transformer(Seq2Seq):
    """Encoder and decoder stacks over shared or separate embeddings."""

    def __init__(self, config: TransformerConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.scale = config.d_model**0.5
        size = config.d_model
        self.source_embedding, self.target_embedding, tied = build_embeddings(vocabulary, size, config.tie_embeddings)
        self.output = OutputLayer(size, vocab_size=vocabulary.target_size, tied=tied, copy=config.copy)
        positions = _POSITIONS[config.positions]
        self.source_positions = positions(size, config.max_positions)
        self.target_positions = positions(size, config.max_positions)
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        # The output of a pre-norm stack is not normalised, so it ends with one more layer norm.
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
        mask = safe_padding_mask(src_mask)
        x = self._embed(self.source_embedding(src), self.source_positions(0, src.size(1)))
        for layer in self.encoder:
            x = self.maybe_checkpoint(layer, x, mask.unsqueeze(1))
        return Memory(states=self.encoder_norm(x), mask=mask, src=src)

    def decode(self, tgt_in: Tensor, memory: Memory, *, need_attention: bool = False) -> DecoderOutput:
        """See `Seq2Seq.decode`; padding comes last, so the causal mask hides it from all tokens."""
        x = self._embed(self.target_embedding(tgt_in), self.target_positions(0, tgt_in.size(1)))
        mask = causal_mask(tgt_in.size(1), tgt_in.device)
        weights = None
        need_weights = self._needs_weights(need_attention)
        for layer in self.decoder:
            last = layer is self.decoder[-1]
            forward = partial(layer, need_attention=need_weights and last)
            x, weights = self.maybe_checkpoint(forward, x, mask, memory)
        features = self.decoder_norm(x)
        if self.copy_head is not None:
            weights = self.copy_head(features, self.copy_head.project_keys(memory.states), memory.mask)
        return _decoder_output(features, weights, self.source_tokens(memory))

    def pack_decoder(self) -> PackedTransformerDecoder:
        """See `Seq2Seq.pack_decoder`."""
        layers = [cast(DecoderLayer, layer).pack() for layer in self.decoder]
        return PackedTransformerDecoder(self.output.pack(), layers)

    def start(self, memory: Memory, packed: PackedDecoder, *, width: int = 1) -> TransformerState:
        """See `Seq2Seq.start`."""
        packed = cast(PackedTransformerDecoder, packed)
        caches = [layer.start(memory.states) for layer in packed.layers]
        dtype, rows = caches[0].source.dtype, memory.mask.size(0) * width
        return TransformerState(
            packed=packed,
            caches=caches,
            beam_mask=torch.empty(rows, 0, dtype=dtype, device=memory.mask.device),
            additive_source_mask=additive_mask(memory.mask).to(dtype),
            source_mask=memory.mask,
            source_tokens=self.source_tokens(memory),
            copy_keys=None if self.copy_head is None else self.copy_head.project_keys(memory.states),
            width=width,
        )

    def step(self, tokens: Tensor, state: State, *, need_attention: bool) -> DecoderOutput:
        """See `Seq2Seq.step`."""
        state = cast(TransformerState, state)
        x = self._embed(self.target_embedding(tokens), self.target_positions(state.position, 1))
        x = x.view(-1, state.width, x.size(-1))  # [B, K, D]
        state.advance()
        last_layer = cast(DecoderLayer, self.decoder[-1])
        beam_mask, source_mask = state.additive_masks(last_layer.self_attn.num_heads)
        for layer, packed, cache in zip(self.decoder, state.packed.layers, state.caches, strict=True):
            x, head_weights = cast(DecoderLayer, layer).step(x, packed, cache, beam_mask, source_mask)
        features, weights = self.decoder_norm(x), None
        if self.copy_head is not None and state.copy_keys is not None:
            weights = self.copy_head(features, state.copy_keys, state.source_mask)
        elif self._needs_weights(need_attention):
            weights = head_weights[:, : last_layer.num_returned_heads].mean(dim=1)  # [B, K, S]
        weights = None if weights is None else weights.flatten(0, 1)
        return _decoder_output(features.flatten(0, 1), weights, state.source_tokens)

    def multiplications(self) -> Multiplications:
        """See `Seq2Seq.multiplications`."""
        size = self.target_embedding.embedding_dim
        attention = [cast(DecoderLayer, layer).encoder_attn for layer in self.decoder]
        of_memory = sum(matrix_elements(each.k_proj, each.v_proj) for each in attention)
        source, target = matrix_elements(self.encoder) + of_memory, matrix_elements(self.decoder) - of_memory
        cross_pair = 2 * size * len(self.decoder)
        if self.copy_head is not None:
            source += matrix_elements(self.copy_head.k_proj)
            target += matrix_elements(self.copy_head.q_proj)
            cross_pair += size
        return Multiplications(
            source=source,
            target=target,
            output=matrix_elements(self.output),
            source_pair=2 * size * len(self.encoder),
            target_pair=2 * size * len(self.decoder),
            cross_pair=cross_pair,
        )

    def _needs_weights(self, need_attention: bool) -> bool:
        """Whether the last layer has to return its attention; with a copy head, that head's is returned instead."""
        return self.copy_head is None and (need_attention or self.output.copies)

    def _embed(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Embeddings times sqrt(D), plus positions, with dropout: section 3.4 of the paper.

        Under bfloat16 autocast the residual stream is bfloat16 too: the CPU's kernels for mixed dtypes are slow.
        """
        x = torch.add(positions, embeddings, alpha=self.scale)
        device = x.device.type
        if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.bfloat16:
            x = x.to(torch.bfloat16)
        return self.dropout(x)


def _decoder_output(features: Tensor, weights: Tensor | None, source_tokens: SourceTokens | None) -> DecoderOutput:
    if source_tokens is None:
        return DecoderOutput(features, weights)
    assert weights is not None, "copying needs attention weights"
    return DecoderOutput(features, weights, CopyDistribution.from_attention(weights, source_tokens))
