"""Text survives encoding and decoding, up to the limits stated beside each property."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.tokenizer import (
    EOS_ID,
    PAD_ID,
    UNK_ID,
    Normalization,
    TokenizerConfig,
    TokenizerKind,
    train_tokenizers,
)

CORPUS = [
    f"The {a} {b} über \t straße {a}{b}  {i} 漢字。"
    for i, (a, b) in enumerate((a, b) for a in ("dog", "cat", "horse", "child") for b in ("runs", "jumps", "sings"))
]
KINDS = [TokenizerKind.unigram, TokenizerKind.bpe, TokenizerKind.char]
TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \t\n\0▁▅⁇</s>dogruns漢")))


@functools.cache
def trained(kind, normalization=Normalization.identity, alpha=0.0):
    config = TokenizerConfig(
        kind=kind, vocab_size=300, normalization=normalization, sampling_alpha=alpha, user_symbols=["<sep>"]
    )
    return train_tokenizers(lambda: iter(CORPUS), lambda: iter([]), config, seed=0).source


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
@settings(deadline=None, max_examples=150)
def test_identity_is_lossless_but_for_the_space_mark(kind, text):
    tokenizer = trained(kind)
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


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
@settings(deadline=None, max_examples=80)
def test_normalized_text_stays_as_it_is(kind, text):
    tokenizer = trained(kind, Normalization.nmt_nfkc)
    once = tokenizer.decode(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(once)) == once


@pytest.mark.parametrize("kind", KINDS)
@given(ids=st.lists(st.integers(min_value=0, max_value=260)))
@settings(deadline=None, max_examples=80)
def test_any_ids_decode_to_utf8(kind, ids):
    trained(kind).decode(ids).encode("utf-8")
