"""Text survives encoding and decoding, up to the limits stated beside each property."""

import functools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.tokenizers.base import EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers.config import Normalization, TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import train_tokenizers

CORPUS = [
    f"The {a} {b} über \t straße {a}{b}  {i} 漢字。"
    for i, (a, b) in enumerate((a, b) for a in ("dog", "cat", "horse", "child") for b in ("runs", "jumps", "sings"))
]
KINDS = [TokenizerKind.unigram, TokenizerKind.bpe, TokenizerKind.char]
TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \t\n\r\u2028\0▁▅⁇</s>dogruns漢")))


@functools.cache
def trained(kind, normalization=Normalization.identity, alpha=0.0, lines=False):
    config = TokenizerConfig(
        kind=kind, vocab_size=300, normalization=normalization, sampling_alpha=alpha, user_symbols=["<sep>"]
    )
    corpus = ["\n".join(CORPUS[i : i + 2]) for i in range(len(CORPUS))] if lines else CORPUS
    return train_tokenizers(lambda: iter(corpus), lambda: iter([]), config, seed=0).source


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
@settings(deadline=None, max_examples=100)
def test_identity_is_lossless_but_for_the_space_mark(kind, lines, text):
    tokenizer = trained(kind, lines=lines)
    ids = tokenizer.encode(text)
    assert not {PAD_ID, UNK_ID, EOS_ID} & set(ids)
    assert tokenizer.decode(ids) == text.replace("▁", " ")


@pytest.mark.parametrize("kind", KINDS[:2])
@given(text=TEXT, seed=st.integers(min_value=0, max_value=2**64))
@settings(deadline=None, max_examples=80)
def test_sampled_segmentations_decode_to_the_same_text(kind, text, seed):
    tokenizer = trained(kind, alpha=0.3)
    (ids,) = tokenizer.sample_batch([text], seed=seed)
    assert tokenizer.decode(ids) == text.replace("▁", " ")


@pytest.mark.parametrize("normalization", [Normalization.nmt_nfkc, Normalization.nfkc])
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
@settings(deadline=None, max_examples=80)
def test_each_line_of_a_tidied_text_is_what_the_line_is_by_itself(kind, normalization, text):
    """The oracle: lines by hand, each through the tokenizer without line breaks; of blank lines in a row one stays."""
    tokenizer = trained(kind, normalization, lines=True)
    lines = [tokenizer.decode(tokenizer.encode(line)) for line in re.split(r"\r*\n", text)]
    assert not any("\n" in line for line in lines)
    expected = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
    assert tokenizer.decode(tokenizer.encode(text)) == expected


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
@settings(deadline=None, max_examples=80)
def test_normalized_text_stays_as_it_is(kind, lines, text):
    tokenizer = trained(kind, Normalization.nmt_nfkc, lines=lines)
    once = tokenizer.decode(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(once)) == once


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(ids=st.lists(st.integers(min_value=0, max_value=260)))
@settings(deadline=None, max_examples=80)
def test_any_ids_decode_to_utf8(kind, lines, ids):
    trained(kind, lines=lines).decode(ids).encode("utf-8")
