"""The encoder-decoder Transformer: Vaswani et al. (2017, section 3, arXiv:1706.03762)."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from seq2seq.models.base import DecoderOutput, Memory, OutputLayer, Seq2Seq, State, Vocabulary
from seq2seq.models.copying import CopyDistribution, SourceTokens
from seq2seq.models.embedding import LearnedPositions, SinusoidalPositions, build_embeddings
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.linear import compute_dtype
from seq2seq.models.masks import additive_mask, causal_mask, safe_padding_mask
from seq2seq.models.transformer_config import CopyAttention, NormPlacement, PositionKind, TransformerConfig
from seq2seq.models.transformer_decoding import DecodingLayer
from seq2seq.models.transformer_layers import CopyHead, DecoderLayer, EncoderLayer
from seq2seq.models.transformer_state import TransformerState

_POSITIONS = {PositionKind.sinusoidal: SinusoidalPositions, PositionKind.learned: LearnedPositions}


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

    def start(self, memory: Memory, *, width: int = 1) -> TransformerState:
        """See `Seq2Seq.start`."""
        dtype = compute_dtype(memory.states)

        def pack() -> list[DecodingLayer]:
            return [DecodingLayer(cast(DecoderLayer, layer), dtype) for layer in self.decoder]

        layers = self.cached(("decoder", dtype), pack)
        attention_dtype = layers[0].attention_dtype
        return TransformerState(
            layers=layers,
            caches=[layer.start(memory.states) for layer in layers],
            beam_mask=torch.empty(memory.mask.size(0) * width, 0, dtype=attention_dtype, device=memory.mask.device),
            additive_source_mask=additive_mask(memory.mask).to(attention_dtype),
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
        first_layer = cast(DecoderLayer, self.decoder[0])
        num_heads = first_layer.self_attn.num_heads
        beam_mask, source_mask = state.additive_masks(num_heads)
        for layer, cache in zip(state.layers, state.caches, strict=True):
            x, head_weights = layer.step(x, cache, beam_mask, source_mask)
        features, weights = self.decoder_norm(x), None
        if self.copy_head is not None and state.copy_keys is not None:
            weights = self.copy_head(features, state.copy_keys, state.source_mask)
        elif self._needs_weights(need_attention):
            head_weights = head_weights.view(-1, num_heads, *head_weights.shape[1:])
            weights = head_weights[:, : first_layer.num_returned_heads].mean(dim=1)
        weights = None if weights is None else weights.flatten(0, 1)
        return _decoder_output(features.flatten(0, 1), weights, state.source_tokens)

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
        return cast(Tensor, self.dropout(x))


def _decoder_output(features: Tensor, weights: Tensor | None, source_tokens: SourceTokens | None) -> DecoderOutput:
    if source_tokens is None:
        return DecoderOutput(features, weights)
    assert weights is not None, "copying needs attention weights"
    return DecoderOutput(features, weights, CopyDistribution.from_attention(weights, source_tokens))
