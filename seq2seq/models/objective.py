"""The training objective: one module from a batch's tensors to the sums of its loss."""

from __future__ import annotations

from torch import Tensor, nn

from seq2seq.models.base import Seq2Seq
from seq2seq.models.output import LossSums


class Objective(nn.Module):
    """Encodes, decodes and scores a batch: what data parallelism and compilation wrap, and all they wrap."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(self, src: Tensor, tgt_in: Tensor, rows: Tensor, labels: Tensor, smoothing: float) -> LossSums:
        """Sums of the loss over the target tokens of a batch.

        Args:
            src: [B, S] int64, padded on the right.
            tgt_in: [B, T] int64, the targets shifted right (begin-of-sentence first).
            rows: [M] int64, the positions of B × T (flattened) that hold a target token.
            labels: [M] int64, the target token of each.
            smoothing: label smoothing in [0, 1).
        """
        memory = self.model.encode(src, self.model.source_mask(src))
        hidden = self.model.decode(tgt_in, memory)
        return self.model.output.loss(hidden.rows(rows), labels, smoothing)
