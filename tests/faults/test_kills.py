"""SIGKILL at chosen moments: the same command resumes, and all that the run leaves behind is bit for bit the same."""

from pathlib import Path

import pytest
from dying import Call, Change, Death, train
from run_contents import contents, differences

from seq2seq.runs.checkpoint_store import CheckpointStore

# Saves, evaluations and log lines fall on different steps, and sometimes on the same.
COMMON = ("trainer.log_every=3", "trainer.max_steps=14", "search=greedy", "search.max_length=12", "name=run")
SAMPLING = ("tokenizer=unigram", "tokenizer.vocab_size=300", "tokenizer.sampling_alpha=0.3")
SETTINGS: dict[str, tuple[str, tuple[str, ...]]] = {  # the kind of model, and what else
    "transformer": ("transformer", (
        "trainer.accumulate=2", "trainer.keep_last=2", "optim.ema_decay=0.9", "optim.schedule=plateau",
        "optim.plateau_patience=1", "trainer.metric=valid/ppl",
    )),
    "gru": ("copying", (
        "trainer.precision=fp16", "trainer.keep_best=2", "trainer.patience=2", "trainer.average=last",
        "trainer.average_checkpoints=2", "trainer.attention_images=1",
    )),
    "sampling": ("transformer", (*SAMPLING, "trainer.accumulate=2")),
}  # fmt: skip

# In the order of a run. Between them they hit each kind of file that a run writes, and each stage it goes through.
DEATHS: dict[str, Death] = {
    "start": Change(r"open run/run\.lock"),
    "tokenizer is trained": Change(r"open \.cache/tokenizers/.*partial/.*model"),
    "tokenizer is published": Change(r"os\.rename \.cache/tokenizers/\w+\.\w+\.partial "),
    "training set is encoded": Change(r"open \.cache/stores/.*partial/target\.ids", 3),
    "head is written": Change(r"os\.rename run/.*config\.yaml"),
    "tokenizer is copied": Change(r"os\.rename run/tokenizer/.*model"),
    "logs are opened": Change(r"open run/metrics\.jsonl"),
    "events are begun": Change(r"os\.rename run/tensorboard/"),
    "first update": Call("torch:Tensor.backward"),
    "first save begins": Change(r"open run/checkpoints/step-00000004\.tmp-"),
    "first save is whole": Change(r"os\.rename run/checkpoints/step-00000004\.tmp-"),
    "saved, not linked": Change(r"os\.symlink run/checkpoints/last"),
    "last is swapped": Change(r"os\.rename run/checkpoints/last\.tmp-"),
    "evaluation": Call("seq2seq.inference.evaluator:Evaluator.generate"),
    "second micro-batch": Call("torch:Tensor.backward", 6),
    "later save": Change(r"open run/checkpoints/step-00000008\.tmp-\w+/manifest"),
    "best is swapped": Change(r"os\.rename run/checkpoints/best\.tmp-", 2),
    "old one is retired": Change(r"os\.rename run/checkpoints/step-\d+ "),
    "last save": Change(r"os\.rename run/checkpoints/step-00000014"),
    "old one is half deleted": Change(r"os\.remove run/checkpoints/step-\d+\.tmp-\w+/", 2),
    "final scoring": Call("seq2seq.inference.evaluator:Evaluator.score_test"),
    "outputs are written": Change(r"os\.rename run/generations"),
    "scored, not said": Change(r"os\.rename run/.*results\.json"),
    "last clean-up": Change(r"os\.remove run/\.results"),
}


class Undisturbed:
    """What runs leave behind that nobody kills; each setting runs once."""

    def __init__(self, folder: Path, files: list[str], models: dict[str, tuple[str, ...]]) -> None:
        self._folder = folder
        self._files = files
        self._models = models
        self._contents: dict[str, dict[str, object]] = {}

    def arguments(self, setting: str) -> list[str]:
        model, overrides = SETTINGS[setting]
        return [*self._models[model], *self._files, *COMMON, *overrides]

    def contents(self, setting: str) -> dict[str, object]:
        if setting not in self._contents:
            root = self._folder / setting
            assert train(root, self.arguments(setting)) == 0, messages(root)
            self._contents[setting] = contents(root / "run")
        return self._contents[setting]


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, files: list[str], tiny: dict[str, tuple[str, ...]]
) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"), files, tiny)


def messages(root: Path) -> str:
    return (root / "messages.txt").read_text(encoding="utf-8", errors="replace")[-3000:]


def finish_and_compare(root: Path, setting: str, undisturbed: Undisturbed) -> None:
    assert train(root, undisturbed.arguments(setting)) == 0, messages(root)
    told = differences(undisturbed.contents(setting), contents(root / "run"))
    assert not told, "\n".join(told)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_that_dies_stage_by_stage_ends_as_if_it_had_not(
    tmp_path: Path, undisturbed: Undisturbed, every: int
) -> None:
    """One run, started again after each of its deaths: preparation, updates, evaluations, saves, final scoring."""
    arguments = undisturbed.arguments("transformer")
    for moment, death in list(DEATHS.items())[::every]:
        assert train(tmp_path, arguments, death) == -9, f"{moment}: {messages(tmp_path)}"
    finish_and_compare(tmp_path, "transformer", undisturbed)


@pytest.mark.slow
def test_a_kill_in_a_save_leaves_the_checkpoint_before_it(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """The half-written one is in nobody's way, and gone after the next start; with fp16, copying, early stopping."""
    arguments = undisturbed.arguments("gru")
    death = Change(r"open run/checkpoints/step-00000008\.tmp-\w+/manifest")
    assert train(tmp_path, arguments, death) == -9, messages(tmp_path)
    folder = tmp_path / "run" / "checkpoints"
    assert list(folder.glob("step-00000008.tmp-*"))
    store = CheckpointStore(folder)
    newest = store.latest_valid()
    assert newest is not None
    assert newest.step == 5, "saved because it was the best"
    assert store.load("last").step == 5
    finish_and_compare(tmp_path, "gru", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["transformer", "gru"])
@pytest.mark.parametrize("moment", DEATHS)
def test_a_run_that_dies_once(tmp_path: Path, undisturbed: Undisturbed, setting: str, moment: str) -> None:
    """Each of the moments by itself."""
    assert train(tmp_path, undisturbed.arguments(setting), DEATHS[moment]) == -9, messages(tmp_path)
    finish_and_compare(tmp_path, setting, undisturbed)


@pytest.mark.slow
def test_a_kill_while_an_epoch_is_resampled(tmp_path: Path, undisturbed: Undisturbed) -> None:
    arguments = undisturbed.arguments("sampling")
    deaths = (
        Change(r"open \.cache/epochs/.*-0\.\w+\.partial/target"),
        Change(r"open \.cache/epochs/.*-2\.\w+\.partial/target"),
        Change(r"os\.rename \.cache/epochs/.*-3\.\w+\.partial "),
        Call("torch:Tensor.backward", 3),
    )
    for death in deaths:
        assert train(tmp_path, arguments, death) == -9, messages(tmp_path)
    finish_and_compare(tmp_path, "sampling", undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kill_before_any_change_to_the_run_folder(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """Before each second change that a run makes to its folder, whatever the change is: a run for each."""
    arguments = undisturbed.arguments("transformer")
    number, code = 1, -9
    while code == -9:
        root = tmp_path / str(number)
        code = train(root, arguments, Change(r" run/", number))
        finish_and_compare(root, "transformer", undisturbed)
        number += 2
    assert code == 0
    assert number > 100
