"""Whatever is typed on the command line: Hydra composes a configuration from it, or one message says why not."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seq2seq.cli import hydra_app
from seq2seq.config.parse import schema_fields
from seq2seq.config.schema import Config
from seq2seq.errors import UserError

COST = 8  # a composition takes a tenth of a second

KEYS = [*sorted(schema_fields(Config)), "data.test.news.source", "data.test.news", "_target_", "model._target_",
        "model", "trainer", "optim", "experiment", "tokenizer", "hydra", "hydra.run.dir", "hydra.verbose",
        "hydra/launcher", "hydra.searchpath", "a.b", "", ".", "trainer.", "model@trainer"]  # fmt: skip
VALUES = ["", "3", "-1", "0.5", "1e3", "nan", "inf", "9" * 30, "9" * 5000, "abc", "null", "true", "gru",
          "transformer_tiny", "[]", "[a,b]", "[0.9,0.98]", "{}", "{a:b}", "{_target_:os.system}", "a b",
          "'a", '"a, b"', "é", "\udcff",
          "1,2", "choice(1,2)", "range(1,3)", "${seed}", "${oc.env:HOME}", "${nope}", "${", "[" * 40, "\\",
          "=", "../../x",
          "demo_translation", "glob(*)", "int(3)", "sort(2,1)"]  # fmt: skip
OVERRIDE = st.one_of(
    st.builds(
        "{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), st.sampled_from(VALUES)
    ),
    st.builds("~{}".format, st.sampled_from(KEYS)),
    st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=12).filter(
        lambda text: not text.startswith("-")
    ),
)


@given(st.lists(OVERRIDE, min_size=1, max_size=3))
@example(["model=null"])
@example(["model=1"])
@example(["hydra.verbose=3"])
@example([f"seed={'9' * 5000}"])
@example(["+data.test.news._target_=os.system"])
@example(["name=\udcff"])
def test_any_overrides(overrides: list[str]) -> None:
    composed: list[Config] = []
    try:
        hydra_app.run("train", composed.append, ["name=fuzz", *overrides], schema=Config)
    except UserError:
        pass
    else:
        assert isinstance(composed[0], Config)


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for settings of Hydra's own that name folders
