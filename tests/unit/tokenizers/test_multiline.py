import json
import re

import pytest
import sentencepiece

from seq2seq.errors import UserError
from seq2seq.tokenizers.base import EOS_ID, LINE_BREAK_ID
from seq2seq.tokenizers.config import LineBreaks, Normalization, TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.multiline import LineRule, MultilineTokenizer
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers, train_tokenizers

SOUNDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "lnrst"]
PLAIN = [f"dogs {a} and cats {b} over the {c}." for a, b, c in zip(SOUNDS, SOUNDS[7:], SOUNDS[19:], strict=False)]
LETTERS = [f"Dear {name},\n\n{text}\nYours" for name, text in zip("ABCDEFGHIJKL" * 10, PLAIN, strict=False)]
SIZES = {TokenizerKind.word: 300, TokenizerKind.char: 300, TokenizerKind.unigram: 330, TokenizerKind.bpe: 330}
KINDS = list(TokenizerKind)


def train(source: list[str], target: list[str] = PLAIN, *, kind: TokenizerKind, **settings: object) -> Tokenizers:
    config = TokenizerConfig(kind=kind, **{"vocab_size": SIZES[kind], **settings})  # type: ignore[arg-type]
    return train_tokenizers(lambda: iter(source), lambda: iter(target), config, seed=1)


def words(text: str) -> str:
    """What torchtext's basic_english leaves of a line of these corpora, joined as decoding joins it."""
    return re.sub(r"([.,])", r" \1", text).lower()


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_break_is_one_token_and_comes_back(kind: TokenizerKind) -> None:
    tokenizer = train(LETTERS, kind=kind).source
    for letter in LETTERS:
        ids = tokenizer.encode(letter)
        assert ids.count(LINE_BREAK_ID) == letter.count("\n") == 3
        assert tokenizer.pieces(ids).count("↵") == 3
        assert tokenizer.decode([*ids, EOS_ID]) == (words(letter) if kind is TokenizerKind.word else letter)
        without = [token for line in letter.split("\n") for token in tokenizer.encode(line)]
        assert [token for token in ids if token != LINE_BREAK_ID] == without  # first words as at the start of a text
    assert not tokenizer.is_byte(LINE_BREAK_ID)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("dogs\n\n\n\n\ncats", "dogs\n\ncats"),
        ("dogs\n \n\t\ncats", "dogs\n\ncats"),
        ("\n\n dogs\ncats \n", "dogs\ncats"),
        ("dogs\r\ncats\r\n\r\n\r\nover\r\n", "dogs\ncats\n\nover"),
        ("dogs\r\r\ncats", "dogs\ncats"),
        ("dogs\u2028cats\x85run\rcats", None),  # these are characters of their line, as in text files
        ("\n\n", ""),
        ("", ""),
    ],
)
def test_line_breaks_are_tidied_like_spaces(kind: TokenizerKind, given: str, kept: str | None) -> None:
    tokenizer = train(LETTERS, kind=kind).source
    ids = tokenizer.encode(given)
    assert (ids.count(LINE_BREAK_ID) == 0) if kept is None else (tokenizer.decode(ids) == kept)
    assert (ids == []) == (kept == "")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_a_user_types_in_a_line_is_a_line_break(kind: TokenizerKind) -> None:
    tokenizer = train(LETTERS, kind=kind).source
    for text in ("↵", "<line break>", "\\n", "<0x0A>", "<n>", "▁", "\r", "\u2028"):
        ids = tokenizer.encode(f"dogs {text} cats")
        assert LINE_BREAK_ID not in ids
        if kind is not TokenizerKind.word and text.isprintable() and text != "▁":
            assert tokenizer.decode(ids) == f"dogs {text} cats"


@pytest.mark.parametrize("kind", KINDS)
def test_texts_without_line_breaks_inside_give_the_tokenizer_of_before(kind: TokenizerKind) -> None:
    spaced = train(PLAIN, kind=kind, line_breaks=LineBreaks.space)
    for corpus in (PLAIN, [f"\n{text}\r\n" for text in PLAIN]):
        tokenizers = train(corpus, kind=kind)
        assert not isinstance(tokenizers.source, MultilineTokenizer)
        assert tokenizers.fingerprint() == spaced.fingerprint()
        assert tokenizers.source.settings() == spaced.source.settings()
        assert "line_breaks" not in tokenizers.source.settings()
        assert tokenizers.source.encode_batch(LETTERS) == spaced.source.encode_batch(LETTERS)


