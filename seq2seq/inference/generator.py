"""From text to text: tokenizes, sorts by length, batches, searches, detokenizes, restores the order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence

from seq2seq.data.text import chunks
from seq2seq.errors import UserError
from seq2seq.inference.explanation import add_attention
from seq2seq.inference.oom import BatchSplitter
from seq2seq.models.base import PackedDecoder, Seq2Seq
from seq2seq.search.config import SearchConfig
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.search import pack_decoders, search
from seq2seq.tokenizers.base import EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers.pair import Tokenizers

# Batches per block: lines are sorted by length within a block, which leaves hardly any padding at this size.
_BATCHES_PER_BLOCK = 32

# A whole block is held in memory and tokenized at once, and lines may be long: a block ends early at this many
# characters, which is about a thousand news articles.
_CHARACTERS_PER_BLOCK = 1 << 22


@dataclass
class GenerationOutput:
    """One generated text, with its scores and tokens.

    Attributes:
        text: detokenized; contains a line break if the model produced one.
        score: ranks the hypotheses of a source, see `Hypothesis`.
        log_prob: sum of the tokens' log-probabilities (nats).
        tokens: the target tokens as text, ending with the end of sentence if it was reached.
        source_tokens: the source tokens as text, as the model saw them, ending with the end of sentence.
        attention: [tokens, source tokens] float32, each row sums to one; if it was asked for.
        copied: probability, 0 to 1, that each token was copied from the source rather than generated; if attention
            was asked for and a model copies.
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

    A line's output does not depend on the rest of its batch. A blank line gives an empty output; a source that is too
    long is truncated and counted. When memory runs out, batches are halved permanently.

    Args:
        models: already on `device`.
        tokenizers: those the models were trained with.
        config: the settings of the search.
        device: the models' device.
        max_source_length: length that sources are truncated to, in tokens, including the end of sentence.
        seed: for sampling, if `config.seed` is None.

    Attributes:
        truncated: number of sources truncated so far.
        unknown: number of sources so far that consist of unknown tokens only.
        splitter: splits batches when memory runs out; generators may share it.
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
        self.splitter = BatchSplitter(device, action="decoding")

    def generate(self, texts: str | Sequence[str]) -> list[str]:
        """Returns the best output of each text, in order; a string is one text.

        Raises:
            UserError: a text is not a string.
        """
        return [outputs[0].text for outputs in self.generate_nbest(texts)]

    def generate_nbest(
        self, texts: str | Sequence[str], *, need_attention: bool = False
    ) -> list[list[GenerationOutput]]:
        """Returns the `config.n_best` best outputs of each text, best first; one empty output for a blank text.

        Their tokens always differ, but their texts may be equal, as subwords can spell a text in several ways.

        Args:
            texts: one source each; a string is one source.
            need_attention: whether to set `attention` in the outputs, and `copied` if a model copies.

        Raises:
            UserError: a text is not a string.
        """
        texts = [texts] if isinstance(texts, str) else texts
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"text {index + 1} of {len(texts)} is {text!r}, which is not a string")
        packed = pack_decoders(self.models, self.device, self.config)
        return self._generate_block(texts, packed, offset=0, need_attention=need_attention)

    def stream(
        self, lines: Iterable[str], *, block: int | None = None, need_attention: bool = False
    ) -> Iterator[list[GenerationOutput]]:
        """Yields the outputs of `generate_nbest` for each line, in order, holding at most one block of lines in memory.

        Args:
            lines: consumed lazily.
            block: maximum number of lines read and decoded together, fewer if they are long; default 32 batches.
            need_attention: whether to set `attention` in the outputs, and `copied` if a model copies.
        """
        size = self.config.batch_size * _BATCHES_PER_BLOCK if block is None else block
        offset = 0
        for texts in chunks(lines, size, _CHARACTERS_PER_BLOCK, length=len):
            packed = pack_decoders(self.models, self.device, self.config)  # the caller may train between two blocks
            yield from self._generate_block(texts, packed, offset=offset, need_attention=need_attention)
            offset += len(texts)

    def _generate_block(
        self, texts: Sequence[str], packed: Sequence[PackedDecoder], *, offset: int, need_attention: bool
    ) -> list[list[GenerationOutput]]:
        """Returns the outputs of texts whose indices in the whole input are `offset`, `offset` + 1, ..."""
        sources = self._encode(texts)
        outputs: list[list[GenerationOutput]] = [[GenerationOutput("", 0.0, 0.0, [], [])] for _ in texts]

        def search_batch(indices: list[int]) -> list[list[Hypothesis]]:
            rows = [torch.tensor(sources[i]) for i in indices]
            src = pad_sequence(rows, batch_first=True, padding_value=PAD_ID).to(self.device)
            sentence_indices = torch.tensor(indices) + offset  # seed of each sentence's samples, whatever its batch
            results = search(
                self.models, src, self.config, packed=packed, seed=self.seed, sentence_indices=sentence_indices
            )
            if need_attention:
                add_attention(results, self.models, src, precision=self.config.precision)
            return results

        hint = (
            f"lower search.beam_size={self.config.beam_size}, search.max_length={self.config.max_length} or "
            f"data.max_source_length={self.max_source_length}"
        )
        for batch in self._batches(sources):
            for indices, results in self.splitter.map(batch, search_batch, hint=hint):
                for i, hypotheses in zip(indices, results, strict=True):
                    source_tokens = self.tokenizers.source.pieces(sources[i])
                    outputs[i] = [self._output(hypothesis, source_tokens) for hypothesis in hypotheses]
        return outputs

    def _batches(self, sources: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yields batches of indices of the non-empty sources, grouped by length, as large as the settings allow."""
        # Longest first, so that if memory does not suffice, the first batch shows it.
        indices = sorted((i for i, ids in enumerate(sources) if ids), key=lambda i: -len(sources[i]))
        start = 0
        while start < len(indices):
            max_sentences = max(1, self.config.batch_tokens // len(sources[indices[start]]))
            end = start + min(self.config.batch_size, max_sentences)
            yield indices[start:end]
            start = end

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns source ids with the end of sentence; an empty list for a blank text or one without tokens."""
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

    def _output(self, hypothesis: Hypothesis, source_tokens: list[str]) -> GenerationOutput:
        target = self.tokenizers.target
        return GenerationOutput(
            text=target.decode(hypothesis.ids),
            score=hypothesis.score,
            log_prob=hypothesis.log_prob,
            tokens=target.pieces([*hypothesis.ids, EOS_ID] if hypothesis.ended else hypothesis.ids),
            source_tokens=source_tokens,
            attention=None if hypothesis.attention is None else hypothesis.attention.numpy(),
            copied=hypothesis.copied,
        )
