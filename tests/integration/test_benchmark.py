"""The benchmark measures in turns, and those it compares do the same work."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import matrix_products  # noqa: E402
from bare_loop import BareLoop, Problem, build_batch  # noqa: E402
from benchmark_commands import Command, SentencePieceEncoder  # noqa: E402
from benchmark_corpus import composed, corpus_overrides  # noqa: E402
from benchmark_decoding import OurSearch, summary  # noqa: E402
from benchmark_training import OurLoop, prepared_data, problem_of, require_equal_work  # noqa: E402
from benchmark_turns import Contender, Measured, take_turns, timed  # noqa: E402
from matrix_products import MatrixProducts  # noqa: E402
from peers import CTranslate2Search, HuggingFaceSearch, Task, best_weights, convert, unmovable  # noqa: E402

from seq2seq import config as configuration  # noqa: E402
from seq2seq.api import vocabulary  # noqa: E402
from seq2seq.checkpoint import CheckpointStore  # noqa: E402
from seq2seq.models.build import build_model  # noqa: E402
from seq2seq.tokenizer import load_tokenizers  # noqa: E402

TRANSFORMER = ("model=transformer_tiny", "model.d_model=32", "model.num_heads=2", "model.d_ff=48",
               "model.encoder_layers=2", "model.decoder_layers=1")  # fmt: skip
GRU = (
    "model=gru_tiny",
    "model.d_model=32",
    "model.embedding_size=16",
    "model.encoder_size=24",
    "model.attention_size=20",
)
MODELS = {"transformer": TRANSFORMER, "fed": GRU, "gru": (*GRU, "model.input_feeding=false", "model.attention=general")}
SHARED = ("trainer.device=cpu", "trainer.batch_tokens=256", "optim.warmup_steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


def measured(name: str, *seconds: float) -> Measured:
    return Measured(name, list(seconds), [2 * second for second in seconds])


def test_ratios_are_those_of_the_rounds() -> None:
    """A disturbance that slows a whole round down leaves them alone."""
    ours, theirs = measured("ours", 1.0, 10.0, 2.0), measured("theirs", 2.0, 20.0, 8.0)
    assert ours.times_faster(theirs) == 2.0
    assert theirs.times_less_cpu(ours) == 0.5
    assert (ours.median(), ours.spread()) == (2.0, 4.5)


def test_contenders_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    contenders = [
        Contender(name, Command, ([sys.executable, "-Sc", f"open({str(diary)!r}, 'a').write({name!r})"],))
        for name in "AB"
    ]
    taken = take_turns(contenders, rounds=2, warmup=1, threads=1)
    assert diary.read_text() == "ABABAB"
    assert [len(one.seconds) for one in taken.values()] == [2, 2]
    assert all(one.median() > 0 and min(one.cpu_seconds) > 0 and one.peak_mb > 0 for one in taken.values())


def test_a_command_is_over_at_a_line() -> None:
    Command([sys.executable, "-Sc", "import sys, time; print('step 1 ', file=sys.stderr, flush=True); time.sleep(60)"],
            "step 1").turn()  # fmt: skip
    with pytest.raises(SystemExit, match="code 3"):
        Command([sys.executable, "-Sc", "raise SystemExit(3)"]).turn()


@pytest.fixture(scope="module")
def overrides(folder: Path) -> dict[str, list[str]]:
    """Of each kind of model that there is a bare loop of."""
    return {name: corpus_overrides(folder, 60, [*SHARED, *model]) for name, model in MODELS.items()}


@pytest.fixture(scope="module")
def problems(overrides: dict[str, list[str]]) -> dict[str, Problem]:
    """One step's work for each of them."""
    return {name: problem_of(keys, 1) for name, keys in overrides.items()}


@pytest.mark.parametrize("name", MODELS)
def test_the_bare_loop_trains_the_same_model_on_the_same_tokens(
    name: str, overrides: dict[str, list[str]], problems: dict[str, Problem]
) -> None:
    loops = {"ours": OurLoop(overrides[name], "fp32", 1), "bare": BareLoop(problems[name], "fp32")}
    taken = [Measured(name, facts=loop.facts()) for name, loop in loops.items()]
    require_equal_work(taken)
    assert taken[0].facts["parameters"] == taken[1].facts["parameters"]
    for loop in loops.values():
        losses = [loop.turn() for _ in range(6)]
        assert losses[-1] < losses[0]
    with pytest.raises(SystemExit, match="tokens ours"):
        require_equal_work([taken[0], Measured("other", facts={**taken[1].facts, "tokens": 1})])


@pytest.mark.parametrize("name", MODELS)
def test_the_bare_loop_attends_to_no_padding(name: str, problems: dict[str, Problem]) -> None:
    """Examples of two lengths in one batch have the losses that they have alone."""
    problem = replace(problems[name], model={**problems[name].model, "dropout": 0.0})
    loop, examples = BareLoop(problem, "fp32"), sorted(problem.batches[0], key=lambda pair: len(pair[0]))
    pair = [examples[0], ([*examples[-1][0], 7, 8, 9], examples[-1][1])]
    alone = [loop.loss(build_batch([one])) * len(one[1]) for one in pair]
    together = loop.loss(build_batch(pair)) * sum(len(target) for _, target in pair)
    torch.testing.assert_close(together, alone[0] + alone[1])


