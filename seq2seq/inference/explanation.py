"""Explains outputs: the attention of each target token, and the probability that it was copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from seq2seq.models.base import DecoderOutput, Seq2Seq
from seq2seq.search.config import SearchPrecision
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.search import decoding_mode


def add_attention(
    results: list[list[Hypothesis]], models: Sequence[Seq2Seq], src: Tensor, *, precision: SearchPrecision
) -> None:
    """Sets `attention` of all hypotheses, and `copied` if a model copies.

    Runs the models over the finished hypotheses again by forced decoding, the best of each sentence in one pass, then
    the second best, and so on. The search itself thus need not store attention for hypotheses that it drops.

    Args:
        results: the hypotheses of each source.
        models: one model, or several for an ensemble.
        src: [B, S] int64, the sources.
        precision: the precision of the search.
    """
    vocabulary = models[0].vocabulary
    lengths = (src != vocabulary.pad_id).sum(dim=1).tolist()
    with decoding_mode(models, src.device, precision):
        for rank in range(max(map(len, results))):
            sentences = [sentence for sentence, nbest in enumerate(results) if rank < len(nbest)]
            hypotheses = [results[sentence][rank] for sentence in sentences]
            targets = [
                torch.tensor([vocabulary.bos_id, *hypothesis.ids, vocabulary.eos_id])[: 1 + hypothesis.length]
                for hypothesis in hypotheses
            ]
            tgt = pad_sequence(targets, batch_first=True, padding_value=vocabulary.pad_id)
            attention, copied = forced_explanation(models, src[sentences], tgt.to(src.device))
            attention, copied = attention.cpu(), None if copied is None else copied.cpu()
            for row, hypothesis in enumerate(hypotheses):
                hypothesis.attention = attention[row, : hypothesis.length, : lengths[sentences[row]]].clone()
                hypothesis.copied = None if copied is None else copied[row, : hypothesis.length].tolist()


def forced_explanation(models: Sequence[Seq2Seq], src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor | None]:
    """Computes attention and copy probabilities by forced decoding of given targets.

    The attention of an ensemble is the mean over its models. Its distribution is a uniform mixture of M models, so by
    Bayes' rule a token y came from model m with probability p_m(y) / Σ_n p_n(y), and was copied with probability
    Σ_m p_m(y) c_m(y) / Σ_n p_n(y), where c_m(y) is the probability that m copied y given that it produced y: 0 for a
    model that does not copy.

    Args:
        models: one model, or several for an ensemble.
        src: [B, S] int64.
        tgt: [B, T + 1] int64, beginning of sentence first, padded on the right.

    Returns:
        attention [B, T, S] float32, and the probability [B, T] float32 in [0, 1] that each of the T tokens after
        the first was copied: 0 at padding; None if no model copies.
    """
    copies = any(model.output.copies for model in models)
    attentions, log_probs, copied = [], [], []
    for model in models:
        memory = model.encode(src, model.source_mask(src))
        hidden = model.decode(tgt[:, :-1], memory, need_attention=True)
        assert hidden.attention is not None, "the model must return the attention it was asked for"
        attentions.append(hidden.attention.float())
        if copies:
            token_log_probs, copy_probs = _token_probs(model, hidden, tgt[:, 1:])
            log_probs.append(token_log_probs)
            copied.append(copy_probs)
    attention = torch.stack(attentions).mean(0)
    if not copies:
        return attention, None
    posterior = torch.stack(log_probs).softmax(0)  # [M, B, T]
    return attention, (posterior * torch.stack(copied)).sum(0)


def _token_probs(model: Seq2Seq, hidden: DecoderOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Computes log-probabilities of labels [B, T] and the probabilities that they were copied, both [B, T] float32.

    One sentence at a time and without padding, because [B, T, V] may not fit into memory.
    """
    log_probs = torch.zeros(labels.shape, device=labels.device)
    copied = torch.zeros_like(log_probs)
    lengths = (labels != model.vocabulary.pad_id).sum(dim=1).tolist()
    for sentence, length in enumerate(lengths):
        first = sentence * labels.size(1)
        rows = hidden.rows(torch.arange(first, first + length, device=labels.device))
        tokens = labels[sentence, :length]
        log_probs[sentence, :length] = model.output.log_probs(rows).gather(1, tokens.unsqueeze(1)).squeeze(1)
        if model.output.copies:
            copied[sentence, :length] = model.output.copy_probs(rows, tokens)
    return log_probs, copied
