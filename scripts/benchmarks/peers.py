"""Other programs that decode with a run's weights: Hugging Face transformers and CTranslate2.

Both support the default Transformer: post-norm, sinusoidal positions, scaled dot-product attention, one embedding
table, no copying. In transformers this is the Marian architecture, from which CTranslate2 converts.
Inputs and outputs are texts, so that the time of every contender includes tokenization.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmark_turns import Benchmark

from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers

BATCH = 128  # sentences per batch, the default of this package
LENGTH_PENALTY = 1.0  # all rank by log-probability / length ^ this, with the end of sentence counted in the length

_CT2_TYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
_PACKAGES = {"hf": ("transformers", "accelerate"), "ct2": ("ctranslate2", "transformers")}
# Parts of a layer: our name, Marian's name.
_MARIAN_NAMES = {
    "self_attn_residual.norm": "self_attn_layer_norm",
    "encoder_attn_residual.norm": "encoder_attn_layer_norm",
    "feed_forward_residual.norm": "final_layer_norm",
    "feed_forward.fc": "fc",
}

Weights = Mapping[str, Any]


@dataclass(frozen=True)
class SearchTask:
    """Inputs and settings of a decoding benchmark.

    Attributes:
        run: The run folder.
        texts: The sources.
        beam_size: 1 is greedy search.
        max_length: Maximum tokens per output, including the end of sentence.
        max_source_length: Length that sources are truncated to, in tokens, including the end of sentence.
        threads: Threads per process.
    """

    run: Path
    texts: list[str]
    beam_size: int
    max_length: int
    max_source_length: int
    threads: int


def unsupported_key(model: Mapping[str, Any], framework: str = "hf") -> str | None:
    """Returns the first key=value of a model section that a contender does not support; None if there is none."""
    supported: dict[str, tuple[Any, ...]] = {"tie_embeddings": ("all",), "copy": (False,)}
    if framework == "bare" and model["family"] == "gru":
        supported |= {"encoder_layers": (1,), "decoder_layers": (1,), "attention": ("additive", "general"),
                   "coverage": (False,)}  # fmt: skip
    else:
        supported = {"family": ("transformer",), "norm": ("post",), "positions": ("sinusoidal",),
                  "attention": ("scaled_dot",), **supported}  # fmt: skip
    if framework == "bare" and model["family"] == "transformer":
        supported |= {"activation": ("relu",), "attention_dropout": (0.0,), "activation_dropout": (0.0,)}
    key = next((key for key, values in supported.items() if model[key] not in values), None)
    return key and f"model.{key}={getattr(model[key], 'value', model[key])}"


def supported_contenders(contenders: Sequence[str], model: Mapping[str, Any]) -> list[str]:
    """Returns the contenders, such as `hf-fp32`, that are installed and support this model; reports those left out."""
    supported = []
    for contender in contenders:
        framework = contender.partition("-")[0]
        key = None if framework == "ours" else unsupported_key(model, framework)
        if any(importlib.util.find_spec(package) is None for package in _PACKAGES.get(framework, ())):
            print(f"skipping {contender}: it needs pip install 'seq2seq[benchmark]'", file=sys.stderr)
        elif key is not None:
            print(f"skipping {contender}: it does not support {key}", file=sys.stderr)
        else:
            supported.append(contender)
    if not supported:
        sys.exit("no contender is left")
    return supported


def best_weights(run: Path) -> Weights:
    """Returns the named tensors of a run's best checkpoint."""
    from seq2seq.runs.checkpoint_store import CheckpointStore

    return CheckpointStore(run / "checkpoints").load("best", files=["model"]).tensors["model"]


def encode_sources(task: SearchTask, tokenizers: Tokenizers) -> list[list[int]]:
    """Returns the source ids of each text, ending with EOS."""
    max_ids = task.max_source_length - 1
    return [[*ids[:max_ids], EOS_ID] for ids in tokenizers.source.encode_batch(task.texts)]


def build_marian(model: Mapping[str, Any], vocab_size: int) -> Any:
    """Builds a `MarianMTModel` with the sizes of a model section and random weights."""
    from transformers import MarianConfig, MarianMTModel

    sizes = {
        f"{side}_{marian_name}": model[our_name.format(side)]
        for side in ("encoder", "decoder")
        for marian_name, our_name in (("layers", "{}_layers"), ("ffn_dim", "d_ff"), ("attention_heads", "num_heads"))
    }
    dropouts = {name: model[name] for name in ("dropout", "attention_dropout", "activation_dropout")}
    config = MarianConfig(
        vocab_size=vocab_size, d_model=model["d_model"], activation_function=model["activation"], **sizes, **dropouts,
        max_position_embeddings=1024, scale_embedding=True, decoder_start_token_id=BOS_ID, bos_token_id=BOS_ID,
        eos_token_id=EOS_ID, pad_token_id=PAD_ID, forced_eos_token_id=None,
    )  # fmt: skip
    return MarianMTModel(config)


