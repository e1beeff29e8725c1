"""Other programs that search with a run's weights: Hugging Face transformers and CTranslate2.

Both take a Transformer as it is by default: post-norm, sinusoids, scaled attention, one table of embeddings, no
copying. transformers has this layout under the name of Marian, CTranslate2 has a description of layers to fill in.
Texts go in and come out, so that every contender does the work of its tokenizer too.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from seq2seq.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizers, load_tokenizers

BATCH = 128  # sentences at once, as many as ours by default

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
    """

    run: Path
    texts: list[str]
    beam_size: int
    max_length: int


def unmovable(model: Mapping[str, Any]) -> str | None:
    """The key of a model section for which the others have no counterpart; None if there is none."""
    wanted = {"family": "transformer", "norm": "post", "positions": "sinusoidal", "attention": "scaled_dot",
              "tie_embeddings": "all", "copy": False}  # fmt: skip
    return next((f"model.{key}={model[key]}" for key, value in wanted.items() if model[key] != value), None)


def can_compare(contender: str, model: Mapping[str, Any]) -> bool:
    """Whether a contender, `hf-fp32` for instance, is installed and has this kind of model; says so if not."""
    packages = _PACKAGES.get(contender.partition("-")[0], ())
    for package in packages:
        if importlib.util.find_spec(package) is None:
            print(f"without {contender}: pip install 'seq2seq[benchmark]'", file=sys.stderr)
            return False
    key = unmovable(model) if packages else None
    if key is not None:
        print(f"without {contender}: it has no counterpart of {key}", file=sys.stderr)
    return key is None


def best_weights(run: Path) -> Weights:
    """The tensors of a run's best checkpoint by their names."""
    from seq2seq.checkpoint import CheckpointStore

    return CheckpointStore(run / "checkpoints").load("best", files=["model"]).tensors["model"]


def encoded(task: Task, tokenizers: Tokenizers) -> list[list[int]]:
    """Source ids of each text, ended by EOS."""
    return [[*ids, EOS_ID] for ids in tokenizers.source.encode_batch(task.texts)]


def marian(model: Mapping[str, Any], vocab_size: int) -> Any:
    """A `MarianMTModel` of the sizes of a model section, with random weights."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    sizes = {
        f"{side}_{theirs}": model[own.format(side)]
        for side in ("encoder", "decoder")
        for theirs, own in (("layers", "{}_layers"), ("ffn_dim", "d_ff"), ("attention_heads", "num_heads"))
    }
    config = MarianConfig(
        vocab_size=vocab_size, d_model=model["d_model"], activation_function=model["activation"], **sizes,
        dropout=model["dropout"], max_position_embeddings=1024, scale_embedding=True, decoder_start_token_id=BOS_ID,
        bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID, forced_eos_token_id=None,
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


class HuggingFaceSearch:
    """`generate` of transformers, over batches sorted by length."""

    def __init__(self, task: Task, model: Mapping[str, Any], precision: str):
        import torch

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
                    input_ids=src, attention_mask=(src != PAD_ID).long(), num_beams=self._task.beam_size,
                    max_new_tokens=self._task.max_length, do_sample=False, length_penalty=1.0,
                )  # fmt: skip
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
        types = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
        self._translator = ctranslate2.Translator(
            str(converted), compute_type=types[precision], inter_threads=1,
            intra_threads=int(os.environ["OMP_NUM_THREADS"]),
        )  # fmt: skip

    def turn(self) -> list[str]:
        """The outputs, in order; it sorts by length itself."""
        tokens = [[str(token) for token in ids] for ids in encoded(self._task, self._tokenizers)]
        found = self._translator.translate_batch(
            tokens, beam_size=self._task.beam_size, max_batch_size=BATCH, length_penalty=1.0,
            max_decoding_length=self._task.max_length,
        )  # fmt: skip
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
