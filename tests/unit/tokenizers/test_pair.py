import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from torchtext.data import get_tokenizer

from seq2seq.errors import UserError
from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers.config import LineBreaks, Normalization, TokenizerConfig, TokenizerKind, WordSplitter
from seq2seq.tokenizers.pair import load_tokenizers, train_tokenizers
from seq2seq.tokenizers.subword import MAX_SENTENCE_BYTES
from seq2seq.tokenizers.training_sample import reservoir_sample, training_sentences

SUBWORDS = [TokenizerKind.unigram, TokenizerKind.bpe, TokenizerKind.char]
WORDS = ["".join(random.Random(seed).choices("abcdefghilmnorstu", k=3 + seed % 5)) for seed in range(150)]
ENGLISH = [f"A {WORDS[i]} {WORDS[-i]} near the {WORDS[i * 7 % 150]}." for i in range(150)] + ["a cat runs"] * 3
GERMAN = [f"Ein {WORDS[i]}mann {WORDS[-i]}t über die {WORDS[i * 11 % 150]}straße, schön {i}." for i in range(150)]


def train(source=ENGLISH, target=GERMAN, *, seed=1, **settings):
    settings = {"vocab_size": 400, **settings}
    return train_tokenizers(lambda: iter(source), lambda: iter(target), TokenizerConfig(**settings), seed=seed)


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_special_tokens_have_the_reserved_ids(kind):
    tokenizer = train(kind=kind).source
    assert (PAD_ID, UNK_ID, BOS_ID, EOS_ID) == (0, 1, 2, 3)
    assert tokenizer.pieces([0, 1, 2, 3]) == ["<pad>", "<unk>", "<s>", "</s>"]
    assert tokenizer.decode([BOS_ID, *tokenizer.encode("a cat"), EOS_ID, PAD_ID, PAD_ID]) == "a cat"
    assert tokenizer.decode([BOS_ID, EOS_ID]) == tokenizer.decode([]) == ""


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_typed_control_names_are_text(kind):
    tokenizer = train(kind=kind).source
    ids = tokenizer.encode("a <s> cat </s> <pad> <unk>")
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids)
    if kind != TokenizerKind.word:
        assert tokenizer.decode(ids) == "a <s> cat </s> <pad> <unk>"


@pytest.mark.parametrize("kind", list(TokenizerKind))
@pytest.mark.parametrize("joint", [True, False])
def test_saved_tokenizers_load_equal(tmp_path, kind, joint):
    trained = train(kind=kind, joint=joint)
    trained.save(tmp_path / "päth with spaces")
    loaded = load_tokenizers(tmp_path / "päth with spaces")
    assert loaded.fingerprint() == trained.fingerprint()
    assert loaded.joint == joint == (loaded.source is loaded.target)
    for text in (*ENGLISH[:5], *GERMAN[:5], "", "unseen Ω 😀"):
        assert loaded.source.encode(text) == trained.source.encode(text)
        assert loaded.target.encode(text) == trained.target.encode(text)
    names = {"joint"} if joint else {"source", "target"}
    ending = ".vocab.txt" if kind == TokenizerKind.word else ".model"
    files = {path.name for path in (tmp_path / "päth with spaces").iterdir()}
    assert files == {"tokenizer.json", *(name + ending for name in names)}


@pytest.mark.parametrize("kind", SUBWORDS)
def test_training_gives_the_same_bytes_in_another_process_on_fewer_cores(tmp_path, kind):
    train(kind=kind).save(tmp_path / "here")
    script = (
        "import json, os, sys; from pathlib import Path\n"
        "if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from seq2seq.tokenizers.pair import *\n"
        "a, b = json.load(sys.stdin)\n"
        f"config = TokenizerConfig(kind=TokenizerKind.{kind.value}, vocab_size=400)\n"
        "train_tokenizers(lambda: iter(a), lambda: iter(b), config, seed=1).save(Path(sys.argv[1]))\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "there")],
        input=json.dumps([ENGLISH, GERMAN]),
        text=True,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "5"},
    )
    assert done.stderr == ""  # the trainer's log is silenced
    for path in (tmp_path / "here").iterdir():
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()


