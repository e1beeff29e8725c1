"""Other programs that search with a run's weights: Hugging Face transformers and CTranslate2.

Both take a Transformer as it is by default: post-norm, sinusoids, scaled attention, one table of embeddings, no
copying. transformers has this layout under the name of Marian, CTranslate2 has a description of layers to fill in.
Texts go in and come out, so that every contender does the work of its tokenizer too.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers

BATCH = 128  # sentences at once, as many as ours by default
LENGTH_PENALTY = 1.0  # all rank beams by log-probability / length ^ this, the end of sentence counted

_CT2_TYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
_PACKAGES = {"hf": ("transformers", "accelerate"), "ct2": ("ctranslate2",)}
# Parts of a layer: ours, Marian's.
_MARIAN_NAMES = {
    "self_attn_residual.norm": "self_attn_layer_norm",
    "encoder_attn_residual.norm": "encoder_attn_layer_norm",
    "feed_forward_residual.norm": "final_layer_norm",
    "feed_forward.fc": "fc",
}

Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """What is to be searched.

    Attributes:
        run: The run folder.
        texts: The sources.
        beam_size: 1 is greedy search.
        max_length: Most tokens of an output, end of sentence counted.
        max_source_length: Tokens of a source that are read, end of sentence counted.
        threads: Of a process.
    """

    run: Path
    texts: list[str]
    beam_size: int
    max_length: int
    max_source_length: int
    threads: int


def unmovable(model: Mapping[str, Any], who: str = "hf") -> str | None:
    """The key of a model section for which a contender has no counterpart; None if there is none."""
    wanted: dict[str, tuple[Any, ...]] = {"tie_embeddings": ("all",), "copy": (False,)}
    if who == "bare" and model["family"] == "gru":
        wanted |= {"encoder_layers": (1,), "decoder_layers": (1,), "attention": ("additive", "general"),
                   "coverage": (False,)}  # fmt: skip
    else:
        wanted = {"family": ("transformer",), "norm": ("post",), "positions": ("sinusoidal",),
                  "attention": ("scaled_dot",), **wanted}  # fmt: skip
    if who == "bare" and model["family"] == "transformer":
        wanted |= {"activation": ("relu",), "attention_dropout": (0.0,), "activation_dropout": (0.0,)}
    wrong = next((key for key, values in wanted.items() if model[key] not in values), None)
    return wrong and f"model.{wrong}={getattr(model[wrong], 'value', model[wrong])}"


def comparable(contenders: Sequence[str], model: Mapping[str, Any]) -> list[str]:
    """Those, `hf-fp32` for instance, that are installed and have this kind of model; says who is left out."""
    kept = []
    for contender in contenders:
        who = contender.partition("-")[0]
        key = None if who == "ours" else unmovable(model, who)
        if any(importlib.util.find_spec(package) is None for package in _PACKAGES.get(who, ())):
            print(f"without {contender}: pip install 'seq2seq[benchmark]'", file=sys.stderr)
        elif key is not None:
            print(f"without {contender}: it has no counterpart of {key}", file=sys.stderr)
        else:
            kept.append(contender)
    if not kept:
        sys.exit("no contender is left")
    return kept


def best_weights(run: Path) -> Weights:
    """The tensors of a run's best checkpoint by their names."""
    from seq2seq.runs.checkpoint import CheckpointStore

    return CheckpointStore(run / "checkpoints").load("best", files=["model"]).tensors["model"]


def encoded(task: Task, tokenizers: Tokenizers) -> list[list[int]]:
    """Source ids of each text, ended by EOS."""
    most = task.max_source_length - 1
    return [[*ids[:most], EOS_ID] for ids in tokenizers.source.encode_batch(task.texts)]


