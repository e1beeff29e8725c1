"""Whatever a folder holds that is loaded: what was saved, or one message; nothing else is raised and no code runs.

Damage is done to files as they lie there, and to files whose checksums were then made to fit, as somebody would who
means harm.
"""

import copy
import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.encode import write_store
from seq2seq.data.ragged import DamagedStoreError
from seq2seq.data.store import TokenStore, is_store
from seq2seq.errors import UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig
from seq2seq.pipeline.build import copy_weights
from seq2seq.runs.checkpoint import CheckpointError, load_checkpoint
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.folder import RunFolder
from seq2seq.runs.tables import sweep_table
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers, train_tokenizers
from seq2seq.tokenizers.word_vectors import load_vectors
from seq2seq.training.state import TrainState

Edit = Callable[[bytes], bytes]
Json = Any

TEXTS = ["zero one two", "three four", "five six seven eight", "nine", "", "世界 é 🙂"]
NUMBERS = st.sampled_from([0, 1, -1, 3, 2**31, 2**63, 2**64, 10**30, 10**400, 0.5, float("nan"), float("inf"), 1e308])
LEAVES = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.text(max_size=6), st.just("../../x"), st.just("\0"), st.just("\ud800")
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
PLACES = st.lists(st.integers(0, 50), min_size=1, max_size=5)


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """Bytes flipped, cut out, put in, cut off; the same damage to any content."""
    kind = draw(st.sampled_from(["flip", "set", "delete", "insert", "cut", "whole"]))
    at, span = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 9))
    garbage = draw(st.binary(min_size=1, max_size=9))

    def edit(content: bytes) -> bytes:
        place = int(at * len(content))
        head, tail = content[:place], content[place:]
        return {
            "flip": head + bytes([tail[0] ^ (1 << span % 8)]) + tail[1:] if tail else garbage,
            "set": head + garbage + tail[len(garbage) :],
            "delete": head + tail[span:],
            "insert": head + garbage + tail,
            "cut": head,
            "whole": garbage,
        }[kind]

    return edit


def replaced(values: Json, places: list[int], value: Json) -> Json:
    """A copy of a JSON value with one part of it, found by going down, replaced, dropped, or renamed."""
    values = copy.deepcopy(values)
    node = values
    for place in places[:-1]:
        inner = list(node.values()) if isinstance(node, dict) else node
        if not inner or not isinstance(inner[place % len(inner)], dict | list) or not inner[place % len(inner)]:
            break
        node = inner[place % len(inner)]
    if not node:
        return value
    key = list(node)[places[-1] % len(node)] if isinstance(node, dict) else places[-1] % len(node)
    if isinstance(node, dict) and places[-1] > 40:
        del node[key]
    elif isinstance(node, dict) and places[-1] > 30 and isinstance(value, str):
        node[value] = node.pop(key)
    else:
        node[key] = value
    return values


