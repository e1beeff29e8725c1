"""Sampled segmentations against exact probabilities by enumeration, SentencePiece's sampler, and other processes."""

import functools
import itertools
import math
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from seq2seq.tokenizers.base import UNK_ID
from seq2seq.tokenizers.config import Normalization, TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import load_tokenizers, train_tokenizers
from seq2seq.tokenizers.subword_sampling import build_sampler

NAMES = ("banana", "cabana", "bandana", "abacus", "cabs", "banner", "cannas", "nabs", "scab", "basin")
CORPUS = [f"{a} {b} and {b}{a} {a[2:]}{b[:3]} {b[::-1]} <sep> über" for a, b in itertools.permutations(NAMES, 2)]
TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("abcnsü \t\n\u2581½漢"))) | st.lists(
    st.sampled_from(["banana", " ", "  ", "<sep>", "cab", "s", "é", "字字"])
).map("".join)


@functools.cache
def model(kind: TokenizerKind, *, byte_fallback: bool = True, exact: bool = False) -> bytes:
    config = TokenizerConfig(
        kind=kind,
        vocab_size=60 + 256 * byte_fallback,
        byte_fallback=byte_fallback,
        normalization=Normalization.identity if exact else Normalization.nmt_nfkc,
        user_symbols=["<sep>"],
    )
    tokenizers = train_tokenizers(lambda: iter(CORPUS), lambda: iter([]), config, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        tokenizers.save(Path(folder))
        (saved,) = Path(folder).glob("*.model")
        return saved.read_bytes()


def processor(serialised: bytes) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=serialised)


def unigram_probabilities(serialised: bytes, word: str, alpha: float) -> dict[tuple[str, ...], float]:
    """All segmentations of a word of known characters, each with p^alpha, normalised."""
    pieces = processor(serialised)
    scores = {pieces.id_to_piece(i): pieces.get_score(i) for i in range(4, pieces.vocab_size())}

    def segmentations(rest: str) -> list[tuple[str, ...]]:
        if not rest:
            return [()]
        heads = [rest[:n] for n in range(1, len(rest) + 1) if rest[:n] in scores]
        return [(head, *tail) for head in heads for tail in segmentations(rest[len(head) :])]

    weights = {s: math.exp(alpha * sum(scores[piece] for piece in s)) for s in segmentations(word)}
    return {s: weight / sum(weights.values()) for s, weight in weights.items()}


def dropout_probabilities(serialised: bytes, word: str, alpha: float) -> dict[tuple[str, ...], float]:
    """All ends of BPE-dropout: the best pair that is left is merged, or set aside with probability alpha."""
    pieces = processor(serialised)
    scores = {pieces.id_to_piece(i): pieces.get_score(i) for i in range(4, pieces.vocab_size())}
    ends: Counter[tuple[str, ...]] = Counter()

    def go(symbols: tuple[str, ...], aside: frozenset[tuple[int, int, int]], probability: float) -> None:
        starts = [0, *itertools.accumulate(map(len, symbols))]
        pairs = [
            (-scores[left + right], n)
            for n, (left, right) in enumerate(itertools.pairwise(symbols))
            if left + right in scores and (starts[n], starts[n + 1], starts[n + 2]) not in aside
        ]
        if not pairs:
            ends[symbols] += probability  # type: ignore[assignment]
            return
        _, n = min(pairs)
        go(symbols, aside | {(starts[n], starts[n + 1], starts[n + 2])}, probability * alpha)
        go((*symbols[:n], symbols[n] + symbols[n + 1], *symbols[n + 2 :]), aside, probability * (1 - alpha))

    go(tuple(word), frozenset(), 1.0)
    return dict(ends)


def chi_square(counts: Counter[tuple[str, ...]], probabilities: dict[tuple[str, ...], float]) -> tuple[float, int]:
    """The statistic and its degrees of freedom; what is expected less than five times is put together."""
    draws = sum(counts.values())
    assert set(counts) <= set(probabilities)
    rare = {s for s, p in probabilities.items() if p * draws < 5}
    cells = [(counts[s], p * draws) for s, p in probabilities.items() if s not in rare]
    cells.append((sum(counts[s] for s in rare), sum(probabilities[s] for s in rare) * draws))
    return sum((found - expected) ** 2 / max(expected, 5.0) for found, expected in cells), len(cells) - 1


@pytest.mark.parametrize("alpha", [0.0001, 0.2, 1.0])
@pytest.mark.parametrize(
    ("kind", "exact"),
    [(TokenizerKind.unigram, unigram_probabilities), (TokenizerKind.bpe, dropout_probabilities)],
)
@pytest.mark.parametrize("word", ["banana", "cabbanner"])
def test_frequencies_are_the_exact_probabilities(kind, exact, alpha, word):
    serialised = model(kind)
    probabilities = exact(serialised, f"▁{word}", alpha)
    assert sum(probabilities.values()) == pytest.approx(1)
    if kind is TokenizerKind.bpe:
        assert len(probabilities) > 10
    ids = build_sampler(processor(serialised), alpha=alpha, nbest=-1).sample_batch([word] * 20_000, seed=1)
    counts = Counter(map(tuple, map(processor(serialised).id_to_piece, ids)))
    statistic, freedom = chi_square(counts, probabilities)
    assert statistic < freedom + 4 * math.sqrt(2 * freedom) + 4