@pytest.mark.parametrize("kind", [TokenizerKind.unigram, TokenizerKind.bpe])
def test_too_large_a_vocabulary_names_the_maximum_which_works(kind):
    with pytest.raises(UserError, match=r"tokenizer.vocab_size=50000 is too large.* at most (\d+)") as error:
        train(kind=kind, vocab_size=50_000)
    maximum = int(str(error.value).split("at most ")[1].split()[0])
    assert train(kind=kind, vocab_size=maximum).source.vocab_size == maximum
    with pytest.raises(UserError, match="too large"):
        train(kind=kind, vocab_size=maximum + 1)


@pytest.mark.parametrize("kind", [TokenizerKind.unigram, TokenizerKind.bpe])
def test_too_small_a_vocabulary_names_the_minimum_which_works(kind):
    with pytest.raises(UserError, match=r"tokenizer.vocab_size=265 is too small.* at least (\d+)") as error:
        train(kind=kind, vocab_size=265)
    minimum = int(str(error.value).split("at least ")[1].split(":")[0])
    assert train(kind=kind, vocab_size=minimum).source.vocab_size == minimum
    with pytest.raises(UserError, match="too small"):
        train(kind=kind, vocab_size=minimum - 1)


@pytest.mark.parametrize("kind", [TokenizerKind.char, TokenizerKind.word])
def test_vocab_size_is_the_most_for_characters_and_words(kind):
    assert train(kind=kind, vocab_size=50_000).source.vocab_size < 1000
    assert train(kind=kind, vocab_size=270).source.vocab_size <= 270


