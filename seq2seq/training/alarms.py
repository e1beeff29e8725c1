"""Warnings about a training run: what goes wrong, since when, and which keys fix it; one line each, once per run.

A symptom raises its alarm when it is seen three times in a row. Symptoms in outputs count only after twice the warm-up
of the learning rate, because early outputs of a healthy run are empty, endless or all the same too.
"""

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from seq2seq.tokenizers.base import UNK_SURFACE

logger = logging.getLogger("seq2seq")

_NUM_CONSECUTIVE = 3  # one batch, or one evaluation, may be unusual by chance
_WARMUP_FACTOR = 2  # outputs may be poor for this many times the warm-up of the learning rate
_MAX_RECENT_LOSSES = 20  # the next loss is compared with their median, which a spike does not move
_MIN_RECENT_LOSSES = 10  # with fewer, the loss still falls too fast to know a typical value
_SPIKE_NATS = 0.5  # nats per target token above the median: the perplexity times 1.6
_SPIKE_DEVIATIONS = 4.0  # and this many median deviations above it: 2.7 standard deviations of normal noise
_MAX_PADDING_SHARE = 0.5  # above it, most of the computation is wasted
_MIN_OUTPUTS = 5  # fewer may all be the same, or empty, in a healthy run
_MIN_NONEMPTY_SHARE = 0.5  # a healthy model drops single sentences, not most of them
_MIN_LENGTH_RATIO, _MAX_LENGTH_RATIO = 0.5, 2.0  # output to reference length in characters
_MAX_UNKNOWN_RATE = 0.02  # per character, for languages without spaces: 1 in 10 words of 5 letters

_MESSAGES = {
    "spike": "train/loss is far above its recent median: lower optim.lr or optim.clip_norm, or raise "
    "optim.warmup_steps",
    "padding": "more than half of each batch is padding: lower trainer.batch_tokens and raise trainer.accumulate by "
    "the same factor, or lower data.max_source_length and data.max_target_length",
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
class Alarms:
    """Checks the metrics and outputs of a run for symptoms of failure.

    Saved as part of `TrainState`, so that a resumed run warns as an uninterrupted one does.

    Attributes:
        raised: Kinds of alarm that have been raised.
        seen: By kind, the latest consecutive steps at which its symptom was seen.
        losses: The latest logged losses, at most 20.
        highest_lr: Highest logged learning rate.
        peak_step: Step of the first log with it: the end of the warm-up.
    """

    raised: list[str] = field(default_factory=list)
    seen: dict[str, list[int]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    highest_lr: float = 0.0
    peak_step: int = 0

    def check_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Checks the metrics logged at a step: ``train/loss``, ``train/lr``, ``perf/padding_share``."""
        if values["train/lr"] > self.highest_lr:
            self.highest_lr, self.peak_step = values["train/lr"], step
        self._check("padding", values["perf/padding_share"] > _MAX_PADDING_SHARE, step)
        loss = values["train/loss"]
        if math.isfinite(loss):
            self._check("spike", _is_spike(loss, self.losses), step)
            self.losses = [*self.losses, loss][-_MAX_RECENT_LOSSES:]

    def check_outputs(self, step: int, outputs: Sequence[str], references: Sequence[str]) -> None:
        """Checks decoded outputs against their references."""
        if len(outputs) < _MIN_OUTPUTS or not 0 < _WARMUP_FACTOR * self.peak_step < step:
            return
        pairs = [
            (output, reference) for output, reference in zip(outputs, references, strict=True) if reference.strip()
        ]
        nonempty = [(output, reference) for output, reference in pairs if output.strip()]
        self._check("empty", len(nonempty) < _MIN_NONEMPTY_SHARE * len(pairs), step)
        references_differ = len({reference for _, reference in nonempty}) > 1
        self._check("same", references_differ and len({output for output, _ in nonempty}) == 1, step)
        output_length, reference_length = (sum(len(pair[side]) for pair in nonempty) for side in (0, 1))
        self._check("short", output_length < _MIN_LENGTH_RATIO * reference_length, step)
        self._check("long", output_length > _MAX_LENGTH_RATIO * reference_length, step)
        num_unknown = sum(output.count(UNK_SURFACE) for output, _ in nonempty)
        self._check("unknown", num_unknown > _MAX_UNKNOWN_RATE * output_length, step)

    def _check(self, kind: str, present: bool, step: int) -> None:
        """Records whether a symptom is present, and warns once it has been present three times in a row."""
        steps = [*self.seen.pop(kind, []), step]
        if kind in self.raised or not present:
            return
        if len(steps) < _NUM_CONSECUTIVE:
            self.seen[kind] = steps
            return
        self.raised.append(kind)
        logger.warning("step %d: since step %d %s", step, steps[0], _MESSAGES[kind])


def _is_spike(loss: float, recent: Sequence[float]) -> bool:
    """Whether a loss is far above the median of recent ones, in terms of their median absolute deviation."""
    if len(recent) < _MIN_RECENT_LOSSES:
        return False
    median = statistics.median(recent)
    deviation = statistics.median(abs(value - median) for value in recent)
    return loss > median + max(_SPIKE_NATS, _SPIKE_DEVIATIONS * deviation)
