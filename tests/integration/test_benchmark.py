"""The benchmark measures in turns, and those it compares do the same work."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]

import matrix_products  # noqa: E402
import peers  # noqa: E402
from bare_loop import BareLoop, TrainingTask, build_batch  # noqa: E402
from benchmark_commands import Command, SentencePieceEncoder  # noqa: E402
from benchmark_corpus import compose_config, corpus_overrides  # noqa: E402
from benchmark_decoding import OurSearch, summarize  # noqa: E402
from benchmark_training import OurLoop, prepare_data, require_equal_work, training_task  # noqa: E402
from benchmark_turns import Contender, Timings, take_turns, time_turn  # noqa: E402
from matrix_products import MatrixProducts  # noqa: E402
from peers import (  # noqa: E402
    CTranslate2Search,
    HuggingFaceSearch,
    SearchTask,
    best_weights,
    convert_to_ctranslate2,
    supported_contenders,
    unsupported_key,
)

from seq2seq.config import saved  # noqa: E402
from seq2seq.models.build import build_model  # noqa: E402
from seq2seq.pipeline.build import vocabulary  # noqa: E402
from seq2seq.runs.checkpoint_store import CheckpointStore  # noqa: E402
from seq2seq.search.config import SearchConfig  # noqa: E402
from seq2seq.system.plain_yaml import flatten  # noqa: E402
from seq2seq.tokenizers.pair import load_tokenizers  # noqa: E402

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
# A run's own search, none of which may play a part when it is measured beside others.
OWN_SEARCH = ("search.beam_size=3", "search.max_length=20", "search.min_length=5", "search.max_length_ratio=0.1",
              "search.length_penalty=0.3", "search.coverage_penalty=0.5", "search.no_repeat_ngram=1", "search.n_best=2",
              "search.precision=bf16", "search.batch_size=5", "search.batch_tokens=50", "search.sampling=true",
              "search.top_k=3", "search.seed=4")  # fmt: skip
SHARED = ("trainer.device=cpu", "trainer.batch_tokens=256", "optim.warmup_steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


def measured(name: str, *seconds: float) -> Timings:
    return Timings(name, list(seconds), [2 * second for second in seconds])


def test_ratios_are_those_of_the_rounds() -> None:
    """A disturbance that slows a whole round down leaves them alone."""
    ours, theirs = measured("ours", 1.0, 10.0, 2.0), measured("theirs", 2.0, 20.0, 8.0)
    assert ours.speedup_over(theirs) == 2.0
    assert theirs.cpu_speedup_over(ours) == 0.5
    assert (ours.median(), ours.spread()) == (2.0, 4.5)


def test_contenders_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    code = f"import os, sys; open({str(diary)!r}, 'a').write(f'{{sys.argv[1]}} {{os.getppid()}}\\n')"
    contenders = [Contender(name, Command, ([sys.executable, "-Sc", code, name],)) for name in "AB"]
    taken = take_turns(contenders, rounds=2, warmup=1, threads=1)
    turns = [line.split() for line in diary.read_text().splitlines()]
    first, second = (process for _, process in turns[:2])
    assert turns == [["A", first], ["B", second]] * 3
    assert len({first, second, str(os.getpid())}) == 3
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
def tasks(overrides: dict[str, list[str]]) -> dict[str, TrainingTask]:
    """One step's work for each of them."""
    return {name: training_task(keys, 1) for name, keys in overrides.items()}


@pytest.mark.parametrize("name", MODELS)
def test_the_bare_loop_trains_the_same_model_on_the_same_tokens(
    name: str, overrides: dict[str, list[str]], tasks: dict[str, TrainingTask]
) -> None:
    loops = {"ours": OurLoop(overrides[name], "fp32", 1), "bare": BareLoop(tasks[name], "fp32")}
    taken = [Timings(name, stats=loop.stats()) for name, loop in loops.items()]
    require_equal_work(taken)
    assert taken[0].stats["parameters"] == taken[1].stats["parameters"]
    for loop in loops.values():
        losses = [loop.turn() for _ in range(6)]
        assert losses[-1] < losses[0]
    with pytest.raises(SystemExit, match="tokens ours"):
        require_equal_work([taken[0], Timings("other", stats={**taken[1].stats, "tokens": 1})])


