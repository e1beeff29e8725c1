"""Training with `Seq2SeqTrainer` of Hugging Face transformers, on the same batches as the other loops."""

import tempfile
import threading
from typing import Any

import torch
from bare_loop import PAD, TrainingTask, build_batch
from peers import build_marian
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback


class HuggingFaceLoop:
    """Runs a single call of `Seq2SeqTrainer.train` in a thread that pauses between turns.

    Args:
        task: Model, data and settings; a post-norm Transformer.
        precision: bf16 or fp32.
    """

    def __init__(self, task: TrainingTask, precision: str):
        self._batches = [_tensors(examples) for examples in task.batches]
        self._pause = _Pause(len(self._batches))
        self._model = build_marian(task.model, task.vocab_size)
        self._losses: list[float] = []
        optim = task.optim
        self._folder = tempfile.TemporaryDirectory()
        arguments = Seq2SeqTrainingArguments(
            self._folder.name, max_steps=1_000_000, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=True, bf16=precision == "bf16", label_smoothing_factor=task.label_smoothing,
            learning_rate=optim["lr"], warmup_steps=optim["warmup_steps"], weight_decay=optim["weight_decay"],
            adam_beta1=optim["betas"][0], adam_beta2=optim["betas"][1], adam_epsilon=optim["eps"],
            max_grad_norm=optim["clip_norm"], lr_scheduler_type="constant_with_warmup", seed=task.seed,
        )  # fmt: skip
        trainer = _Trainer(self._model, arguments, train_dataset=self._batches, callbacks=[self._pause])
        self._trainer = trainer
        self._thread = threading.Thread(target=trainer.train, daemon=True)
        self._thread.start()
        self._wait()

    def turn(self) -> float:
        """Makes one update per batch; returns the mean of their losses."""
        self._trainer.losses.clear()
        self._pause.resume.release()
        self._wait()
        return float(torch.stack(self._trainer.losses).mean())

    def _wait(self) -> None:
        while not self._pause.paused.acquire(timeout=1.0):
            if not self._thread.is_alive():
                raise RuntimeError("Seq2SeqTrainer has ended")

    def stats(self) -> dict[str, Any]:
        """Returns counts of a turn, like the bare loop's."""
        used = sum(int((batch[key] > PAD).sum()) for batch in self._batches for key in ("input_ids", "labels"))
        padded = sum(batch[key].numel() for batch in self._batches for key in ("input_ids", "labels"))
        return {
            "tokens": sum(int((batch["labels"] > PAD).sum()) for batch in self._batches),
            "padding_share": 1 - used / padded,
            "parameters": sum(p.numel() for p in self._model.parameters() if p.requires_grad),
        }


def _tensors(examples: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    batch = build_batch(examples)
    labels = torch.full_like(batch.tgt_in, -100).flatten()  # ignored by the loss
    labels[batch.rows] = batch.labels
    return {
        "input_ids": batch.src,
        "attention_mask": (batch.src != PAD).long(),
        "decoder_input_ids": batch.tgt_in,
        "labels": labels.view_as(batch.tgt_in),
    }


class _Trainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trains on ready-made batches and collects the losses of a turn in `losses`."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.losses: list[torch.Tensor] = []

    def get_train_dataloader(self) -> Any:
        """Returns the batches as they are, without distributing them over processes."""
        return DataLoader(self.train_dataset, batch_size=None, shuffle=False)

    def training_step(self, *arguments: Any, **settings: Any) -> Any:
        """Records the loss."""
        loss = super().training_step(*arguments, **settings)
        self.losses.append(loss)
        return loss


class _Pause(TrainerCallback):  # type: ignore[misc]
    """Pauses training before each turn until `resume` is released."""

    def __init__(self, steps: int):
        self._steps, self._started = steps, 0
        self.resume, self.paused = threading.Semaphore(0), threading.Semaphore(0)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Pauses at the first step of a turn."""
        if self._started % self._steps == 0:
            self.paused.release()
            self.resume.acquire()
        self._started += 1
