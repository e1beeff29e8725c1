"""The door to the search: sources and models in, hypotheses out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.search.beam import BeamSearch
from seq2seq.search.config import SearchConfig, SearchPrecision
from seq2seq.search.coverage_penalty import Coverage
from seq2seq.search.decoder import ModelDecoder
from seq2seq.search.greedy import Choice, greedy_choice, greedy_search, sampling_choice
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.lengths import length_limits
from seq2seq.system.device import exact_fp32

# What autocast has to compute in; None where nothing is to be cast.
_AUTOCAST = {SearchPrecision.fp32: None, SearchPrecision.bf16: torch.bfloat16, SearchPrecision.fp16: torch.float16}


def search(
    models: Sequence[Seq2Seq],
    src: Tensor,
    config: SearchConfig,
    *,
    seed: int = 0,
    numbers: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """The best target sequences of a batch of sources.

    Args:
        models: one, or several of the same target vocabulary that decide together.
        src: [B, S] int64, ending in end of sentence, padded on the right; on the models' device.
        config: what to search for.
        seed: for sampling, where `config.seed` is None.
        numbers: [B] int64, identifies each sentence for sampling; default 0, 1, ... B - 1.

    Returns:
        For each source, `config.n_best` hypotheses (fewer if there are no more), at least one, best first.

    Raises:
        UserError: if the models' probabilities are not numbers, or their vocabularies differ.
    """
    vocabulary = _shared_vocabulary(models)
    if src.size(0) == 0:
        return []
    with decoding_mode(models, src.device, config.precision):
        limits = length_limits((src != vocabulary.pad_id).sum(dim=1), config)
        penalized = config.coverage_penalty > 0
        coverage = Coverage(config.coverage_penalty, src, vocabulary) if penalized else None
        if config.sampling or config.beam_size == 1:
            choose: Choice = greedy_choice
            if config.sampling:
                numbers = torch.arange(src.size(0)) if numbers is None else numbers
                own_seed = seed if config.seed is None else config.seed
                choose = sampling_choice(config, numbers.to(src.device), seed=own_seed)
            decoder = ModelDecoder(models, src, width=config.n_best, need_attention=penalized)
            found = greedy_search(decoder, limits, config, vocabulary=vocabulary, choose=choose, coverage=coverage)
        else:
            decoder = ModelDecoder(models, src, need_attention=penalized)
            found = BeamSearch(decoder, config, vocabulary, coverage=coverage).run(limits)
        _check(found)
    return found


@contextmanager
def decoding_mode(models: Sequence[Seq2Seq], device: torch.device, precision: SearchPrecision) -> Iterator[None]:
    """No gradients, no dropout, matrix products in `precision`; the models' modes are restored afterwards."""
    dtype = _AUTOCAST[precision]
    training = [model.training for model in models]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(exact_fp32())  # float32 means float32: outputs must not hang on the shape of a batch
        # Entered in any case: a search within someone else's autocast still runs in its own precision.
        stack.enter_context(torch.autocast(device.type, dtype=dtype, enabled=dtype is not None))
        for model, was_training in zip(models, training, strict=True):
            stack.callback(model.train, was_training)
            model.eval()
        yield


def _shared_vocabulary(models: Sequence[Seq2Seq]) -> Vocabulary:
    vocabularies = [model.vocabulary for model in models]
    for other in vocabularies[1:]:
        if other != vocabularies[0]:
            raise UserError(
                "the models of an ensemble must share their vocabularies, these have "
                f"{vocabularies[0]} and {other}; choose runs with the same tokenizer"
            )
    return vocabularies[0]


def _check(found: list[list[Hypothesis]]) -> None:
    """Raises UserError unless every sentence has a hypothesis and every score is a finite number."""
    for hypotheses in found:
        if not hypotheses or not all(math.isfinite(hypothesis.log_prob) for hypothesis in hypotheses):
            raise UserError(
                "the model's probabilities are not numbers (NaN or infinite): its weights are unusable; "
                "choose another checkpoint, or search.precision=fp32 if it was fp16"
            )
