"""Entry point of the search: from models and sources to hypotheses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.models.base import PackedDecoder, Seq2Seq, Vocabulary
from seq2seq.search.beam import BeamSearch
from seq2seq.search.config import SearchConfig, SearchPrecision
from seq2seq.search.coverage_penalty import CoveragePenalty
from seq2seq.search.decoder import ModelDecoder
from seq2seq.search.greedy import Choice, greedy_choice, greedy_search, sampling_choice
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.lengths import length_limits
from seq2seq.system.device import exact_fp32

# The dtype of autocast; None disables it.
_AUTOCAST = {SearchPrecision.fp32: None, SearchPrecision.bf16: torch.bfloat16, SearchPrecision.fp16: torch.float16}


def search(
    models: Sequence[Seq2Seq],
    src: Tensor,
    config: SearchConfig,
    *,
    packed: Sequence[PackedDecoder] | None = None,
    seed: int = 0,
    sentence_indices: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Searches for the best target sequences of a batch of sources.

    Args:
        models: one model, or several with the same vocabularies for an ensemble.
        src: [B, S] int64, each ending with the end of sentence and padded on the right; on the models' device.
        config: the settings of the search.
        packed: the models' decoders, packed in the precision of the search by `pack_decoders`; None packs them.
        seed: for sampling, if `config.seed` is None.
        sentence_indices: [B] int64, with the seed they determine each sentence's samples; default 0, 1, ... B - 1.

    Returns:
        For each source up to `config.n_best` hypotheses, at least one, best first.

    Raises:
        UserError: if the models' probabilities are not finite, or their vocabularies differ.
    """
    vocabulary = _shared_vocabulary(models)
    if src.size(0) == 0:
        return []
    with decoding_mode(models, src.device, config.precision):
        limits = length_limits((src != vocabulary.pad_id).sum(dim=1), config)
        penalized = config.coverage_penalty > 0
        coverage = CoveragePenalty(config.coverage_penalty, src, vocabulary) if penalized else None
        if config.sampling or config.beam_size == 1:
            choose: Choice = greedy_choice
            if config.sampling:
                if sentence_indices is None:
                    sentence_indices = torch.arange(src.size(0))
                sampling_seed = seed if config.seed is None else config.seed
                choose = sampling_choice(config, sentence_indices.to(src.device), seed=sampling_seed)
            decoder = ModelDecoder(models, src, packed=packed, width=config.n_best, need_attention=penalized)
            hypotheses = greedy_search(decoder, limits, config, vocabulary=vocabulary, choose=choose, coverage=coverage)
        else:
            decoder = ModelDecoder(models, src, packed=packed, need_attention=penalized)
            hypotheses = BeamSearch(decoder, config, vocabulary, coverage=coverage).run(limits)
        _check_finite(hypotheses)
    return hypotheses


def pack_decoders(models: Sequence[Seq2Seq], device: torch.device, config: SearchConfig) -> list[PackedDecoder]:
    """Packs the models' decoders for many calls of `search` between which no weight changes."""
    with decoding_mode(models, device, config.precision):
        return [model.pack_decoder() for model in models]


@contextmanager
def decoding_mode(models: Sequence[Seq2Seq], device: torch.device, precision: SearchPrecision) -> Iterator[None]:
    """Disables gradients and dropout, runs matrix products in `precision`; restores the models' modes on exit."""
    dtype = _AUTOCAST[precision]
    training = [model.training for model in models]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(exact_fp32())  # no TF32: its error would make outputs depend on the batch
        # Entered even if disabled, so that a surrounding autocast does not change the precision of the search.
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
                "the models of an ensemble must share their vocabularies, but these have "
                f"{vocabularies[0]} and {other}; choose runs with the same tokenizer"
            )
    return vocabularies[0]


def _check_finite(results: list[list[Hypothesis]]) -> None:
    """Raises UserError unless every sentence has a hypothesis and every log-probability is finite."""
    for hypotheses in results:
        if not hypotheses or not all(math.isfinite(hypothesis.log_prob) for hypothesis in hypotheses):
            raise UserError(
                "the model's probabilities are not finite (NaN or infinite): its weights are unusable; "
                "choose another checkpoint, or search.precision=fp32 if it was fp16"
            )