@pytest.mark.parametrize("kind", list(TokenizerKind))
@pytest.mark.parametrize("corpus", [[], ["", "  ", "\t"], ["\u3000"], ["\u2585"]])
def test_a_corpus_without_text_is_the_users_error(kind, corpus):
    with pytest.raises(UserError, match=r"data\.train has no .*"):
        train(corpus, corpus, kind=kind)


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_control_characters_do_no_harm(kind):
    corpus = [
        *ENGLISH,
        "nul \0 here",
        "\x01\x02\x1b[0m \x7f",
        "tab\tand\x0bothers\x0c\x85\u2028",
        "two\nlines",
    ]
    tokenizer = train(corpus, corpus, kind=kind, vocab_size=330).source
    for text in corpus:
        assert all(0 <= token < tokenizer.vocab_size for token in tokenizer.encode(text))
        assert isinstance(tokenizer.decode(tokenizer.encode(text)), str)
    assert tokenizer.encode("") == tokenizer.encode("   ") == []
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_lone_surrogates_are_the_users_error(kind):
    tokenizer = train(kind=kind).source
    for call in (tokenizer.encode, lambda text: tokenizer.encode_batch(["fine", text])):
        with pytest.raises(UserError, match=r"U\+D800 at character 3"):
            call("bad\ud800")
    with pytest.raises(UserError, match="surrogate"):
        train(["bad\ud800"], ["fine"], kind=kind)


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_batches_equal_single_texts(kind):
    tokenizer = train(kind=kind).source
    texts = [*ENGLISH, "", *GERMAN, "😀 new"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("kind", SUBWORDS)
def test_byte_fallback_keeps_unknown_characters_and_counts_in_the_size(kind):
    kept = train(kind=kind, vocab_size=330).source
    ids = kept.encode("Ω 😀")
    assert UNK_ID not in ids
    assert kept.decode(ids) == "Ω 😀"
    assert sum(kept.is_byte(token) for token in ids) == 6  # two of Ω, four of the emoji, in UTF-8
    assert sum(kept.is_byte(token) for token in range(kept.vocab_size)) == 256
    lost = train(kind=kind, vocab_size=80, byte_fallback=False).source
    assert UNK_ID in lost.encode("Ω")
    assert lost.decode(lost.encode("a Ω.")) == "a ⁇."
    assert not any(lost.is_byte(token) for token in range(lost.vocab_size))


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_user_symbols_are_one_token(kind):
    symbols = ["<sep>", "@@x"]
    tokenizer = train(kind=kind, user_symbols=symbols).source
    for symbol in symbols:
        (token,) = [i for i in range(tokenizer.vocab_size) if tokenizer.pieces([i]) == [symbol]]
        ids = tokenizer.encode(f"a cat {symbol} runs")
        assert ids.count(token) == 1
        assert tokenizer.decode(ids) == f"a cat {symbol} runs"


def test_a_user_symbol_with_a_space_is_refused():
    """SentencePiece would take it and never find it: in the text that it searches, spaces are written otherwise."""
    with pytest.raises(UserError, match=r"tokenizer\.user_symbols: 'a cat' contains a space"):
        TokenizerConfig(user_symbols=["a cat"])


def test_a_line_feed_can_be_kept_as_a_user_symbol():
    plain, kept = train().source, train(user_symbols=["\n"], line_breaks=LineBreaks.space).source
    assert plain.decode(plain.encode("a cat\na dog")) == "a cat a dog"
    assert kept.decode(kept.encode("a cat\na dog")) == "a cat\na dog"


@pytest.mark.parametrize("kind", [TokenizerKind.unigram, TokenizerKind.bpe])
def test_sampling_is_a_function_of_the_seed(tmp_path, kind):
    trained = train(kind=kind, sampling_alpha=0.2)
    trained.save(tmp_path)
    tokenizer = load_tokenizers(tmp_path).source
    plain = tokenizer.encode_batch(ENGLISH)
    first = tokenizer.sample_batch(ENGLISH, seed=7)
    others = [tokenizer.sample_batch(ENGLISH, seed=seed) for seed in (0, 8, 2**32 - 1, 2**63)]
    assert all(sample not in (first, plain) for sample in others)
    assert tokenizer.sample_batch(ENGLISH, seed=7) == first == trained.source.sample_batch(ENGLISH, seed=7)
    assert tokenizer.sample_batch(ENGLISH, seed=2**32 - 1) == others[2]
    assert [tokenizer.decode(ids) for ids in first] == ENGLISH
    assert tokenizer.encode_batch(ENGLISH) == plain
    assert len({tuple(ids) for ids in tokenizer.sample_batch([ENGLISH[0]] * 20, seed=7)}) > 3


def test_sampling_off_is_plain_encoding():
    tokenizer = train().source
    assert tokenizer.sample_batch(ENGLISH, seed=1) == tokenizer.encode_batch(ENGLISH)


def test_the_fingerprint_tells_tokenizers_apart_and_nothing_else(tmp_path):
    base = train().fingerprint()
    assert train().fingerprint() == base
    assert train(sampling_alpha=0.1).fingerprint() == base
    words = train(kind=TokenizerKind.word, word_tokenizer=WordSplitter.whitespace)
    others = [
        train(vocab_size=401),
        train(joint=False),
        train(kind=TokenizerKind.bpe),
        train(ENGLISH[1:]),
        words,
        train(kind=TokenizerKind.word, word_tokenizer=WordSplitter.whitespace, lowercase=True),
    ]
    prints = [base, *(other.fingerprint() for other in others)]
    assert len(set(prints)) == len(prints)


def test_words_are_torchtexts_by_frequency():
    corpus = ["The cat, the dog!", "the bird."]
    tokenizer = train(corpus, [], kind=TokenizerKind.word, vocab_size=7).source
    split = get_tokenizer("basic_english")
    counts = Counter(word for text in corpus for word in split(text))
    best = sorted(counts, key=lambda word: (-counts[word], word))[:3]
    assert tokenizer.pieces([4, 5, 6]) == best
    assert tokenizer.pieces(tokenizer.encode("The zebra, the")) == ["the", "<unk>", ",", "the"]
    assert tokenizer.decode(tokenizer.encode("The zebra")) == "the ⁇"


def test_word_settings():
    corpus = ["The the cat", "The dog."]
    plain = {"kind": TokenizerKind.word, "word_tokenizer": WordSplitter.whitespace}
    words = lambda **k: {*(t := train(corpus, [], **plain, **k).source).pieces(range(4, t.vocab_size))}  # noqa: E731
    assert words() == {"The", "the", "cat", "dog."}
    assert words(lowercase=True) == {"the", "cat", "dog."}
    assert words(min_frequency=2) == {"The"}
    with pytest.raises(UserError, match=r"tokenizer\.min_frequency=9"):
        words(min_frequency=9)
    with pytest.raises(UserError, match=r"tokenizer\.user_symbols"):
        words(user_symbols=["<a b>"])


def test_long_texts_are_cut_and_not_lost_on_the_trainer():
    text = "häuser " * 3000 + "x" * 2 * MAX_SENTENCE_BYTES + "ü" * MAX_SENTENCE_BYTES
    parts = list(training_sentences([text]))
    assert all(len(part) <= MAX_SENTENCE_BYTES for part in parts)
    assert b"".join(parts).decode() == text  # each part is UTF-8 of its own
    assert all(part.decode() for part in parts)
    assert "▁häuser" in (t := train([text], [text], vocab_size=270).source).pieces(range(t.vocab_size))


def test_the_sample_is_seeded_bounded_and_uniform():
    texts = [str(number) for number in range(200)]
    assert reservoir_sample(texts, size=200, seed=0) == texts
    first = reservoir_sample(texts, size=20, seed=1)
    assert len(set(first)) == 20
    assert first == reservoir_sample(iter(texts), size=20, seed=1) != reservoir_sample(texts, size=20, seed=2)
    drawn = Counter(text for seed in range(2000) for text in reservoir_sample(texts, size=20, seed=seed))
    # Each text is drawn 200 times in the mean, with a standard deviation of 13.4: six of them either way.
    assert len(drawn) == 200
    assert all(120 < count < 280 for count in drawn.values())
    # Where a bias shows most: the second of two texts is drawn 200 times of 400, with a deviation of 10.
    assert 140 < sum(reservoir_sample(["a", "b"], size=1, seed=seed) == ["b"] for seed in range(400)) < 260


def test_identity_uses_no_normalization():
    tokenizer = train(normalization=Normalization.identity).source
    assert tokenizer.decode(tokenizer.encode("  ﬁ  Ⅳ\t ")) == "  ﬁ  Ⅳ\t "
    folded = train().source
    assert folded.decode(folded.encode("  ﬁ  Ⅳ\t ")) == "fi IV"


@pytest.mark.parametrize("kind", [TokenizerKind.unigram, TokenizerKind.word])
def test_damaged_folders_are_named(tmp_path, kind):
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizers(tmp_path)
    train(kind=kind).save(tmp_path)
    description = tmp_path / "tokenizer.json"
    good = description.read_text()
    model = next(path for path in tmp_path.iterdir() if path != description)
    content = model.read_bytes()

    for bad in ("", "[]", "{", "\0", "{}", good.replace('"file"', '"fill"'), good.replace('"kind"', '"kin"')):
        description.write_text(bad)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            load_tokenizers(tmp_path)
    if kind != TokenizerKind.word:
        for alpha in ("NaN", "-1", '"much"', "Infinity"):
            description.write_text(good.replace('"sampling_alpha": 0.0', f'"sampling_alpha": {alpha}'))
            with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
                load_tokenizers(tmp_path)
    description.write_text(good.replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(UserError, match=r"99.*update"):
        load_tokenizers(tmp_path)
    description.write_text(good)

    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for bad in (b"", content[: len(content) // 2], bytes(flipped), b"\x80\x04cos\nsystem\n."):
        model.write_bytes(bad)
        with pytest.raises(UserError, match=r"damaged|not a vocabulary"):
            load_tokenizers(tmp_path)
    model.unlink()
    with pytest.raises(UserError, match=model.name):
        load_tokenizers(tmp_path)


def test_the_saved_model_is_plain_sentencepiece(tmp_path):
    trained = train()
    trained.save(tmp_path)
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "joint.model"))
    assert [oracle.pad_id(), oracle.unk_id(), oracle.bos_id(), oracle.eos_id()] == [0, 1, 2, 3]
    assert oracle.encode(ENGLISH) == trained.source.encode_batch(ENGLISH)


def test_a_signal_is_acted_on_while_the_tokenizer_is_trained():
    """The exception comes while SentencePiece is still at work, not when it is done."""

    class StoppedError(Exception):
        pass

    def stop(number, frame):
        raise StoppedError

    def training():
        # `enumerate` lists a thread before it has started: a signal at that moment would keep it from starting.
        named = [thread for thread in threading.enumerate() if thread.name == "tokenizer training"]
        return [thread for thread in named if thread.is_alive()]

    def kill():
        while not training():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    texts = [f"{WORDS[i % 150]}{i * 7919 % 9973} {WORDS[i * 7 % 150]}{i * 31 % 997}" for i in range(60_000)]
    threading.Thread(target=kill).start()
    before = signal.signal(signal.SIGUSR2, stop)
    try:
        with pytest.raises(StoppedError):
            train(texts, [], vocab_size=8000)
        (thread,) = training()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