@pytest.mark.parametrize("name", MODELS)
def test_the_bare_loop_attends_to_no_padding(name: str, tasks: dict[str, TrainingTask]) -> None:
    """Examples of two lengths in one batch have the losses that they have alone."""
    task = replace(tasks[name], model={**tasks[name].model, "dropout": 0.0})
    loop, examples = BareLoop(task, "fp32"), sorted(task.batches[0], key=lambda pair: len(pair[0]))
    pair = [examples[0], ([*examples[-1][0], 7, 8, 9], examples[-1][1])]
    alone = [loop.loss(build_batch([one])) * len(one[1]) for one in pair]
    together = loop.loss(build_batch(pair)) * sum(len(target) for _, target in pair)
    torch.testing.assert_close(together, alone[0] + alone[1])


def test_products_are_counted(tasks: dict[str, TrainingTask], monkeypatch: pytest.MonkeyPatch) -> None:
    """6 operations a weight and position, 2 forward and 4 backward; the products within attention come on top."""
    monkeypatch.setattr(matrix_products, "_SECONDS", 0.01)
    task = tasks["transformer"]
    loop, products = BareLoop(task, "fp32"), MatrixProducts(task, "fp32")
    batch = loop.batches[0]
    positions = {"encoder": batch.src.numel(), "decoder": batch.tgt_in.numel()}
    expected = 6 * batch.labels.numel() * loop.model.embedding.weight.numel()
    for name, parameter in loop.model.named_parameters():
        if parameter.ndim == 2 and name.startswith(("encoder", "decoder")):
            read = "encoder" if "source_attention.kv" in name else name.partition(".")[0]
            expected += 6 * positions[read] * parameter.numel()
    assert expected < products.stats()["flops"] < 1.2 * expected
    assert products.turn() > 1e6


