"""The settings of the search."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError


class LengthNormalization(str, Enum):
    """The divisor of a hypothesis' log-probability, which makes hypotheses of different lengths comparable.

    wu: ((5 + |Y|) / 6)^length_penalty (Wu et al. 2016, eq. 14, arXiv:1609.08144).
    average: |Y|^length_penalty.
    none: 1.
    """

    wu = "wu"
    average = "average"
    none = "none"


class SearchPrecision(str, Enum):
    """Precision of the matrix products during search; log-probabilities are always float32."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


_IF_SAMPLING = {"used_if": ("search.sampling", (True,))}


@dataclass
class SearchConfig:
    """Settings of the search; lengths are in tokens and include the end of sentence.

    Attributes:
        beam_size: hypotheses kept per sentence; 1 is greedy search.
        length_penalty: exponent of the length normalisation; 0 disables it.
        length_normalization: the formula, see `LengthNormalization`.
        coverage_penalty: weight of the penalty for source tokens that got little attention, added to the
            normalised log-probability of finished hypotheses (Wu et al. 2016, eq. 14, arXiv:1609.08144, see
            `CoveragePenalty`): it ranks them but does not guide the beams. 0 disables it.
        min_length: the minimum length of a hypothesis.
        max_length: the length at which a hypothesis is cut off.
        max_length_ratio: if given, hypotheses are also limited to 10 + ratio × source tokens.
        batch_size: maximum number of sentences per batch; halved permanently when memory runs out.
        batch_tokens: maximum of sentences × longest source of a batch, so that batches of long sources hold fewer; a
            source that is longer forms a batch of its own.
        n_best: hypotheses returned per sentence (with sampling, the number of samples).
        sampling: draw tokens at random instead of searching for the best; the beam settings have no effect.
        temperature: divides the log-probabilities before sampling.
        top_k: sample from the k most probable tokens only; 0 samples from all (Fan et al. 2018,
            arXiv:1805.04833).
        top_p: sample from the smallest set of tokens with at least this much probability (Holtzman et al. 2020,
            section 3.1, arXiv:1904.09751).
        no_repeat_ngram: no n-gram of this order occurs twice in a hypothesis; 0 disables it (Paulus et al. 2018,
            section 2.5, arXiv:1705.04304).
        precision: precision of the matrix products.
        seed: for sampling; None uses the run's.
    """

    beam_size: int = field(default=5, metadata={"used_if": ("search.sampling", (False,))})
    length_penalty: float = field(default=1.0, metadata={"used_if": ("search.length_normalization", ("wu", "average"))})
    length_normalization: LengthNormalization = LengthNormalization.wu
    coverage_penalty: float = 0.0
    min_length: int = 0
    max_length: int = 256
    max_length_ratio: float | None = None
    batch_size: int = 128
    batch_tokens: int = 16_384
    n_best: int = 1
    sampling: bool = False
    temperature: float = field(default=1.0, metadata=_IF_SAMPLING)
    top_k: int = field(default=0, metadata=_IF_SAMPLING)
    top_p: float = field(default=1.0, metadata=_IF_SAMPLING)
    no_repeat_ngram: int = 0
    precision: SearchPrecision = SearchPrecision.fp32
    seed: int | None = field(default=None, metadata=_IF_SAMPLING)

    def __post_init__(self) -> None:
        """Checks that all values are in range.

        Raises:
            UserError: names the first key that is out of range.
        """
        ratio = self.max_length_ratio
        rules = (
            ("beam_size", self.beam_size >= 1, "must be at least 1 (1 is greedy search)"),
            ("batch_size", self.batch_size >= 1, "must be at least 1"),
            ("batch_tokens", self.batch_tokens >= 1, "must be at least 1"),
            ("n_best", self.n_best >= 1, "must be at least 1"),
            ("max_length", self.max_length >= 1, "must be at least 1"),
            ("min_length", self.min_length >= 0, "must be 0 or more"),
            (
                "min_length",
                self.min_length <= self.max_length,
                f"is above search.max_length={self.max_length}; lower one or raise the other",
            ),
            (
                "max_length_ratio",
                ratio is None or 0 < ratio < math.inf,
                "must be above 0, or null for no limit",
            ),
            # Large powers of long lengths overflow float32, and all hypotheses would score the same.
            ("length_penalty", 0 <= self.length_penalty <= 10, "must be from 0 to 10"),
            ("coverage_penalty", 0 <= self.coverage_penalty < math.inf, "must be 0 (off) or more"),
            (
                "temperature",
                0 < self.temperature < math.inf,
                "must be above 0; for greedy search set sampling=false",
            ),
            ("top_k", self.top_k >= 0, "must be 0 (all tokens) or more"),
            ("top_p", 0 < self.top_p <= 1, "must be above 0 and at most 1 (all tokens)"),
            ("no_repeat_ngram", self.no_repeat_ngram >= 0, "must be 0 (off) or more"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "must be at least 0 and below 2^63, or null"),
            (
                "n_best",
                self.sampling or self.n_best <= self.beam_size,
                f"is above search.beam_size={self.beam_size}; raise the beam size or lower n_best",
            ),
        )
        for key, holds, rule in rules:
            if not holds:
                raise UserError(f"search.{key}={getattr(self, key)} {rule}")
