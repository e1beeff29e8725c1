"""The baseline for training speed: a hand-written PyTorch training loop with no framework around it.

It uses torch's own modules, in the sizes of the model section that it is compared with: a post-norm Transformer on
`scaled_dot_product_attention` (Vaswani et al. 2017, arXiv:1706.03762), or a GRU with attention (Luong et al. 2015,
arXiv:1508.04025) on `nn.GRU`, or step by step on `nn.GRUCell` with input feeding. It has the usual optimizations:
batches of similar lengths are built beforehand, padding is excluded from the loss, the optimizer is fused, no step
waits for a metric, and matrix products optionally run in bfloat16 under autocast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PAD, BOS = 0, 2


@dataclass(frozen=True)
class TrainingTask:
    """Model, data and settings of a training benchmark, the same for all contenders.

    Attributes:
        model: The model section, with `family` transformer or gru.
        vocab_size: Size of the vocabulary, shared by both sides.
        batches: For each step of a turn, the source and target ids of its examples, each ending with EOS.
        label_smoothing: For the loss.
        optim: The optimizer section.
        seed: For weights and dropout.
    """

    model: dict[str, Any]
    vocab_size: int
    batches: list[list[tuple[list[int], list[int]]]]
    label_smoothing: float
    optim: dict[str, Any]
    seed: int


@dataclass(frozen=True)
class BareBatch:
    """A padded batch.

    Attributes:
        src: [B, S] int64.
        src_lengths: [B] int64, on the CPU.
        tgt_in: [B, T] int64, starting with BOS.
        rows: [M] indices into B*T that are not padding.
        labels: [M] targets at these indices.
    """

    src: Tensor
    src_lengths: Tensor
    tgt_in: Tensor
    rows: Tensor
    labels: Tensor


def build_batch(examples: Sequence[tuple[list[int], list[int]]]) -> BareBatch:
    """Builds the tensors of one step."""
    sources, targets = [source for source, _ in examples], [target for _, target in examples]
    labels = _padded(targets)
    tgt_in = torch.where(labels == PAD, PAD, labels.roll(1, dims=1))
    tgt_in[:, 0] = BOS
    rows = (labels != PAD).flatten().nonzero().squeeze(1)
    lengths = torch.tensor([len(source) for source in sources])
    return BareBatch(_padded(sources), lengths, tgt_in, rows, labels.flatten()[rows])


def _padded(sequences: Sequence[list[int]]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in sequences], batch_first=True, padding_value=PAD)


def turn_stats(batches: Sequence[BareBatch], model: nn.Module) -> dict[str, Any]:
    """Counts the target tokens of a turn, its share of padding on both sides, and the trainable parameters."""
    tokens = sum(batch.labels.numel() for batch in batches)
    padded = sum(batch.src.numel() + batch.tgt_in.numel() for batch in batches)
    used = tokens + sum(int(batch.src_lengths.sum()) for batch in batches)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"tokens": tokens, "padding_share": 1 - used / padded, "parameters": parameters}


class Attention(nn.Module):
    """Multi-head attention with torch's fused kernel."""

    def __init__(self, size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(size, size)
        self.kv = nn.Linear(size, 2 * size)
        self.out = nn.Linear(size, size)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, *, causal: bool = False) -> Tensor:
        """Attends from `x` [B, T, D] to `memory` [B, S, D] under `mask` [B, 1, 1, S]."""
        q, k, v = (self._split(y) for y in (self.q(x), *self.kv(memory).chunk(2, dim=-1)))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Layer(nn.Module):
    """A post-norm layer: self-attention, cross-attention in a decoder, feed-forward."""

    def __init__(self, model: dict[str, Any], *, decoder: bool):
        super().__init__()
        size = model["d_model"]
        self.self_attention = Attention(size, model["num_heads"])
        self.source_attention = Attention(size, model["num_heads"]) if decoder else None
        self.feed_forward = nn.Sequential(nn.Linear(size, model["d_ff"]), nn.ReLU(), nn.Linear(model["d_ff"], size))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3 if decoder else 2))
        self.dropout = nn.Dropout(model["dropout"])

    def forward(self, x: Tensor, mask: Tensor | None, memory: Tensor | None, memory_mask: Tensor | None) -> Tensor:
        """Maps [B, T, D] to [B, T, D]; a decoder layer has a memory and is causal."""
        x = self.norms[0](x + self.dropout(self.self_attention(x, x, mask, causal=memory is not None)))
        if self.source_attention is not None and memory is not None:
            x = self.norms[1](x + self.dropout(self.source_attention(x, memory, memory_mask)))
        return self.norms[-1](x + self.dropout(self.feed_forward(x)))  # type: ignore[no-any-return]


class BareTransformer(nn.Module):
    """Encoder and decoder with one shared embedding table; returns the features before the output projection."""

    def __init__(self, model: dict[str, Any], vocab_size: int):
        super().__init__()
        size = model["d_model"]
        self.embedding = nn.Embedding(vocab_size, size, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)
        frequencies = 10000.0 ** (-torch.arange(0, size, 2) / size)
        angles = torch.arange(model["max_positions"]).unsqueeze(1) * frequencies
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], dim=1))
        self.encoder = nn.ModuleList(Layer(model, decoder=False) for _ in range(model["encoder_layers"]))
        self.decoder = nn.ModuleList(Layer(model, decoder=True) for _ in range(model["decoder_layers"]))
        self.dropout = nn.Dropout(model["dropout"])

    def forward(self, batch: BareBatch) -> Tensor:
        """Features [B, T, D]."""
        mask = (batch.src != PAD)[:, None, None, :]
        memory = self._embed(batch.src)
        for layer in self.encoder:
            memory = layer(memory, mask, None, None)
        x = self._embed(batch.tgt_in)
        for layer in self.decoder:
            x = layer(x, None, memory, mask)
        return x

    def _embed(self, ids: Tensor) -> Tensor:
        size = self.embedding.embedding_dim
        positions: Tensor = self.positions[: ids.size(1)]  # type: ignore[index]
        return self.dropout(self.embedding(ids) * size**0.5 + positions)  # type: ignore[no-any-return]