def load_marian_weights(marian: Any, weights: Weights) -> None:
    """Loads a run's weights into a Marian model."""
    state_dict = {"model.shared.weight": weights["source_embedding.weight"]}
    for name, tensor in weights.items():
        if name.startswith(("encoder.", "decoder.")):
            for our_name, marian_name in _MARIAN_NAMES.items():
                name = name.replace(our_name, marian_name)
            stack, rest = name.split(".", 1)
            state_dict[f"model.{stack}.layers.{rest}"] = tensor
    incompatible = marian.load_state_dict(state_dict, strict=False)
    derived = ("embed_tokens", "embed_positions", "lm_head", "final_logits_bias")
    missing = [name for name in incompatible.missing_keys if not any(part in name for part in derived)]
    if missing or incompatible.unexpected_keys:
        raise ValueError(f"not Marian's layout: missing {missing}, unexpected {incompatible.unexpected_keys}")
    marian.tie_weights()


class HuggingFaceSearch(Benchmark):
    """`generate` of transformers on batches sorted by length."""

    def __init__(self, task: SearchTask, model: Mapping[str, Any], precision: str):
        import torch

        torch.set_num_threads(task.threads)
        self._task = task
        self._tokenizers = load_tokenizers(task.run / "tokenizer")
        self._model = build_marian(model, self._tokenizers.target.vocab_size).eval()
        load_marian_weights(self._model, best_weights(task.run))
        if precision == "bf16":
            self._model = self._model.to(torch.bfloat16)

    def turn(self) -> list[str]:
        """Returns the outputs, in order."""
        import torch

        sources = encode_sources(self._task, self._tokenizers)
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        texts = [""] * len(sources)
        for start in range(0, len(order), BATCH):
            indices = order[start : start + BATCH]
            src = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(sources[i]) for i in indices], batch_first=True, padding_value=PAD_ID
            )
            with torch.inference_mode():
                outputs = self._model.generate(
                    input_ids=src, attention_mask=(src != PAD_ID).long(), num_beams=self._task.beam_size,
                    max_new_tokens=self._task.max_length, min_new_tokens=0, do_sample=False, num_return_sequences=1,
                    length_penalty=LENGTH_PENALTY, no_repeat_ngram_size=0,
                )  # fmt: skip
            for i, ids in zip(indices, outputs.tolist(), strict=True):
                texts[i] = self._tokenizers.target.decode(list(takewhile(lambda token: token != EOS_ID, ids[1:])))
        return texts


class CTranslate2Search(Benchmark):
    """`translate_batch` of CTranslate2, one worker with all threads."""

    def __init__(self, task: SearchTask, converted: Path, precision: str):
        import ctranslate2

        self._task = task
        self._tokenizers = load_tokenizers(task.run / "tokenizer")
        self._translator = ctranslate2.Translator(
            str(converted), device="cpu", compute_type=_CT2_TYPES[precision], inter_threads=1,
            intra_threads=task.threads,
        )  # fmt: skip

    def turn(self) -> list[str]:
        """Returns the outputs, in order; CTranslate2 sorts by length itself."""
        tokens = [[str(token) for token in ids] for ids in encode_sources(self._task, self._tokenizers)]
        results = self._translator.translate_batch(  # its defaults truncate sources and require one token
            tokens, beam_size=self._task.beam_size, max_decoding_length=self._task.max_length, min_decoding_length=0,
            sampling_topk=1, num_hypotheses=1, length_penalty=LENGTH_PENALTY, coverage_penalty=0.0,
            no_repeat_ngram_size=0, max_input_length=0, max_batch_size=BATCH,
        )  # fmt: skip
        return [self._tokenizers.target.decode([int(token) for token in result.hypotheses[0]]) for result in results]


def convert_to_ctranslate2(weights: Weights, model: Mapping[str, Any], folder: Path) -> None:
    """Converts a run's weights to a CTranslate2 model whose tokens are the ids as text."""
    from ctranslate2.converters.transformers import BartLoader

    marian = build_marian(model, len(weights["source_embedding.weight"]))
    load_marian_weights(marian, weights)
    marian.config.normalize_before = marian.config.normalize_embedding = False
    # Not CTranslate2's loader for Marian, which drops the last token, the padding of published Marian models.
    spec = BartLoader().get_model_spec(marian)
    tokens = [str(token) for token in range(marian.config.vocab_size)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    config = spec.config
    config.unk_token, config.bos_token, config.eos_token = tokens[UNK_ID], tokens[BOS_ID], tokens[EOS_ID]
    config.decoder_start_token = tokens[BOS_ID]
    config.layer_norm_epsilon = 1e-5
    config.add_source_eos = False
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