@pytest.mark.parametrize(
    ("kind", "alpha", "nbest"),
    [(TokenizerKind.unigram, 0.3, -1), (TokenizerKind.unigram, 0.3, 4), (TokenizerKind.bpe, 0.3, -1)],
)
@pytest.mark.parametrize("text", ["banana", "cabs ünan banner", "漢字 bandana"])
def test_frequencies_agree_with_sentencepiece(kind, alpha, nbest, text):
    """SentencePiece's draws differ in each process: the bound is one that chance does not pass in many years."""
    serialised, draws = model(kind), 5000
    pieces = processor(serialised)
    ours = Counter(
        map(tuple, build_sampler(processor(serialised), alpha=alpha, nbest=nbest).sample_batch([text] * draws, seed=2))
    )
    drawn = pieces.encode([text] * draws, enable_sampling=True, alpha=alpha, nbest_size=nbest)
    theirs = Counter(map(tuple, drawn))
    both = ours + theirs
    common = [s for s in both if both[s] >= 20]
    cells = [(ours[s], theirs[s]) for s in common]
    cells.append((draws - sum(ours[s] for s in common), draws - sum(theirs[s] for s in common)))
    statistic = sum((a - b) ** 2 / max(a + b, 10) for a, b in cells)
    freedom = len(cells)
    assert len(common) >= 2
    assert statistic < freedom + 8 * math.sqrt(2 * freedom) + 20


def test_long_texts_are_drawn_too():
    """The probability of a long text is below the smallest number; only relative ones matter."""
    text = " ".join(["bananacab"] * 200)
    ids = build_sampler(processor(model(TokenizerKind.unigram)), alpha=0.1, nbest=8).sample_batch([text] * 200, seed=1)
    assert len(set(map(tuple, ids))) > 4


def test_the_n_best_are_drawn_by_their_probabilities():
    serialised = model(TokenizerKind.unigram)
    best = [tuple(s) for s in processor(serialised).nbest_encode_as_pieces("bananacab", nbest_size=5)]
    probabilities = unigram_probabilities(serialised, "▁bananacab", 0.5)
    total = sum(probabilities[s] for s in best)
    ids = build_sampler(processor(serialised), alpha=0.5, nbest=5).sample_batch(["bananacab"] * 20_000, seed=1)
    counts = Counter(map(tuple, map(processor(serialised).id_to_piece, ids)))
    statistic, freedom = chi_square(counts, {s: probabilities[s] / total for s in best})
    assert freedom == 5
    assert statistic < 20


@pytest.mark.parametrize(
    ("kind", "alpha", "nbest"),
    [(TokenizerKind.unigram, 0.1, -1), (TokenizerKind.unigram, 0.1, 8), (TokenizerKind.bpe, 0.4, -1)],
)
@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("exact", [True, False])
@given(text=TEXT, seed=st.integers(min_value=0, max_value=2**64))
@settings(deadline=None, max_examples=25)
def test_any_sample_is_the_same_text(kind, alpha, nbest, byte_fallback, exact, text, seed):
    serialised = model(kind, byte_fallback=byte_fallback, exact=exact)
    pieces = processor(serialised)
    (ids,) = build_sampler(processor(serialised), alpha=alpha, nbest=nbest).sample_batch([text], seed=seed)
    plain = pieces.encode(text)
    assert pieces.decode(ids) == pieces.decode(plain)
    symbol = pieces.piece_to_id("<sep>")
    for token in (UNK_ID, symbol):
        assert ids.count(token) == plain.count(token)
    assert [token for token in ids if pieces.is_byte(token)] == [token for token in plain if pieces.is_byte(token)]


@pytest.mark.parametrize(("kind", "alpha"), [(TokenizerKind.unigram, 1e5), (TokenizerKind.bpe, 1e-12)])
@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("exact", [True, False])
@given(text=TEXT)
@settings(deadline=None, max_examples=25)
def test_the_limit_without_chance_is_plain_encoding(kind, alpha, byte_fallback, exact, text):
    serialised = model(kind, byte_fallback=byte_fallback, exact=exact)
    assert build_sampler(processor(serialised), alpha=alpha, nbest=-1).sample_batch([text], seed=3) == [
        processor(serialised).encode(text)
    ]


@pytest.mark.parametrize("kind", [TokenizerKind.unigram, TokenizerKind.bpe])
@pytest.mark.parametrize("nbest", [-1, 4])
def test_another_process_thread_and_history_draw_the_same(tmp_path: Path, kind, nbest):
    config = TokenizerConfig(kind=kind, vocab_size=316, sampling_alpha=0.3, sampling_nbest=nbest)
    trained = train_tokenizers(lambda: iter(CORPUS), lambda: iter([]), config, seed=0)
    trained.save(tmp_path)
    program = (
        "import sys, pathlib, seq2seq.tokenizers.pair as t\n"
        "tokenizer = t.load_tokenizers(pathlib.Path(sys.argv[1])).source\n"
        "print(tokenizer.sample_batch(sys.argv[2:], seed=5))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), *CORPUS], capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    tokenizer = load_tokenizers(tmp_path).source
    tokenizer.sample_batch(CORPUS[::-1], seed=9)
    drawn: list[object] = []
    thread = threading.Thread(target=lambda: drawn.append(tokenizer.sample_batch(CORPUS, seed=5)))
    thread.start()
    thread.join()
    assert f"{drawn[0]}\n" == runs[0].stdout
    assert drawn[0] != tokenizer.encode_batch(CORPUS)


@pytest.mark.parametrize("kind", [TokenizerKind.unigram, TokenizerKind.bpe])
def test_bpe_alpha_one_and_unigram_alpha_near_zero_have_no_preference_for_whole_words(kind):
    ids = build_sampler(
        processor(model(kind)), alpha=1.0 if kind is TokenizerKind.bpe else 1e-9, nbest=-1
    ).sample_batch(["banana"] * 200, seed=1)
    pieces = Counter(map(len, ids))
    if kind is TokenizerKind.bpe:
        assert pieces == {len("▁banana"): 200}  # nothing is merged
    else:
        assert len(pieces) > 2