def marian(model: Mapping[str, Any], vocab_size: int) -> Any:
    """A `MarianMTModel` of the sizes of a model section, with random weights."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    sizes = {
        f"{side}_{theirs}": model[own.format(side)]
        for side in ("encoder", "decoder")
        for theirs, own in (("layers", "{}_layers"), ("ffn_dim", "d_ff"), ("attention_heads", "num_heads"))
    }
    dropouts = {name: model[name] for name in ("dropout", "attention_dropout", "activation_dropout")}
    config = MarianConfig(
        vocab_size=vocab_size, d_model=model["d_model"], activation_function=model["activation"], **sizes, **dropouts,
        max_position_embeddings=1024, scale_embedding=True, decoder_start_token_id=BOS_ID, bos_token_id=BOS_ID,
        eos_token_id=EOS_ID, pad_token_id=PAD_ID, forced_eos_token_id=None,
    )  # fmt: skip
    theirs: Any = MarianMTModel(config)
    with torch.no_grad():
        for stack in (theirs.model.encoder, theirs.model.decoder):
            stack.embed_positions.weight.copy_(stack.embed_positions.create_weight())
    return theirs


def fill_marian(theirs: Any, weights: Weights) -> None:
    """Gives it a run's weights."""
    named = {"model.shared.weight": weights["source_embedding.weight"]}
    for name, tensor in weights.items():
        if name.startswith(("encoder.", "decoder.")):
            for own, other in _MARIAN_NAMES.items():
                name = name.replace(own, other)
            stack, rest = name.split(".", 1)
            named[f"model.{stack}.layers.{rest}"] = tensor
    left = theirs.load_state_dict(named, strict=False)
    derived = ("embed_tokens", "embed_positions", "lm_head", "final_logits_bias")
    missing = [name for name in left.missing_keys if not any(part in name for part in derived)]
    if missing or left.unexpected_keys:
        raise ValueError(f"not Marian's layout: {missing} are missing, {left.unexpected_keys} are unknown")
    theirs.tie_weights()


def hugging_face_settings(task: Task) -> dict[str, Any]:
    """Keywords for `generate` of transformers, whose own are greedy search and no limits but of length."""
    return {
        "num_beams": task.beam_size, "max_new_tokens": task.max_length, "min_new_tokens": 0, "do_sample": False,
        "num_return_sequences": 1, "length_penalty": LENGTH_PENALTY, "no_repeat_ngram_size": 0,
    }  # fmt: skip


def ctranslate2_settings(task: Task) -> dict[str, Any]:
    """Keywords for `translate_batch`, whose own would cut off sources and want one token at least."""
    return {
        "beam_size": task.beam_size, "max_decoding_length": task.max_length, "min_decoding_length": 0,
        "sampling_topk": 1, "num_hypotheses": 1, "length_penalty": LENGTH_PENALTY, "coverage_penalty": 0.0,
        "no_repeat_ngram_size": 0, "max_input_length": 0, "max_batch_size": BATCH,
    }  # fmt: skip


class HuggingFaceSearch:
    """`generate` of transformers, over batches sorted by length."""

    def __init__(self, task: Task, model: Mapping[str, Any], precision: str):
        import torch

        torch.set_num_threads(task.threads)
        self._task = task
        self._tokenizers = load_tokenizers(task.run / "tokenizer")
        self._model = marian(model, self._tokenizers.target.vocab_size).eval()
        fill_marian(self._model, best_weights(task.run))
        if precision == "bf16":
            self._model = self._model.to(torch.bfloat16)

    def turn(self) -> list[str]:
        """The outputs, in order."""
        import torch

        sources = encoded(self._task, self._tokenizers)
        order = sorted(range(len(sources)), key=lambda number: -len(sources[number]))
        texts = [""] * len(sources)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            rows = [torch.tensor(sources[place]) for place in places]
            src = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ID)
            with torch.inference_mode():
                found = self._model.generate(
                    input_ids=src, attention_mask=(src != PAD_ID).long(), **hugging_face_settings(self._task)
                )
            for place, ids in zip(places, found.tolist(), strict=True):
                texts[place] = self._tokenizers.target.decode(list(takewhile(lambda i: i != EOS_ID, ids[1:])))
        return texts

    def facts(self) -> dict[str, Any]:
        """Nothing beyond what is measured."""
        return {}