def test_a_plain_model_is_what_sentencepiece_makes_of_these_settings(tmp_path) -> None:
    train(PLAIN, kind=TokenizerKind.unigram).save(tmp_path)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*PLAIN, *PLAIN]), model_prefix=str(tmp_path / "oracle"), model_type="unigram",
        vocab_size=330, hard_vocab_limit=False, character_coverage=0.9999, byte_fallback=True,
        normalization_rule_name="nmt_nfkc", max_sentence_length=4192, pad_id=0, unk_id=1, bos_id=2, eos_id=3,
        unk_surface="⁇", num_threads=4, minloglevel=2,
    )  # fmt: skip
    # Line breaks leave no trace in it; only the names of files and such differ.
    oracle, ours = (
        sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / name))
        for name in ("oracle.model", "joint.model")
    )
    assert [(ours.id_to_piece(i), ours.get_score(i)) for i in range(ours.vocab_size())] == [
        (oracle.id_to_piece(i), oracle.get_score(i)) for i in range(oracle.vocab_size())
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_space_makes_spaces_of_them(kind: TokenizerKind) -> None:
    tokenizer = train(LETTERS, kind=kind, line_breaks=LineBreaks.space).source
    decoded = tokenizer.decode(tokenizer.encode("dogs\n\ncats"))
    assert decoded == "dogs cats"


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_has_them_only_if_its_texts_do(tmp_path, kind: TokenizerKind) -> None:
    trained = train(LETTERS, kind=kind, joint=False)
    trained.save(tmp_path)
    entries = json.loads((tmp_path / "tokenizer.json").read_bytes())["tokenizers"]
    assert entries["source"]["line_breaks"] == "tidy"
    assert "line_breaks" not in entries["target"]
    loaded = load_tokenizers(tmp_path)
    assert loaded.fingerprint() == trained.fingerprint()
    for side in ("source", "target"):
        assert getattr(loaded, side).encode_batch(LETTERS) == getattr(trained, side).encode_batch(LETTERS)
    joint = train(PLAIN, LETTERS, kind=kind)  # one vocabulary: found on either side
    assert isinstance(joint.source, MultilineTokenizer)


def test_the_rule_is_part_of_the_fingerprint(tmp_path) -> None:
    trained = train(LETTERS, kind=TokenizerKind.unigram)
    trained.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    good = path.read_text()
    for bad in ('"exact"', '"tidily"', "7"):
        path.write_text(good.replace('"tidy"', bad))
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            load_tokenizers(tmp_path)


def test_identity_keeps_every_line_break() -> None:
    tokenizer = train(LETTERS, kind=TokenizerKind.unigram, normalization=Normalization.identity).source
    assert tokenizer.settings()["line_breaks"] == LineRule.exact.value
    for text in ("\n", " a\r\n\n\n b\n", "\n\n", "a"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert ids.count(LINE_BREAK_ID) == text.count("\n")


@pytest.mark.parametrize("kind", [TokenizerKind.unigram, TokenizerKind.bpe])
def test_sampling_leaves_line_breaks_where_they_are(kind: TokenizerKind) -> None:
    tokenizer = train(LETTERS, kind=kind, sampling_alpha=0.3).source
    sampled = tokenizer.sample_batch(LETTERS * 3, seed=4)
    assert sampled == tokenizer.sample_batch(LETTERS * 3, seed=4)
    assert [tokenizer.decode(ids) for ids in sampled] == LETTERS * 3
    assert sampled != tokenizer.encode_batch(LETTERS * 3)


def test_batches_are_single_texts_and_lines_cannot_move_between_them() -> None:
    tokenizer = train(LETTERS, kind=TokenizerKind.bpe).source
    texts = ["", "\n", "dogs\n\ncats", "cats", "\n\nrun\n", *LETTERS, ""]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_a_generated_run_of_line_breaks_is_written_as_it_is() -> None:
    tokenizer = train(LETTERS, kind=TokenizerKind.unigram).source
    dogs = tokenizer.encode("dogs")
    assert tokenizer.decode([LINE_BREAK_ID, *dogs, LINE_BREAK_ID, LINE_BREAK_ID, LINE_BREAK_ID]) == "\ndogs\n\n\n"
    assert tokenizer.decode([LINE_BREAK_ID]) == "\n"


def test_the_symbol_counts_in_the_size() -> None:
    with pytest.raises(UserError, match=r"at least (\d+): 261 reserved tokens") as error:
        train(LETTERS, kind=TokenizerKind.unigram, vocab_size=265)
    minimum = int(str(error.value).split("at least ")[1].split(":")[0])
    assert train(LETTERS, kind=TokenizerKind.unigram, vocab_size=minimum).source.vocab_size == minimum
    tokenizer = train(LETTERS, kind=TokenizerKind.unigram, user_symbols=["<sep>"]).source
    assert tokenizer.vocab_size == 330
    assert tokenizer.decode(tokenizer.encode("a <sep>\ncat")) == "a <sep>\ncat"
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size=5 leave no word"):
        train(LETTERS, kind=TokenizerKind.word, vocab_size=5)


def test_a_user_symbol_with_a_line_break_is_refused_unless_they_are_spaces() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.user_symbols: .*tokenizer\.line_breaks=symbol"):
        TokenizerConfig(user_symbols=["a\nb"])
    TokenizerConfig(user_symbols=["\n"], line_breaks=LineBreaks.space)
