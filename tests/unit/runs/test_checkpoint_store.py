import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seq2seq.runs.checkpoint import Checkpoint
from seq2seq.runs.checkpoint_store import CheckpointSaveError, CheckpointStore
from seq2seq.runs.manifest import CheckpointError

Damage = Callable[[Path], object]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def tensors_of(step: int) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {"weight": torch.randn(5, 7, generator=generator), "count": torch.tensor(step)},
        "optimizer": {"weight.exp_avg": torch.randn(5, 7, generator=generator)},
    }


def save(store: CheckpointStore, step: int) -> Path:
    return store.save(step, tensors_of(step), {"step": step, "history": [0.5, 0.25]})


def assert_is_step(checkpoint: Checkpoint | None, step: int) -> None:
    assert checkpoint is not None
    assert checkpoint.step == step
    assert checkpoint.state["step"] == step
    for file, named in tensors_of(step).items():
        assert checkpoint.tensors[file].keys() == named.keys()
        for name, tensor in named.items():
            assert torch.equal(checkpoint.tensors[file][name], tensor)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0b100
    path.write_bytes(data)


# --- what is saved comes back -------------------------------------------------------------------------------


def test_everything_comes_back_as_it_was(store: CheckpointStore) -> None:
    folder = store.save(12, tensors_of(12), {"step": 12, "name": "café"}, fingerprints={"tokenizer": "ab12"})
    assert folder == store.root / "step-00000012"
    loaded = store.load(folder)
    assert_is_step(loaded, 12)
    assert loaded.state["name"] == "café"
    assert loaded.fingerprints == {"tokenizer": "ab12"}
    assert load_file(folder / "model.safetensors").keys() == {"weight", "count"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_dtypes_scalars_views_and_empty_tensors_survive(store: CheckpointStore, dtype: torch.dtype) -> None:
    base = torch.arange(24).reshape(4, 6).to(dtype)
    given = {
        "whole": base,
        "transposed": base.T,
        "column": base[:, 2],
        "scalar": base[1, 1],
        "none": base[:0],
        "none_too": base[:0],
    }
    store.save(1, {"model": given}, {})
    loaded = store.load("1").tensors["model"]
    assert loaded.keys() == given.keys()
    for name, tensor in given.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor), name


def test_state_keeps_numbers_that_are_not_finite(store: CheckpointStore) -> None:
    store.save(1, {}, {"best": float("inf"), "history": [float("nan"), 0.1]})
    state = store.load("1").state
    assert state["best"] == float("inf")
    assert state["history"][0] != state["history"][0]
    assert state["history"][1] == 0.1


def test_tied_weights_are_stored_once_and_load_under_every_name(store: CheckpointStore) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source = nn.Embedding(100, 16)
            self.target = nn.Embedding(100, 16)
            self.output = nn.Linear(16, 100)
            self.target.weight = self.source.weight
            self.output.weight = self.source.weight

    model = Tied()
    folder = store.save(3, {"model": model.state_dict()}, {})
    assert (folder / "model.safetensors").stat().st_size < 2 * 100 * 16 * 4
    fresh = Tied()
    fresh.load_state_dict(store.load("3").tensors["model"], strict=True)
    assert fresh.output.weight is fresh.source.weight
    assert torch.equal(fresh.output.weight, model.output.weight)


def test_only_the_files_asked_for_are_read(store: CheckpointStore) -> None:
    flip_a_bit(save(store, 4) / "optimizer.safetensors")
    assert store.load("4", files=["model"]).tensors.keys() == {"model"}
    with pytest.raises(CheckpointError, match=r"ema\.safetensors: this checkpoint has no such file"):
        store.load("4", files=["ema"])


def test_saving_the_same_step_again_replaces_it(store: CheckpointStore) -> None:
    save(store, 5)
    store.link("last", 5)
    store.save(5, {"model": {"other": torch.ones(2)}}, {})
    assert store.load("last").tensors["model"].keys() == {"other"}
    assert sorted(path.name for path in store.root.iterdir()) == ["last", "step-00000005"]


# --- names --------------------------------------------------------------------------------------------------


