"""Values that are hardly meant beside another key's value: told where the key was typed, and only there."""

import pytest
from omegaconf import OmegaConf

from seq2seq.config.oddities import _ODD, odd_keys
from seq2seq.config.parse import parse
from seq2seq.errors import UserError

# The key, an odd value, one at the limit that is not, what else is set, and what is said.
CASES = [
    ("trainer.eval_every", 101, 100, ["trainer.max_steps=100"], "the only evaluation is at the end"),
    ("trainer.patience", 5, 4, ["trainer.max_steps=50", "trainer.eval_every=10"], "the run never ends early"),
    ("trainer.log_every", 101, 100, ["trainer.max_steps=100"], "only the last step is logged"),
    ("optim.warmup_steps", 100, 99, ["trainer.max_steps=100"], "the learning rate only rises"),
    ("optim.horizon_steps", 99, 100, ["trainer.max_steps=100", "optim.schedule=cosine", "optim.min_lr_ratio=0.25"],
     "from there on the learning rate is that of optim.min_lr_ratio=0.25"),
    ("optim.min_lr_ratio", 1.0, 0.9, ["optim.schedule=linear"], "whatever optim.schedule=linear"),
    ("trainer.stop_after_minutes", 5, 4, ["trainer.max_minutes=5"], "complete before it has to stop"),
    ("trainer.samples", 9, 8, ["trainer.eval_examples=8"], "no more examples are decoded"),
    ("trainer.attention_images", 3, 2, ["trainer.samples=2"], "for examples that are shown only"),
    ("tokenizer.sampling_nbest", 5, -1, [], "without tokenizer.sampling_alpha above 0"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "odd", "fine", "others", "words"), CASES, ids=[case[0] for case in CASES])
def test_what_is_odd_is_told_where_it_was_typed(
    key: str, odd: float, fine: float, others: list[str], words: str
) -> None:
    strange, usual = (parse(OmegaConf.from_dotlist([*others, f"{key}={value}"])) for value in (odd, fine))
    ((named, message),) = odd_keys(strange, [key]).items()
    assert named == key
    assert message.startswith(f"{key}={odd}")
    assert words in message
    assert "{" not in message
    assert odd_keys(strange, [other.partition("=")[0] for other in others]) == {}, "the key itself was not typed"
    assert odd_keys(usual, [key]) == {}


def test_every_rule_has_a_case() -> None:
    assert [key for key, _, _ in _ODD] == [case[0] for case in CASES]


@pytest.mark.parametrize("patience", [2, 3])
def test_a_run_that_ends_before_its_rate_falls_is_refused(patience: int) -> None:
    settings = ["optim.schedule=plateau", "optim.plateau_patience=3"]
    with pytest.raises(UserError, match=rf"trainer\.patience={patience} ends the run before .*plateau_patience=3"):
        parse(OmegaConf.from_dotlist([*settings, f"trainer.patience={patience}"]))
    parse(OmegaConf.from_dotlist([*settings, "trainer.patience=4"]))
    parse(OmegaConf.from_dotlist(["optim.plateau_patience=3", f"trainer.patience={patience}"]))