class CTranslate2Search:
    """CTranslate2's batch translation, one worker with all threads."""

    def __init__(self, task: Task, converted: Path, precision: str):
        import ctranslate2

        self._task = task
        self._tokenizers = load_tokenizers(task.run / "tokenizer")
        self._translator = ctranslate2.Translator(
            str(converted), device="cpu", compute_type=_CT2_TYPES[precision], inter_threads=1,
            intra_threads=task.threads,
        )  # fmt: skip

    def turn(self) -> list[str]:
        """The outputs, in order; it sorts by length itself."""
        tokens = [[str(token) for token in ids] for ids in encoded(self._task, self._tokenizers)]
        found = self._translator.translate_batch(tokens, **ctranslate2_settings(self._task))
        return [self._tokenizers.target.decode([int(token) for token in one.hypotheses[0]]) for one in found]

    def facts(self) -> dict[str, Any]:
        """Nothing beyond what is measured."""
        return {}


def convert(weights: Weights, model: Mapping[str, Any], folder: Path) -> None:
    """Writes a run's weights as a model of CTranslate2, whose tokens are the ids as words."""
    import ctranslate2
    import torch
    from ctranslate2.specs import TransformerSpec

    from seq2seq.models.embedding import sinusoids

    gelu = model["activation"] == "gelu"
    activation = ctranslate2.specs.Activation.GELU if gelu else ctranslate2.specs.Activation.RELU
    layers = (model["encoder_layers"], model["decoder_layers"])
    spec = TransformerSpec.from_config(layers, model["num_heads"], pre_norm=False, activation=activation)
    table = weights["source_embedding.weight"].numpy()
    positions = sinusoids(1024, model["d_model"]).numpy()
    for side, embeddings in ((spec.encoder, spec.encoder.embeddings[0]), (spec.decoder, spec.decoder.embeddings)):
        embeddings.weight = table
        side.scale_embeddings = True
        side.position_encodings.encodings = positions
    spec.decoder.projection.weight = table

    def fill(target: Any, *names: str) -> None:
        target.weight = torch.cat([weights[f"{name}.weight"] for name in names]).numpy()
        target.bias = torch.cat([weights[f"{name}.bias"] for name in names]).numpy()

    def fill_norm(target: Any, name: str) -> None:
        target.gamma, target.beta = (weights[f"{name}.norm.{part}"].numpy() for part in ("weight", "bias"))

    for stack, side in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        for number, layer in zip(count(), side.layer, strict=False):
            own = f"{stack}.{number}"
            inner = layer.self_attention
            fill(inner.linear[0], *(f"{own}.self_attn.{part}_proj" for part in "qkv"))
            fill(inner.linear[1], f"{own}.self_attn.out_proj")
            fill_norm(inner.layer_norm, f"{own}.self_attn_residual")
            if stack == "decoder":
                fill(layer.attention.linear[0], f"{own}.encoder_attn.q_proj")
                fill(layer.attention.linear[1], *(f"{own}.encoder_attn.{part}_proj" for part in "kv"))
                fill(layer.attention.linear[2], f"{own}.encoder_attn.out_proj")
                fill_norm(layer.attention.layer_norm, f"{own}.encoder_attn_residual")
            fill(layer.ffn.linear_0, f"{own}.feed_forward.fc1")
            fill(layer.ffn.linear_1, f"{own}.feed_forward.fc2")
            fill_norm(layer.ffn.layer_norm, f"{own}.feed_forward_residual")
    words = [str(token) for token in range(len(table))]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    _configure(spec.config)
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


def _configure(config: Any) -> None:
    config.unk_token, config.bos_token, config.eos_token = str(UNK_ID), str(BOS_ID), str(EOS_ID)
    config.decoder_start_token = str(BOS_ID)
    config.layer_norm_epsilon = 1e-5
    config.add_source_eos = False