def test_links_steps_and_paths_resolve(store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = save(store, 10), save(store, 20)
    store.link("best", 10)
    store.link("last", second)
    assert store.resolve("best").resolve() == first
    assert store.resolve("last").resolve() == second
    assert store.resolve("20") == second
    assert store.resolve("step-00000010") == first
    assert store.resolve(str(first)) == first
    assert store.resolve(str(first / "model.safetensors")) == first
    monkeypatch.chdir(tmp_path)
    assert store.resolve("checkpoints/last").resolve() == second
    store.link("best", 20)
    assert store.resolve("best").resolve() == second


def test_unknown_names_are_answered_with_those_there_are(store: CheckpointStore) -> None:
    with pytest.raises(CheckpointError, match="available: none yet"):
        store.resolve("best")
    save(store, 10)
    store.link("best", 10)
    store.save(10, tensors_of(10), {"step": 10}, name="average")
    with pytest.raises(CheckpointError, match=r"checkpoint=30: not found in .*; available: average, best, 10$"):
        store.resolve("30")
    with pytest.raises(ValueError, match="is not a checkpoint in"):
        store.link("last", 30)


def test_the_folder_can_be_moved_and_copied_without_links(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 10)
    store.link("best", 10)
    moved = CheckpointStore(tmp_path / "elsewhere" / "checkpoints")
    moved.root.parent.mkdir()
    os.rename(store.root, moved.root)
    assert_is_step(moved.load("best"), 10)
    # a copy that followed the link has a folder in its place
    (moved.root / "best").unlink()
    os.rename(moved.root / "step-00000010", moved.root / "best")
    assert_is_step(moved.load("best"), 10)
    save(moved, 20)
    moved.link("best", 20)
    assert_is_step(moved.load("best"), 20)


# --- damage -------------------------------------------------------------------------------------------------


def zero_the_middle(path: Path) -> None:
    """What a power cut leaves where a block of a file did not reach the disk."""
    data = path.read_bytes()
    quarter = len(data) // 4
    path.write_bytes(data[:quarter] + bytes(len(data) - 2 * quarter) + data[-quarter:])


def cut_at(place: int) -> Damage:
    return lambda path: os.truncate(path, place % path.stat().st_size)


DAMAGES: dict[str, Damage] = {
    **{f"cut at {place}": cut_at(place) for place in (1, 7, 8, 60, -1)},
    "empty": lambda path: path.write_bytes(b""),
    "absent": lambda path: path.unlink(),
    "bit flipped": flip_a_bit,
    "zeros inside": zero_the_middle,
    "all zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "another's": lambda path: path.write_bytes((path.parents[1] / "step-00000010" / path.name).read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_damage_is_found_named_and_passed_over(
    store: CheckpointStore, file: str, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    save(store, 10)
    damage(save(store, 20) / file)
    with pytest.raises(CheckpointError, match=f"step-00000020/{file}"):
        store.load(store.root / "step-00000020")
    with caplog.at_level(logging.WARNING):
        assert_is_step(store.latest_valid(), 10)
    assert [f"step-00000020/{file}" in record.getMessage() for record in caplog.records] == [True]


def test_no_valid_checkpoint_names_the_files_and_none_at_all_is_none(store: CheckpointStore) -> None:
    assert store.latest_valid() is None
    for step in (10, 20):
        flip_a_bit(save(store, step) / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        store.latest_valid()
    assert "step-00000010/model.safetensors" in str(caught.value)
    assert "step-00000020/model.safetensors" in str(caught.value)


def test_a_pickle_in_place_of_the_weights_is_refused_unopened(store: CheckpointStore, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    folder = save(store, 10)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        store.load("10")
    assert not (tmp_path / "exploded").exists()


def test_a_step_under_the_name_of_another_is_no_such_step(store: CheckpointStore) -> None:
    save(store, 10)
    os.rename(save(store, 20), store.root / "step-00000030")
    with pytest.raises(CheckpointError, match=r"step-00000030/manifest\.json: this is step 20, unlike the folder"):
        store.load("30")
    assert_is_step(store.latest_valid(), 10)


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(store: CheckpointStore, tmp_path: Path) -> None:
    store.root.symlink_to(tmp_path / "a disk that is not mounted")
    with pytest.raises(CheckpointError, match=r"checkpoints: cannot be read \(No such file or directory\)"):
        store.latest_valid()
    store.root.unlink()
    store.root.write_text("a file")
    with pytest.raises(CheckpointError, match=r"checkpoints: cannot be read \(Not a directory\)"):
        store.latest_valid()


@pytest.mark.parametrize("name", ["x" * 5000, "9" * 5000, "..", "\0", "last\n", "²"])
def test_a_name_that_nothing_can_have_is_not_found(store: CheckpointStore, name: str) -> None:
    save(store, 10)
    with pytest.raises(CheckpointError, match=r"^checkpoint="):
        store.resolve(name)


def test_links_to_other_places_are_read_but_nothing_behind_them_is_changed(
    store: CheckpointStore, tmp_path: Path
) -> None:
    other = CheckpointStore(tmp_path / "other" / "checkpoints")
    far = save(other, 20)
    save(store, 10)
    (store.root / "step-00000020").symlink_to(far)
    (store.root / "best").symlink_to(far)
    (store.root / "loop").symlink_to("loop")
    (store.root / "nowhere").symlink_to(tmp_path / "nowhere")
    assert_is_step(store.latest_valid(), 20)
    assert_is_step(store.load("best"), 20)
    for name in ("loop", "nowhere"):
        with pytest.raises(CheckpointError, match=r"available: best, 10, 20$"):
            store.resolve(name)
    store.link("best", 10)
    store.prune(keep=[10])
    assert store.steps() == [10]
    assert_is_step(other.load("20"), 20)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointSaveError, match=r"cannot write .*file/checkpoints/step-00000001"):
        save(CheckpointStore(tmp_path / "file" / "checkpoints"), 1)


# --- retention --------------------------------------------------------------------------------


def test_prune_keeps_what_is_asked_for_and_what_a_link_stands_for(store: CheckpointStore) -> None:
    for step in range(1, 7):
        save(store, step)
    store.link("best", 2)
    store.link("last", 6)
    store.save(6, tensors_of(6), {"step": 6}, name="average")
    store.prune([4])
    assert store.steps() == [2, 4, 6]
    store.prune([])
    assert store.steps() == [2, 6]
    for name, step in (("best", 2), ("last", 6), ("average", 6)):
        assert_is_step(store.load(name), step)


def test_clean_leaves_alone_what_saves_did_not_write(store: CheckpointStore) -> None:
    save(store, 10)
    for name in ("step-00000010.old-good", "step-00000010.tmp-2", "notes.old-1"):
        (store.root / name).mkdir()
    store.prune([10])
    assert len(list(store.root.iterdir())) == 4
    os.rename(store.root / "step-00000010", store.root / "elsewhere")
    assert store.steps() == []  # the user's folder with .old- in its name is no checkpoint that stepped aside


def test_a_checkpoint_that_stepped_aside_counts_and_one_half_written_does_not(store: CheckpointStore) -> None:
    for name in ("step-00000010.old-12x0123abcd", "step-00000020.tmp-12x0123abcd"):
        (store.root / name).mkdir(parents=True)
    assert store.steps() == [10]


def test_a_copy_with_folders_for_links_goes_on_from_last(store: CheckpointStore) -> None:
    os.rename(save(store, 10), store.root / "last")
    found = store.latest_valid()
    assert_is_step(found, 10)
    assert found is not None
    store.link("last", found.path)
    assert_is_step(store.load("last"), 10)
    save(store, 20)
    store.link("last", 20)
    store.prune([20])
    assert [path.name for path in sorted(store.root.iterdir())] == ["last", "step-00000020"]
    assert_is_step(store.load("last"), 20)


def test_a_store_that_vanishes_is_made_again(store: CheckpointStore) -> None:
    save(store, 10)
    shutil.rmtree(store.root)
    assert store.latest_valid() is None
    store.prune([10])
    store.link("last", save(store, 20))
    store.prune([20])
    assert_is_step(store.load("last"), 20)


@pytest.mark.parametrize("keep_last", [1, 2])
def test_there_is_a_sound_checkpoint_at_every_moment_though_the_newest_is_damaged(
    store: CheckpointStore, keep_last: int
) -> None:
    """What a trainer does: save, link, prune; then the disk damages the newest, and a new process goes on."""
    for step in (10, 20):
        store.link("last", save(store, step))
        store.prune(store.steps()[-2:])
    store.link("best", 20)
    flip_a_bit(store.root / "step-00000020" / "optimizer.safetensors")
    assert_is_step(store.latest_valid(), 10)
    store.link("last", 10)
    store.prune([step for step in store.steps() if step <= 10])
    assert_is_step(store.latest_valid(), 10)
    for step in (12, 14):
        store.link("last", save(store, step))
        assert_is_step(store.latest_valid(), step)
        store.prune(store.steps()[-keep_last:])  # of step 20, which `best` keeps, too
        assert_is_step(store.latest_valid(), step)
    store.link("last", save(store, 20))
    assert_is_step(store.load("best"), 20)
