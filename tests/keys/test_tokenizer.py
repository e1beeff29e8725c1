"""Keys of `tokenizer`: which tokens a text becomes, and what comes back of it."""

import io
import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from seq2seq.data.prepare import PreparedData
from seq2seq.data.store import TokenStore
from seq2seq.tokenizers.base import Tokenizer

Prepare = Callable[..., PreparedData]

RANDOM = random.Random(3)
SOURCE_WORDS = ["".join(RANDOM.choices("abcdefgh", k=RANDOM.randint(2, 6))) for _ in range(40)]
TARGET_WORDS = ["".join(RANDOM.choices("stuvwxyz", k=RANDOM.randint(2, 6))) for _ in range(40)]
SOURCES = [" ".join(RANDOM.choices(SOURCE_WORDS, k=5)) for _ in range(150)] + ["a ß"]  # one character of 3,000
TARGETS = [" ".join(RANDOM.choices(TARGET_WORDS, k=5)) for _ in range(151)]


def write(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def corpus(folder: Path, sources: list[str], targets: list[str]) -> list[str]:
    """Overrides for files with these lines; the first ones are for validation too."""
    return [
        f"data.{split}.{side}={write(folder / f'{split}.{side}', lines[:count])}"
        for split, count in (("train", None), ("valid", 2))
        for side, lines in (("source", sources), ("target", targets))
    ]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*corpus(tmp_path_factory.mktemp("files"), SOURCES, TARGETS), "tokenizer.vocab_size=350"]


