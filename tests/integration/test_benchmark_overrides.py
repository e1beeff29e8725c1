"""The benchmark refuses overrides that would change one contender and not the others."""

from argparse import Namespace
from dataclasses import fields

import benchmark_commands
import benchmark_decoding
import benchmark_training
import pytest

from seq2seq.search.config import SearchConfig


def test_no_override_changes_what_a_search_finds() -> None:
    """Each key of the search is refused, except those that decide how it is computed."""
    keys = {f"search.{entry.name}" for entry in fields(SearchConfig)}
    assert keys - set(benchmark_decoding.ALLOWED_KEYS) <= set(benchmark_decoding.FIXED_KEYS)
    assert not keys & set(benchmark_decoding.ALLOWED_KEYS) & set(benchmark_decoding.FIXED_KEYS)


COMPARE = {
    "train": benchmark_training.compare,
    "generate": benchmark_decoding.compare,
    "data": benchmark_commands.compare_prepare,
    "startup": benchmark_commands.compare_startup,
}


@pytest.mark.parametrize(
    ("verb", "override", "message"),
    [
        *(("generate", override, "search.beam_size is the same for all contenders: give --beams")
          for override in ("search.beam_size=1", "+search.beam_size=1", "++search.beam_size=1", "search={beam_size: 1}",
                           "search={batch_size: 8, beam_size: 1}", "search=greedy", "~search.beam_size", "~search",
                           "search.beam_size=1,5", "search.beam_size='1'", "+search@_global_=greedy")),
        ("generate", "search.max_length=9", "give --max-length"),
        ("generate", "search.precision=bf16", "give --contenders"),
        ("generate", "search.length_penalty=0", "fixed at 1.0"),
        ("generate", "search.length_normalization=wu", "fixed at average"),
        ("generate", "search.n_best=2", "fixed at 1"),
        ("generate", "search=sampling", "give --beams"),
        ("generate", "search.temperature=0.5", "it only affects sampling"),
        ("generate", "search.no_repeat_ngram=3", "fixed at 0"),
        ("generate", "trainer.device=cuda", "fixed at cpu"),
        ("generate", "trainer.threads=1", "give --threads"),
        ("generate", "data.max_source_length=9", "the value of the run"),
        ("generate", "model.attention=dot", "only search.batch_size and search.batch_tokens can be changed"),
        ("generate", "search[beam_size]=1", "cannot read"),
        ("train", "trainer.precision=bf16", "give --contenders"),
        ("train", "+trainer={precision: bf16}", "give --contenders"),
        ("train", "trainer.batch_tokens=9", "give --batch-tokens"),
        ("train", "++trainer.device=cuda", "fixed at cpu"),
        ("train", "trainer.threads=1", "give --threads"),
        ("train", "optim=adam", "optim.name is the same for all contenders: it is fixed at adamw"),
        ("train", "optim.ema_decay=0.9", "fixed at 0.0"),
        ("data", "trainer.threads=1", "give --threads"),
        ("startup", "~trainer", "give --threads"),
    ],
)  # fmt: skip
def test_what_would_change_one_contender_is_refused(verb: str, override: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message) as refused:
        COMPARE[verb](Namespace(overrides=["search.batch_size=64", override]))
    assert str(refused.value).startswith((f"{override}: ", "cannot read"))


def test_what_all_follow_is_allowed() -> None:
    benchmark_decoding.check_overrides(
        ["search.batch_size=64", "search={batch_tokens: 9}"], benchmark_decoding.FIXED_KEYS,
        allowed=benchmark_decoding.ALLOWED_KEYS,
    )  # fmt: skip
    benchmark_training.check_overrides(
        ["experiment=multi30k_gru", "model=gru_base", "optim.lr=1", "trainer=cpu_short", "seed=3",
         "trainer.label_smoothing=0", "trainer.compile=true", "data={max_source_length: 9}"],
        benchmark_training.FIXED_KEYS,
    )  # fmt: skip