def fresh(folder: Path, files: dict[str, bytes]) -> Path:
    """The folder with these files and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def dumped(values: Json) -> bytes:
    return json.dumps(values).encode()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loaders")


# --- checkpoints --------------------------------------------------------------------------------------------


def small_model() -> Seq2Seq:
    torch.manual_seed(1)
    sizes = GRUConfig(d_model=4, embedding_size=4, encoder_size=2, attention_size=2)
    return build_model(sizes, Vocabulary(9, 9, joint=True))


@pytest.fixture(scope="session")
def checkpoint(place: Path) -> dict[str, bytes]:
    """The files of a sound one."""
    state = TrainState(step=7, history=[(5, 2.5), (7, 2.25)], scaler={"scale": 2.0})
    folder = CheckpointStore(place / "sound").save(
        7, {"model": small_model().state_dict()}, state.to_json(), fingerprints={"tokenizer": "ab"}, name="sound"
    )
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def sealed(files: dict[str, bytes], manifest: Json) -> dict[str, bytes]:
    """The files with the checksums that a manifest of them has to have, as far as it still has places for them."""
    if not isinstance(manifest, dict):
        return files | {"manifest.json": dumped(manifest)}
    listed = manifest.get("files")
    for name, content in files.items():
        if isinstance(listed, dict) and isinstance(listed.get(name), dict):
            listed[name] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    manifest["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return files | {"manifest.json": dumped(manifest)}


@given(st.integers(0, 2), edits())
def test_a_damaged_checkpoint_is_refused_or_the_same(
    place: Path, checkpoint: dict[str, bytes], number: int, edit: Edit
) -> None:
    name = sorted(checkpoint)[number % len(checkpoint)]
    sound = load_checkpoint(fresh(place / "sound copy", checkpoint))
    try:
        found = load_checkpoint(fresh(place / "damaged", checkpoint | {name: edit(checkpoint[name])}))
    except CheckpointError:
        return
    assert (found.step, found.state, found.fingerprints) == (sound.step, sound.state, sound.fingerprints)
    for key, tensor in sound.tensors["model"].items():
        assert torch.equal(found.tensors["model"][key], tensor)


@given(edits())
@example(lambda content: (8).to_bytes(8, "little") + b'{"a":{}}')
def test_weights_with_a_fitting_checksum_are_used_or_refused(
    place: Path, checkpoint: dict[str, bytes], edit: Edit
) -> None:
    files = checkpoint | {"model.safetensors": edit(checkpoint["model.safetensors"])}
    try:
        found = load_checkpoint(fresh(place / "forged", sealed(files, json.loads(checkpoint["manifest.json"]))))
        copy_weights(found.tensors["model"], small_model(), origin="forged")
    except UserError:
        return


@given(PLACES, VALUES)
def test_a_forged_manifest_is_followed_or_refused(
    place: Path, checkpoint: dict[str, bytes], places: list[int], value: Json
) -> None:
    forged = replaced(json.loads(checkpoint["manifest.json"]), places, value)
    try:
        load_checkpoint(fresh(place / "forged", sealed(checkpoint, forged)))
    except CheckpointError:
        return


@given(PLACES, VALUES)
@example([0], None)
def test_a_forged_state_is_used_or_refused(
    place: Path, checkpoint: dict[str, bytes], places: list[int], value: Json
) -> None:
    files = checkpoint | {"state.json": dumped(replaced(json.loads(checkpoint["state.json"]), places, value))}
    try:
        found = load_checkpoint(fresh(place / "forged", sealed(files, json.loads(checkpoint["manifest.json"]))))
        state = TrainState.from_json(found.state)
    except UserError:
        return
    state.best("max")
    state.ranked("min")
    assert TrainState.from_json(json.loads(json.dumps(state.to_json()))).step == state.step


# --- tokenizers, word vectors, token stores -----------------------------------------------------------------


@pytest.fixture(scope="session", params=["word", "char", "unigram"])
def tokenizers(request: pytest.FixtureRequest) -> Tokenizers:
    size = {"word": 20, "char": 300, "unigram": 280}[request.param]
    config = TokenizerConfig(kind=TokenizerKind(request.param), vocab_size=size)
    return train_tokenizers(lambda: iter(TEXTS), lambda: iter(TEXTS), config, seed=1)


def saved(tokenizers: Tokenizers, folder: Path) -> dict[str, bytes]:
    shutil.rmtree(folder, ignore_errors=True)
    tokenizers.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def use(folder: Path) -> None:
    """All that `generate` does with tokenizers."""
    loaded = load_tokenizers(folder)
    ids = loaded.source.encode_batch([*TEXTS, "\0 \u2028 </s>"])
    loaded.source.pieces([token for row in ids for token in row])
    loaded.target.decode(range(loaded.target.vocab_size)).encode()


@given(st.integers(0, 1), edits())
def test_a_damaged_tokenizer_is_refused(place: Path, tokenizers: Tokenizers, number: int, edit: Edit) -> None:
    files = saved(tokenizers, place / "tokenizer")
    name = sorted(files)[number]
    try:
        use(fresh(place / "tokenizer", files | {name: edit(files[name])}))
    except UserError:
        return


@given(PLACES, VALUES)
def test_a_forged_description_of_a_tokenizer_is_refused_or_followed(
    place: Path, tokenizers: Tokenizers, places: list[int], value: Json
) -> None:
    files = saved(tokenizers, place / "tokenizer")
    forged = replaced(json.loads(files["tokenizer.json"]), places, value)
    try:
        use(fresh(place / "tokenizer", files | {"tokenizer.json": dumped(forged)}))
    except UserError:
        return


@given(edits())
def test_a_tokenizer_with_a_fitting_checksum_is_used_or_refused(
    place: Path, tokenizers: Tokenizers, edit: Edit
) -> None:
    files = saved(tokenizers, place / "tokenizer")
    (name,) = set(files) - {"tokenizer.json"}
    description = json.loads(files["tokenizer.json"])
    forged = edit(files[name])
    if name.endswith(".model"):
        parts = [hashlib.sha256(forged).hexdigest()]
    else:
        settings = {key: value for key, value in description["tokenizers"]["joint"].items() if key != "file"}
        parts = [hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + b"\n" + forged).hexdigest()]
    description["fingerprint"] = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    try:
        use(fresh(place / "tokenizer", files | {name: forged, "tokenizer.json": dumped(description)}))
    except UserError:
        return


VECTORS = b"3 2\nzero 0.5 1\none -1e3 2\ntwo 1 1\n"


@given(edits(), st.booleans())
@example(lambda _: b"9" * 30 + b" " + b"9" * 30 + b"\n", False)
@example(lambda _: b"1 999999999999\na 1\n", False)
@example(lambda _: b"a " + b"9" * 400 + b"\n", False)
@example(lambda _: b"a 1e39\n", False)
def test_word_vectors_are_read_or_refused(place: Path, edit: Edit, packed: bool) -> None:
    path = place / ("vectors.gz" if packed else "vectors.txt")
    content = gzip.compress(VECTORS, mtime=0) if packed else VECTORS
    path.write_bytes(edit(content))
    try:
        vectors, found = load_vectors(path, ["zero", "one", "two"])
    except UserError:
        return
    assert vectors.dtype == np.float32
    assert len(vectors) == len(found) == 3
    assert np.isfinite(vectors).all()


@pytest.fixture(scope="session")
def store(place: Path, tokenizers: Tokenizers) -> dict[str, bytes]:
    folder = fresh(place / "store", {})
    examples = [Example(text, text, (text, "more")) for text in TEXTS]
    write_store(folder, iter(examples), tokenizers, DataConfig(), training=False)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_all(folder: Path) -> list[object]:
    opened = TokenStore(folder)
    return [
        (opened.source_ids[n].tolist(), opened.target_ids[n].tolist(), opened.source_text(n), opened.references(n))
        for n in range(len(opened))
    ]


@given(st.integers(0, 99), edits())
def test_a_damaged_token_store_is_refused_or_the_same(
    place: Path, store: dict[str, bytes], number: int, edit: Edit
) -> None:
    name = sorted(store)[number % len(store)]
    sound = read_all(fresh(place / "store", store))
    if is_store(fresh(place / "store", store | {name: edit(store[name])})):
        assert read_all(place / "store") == sound
        return
    with suppress(DamagedStoreError, UserError):
        read_all(place / "store")


@given(PLACES, VALUES)
def test_a_forged_description_of_a_store_is_refused_or_followed(
    place: Path, store: dict[str, bytes], places: list[int], value: Json
) -> None:
    forged = dumped(replaced(json.loads(store["meta.json"]), places, value))
    try:
        read_all(fresh(place / "store", store | {"meta.json": forged}))
    except (DamagedStoreError, UserError):
        return


# --- what reports and comparisons read ----------------------------------------------------------------------

RESULTS = {
    "name": "a", "complete": True, "best_step": 5, "objective": {"metric": "valid/bleu", "mode": "max", "value": 1.5},
    "test": {"news": {"bleu": {"score": 1.0, "signature": "nrefs:1|x"}}},
}  # fmt: skip
LINES = b"".join(dumped({"step": n, "tag": "valid/loss", "value": n / 2, "wall_time": 1.0}) + b"\n" for n in range(3))


@given(PLACES, VALUES, edits(), st.sampled_from(["results", "damaged results", "metrics", "config"]))
def test_a_report_of_anything_is_a_table(place: Path, places: list[int], value: Json, edit: Edit, what: str) -> None:
    files = {"config.yaml": b"name: a\ntrainer: {metric: valid/loss, max_steps: 9}\n", "metrics.jsonl": LINES}
    if what == "results":
        files["results.json"] = dumped(replaced(RESULTS, places, value))
    elif what == "damaged results":
        files["results.json"] = edit(dumped(RESULTS))
    elif what == "metrics":
        line = dumped(replaced(json.loads(LINES.splitlines()[0]), places, value))
        files["metrics.jsonl"] = edit(LINES) + line + b"\n"
    else:
        files["config.yaml"] = edit(files["config.yaml"])
    run = fresh(place / "runs" / "a", files)
    assert len(sweep_table(run.parent).splitlines()) == 3
    assert len(json.loads(sweep_table(run.parent, format="json"))) == 1
    found = RunFolder(run).read_results()
    assert found is None or isinstance(found, dict)