@pytest.fixture(scope="module", autouse=True)
def plain(prepare: Prepare, made_up: list[str]) -> Tokenizer:
    """The tokenizer with defaults: unigram, joint, of 350 tokens; made before all others."""
    return prepare(*made_up).tokenizers.source


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for three lines of words."""
    lines = ["The cat, the dog", "The cat, a Dog", "a bird. Rare"]
    return [*corpus(tmp_path_factory.mktemp("words"), lines, lines), "tokenizer=word"]


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.pieces(range(tokenizer.vocab_size))


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.pieces(tokenizer.encode(text))


def back(tokenizer: Tokenizer, text: str) -> str:
    """What is left of a text after encoding and decoding."""
    return tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize("kind", ["bpe", "char"])  # the default is unigram
def test_kind_is_the_kind_of_sentencepiece_model(prepare: Prepare, made_up: list[str], kind: str) -> None:
    """The same segmentation as that of a model of this kind that the package trains by itself."""
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SOURCES, *TARGETS]), model_writer=writer, model_type=kind, vocab_size=350,
        character_coverage=0.9999, byte_fallback=True, hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=2, eos_id=3,
        minloglevel=2,
    )  # fmt: skip
    expected = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    tokenizer = prepare(*made_up, f"tokenizer.kind={kind}").tokenizers.source
    assert [pieces(tokenizer, text) for text in SOURCES] == expected.encode(SOURCES, out_type=str)


def test_words_are_tokens_of_kind_word(prepare: Prepare, made_up: list[str]) -> None:
    tokenizer = prepare(*made_up, "tokenizer.kind=word").tokenizers.source
    assert [pieces(tokenizer, text) for text in SOURCES] == [text.split() for text in SOURCES]


def test_vocab_size_is_the_number_of_tokens(prepare: Prepare, made_up: list[str], plain: Tokenizer) -> None:
    assert plain.vocab_size == 350
    assert prepare(*made_up, "tokenizer.vocab_size=340").tokenizers.source.vocab_size == 340


def test_joint_is_one_vocabulary_or_two(prepare: Prepare, made_up: list[str]) -> None:
    together = prepare(*made_up, "tokenizer.vocab_size=300").tokenizers
    assert together.source is together.target
    assert {"s", "a"} <= set(vocabulary(together.source))
    apart = prepare(*made_up, "tokenizer.vocab_size=300", "tokenizer.joint=false").tokenizers
    letters = {
        side: {piece[-1] for piece in vocabulary(tokenizer)[260:]} - {"▁"}  # behind special tokens and bytes
        for side, tokenizer in (("source", apart.source), ("target", apart.target))
    }
    assert letters == {"source": set("abcdefghß"), "target": set("stuvwxyz")}


def test_byte_fallback_keeps_what_is_not_in_the_vocabulary(prepare: Prepare, made_up: list[str]) -> None:
    kept = prepare(*made_up, "tokenizer.kind=char").tokenizers.source
    assert back(kept, "a 😀") == "a 😀"
    lost = prepare(*made_up, "tokenizer.kind=char", "tokenizer.byte_fallback=false").tokenizers.source
    assert back(lost, "a 😀") == "a ⁇"


@pytest.mark.parametrize(("rule", "expected"), [("nfkc_cf", "fi iv a"), ("identity", "  ﬁ  Ⅳ A")])
def test_normalization_is_what_texts_go_through(
    prepare: Prepare, made_up: list[str], plain: Tokenizer, rule: str, expected: str
) -> None:
    assert back(plain, "  ﬁ  Ⅳ A") == unicodedata.normalize("NFKC", "ﬁ Ⅳ A") == "fi IV A"
    tokenizer = prepare(*made_up, f"tokenizer.normalization={rule}").tokenizers.source
    assert back(tokenizer, "  ﬁ  Ⅳ A") == expected


def test_line_breaks_are_symbols_or_spaces(prepare: Prepare, tmp_path: Path) -> None:
    records = [{"source": f"{source}\n{source}", "target": source} for source in SOURCES]
    path = write(tmp_path / "train.jsonl", [json.dumps(record) for record in records])
    paths = ["data=records", f"data.train.path={path}", f"data.valid.path={path}", "tokenizer.vocab_size=300"]
    assert back(prepare(*paths, "tokenizer.line_breaks=symbol").tokenizers.source, "abc\nabc") == "abc\nabc"
    assert back(prepare(*paths, "tokenizer.line_breaks=space").tokenizers.source, "abc\nabc") == "abc abc"


def test_user_symbols_are_one_token_each(prepare: Prepare, made_up: list[str], plain: Tokenizer) -> None:
    assert "<sep>" not in pieces(plain, "ab <sep> cd@@ef")
    tokenizer = prepare(*made_up, 'tokenizer.user_symbols=["<sep>","@@"]').tokenizers.source
    found = pieces(tokenizer, "ab <sep> cd@@ef")
    assert found.count("<sep>") == found.count("@@") == 1
    assert back(tokenizer, "ab <sep> cd@@ef") == "ab <sep> cd@@ef"


def test_character_coverage_spells_rare_characters_in_bytes(
    prepare: Prepare, made_up: list[str], plain: Tokenizer
) -> None:
    assert pieces(plain, "ß")[-1] == "ß"
    tokenizer = prepare(*made_up, "tokenizer.character_coverage=0.99").tokenizers.source
    assert pieces(tokenizer, "ß")[-2:] == ["<0xC3>", "<0x9F>"]
    assert "a" in vocabulary(tokenizer)


def test_max_sentences_is_how_many_the_tokenizer_sees(prepare: Prepare, tmp_path: Path) -> None:
    """Each line has a letter of its own; those of seven lines are known."""
    letters = [chr(0x4E00 + i) for i in range(40)]
    files = corpus(tmp_path, letters, letters)
    kind = ["tokenizer=char", "tokenizer.joint=false", "tokenizer.character_coverage=1"]
    tokenizers = prepare(*files, *kind, "tokenizer.max_sentences=7").tokenizers
    assert len(set(letters) & set(vocabulary(tokenizers.source))) == 7
    assert len(set(letters) & set(vocabulary(tokenizers.target))) == 7


@pytest.fixture(scope="module")
def whitespace(prepare: Prepare, words: list[str]) -> Tokenizer:
    return prepare(*words, "tokenizer.word_tokenizer=whitespace").tokenizers.source


def test_word_tokenizer_is_how_words_are_split(prepare: Prepare, words: list[str], whitespace: Tokenizer) -> None:
    text = "The cat, a bird."
    assert pieces(prepare(*words).tokenizers.source, text) == ["the", "cat", ",", "a", "bird", "."]  # basic_english
    assert pieces(whitespace, text) == ["The", "cat,", "a", "bird."]


def test_lowercase_makes_one_word_of_two(prepare: Prepare, words: list[str], whitespace: Tokenizer) -> None:
    assert pieces(whitespace, "dog Dog RARE") == ["dog", "Dog", "<unk>"]
    tokenizer = prepare(*words, "tokenizer.word_tokenizer=whitespace", "tokenizer.lowercase=true").tokenizers.source
    assert pieces(tokenizer, "dog Dog RARE") == ["dog", "dog", "rare"]


def test_min_frequency_leaves_rarer_words_unknown(prepare: Prepare, words: list[str]) -> None:
    assert "dog" in vocabulary(prepare(*words).tokenizers.source)
    tokenizer = prepare(*words, "tokenizer.min_frequency=3").tokenizers.source
    assert vocabulary(tokenizer)[4:] == ["the"]  # three times; cat, dog, a and the comma come twice


def sides(prepared: PreparedData, store: TokenStore) -> list[tuple[list[int], str]]:
    """Ids and text of each source and target."""
    numbers = range(len(store))
    return [(store.source_ids[i].tolist(), store.source_text(i)) for i in numbers] + [
        (store.target_ids[i].tolist(), store.target_text(i)) for i in numbers
    ]


def test_sampling_alpha_gives_every_epoch_other_tokens(
    prepare: Prepare, train_run: Any, made_up: list[str], cache: Path, tmp_path: Path
) -> None:
    """Of the same texts; many ways to split one, without a limit by `sampling_nbest`."""
    overrides = [*made_up, "tokenizer=unigram", "tokenizer.vocab_size=350", "tokenizer.sampling_alpha=0.01"]
    run = train_run(
        tmp_path, *overrides, "trainer.max_steps=null", "trainer.max_epochs=2", "trainer.batch_tokens=2000",
        "trainer.eval_every=100", "trainer.save_every=100", "trainer.eval_examples=0", "optim.schedule=constant",
        f"cache_root={cache}",
    )  # fmt: skip
    assert "max_epochs=2 reached" in run.log
    prepared = prepare(*overrides)
    tokenizer = prepared.tokenizers.source
    epochs = {
        path.name.rpartition("-")[2]: sides(prepared, TokenStore(prepared.train.folder, ids_folder=path))
        for path in (cache / "epochs").glob("*-[01]")
    }
    assert epochs.keys() == {"0", "1"}
    for drawn in epochs.values():
        assert all(tokenizer.decode(ids) == text for ids, text in drawn)
    changed = sum(first != second for first, second in zip(epochs["0"], epochs["1"], strict=True))
    assert changed > len(epochs["0"]) / 2
    assert sum(ids != tokenizer.encode(text) for ids, text in epochs["0"]) > len(epochs["0"]) / 2


def test_sampling_alpha_is_the_share_of_merges_that_bpe_leaves_out(
    prepare: Prepare, made_up: list[str], tmp_path: Path
) -> None:
    """All of them: nothing but characters is left."""
    prepared = prepare(*made_up, "tokenizer.kind=bpe", "tokenizer.sampling_alpha=1")
    store = prepared.train.resampled(prepared.tokenizers, seed=1, epoch=0, folder=tmp_path)
    drawn = {piece for i in range(len(store)) for piece in prepared.tokenizers.source.pieces(store.source_ids[i])}
    assert drawn == set("▁abcdefghß")
    assert not set(pieces(prepared.tokenizers.source, SOURCES[0])) <= drawn  # as it is encoded otherwise


def test_sampling_nbest_is_how_many_ways_a_text_is_split(prepare: Prepare, made_up: list[str], tmp_path: Path) -> None:
    ways = {}
    for nbest in (-1, 2):
        sampling = ["tokenizer.sampling_alpha=0.01", f"tokenizer.sampling_nbest={nbest}"]
        tokenizers = prepare(*made_up, *sampling).tokenizers
        ways[nbest] = {tuple(ids) for ids in tokenizers.source.sample_batch([SOURCES[0]] * 50, seed=1)}
    tokenizers.save(tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "joint.model"))
    assert ways[2] == {tuple(ids) for ids in model.nbest_encode_as_ids(SOURCES[0], nbest_size=2)}
    assert len(ways[-1]) > 20


@pytest.fixture(scope="module")
def with_vectors(train_run: Any, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of one step of no length, with vectors of `cat` for either side."""
    folder = tmp_path_factory.mktemp("vectors")
    vectors = {
        side: write(folder / f"{side}.txt", [f"{word} {' '.join([value] * 32)}" for word in ("cat", "stranger")])
        for side, value in (("source", "0.25"), ("target", "-0.5"))
    }
    return train_run(
        folder, *words, "model.tie_embeddings=none", "trainer.max_steps=1", "trainer.eval_examples=0",
        "optim.lr=1e-9", "optim.warmup_steps=0",
        *(f"tokenizer.{side}_vectors={path}" for side, path in vectors.items()),
    )  # fmt: skip


@pytest.mark.parametrize(("side", "value"), [("source", 0.25), ("target", -0.5)])
def test_vectors_are_the_first_embeddings_of_their_words(with_vectors: Any, side: str, value: float) -> None:
    lines = (with_vectors.folder / "tokenizer" / f"{side}.vocab.txt").read_text(encoding="utf-8").split("\n")
    table = with_vectors.weights()[f"{side}_embedding.weight"]
    assert table[lines.index("cat")].tolist() == pytest.approx([value] * 32, abs=1e-6)
    assert table[lines.index("dog")].std() > 0.05  # is not in the file: random as ever
