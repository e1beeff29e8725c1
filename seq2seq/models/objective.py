"""The training objective: one module that maps a batch's tensors to its loss sums."""

from __future__ import annotations

from torch import Tensor, nn

from seq2seq.models.base import Seq2Seq
from seq2seq.models.output import LossSums


class Objective(nn.Module):
    """Encodes, decodes and computes the loss of a batch: the one module that DDP and torch.compile wrap."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(self, src: Tensor, tgt_in: Tensor, rows: Tensor, labels: Tensor, smoothing: float) -> LossSums:
        """Computes the loss sums over the target tokens of a batch.

        Args:
            src: [B, S] int64, padded on the right.
            tgt_in: [B, T] int64, the targets shifted right (begin-of-sentence first).
            rows: [M] int64, the indices into B × T (flattened) of the target tokens, without padding.
            labels: [M] int64, the target token of each row.
            smoothing: label smoothing in [0, 1).
        """
        memory = self.model.encode(src, self.model.source_mask(src))
        decoded = self.model.decode(tgt_in, memory)
        return self.model.output.loss(decoded.rows(rows), labels, smoothing)