def test_products_are_counted(problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    """6 operations a weight and position, 2 forward and 4 backward; the products within attention come on top."""
    monkeypatch.setattr(matrix_products, "_SECONDS", 0.01)
    problem = problems["transformer"]
    loop, products = BareLoop(problem, "fp32"), MatrixProducts(problem, "fp32")
    batch = loop.batches[0]
    positions = {"encoder": batch.src.numel(), "decoder": batch.tgt_in.numel()}
    expected = 6 * batch.labels.numel() * loop.model.embedding.weight.numel()
    for name, parameter in loop.model.named_parameters():
        if parameter.ndim == 2 and name.startswith(("encoder", "decoder")):
            read = "encoder" if "source_attention.kv" in name else name.partition(".")[0]
            expected += 6 * positions[read] * parameter.numel()
    assert expected < products.facts()["flops"] < 1.2 * expected
    assert products.turn() > 1e6


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run folder with a Transformer of random weights, large enough that its outputs differ."""
    keys = [*SHARED, *TRANSFORMER, "model.dropout=0", "tokenizer.vocab_size=400"]
    config = composed(corpus_overrides(folder, 60, keys, tokenizer="unigram"))
    data = prepared_data(config)
    path = folder / "run"
    path.mkdir()
    (path / "config.yaml").write_text(configuration.to_yaml(config), encoding="utf-8")
    data.tokenizers.save(path / "tokenizer")
    torch.manual_seed(3)
    model = build_model(config.model, vocabulary(data.tokenizers))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(4.0 if parameter.ndim == 2 and "embedding" not in name else 1.0)
    store = CheckpointStore(path / "checkpoints")
    made_with = {"tokenizer": data.tokenizers.fingerprint()}
    store.link("best", store.save(1, {"model": dict(model.state_dict())}, {}, belongs_to=made_with))
    return path


@pytest.mark.parametrize(
    ("who", "beam_size"),
    [("ct2", 1), ("ct2", 5), *(pytest.param("hf", size, marks=pytest.mark.slow) for size in (1, 5))],
)
def test_others_find_the_same_with_a_runs_weights(who: str, beam_size: int, run: Path, folder: Path) -> None:
    pytest.importorskip({"ct2": "ctranslate2", "hf": "transformers"}[who])
    config = configuration.load(run / "config.yaml")
    model = asdict(config.model)
    assert unmovable(model) is None
    texts = Path(config.data.train.source).read_text(encoding="utf-8").split("\n")[:12]
    task = Task(run, texts, beam_size, 9)
    if who == "ct2":
        convert(best_weights(run), model, folder / "ct2")
        search = CTranslate2Search(task, folder / "ct2", "fp32")
    else:
        search = HuggingFaceSearch(task, model, "fp32")
    taken = {"ours": Measured("ours"), who: Measured(who)}
    for name, work in {"ours": OurSearch(task, [], "fp32"), who: search}.items():
        seconds, cpu_seconds, outputs = timed(work)
        taken[name].seconds, taken[name].cpu_seconds, taken[name].results = [seconds], [cpu_seconds], [outputs]
    rows = summary(taken, sentences=len(texts))
    assert rows[who]["equal"] == 1.0
    assert len(set(taken["ours"].results[0])) > 6  # not one answer to everything
    assert rows[who]["first_times"] == pytest.approx(rows["ours"]["sentences_per_sec"] / rows[who]["sentences_per_sec"])


def test_what_others_lack_is_named(run: Path) -> None:
    model = asdict(configuration.load(run / "config.yaml").model)
    assert unmovable({**model, "norm": "pre"}) == "model.norm=pre"
    assert unmovable({"family": "gru"}) == "model.family=gru"


def test_sentencepiece_alone_makes_the_tokens_that_a_store_holds(run: Path) -> None:
    config = configuration.load(run / "config.yaml")
    files = [Path(config.data.train.source), Path(config.data.train.target)]
    tokenizers = load_tokenizers(run / "tokenizer")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    encoder = SentencePieceEncoder([(file, run / "tokenizer" / "joint.model") for file in files])
    assert encoder.turn() == sum(len(tokenizers.source.encode(line)) for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "keys"),
    [
        ("train", ["--contenders", "ours-fp32", "bare-fp32", "hf-fp32", "--steps", "2", *TRANSFORMER]),
        ("data", ["tokenizer.vocab_size=400"]),
        ("startup", [*TRANSFORMER, *SHARED]),
    ],
)
def test_the_whole_command(verb: str, keys: list[str], tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts/benchmark.py", verb, "--rounds", "1", "--warmup", "0", "--threads", "1",
               "--folder", tmp_path, "--pairs", "300", "--json", tmp_path / "figures.json", *keys]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| ")
    assert json.loads((tmp_path / "figures.json").read_text())