class BareGRU(nn.Module):
    """A bidirectional encoder and a decoder with attention.

    Without input feeding the decoder reads the whole target at once, then all positions attend together. With input
    feeding a GRU cell reads one position at a time, concatenated with the attentional state of the previous one.
    Attention is multiplicative, or additive (Bahdanau et al. 2015, arXiv:1409.0473).
    """

    def __init__(self, model: dict[str, Any], vocab_size: int):
        super().__init__()
        size, embedded, memory = model["d_model"], model["embedding_size"], 2 * model["encoder_size"]
        self.input_feeding = model["input_feeding"]
        self.embedding = nn.Embedding(vocab_size, embedded, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=embedded**-0.5)
        self.encoder = nn.GRU(embedded, model["encoder_size"], batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(memory, size)
        self.decoder: nn.GRU | nn.GRUCell = nn.GRU(embedded, size, batch_first=True)
        if self.input_feeding:
            self.decoder = nn.GRUCell(embedded + size, size)
        additive = model["attention"] == "additive"
        self.keys = nn.Linear(memory, model["attention_size"] if additive else size, bias=additive)
        self.query = nn.Linear(size, model["attention_size"], bias=False) if additive else None
        self.score = nn.Linear(model["attention_size"], 1, bias=False) if additive else None
        self.combine = nn.Linear(memory + size, size, bias=False)
        self.project = nn.Linear(size, embedded, bias=False)
        self.dropout = nn.Dropout(model["dropout"])

    def forward(self, batch: BareBatch) -> Tensor:
        """Features [B, T, E]."""
        embedded = self.dropout(self.embedding(batch.src))
        packed = pack_padded_sequence(embedded, batch.src_lengths, batch_first=True, enforce_sorted=False)
        memory, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True)
        mask = batch.src != PAD
        hidden = torch.tanh(self.bridge(memory.sum(dim=1) / mask.sum(dim=1, keepdim=True)))
        targets = self.dropout(self.embedding(batch.tgt_in))
        if isinstance(self.decoder, nn.GRU):
            states, _ = self.decoder(targets, hidden.unsqueeze(0))
            features = self._attend(states, memory, self.keys(memory), mask)
        else:
            features = self._decode_with_input_feeding(targets, hidden, memory, mask)
        return self.project(self.dropout(features))  # type: ignore[no-any-return]

    def _decode_with_input_feeding(self, targets: Tensor, hidden: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        keys, feed, features = self.keys(memory), torch.zeros_like(hidden), []
        for embedded in targets.unbind(dim=1):
            hidden = self.decoder(torch.cat([embedded, feed], dim=-1), hidden)
            feed = self._attend(hidden.unsqueeze(1), memory, keys, mask).squeeze(1)
            features.append(feed)
        return torch.stack(features, dim=1)

    def _attend(self, states: Tensor, memory: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        if self.query is not None and self.score is not None:
            scores = self.score(torch.tanh(self.query(states).unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)
        else:
            scores = states @ keys.transpose(1, 2)
        weights = torch.softmax(scores.masked_fill(~mask.unsqueeze(1), float("-inf")), dim=-1)
        return torch.tanh(self.combine(torch.cat([weights @ memory, states], dim=-1)))


class BareLoop:
    """Trains on the same batches in every turn.

    Args:
        task: Model, data and settings.
        precision: Of the matrix products, bf16 or fp32.
    """

    def __init__(self, task: TrainingTask, precision: str):
        torch.manual_seed(task.seed)
        family = BareTransformer if task.model["family"] == "transformer" else BareGRU
        self.model = family(task.model, task.vocab_size).train()
        for module in self.model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        self.batches = [build_batch(examples) for examples in task.batches]
        self._task, self._bf16 = task, precision == "bf16"
        optim = task.optim
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=optim["lr"], betas=tuple(optim["betas"]), eps=optim["eps"],
            weight_decay=optim["weight_decay"], fused=True,
        )  # fmt: skip
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda steps: min(1.0, (steps + 1) / max(1, optim["warmup_steps"]))
        )

    def loss(self, batch: BareBatch) -> Tensor:
        """Returns the mean cross-entropy with label smoothing over all tokens except padding."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bf16):
            features = self.model(batch).flatten(0, 1)[batch.rows]
            logits = F.linear(features, self.model.embedding.weight)
            smoothing = self._task.label_smoothing
            return F.cross_entropy(logits, batch.labels, ignore_index=PAD, label_smoothing=smoothing)

    def turn(self) -> float:
        """Makes one update per batch; returns the mean of their losses."""
        losses = torch.zeros(())
        for batch in self.batches:
            loss = self.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), self._task.optim["clip_norm"] or torch.inf)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad(set_to_none=True)
            losses += loss.detach()
        return float(losses) / len(self.batches)

    def stats(self) -> dict[str, Any]:
        """Returns counts of a turn."""
        return turn_stats(self.batches, self.model)
