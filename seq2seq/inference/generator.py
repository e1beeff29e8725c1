"""From text to text: tokenize, sort, batch, search, put back in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from seq2seq.inference.explanation import explain
from seq2seq.inference.oom import BatchSplitter
from seq2seq.models.base import Seq2Seq
from seq2seq.search.config import SearchConfig
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.search import search
from seq2seq.tokenizers.base import EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers.pair import Tokenizers

# Batches a block: sorted by length, a block this large has hardly any padding in its batches.
_BATCHES_PER_BLOCK = 32

# Text is held and tokenized a block at a time, and lines may be long: beyond this many characters a block is closed
# early. Batches of ordinary lines are never so long: 2048 of the longest news articles are.
_CHARACTERS_PER_BLOCK = 1 << 22


@dataclass
class Output:
    """One generated text.

    Attributes:
        text: detokenized; may hold a line break if the model produced one.
        score: what the hypotheses of a source are ranked by, see `Hypothesis`.
        log_prob: sum of the tokens' log-probabilities (nats).
        tokens: the target tokens' labels, the end of sentence last if it was reached.
        source_tokens: the source tokens' labels as the model saw them, end of sentence last.
        attention: [tokens, source tokens] float32, rows sum to one, if it was asked for.
        copied: the probability, 0 to 1, that each token was copied from the source rather than generated, if
            attention was asked for and a model copies.
    """

    text: str
    score: float
    log_prob: float
    tokens: list[str]
    source_tokens: list[str]
    attention: npt.NDArray[np.float32] | None = None
    copied: list[float] | None = None


class Generator:
    """Translates or summarises lines of text with one model or an ensemble.

    A line's output does not depend on what else is in its batch. A blank line gives an empty output; a source
    that is too long is truncated and counted. Where memory runs out, batches are halved for good.

    Args:
        models: on `device` already.
        tokenizers: the ones the models were trained with.
        config: the search.
        device: where the models are.
        max_source_length: tokens of a source that are read, end of sentence counted.
        seed: for sampling, where `config.seed` is None.

    Attributes:
        truncated: how many sources have been truncated so far.
        unknown: how many sources so far hold nothing but unknown tokens.
        splitter: how batches are cut where memory has run out; generators may share it.
    """

    def __init__(
        self,
        models: Sequence[Seq2Seq],
        tokenizers: Tokenizers,
        config: SearchConfig,
        *,
        device: torch.device,
        max_source_length: int,
        seed: int,
    ) -> None:
        self.models = list(models)
        self.tokenizers = tokenizers
        self.config = config
        self.device = device
        self.max_source_length = max_source_length
        self.seed = seed
        self.truncated = 0
        self.unknown = 0
        self.splitter = BatchSplitter(device, work="decoding")

    def generate(self, texts: Sequence[str]) -> list[str]:
        """The best output of each text, in order."""
        return [outputs[0].text for outputs in self.generate_nbest(texts)]

    def generate_nbest(self, texts: Sequence[str], *, need_attention: bool = False) -> list[list[Output]]:
        """The `config.n_best` best outputs of each text, best first; a single one for a blank text.

        No two have the same tokens, but subwords may spell one text in several ways.

        Args:
            texts: one source each.
            need_attention: fill `Output.attention`, and `copied` where a model copies.
        """
        return self._block(texts, first=0, need_attention=need_attention)

    def stream(
        self, lines: Iterable[str], *, block: int | None = None, need_attention: bool = False
    ) -> Iterator[list[Output]]:
        """Yields `generate_nbest` of each line, in order, with no more than a block of lines in memory.

        Args:
            lines: read as they are needed.
            block: lines read before the first of them is answered; default 32 batches.
            need_attention: fill `Output.attention`, and `copied` where a model copies.
        """
        size = self.config.batch_size * _BATCHES_PER_BLOCK if block is None else block
        number = 0
        for texts in _blocks(lines, size):
            yield from self._block(texts, first=number, need_attention=need_attention)
            number += len(texts)

    def _block(self, texts: Sequence[str], *, first: int, need_attention: bool) -> list[list[Output]]:
        """Outputs of texts that are numbers `first`, first + 1, ... of the whole input."""
        sources = self._encode(texts)
        outputs: list[list[Output]] = [[Output("", 0.0, 0.0, [], [])] for _ in texts]

        def searched(places: list[int]) -> list[list[Hypothesis]]:
            src = _pad([sources[i] for i in places]).to(self.device)
            found = search(self.models, src, self.config, seed=self.seed, numbers=torch.tensor(places) + first)
            if need_attention:
                explain(found, self.models, src, precision=self.config.precision)
            return found

        fix = (
            f"lower search.beam_size={self.config.beam_size}, search.max_length={self.config.max_length} or "
            f"data.max_source_length={self.max_source_length}"
        )
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(model.unchanging())
            for batch in self._batches(sources):
                for places, found in self.splitter.each(batch, searched, fix=fix):
                    for place, hypotheses in zip(places, found, strict=True):
                        labels = self.tokenizers.source.pieces(sources[place])
                        outputs[place] = [self._output(hypothesis, labels) for hypothesis in hypotheses]
        return outputs

    def _batches(self, sources: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Which sources that are not empty go together: those of like lengths, as many as the configuration allows."""
        # The longest first: what needs most memory fails at once or not at all.
        places = sorted((i for i, ids in enumerate(sources) if ids), key=lambda i: -len(sources[i]))
        start = 0
        while start < len(places):
            fitting = max(1, self.config.batch_tokens // len(sources[places[start]]))
            end = start + min(self.config.batch_size, fitting)
            yield places[start:end]
            start = end

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Source ids with end of sentence; none at all for a text in which the tokenizer sees nothing."""
        sources: list[list[int]] = []
        for text, ids in zip(texts, self.tokenizers.source.encode_batch(texts), strict=True):
            if not ids or not text.strip():
                sources.append([])
                continue
            self.unknown += all(token == UNK_ID for token in ids)
            if len(ids) >= self.max_source_length:
                self.truncated += 1
                ids = ids[: self.max_source_length - 1]
            sources.append([*ids, EOS_ID])
        return sources

    def _output(self, hypothesis: Hypothesis, source_tokens: list[str]) -> Output:
        target = self.tokenizers.target
        return Output(
            text=target.decode(hypothesis.ids),
            score=hypothesis.score,
            log_prob=hypothesis.log_prob,
            tokens=target.pieces([*hypothesis.ids, EOS_ID] if hypothesis.ended else hypothesis.ids),
            source_tokens=source_tokens,
            attention=None if hypothesis.attention is None else hypothesis.attention.numpy(),
            copied=hypothesis.copied,
        )


def _blocks(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Up to `size` lines at a time, fewer where they are long."""
    block: list[str] = []
    characters = 0
    for line in lines:
        block.append(line)
        characters += len(line)
        if len(block) == size or characters >= _CHARACTERS_PER_BLOCK:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _pad(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Sequences of ids as one tensor [B, longest] int64, padded on the right."""
    padded = np.full((len(sequences), max(map(len, sequences))), PAD_ID, dtype=np.int64)
    for row, ids in enumerate(sequences):
        padded[row, : len(ids)] = ids
    return torch.from_numpy(padded)