@pytest.mark.parametrize("name", MODELS)
def test_the_products_counted_are_those_of_the_bare_loop(name: str, tasks: dict[str, TrainingTask]) -> None:
    """As torch counts them; of a GRU nearly so, which may combine context and state before or after it attends."""
    loop = BareLoop(tasks[name], "fp32")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for batch in loop.batches:
            loop.loss(batch).backward()
    tolerance = 0.0 if name == "transformer" else 0.1
    assert MatrixProducts(tasks[name], "fp32").stats()["flops"] == pytest.approx(
        counter.get_total_flops(), rel=tolerance
    )


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run folder with a Transformer of random weights, large enough that its outputs differ."""
    keys = [*SHARED, *TRANSFORMER, *OWN_SEARCH, "model.dropout=0", "tokenizer.vocab_size=400"]
    config = compose_config(corpus_overrides(folder, 60, keys, tokenizer="unigram"))
    data = prepare_data(config)
    path = folder / "run"
    path.mkdir()
    (path / "config.yaml").write_text(saved.to_yaml(config), encoding="utf-8")
    data.tokenizers.save(path / "tokenizer")
    torch.manual_seed(3)
    model = build_model(config.model, vocabulary(data.tokenizers))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(4.0 if parameter.ndim == 2 and "embedding" not in name else 1.0)
    store = CheckpointStore(path / "checkpoints")
    made_with = {"tokenizer": data.tokenizers.fingerprint()}
    store.link("best", store.save(1, {"model": dict(model.state_dict())}, {}, fingerprints=made_with))
    return path


@pytest.mark.parametrize(
    ("who", "beam_size"),
    [("ct2", 1), ("ct2", 5), *(pytest.param("hf", size, marks=pytest.mark.slow) for size in (1, 5))],
)
def test_others_find_the_same_with_a_runs_weights(who: str, beam_size: int, run: Path, folder: Path) -> None:
    pytest.importorskip({"ct2": "ctranslate2", "hf": "transformers"}[who])
    config = saved.load(run / "config.yaml")
    model = asdict(config.model)
    assert unsupported_key(model) is None
    texts = Path(config.data.train.source).read_text(encoding="utf-8").split("\n")[:12]
    task = SearchTask(run, texts, beam_size, max_length=9, max_source_length=15, threads=1)
    if who == "ct2":
        convert_to_ctranslate2(best_weights(run), model, folder / "ct2")
        search = CTranslate2Search(task, folder / "ct2", "fp32")
    else:
        search = HuggingFaceSearch(task, model, "fp32")
    taken = {"ours": Timings("ours"), who: Timings(who)}
    for name, work in {"ours": OurSearch(task, [], "fp32"), who: search}.items():
        seconds, cpu_seconds, outputs = time_turn(work)
        taken[name].seconds, taken[name].cpu_seconds, taken[name].results = [seconds], [cpu_seconds], [outputs]
    rows = summarize(taken, sentences=len(texts))
    assert rows[who]["equal"] == 1.0
    assert len(set(taken["ours"].results[0])) > 6  # not one answer to everything
    assert rows[who]["first_times"] == pytest.approx(rows["ours"]["sentences_per_sec"] / rows[who]["sentences_per_sec"])


def test_what_others_lack_is_named(run: Path) -> None:
    model = asdict(saved.load(run / "config.yaml").model)
    assert unsupported_key({**model, "norm": "pre"}) == "model.norm=pre"
    assert unsupported_key({"family": "gru"}) == "model.family=gru"
    assert unsupported_key({**model, "activation": "gelu"}) is None
    assert unsupported_key({**model, "activation": "gelu"}, "bare") == "model.activation=gelu"


def test_the_bare_loop_is_left_out_where_its_model_is_another(
    tasks: dict[str, TrainingTask], capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(unsupported_key(task.model, "bare") is None for task in tasks.values())
    deeper = {**tasks["gru"].model, "encoder_layers": 2}
    assert supported_contenders(["ours-fp32", "bare-fp32", "bare-bf16"], deeper) == ["ours-fp32"]
    assert "skipping bare-bf16: it does not support model.encoder_layers=2" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no contender is left"):
        supported_contenders(["bare-fp32"], deeper)


def test_a_loop_does_what_is_fixed_for_all_whatever_an_experiment_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overrides in the place of what an experiment's file may hold; they reach the loop unrefused here."""
    said = ["optim.name=adam", "optim.schedule=linear", "optim.ema_decay=0.9", "trainer.precision=bf16",
            "trainer.threads=2"]  # fmt: skip
    loop = OurLoop(corpus_overrides(folder, 60, [*SHARED, *TRANSFORMER, *said]), "fp32", 1)
    values = flatten(saved.to_mapping(loop._config))
    found = {key: values[key] for key in (override.partition("=")[0] for override in said)}
    assert found == {"optim.name": "adamw", "optim.schedule": "constant", "optim.ema_decay": 0.0,
                     "trainer.precision": "fp32", "trainer.threads": None}  # fmt: skip


class Recorder(torch.nn.Module):
    """In the place of a library's model: `given` is what its search was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.given: dict[str, Any] = {}

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **given: Any) -> torch.Tensor:
        self.given = {**given, "source": input_ids[0, : int(attention_mask[0].sum())].tolist()}
        return input_ids

    def translate_batch(self, tokens: list[list[str]], **given: Any) -> list[Any]:
        self.given = {**given, "source": [int(token) for token in tokens[0]]}
        return [SimpleNamespace(hypotheses=[tokens]) for tokens in tokens]


def asked_of_ours(task: SearchTask, precision: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    torch.set_num_threads(3 - task.threads)
    search = OurSearch(task, [], precision)
    generator = search._generator
    assert generator.device.type == "cpu"
    passed: dict[str, Any] = {}

    def searched(models: Any, src: torch.Tensor, config: SearchConfig, **_: Any) -> list[Any]:
        passed.update(source=src[0].tolist(), **asdict(config))
        return [[] for _ in src]

    monkeypatch.setattr("seq2seq.inference.generator.search", searched)
    generator.generate_nbest(task.texts)
    assert passed.pop("batch_tokens") == SearchConfig().batch_tokens
    of_sampling = ("temperature", "top_k", "top_p", "seed")
    asked = {key: value for key, value in passed.items() if key not in of_sampling}
    return {**asked, "threads": torch.get_num_threads()}


def asked_of_hugging_face(task: SearchTask, precision: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`generate` divides by length ^ length_penalty; coverage and lengths relative to the source are unknown to it."""
    torch.set_num_threads(3 - task.threads)
    model = Recorder()
    monkeypatch.setattr(peers, "build_marian", lambda *_: model)
    monkeypatch.setattr(peers, "load_marian_weights", lambda *_: None)
    HuggingFaceSearch(task, {}, precision).turn()
    names = {"num_beams": "beam_size", "max_new_tokens": "max_length", "min_new_tokens": "min_length", "do_sample":
             "sampling", "num_return_sequences": "n_best", "no_repeat_ngram_size": "no_repeat_ngram"}  # fmt: skip
    asked = {names.get(name, name): value for name, value in model.given.items()}
    precisions = {torch.float32: "fp32", torch.bfloat16: "bf16"}
    return {**asked, "length_normalization": "average", "coverage_penalty": 0.0, "max_length_ratio": None,
            "batch_size": peers.BATCH, "precision": precisions[model.weight.dtype],
            "threads": torch.get_num_threads()}  # fmt: skip


