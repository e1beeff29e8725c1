"""Removes finished sentences from the batch while the search runs."""

from __future__ import annotations

import torch
from torch import Tensor

# Reading `done` makes the host wait for all work queued on an accelerator, so there it is read only every few steps.
_CHECK_EVERY = {"cpu": 1}
_CHECK_EVERY_ON_ACCELERATORS = 4

# Removing sentences copies rows of the decoder's caches; it pays off once this fraction of the batch is done.
_MIN_DONE_FRACTION = 0.05


def sentences_to_keep(done: Tensor, step: int) -> Tensor | None:
    """Selects the sentences that stay in the batch after `step`.

    The last active sentences move into the slots of those that leave; the others keep theirs, so that little is
    copied.

    Args:
        done: [b] bool, which sentences are finished.
        step: from 1.

    Returns:
        Their indices [b'] int64, or None to keep the whole batch for now.
    """
    if step % _CHECK_EVERY.get(done.device.type, _CHECK_EVERY_ON_ACCELERATORS):
        return None
    active = torch.nonzero(~done).squeeze(1)
    count = active.numel()
    if count > done.numel() * (1 - _MIN_DONE_FRACTION):
        return None
    rows = torch.arange(count, device=done.device)
    rows[done[:count]] = active[active >= count]
    return rows
