"""Why a model said what it said: where each token's attention went, and whether the token was copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq.models.base import DecoderOutput, Seq2Seq
from seq2seq.search.config import SearchPrecision
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.search import decoding_mode


def explain(
    found: list[list[Hypothesis]], models: Sequence[Seq2Seq], src: Tensor, *, precision: SearchPrecision
) -> None:
    """Fills `attention` of all hypotheses, and `copied` where a model copies.

    Reading the finished hypotheses once more, the first of each sentence in one pass, then the second, ..., spares
    the search the weights of all those it drops on the way.

    Args:
        found: the hypotheses of each source.
        models: one, or the ensemble.
        src: [B, S] int64, the sources.
        precision: what the search computed in.
    """
    with decoding_mode(models, src.device, precision):
        _explain(found, models, src)


def _explain(found: list[list[Hypothesis]], models: Sequence[Seq2Seq], src: Tensor) -> None:
    vocabulary = models[0].vocabulary
    lengths = (src != vocabulary.pad_id).sum(dim=1).tolist()
    for rank in range(max(map(len, found))):
        owners = [sentence for sentence, hypotheses in enumerate(found) if rank < len(hypotheses)]
        chosen = [found[sentence][rank] for sentence in owners]
        tgt = torch.full((len(owners), 1 + max(hypothesis.length for hypothesis in chosen)), vocabulary.pad_id)
        tgt[:, 0] = vocabulary.bos_id
        for row, hypothesis in enumerate(chosen):
            ids = [*hypothesis.ids, vocabulary.eos_id] if hypothesis.ended else hypothesis.ids
            tgt[row, 1 : 1 + len(ids)] = torch.tensor(ids)
        attention, copied = forced_explanation(models, src[owners], tgt.to(src.device))
        attention, copied = attention.cpu(), None if copied is None else copied.cpu()
        for row, hypothesis in enumerate(chosen):
            hypothesis.attention = attention[row, : hypothesis.length, : lengths[owners[row]]].clone()
            hypothesis.copied = None if copied is None else copied[row, : hypothesis.length].tolist()


def forced_explanation(models: Sequence[Seq2Seq], src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor | None]:
    """Attention and copy probabilities while the models read given targets.

    An ensemble's attention is the mean of its models'. It draws a token y by picking one of M models m, each as
    likely as the other, and letting it draw, so by Bayes' rule y came from m with probability
    p_m(y) / Σ_n p_n(y), and was copied with Σ_m p_m(y) c_m(y) / Σ_n p_n(y), where c_m(y) is the probability that m
    copied the y it drew: 0 for a model that does not copy.

    Args:
        models: one, or the ensemble.
        src: [B, S] int64.
        tgt: [B, T + 1] int64, beginning of sentence first, padded on the right.

    Returns:
        attention [B, T, S] float32, and the probability [B, T] float32 in [0, 1] that each of the T tokens after
        the first was copied: None where no model copies, 0 at padding.
    """
    copies = any(model.output.copies for model in models)
    attentions, log_probs, copied = [], [], []
    for model in models:
        memory = model.encode(src, model.source_mask(src))
        hidden = model.decode(tgt[:, :-1], memory, need_attention=True)
        assert hidden.attention is not None, "a model returns the attention it is asked for"
        attentions.append(hidden.attention.float())
        if copies:
            of_tokens, of_copying = _of_tokens(model, hidden, tgt[:, 1:])
            log_probs.append(of_tokens)
            copied.append(of_copying)
    attention = torch.stack(attentions).mean(0)
    if not copies:
        return attention, None
    origin = torch.stack(log_probs).softmax(0)  # [M, B, T]
    return attention, (origin * torch.stack(copied)).sum(0)


def _of_tokens(model: Seq2Seq, hidden: DecoderOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of labels [B, T] and the probabilities that they were copied, both [B, T] float32.

    A sentence at a time and without the padding, because [B, T, V] may not fit into memory.
    """
    log_probs = torch.zeros(labels.shape, device=labels.device)
    copied = torch.zeros_like(log_probs)
    real = labels != model.vocabulary.pad_id
    for sentence, length in enumerate(real.sum(dim=1).tolist()):
        first = sentence * labels.size(1)
        rows = hidden.rows(torch.arange(first, first + length, device=labels.device))
        tokens = labels[sentence, :length]
        log_probs[sentence, :length] = model.output.log_probs(rows).gather(1, tokens.unsqueeze(1)).squeeze(1)
        if model.output.copies:
            copied[sentence, :length] = model.output.copy_probs(rows, tokens)
    return log_probs, copied