def asked_of_ctranslate2(task: SearchTask, precision: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`translate_batch` divides by length ^ length_penalty; it samples from the `sampling_topk` best tokens."""
    model, made = Recorder(), {}

    def translator(_: str, **settings: Any) -> Recorder:
        made.update(settings)
        return model

    monkeypatch.setitem(sys.modules, "ctranslate2", SimpleNamespace(Translator=translator))
    CTranslate2Search(task, Path("converted"), precision).turn()
    assert made.pop("device") == "cpu"
    assert made.pop("inter_threads") == 1
    assert model.given.pop("max_input_length") == 0  # cuts nothing off
    names = {"max_decoding_length": "max_length", "min_decoding_length": "min_length", "num_hypotheses": "n_best",
             "no_repeat_ngram_size": "no_repeat_ngram", "max_batch_size": "batch_size"}  # fmt: skip
    asked = {names.get(name, name): value for name, value in model.given.items()}
    precisions = {"float32": "fp32", "bfloat16": "bf16"}
    sampling = asked.pop("sampling_topk") != 1
    return {**asked, "sampling": sampling, "length_normalization": "average", "max_length_ratio": None,
            "precision": precisions[made["compute_type"]], "threads": made["intra_threads"]}  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("beam_size", [1, 4])
def test_all_are_asked_for_the_same_search(
    beam_size: int, precision: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever search the run was configured with."""
    config = saved.load(run / "config.yaml")
    text = " ".join(Path(config.data.train.source).read_text(encoding="utf-8").split()[:20])
    task = SearchTask(run, [text], beam_size, max_length=17, max_source_length=11, threads=2)
    ours, *others = [
        ask(task, precision, monkeypatch) for ask in (asked_of_ours, asked_of_hugging_face, asked_of_ctranslate2)
    ]
    torch.set_num_threads(1)
    assert others == [ours, ours]
    asked_for = {"beam_size": beam_size, "max_length": 17, "precision": precision, "threads": 2}
    assert ours.items() >= asked_for.items()
    assert len(ours["source"]) == 11


def test_sentencepiece_alone_makes_the_tokens_that_a_store_holds(run: Path) -> None:
    config = saved.load(run / "config.yaml")
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
    command = [sys.executable, ROOT / "scripts/benchmarks/benchmark.py", verb, "--rounds", "1", "--warmup", "0",
               "--threads", "1", "--folder", tmp_path, "--pairs", "300", "--json", tmp_path / "figures.json",
               *keys]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| ")
    assert json.loads((tmp_path / "figures.json").read_text())


@pytest.mark.slow
def test_the_whole_search(run: Path, tmp_path: Path) -> None:
    source = saved.load(run / "config.yaml").data.train.source
    options = ["--run", run, "--input", source, "--sentences", "9", "--beams", "1", "2", "--contenders", "ours-fp32",
               "ours-bf16", "--threads", "1", "--rounds", "1", "--warmup", "0", "--json", tmp_path / "out"]  # fmt: skip
    script = [sys.executable, ROOT / "scripts/benchmarks/benchmark.py", "generate"]
    done = subprocess.run([*script, "search.batch_size=4", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out").read_text())
    assert all(set(figures[f"beam_size={size}"]) == {"ours-fp32", "ours-bf16"} for size in (1, 2))
    refused = subprocess.run([*script, "search.beam_size=1", *options], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "search.beam_size=1: search.beam_size is the same for all contenders: give --beams\n"
