import pytest

from seq2seq.errors import UserError
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"vocab_size": 260}, "tokenizer.vocab_size=260"),
        ({"vocab_size": -1, "kind": TokenizerKind.word}, "tokenizer.vocab_size=-1"),
        ({"character_coverage": 0.5}, "tokenizer.character_coverage=0.5"),
        ({"max_sentences": 0}, "tokenizer.max_sentences=0"),
        ({"min_frequency": 0}, "tokenizer.min_frequency=0"),
        ({"sampling_alpha": float("nan")}, "tokenizer.sampling_alpha=nan"),
        ({"sampling_alpha": 1.5, "kind": TokenizerKind.bpe}, "tokenizer.sampling_alpha=1.5"),
        ({"sampling_alpha": 0.1, "kind": TokenizerKind.word}, "tokenizer.sampling_alpha=0.1"),
        ({"sampling_nbest": 0}, "tokenizer.sampling_nbest=0"),
        ({"user_symbols": ["x", "x"]}, "tokenizer.user_symbols"),
        ({"user_symbols": ["</s>"]}, "tokenizer.user_symbols"),
        ({"user_symbols": ["<0x0A>"]}, "tokenizer.user_symbols"),
        ({"source_vectors": "v.txt"}, "tokenizer.source_vectors=v.txt"),
    ],
)
def test_bad_settings_name_their_key(settings, key):
    with pytest.raises(UserError) as error:
        TokenizerConfig(**settings)
    assert key in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"vocab_size": 261},  # one beside the 4 reserved tokens and the 256 bytes
        {"vocab_size": 5, "kind": TokenizerKind.word},
        {"sampling_alpha": 0.1, "sampling_nbest": 2},
        {"sampling_alpha": 1.0, "kind": TokenizerKind.bpe},
    ],
)
def test_settings_at_their_limits_are_allowed(settings):
    TokenizerConfig(**settings)
