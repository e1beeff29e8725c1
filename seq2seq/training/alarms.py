"""Warnings while a run trains: what goes wrong, since when, and which keys fix it; a line each, once a run.

A sign counts when it is there three times in a row, and signs in outputs only after twice the warm-up of the learning
rate: early outputs of a healthy run are empty, endless or all the same too.
"""

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from seq2seq.tokenizers.base import UNK_SURFACE

LOGGER = logging.getLogger("seq2seq")

_IN_A_ROW = 3  # one batch, or one evaluation, may be odd by chance
_WARM_UPS = 2  # so many times as long as the learning rate rises, outputs may be poor
_RECENT = 20  # logged losses that the next one is compared with: enough for a median that a spike does not move
_FEWEST_RECENT = 10  # below it the loss falls too fast to say what is usual
_SPIKE = 0.5  # nats a target token above what is usual: the perplexity times 1.6
_SPREADS = 4.0  # and so many median deviations above it: 2.7 standard deviations of normal noise
_PADDING = 0.5  # above it, most of the work is done on nothing
_FEWEST_OUTPUTS = 5  # fewer may well be the same, or empty, in a run that is sound
_EMPTY = 0.5  # share of outputs: a sound model leaves out single sentences, not most of them
_SHORT, _LONG = 0.5, 2.0  # characters to those of the references: other styles and scripts stay between
_UNKNOWN = 0.02  # unknown tokens a character, which languages without spaces have too: one word of five letters in ten

_MEANING = {
    "spike": "train/loss is far above what it was: lower optim.lr or optim.clip_norm, or raise optim.warmup_steps",
    "padding": "more than half of each batch is padding: lower trainer.batch_tokens and raise trainer.accumulate by as "
    "much, or lower data.max_source_length and data.max_target_length",
    "same": "all outputs are the same, whatever the source: check that both sides of data.train are aligned; else "
    "lower optim.lr or raise optim.warmup_steps",
    "empty": "most outputs are empty: check that both sides of data.train are aligned; else lower optim.lr, or set "
    "search.min_length",
    "short": "outputs are less than half as long as the references: raise search.max_length if it cuts them, or "
    "search.min_length; check data.max_target_length if data.on_long=truncate",
    "long": "outputs are more than twice as long as the references: set search.no_repeat_ngram=3 or "
    "search.max_length_ratio, or train for longer (trainer.max_steps)",
    "unknown": "outputs are full of unknown tokens (⁇), about one word in ten: set tokenizer.kind=unigram or bpe with "
    "tokenizer.byte_fallback=true, or raise tokenizer.vocab_size and lower tokenizer.min_frequency",
}


@dataclass
class AlarmState:
    """What alarms remember, so that a resumed run says what an uninterrupted one says; as JSON, part of `TrainState`.

    Attributes:
        raised: Kinds of alarm that have been raised.
        seen: By kind, the steps at which its sign was there the last times in a row.
        losses: The latest logged losses, at most 20.
        highest_lr: Of all logs.
        peak_step: The first log with it, the end of the warm-up.
    """

    raised: list[str] = field(default_factory=list)
    seen: dict[str, list[int]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    highest_lr: float = 0.0
    peak_step: int = 0


class Alarms:
    """Watches a run's figures and outputs.

    Args:
        state: Of the run; is updated.
    """

    def __init__(self, state: AlarmState) -> None:
        self._state = state

    def training(self, step: int, values: Mapping[str, float]) -> None:
        """Looks at what was logged at a step: ``train/loss``, ``train/lr``, ``perf/padding_share``."""
        state = self._state
        if values["train/lr"] > state.highest_lr:
            state.highest_lr, state.peak_step = values["train/lr"], step
        self._judge("padding", values["perf/padding_share"] > _PADDING, step)
        loss = values["train/loss"]
        if math.isfinite(loss):
            self._judge("spike", _is_spike(loss, state.losses), step)
            state.losses = [*state.losses, loss][-_RECENT:]

    def outputs(self, step: int, outputs: Sequence[str], references: Sequence[str]) -> None:
        """Looks at decoded outputs and their references."""
        if len(outputs) < _FEWEST_OUTPUTS or not 0 < _WARM_UPS * self._state.peak_step < step:
            return
        pairs = [
            (output, reference) for output, reference in zip(outputs, references, strict=True) if reference.strip()
        ]
        filled = [(output, reference) for output, reference in pairs if output.strip()]
        self._judge("empty", len(filled) < _EMPTY * len(pairs), step)
        varied = len({reference for _, reference in filled}) > 1
        self._judge("same", varied and len({output for output, _ in filled}) == 1, step)
        written, wanted = (sum(len(texts[side]) for texts in filled) for side in (0, 1))
        self._judge("short", written < _SHORT * wanted, step)
        self._judge("long", written > _LONG * wanted, step)
        unknown = sum(output.count(UNK_SURFACE) for output, _ in filled)
        self._judge("unknown", unknown > _UNKNOWN * written, step)

    def _judge(self, kind: str, is_there: bool, step: int) -> None:
        """Takes in whether a sign is there, and raises the alarm when it has been for long enough."""
        state = self._state
        if kind in state.raised:
            return
        if not is_there:
            state.seen.pop(kind, None)
            return
        steps = [*state.seen.pop(kind, []), step]
        if len(steps) < _IN_A_ROW:
            state.seen[kind] = steps
            return
        state.raised.append(kind)
        LOGGER.warning("step %d: since step %d %s", step, steps[0], _MEANING[kind])


def _is_spike(loss: float, recent: Sequence[float]) -> bool:
    """Whether a loss is out of line: far above the median of recent ones, measured by their median deviation."""
    if len(recent) < _FEWEST_RECENT:
        return False
    usual = statistics.median(recent)
    spread = statistics.median(abs(value - usual) for value in recent)
    return loss > usual + max(_SPIKE, _SPREADS * spread)
