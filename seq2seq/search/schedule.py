"""When the search looks which sentences are done, and lets them leave the batch."""

from __future__ import annotations

import torch
from torch import Tensor

# To look costs an accelerator a wait for all queued work, so it looks only now and then.
_STEPS_BETWEEN_LOOKS = {"cpu": 1}
_STEPS_BETWEEN_LOOKS_ELSEWHERE = 4

# To leave costs a copy of what moves in the decoder's caches; worth it once this share of the batch is done.
_SHARE_TO_LEAVE = 0.05


def rows_to_keep(done: Tensor, step: int) -> Tensor | None:
    """The sentences [b'] to keep, given which are `done` [b] after `step`; None to go on with all of them.

    The last ones take the places of those that leave and the others stay where they are, so that little is copied.
    """
    if step % _STEPS_BETWEEN_LOOKS.get(done.device.type, _STEPS_BETWEEN_LOOKS_ELSEWHERE):
        return None
    staying = torch.nonzero(~done).squeeze(1)
    count = staying.numel()
    if count > done.numel() * (1 - _SHARE_TO_LEAVE):
        return None
    rows = torch.arange(count, device=done.device)
    rows[done[:count]] = staying[staying >= count]
    return rows
