"""Training with `Seq2SeqTrainer` of Hugging Face transformers, on the same batches as the other loops."""

import tempfile
import threading
from typing import Any

import torch
from bare_loop import PAD, BareBatch, TrainingTask, build_batch, turn_stats
from peers import build_marian
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments


class HuggingFaceLoop:
    """Runs a single call of `Seq2SeqTrainer.train` in a thread that pauses between turns.

    Args:
        task: Model, data and settings; a post-norm Transformer.
        precision: bf16 or fp32.
    """

    def __init__(self, task: TrainingTask, precision: str):
        self._batches = [build_batch(examples) for examples in task.batches]
        self._model = build_marian(task.model, task.vocab_size)
        optim = task.optim
        self._folder = tempfile.TemporaryDirectory()
        arguments = Seq2SeqTrainingArguments(
            self._folder.name, max_steps=1_000_000, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=True, bf16=precision == "bf16", label_smoothing_factor=task.label_smoothing,
            learning_rate=optim["lr"], warmup_steps=optim["warmup_steps"], weight_decay=optim["weight_decay"],
            adam_beta1=optim["betas"][0], adam_beta2=optim["betas"][1], adam_epsilon=optim["eps"],
            max_grad_norm=optim["clip_norm"], lr_scheduler_type="constant_with_warmup", seed=task.seed,
        )  # fmt: skip
        dataset = [_tensors(batch) for batch in self._batches]
        self._trainer = _Trainer(self._model, arguments, train_dataset=dataset)
        self._thread = threading.Thread(target=self._trainer.train, daemon=True)
        self._thread.start()
        self._wait()

    def turn(self) -> float:
        """Makes one update per batch; returns the mean of their losses."""
        self._trainer.resume.release()
        self._wait()
        return float(torch.stack(self._trainer.losses).mean())

    def _wait(self) -> None:
        while not self._trainer.paused.acquire(timeout=1.0):
            if not self._thread.is_alive():
                raise RuntimeError("Seq2SeqTrainer has ended")

    def stats(self) -> dict[str, Any]:
        """Returns counts of a turn."""
        return turn_stats(self._batches, self._model)


def _tensors(batch: BareBatch) -> dict[str, torch.Tensor]:
    labels = torch.full_like(batch.tgt_in, -100).flatten()  # ignored by the loss
    labels[batch.rows] = batch.labels
    return {
        "input_ids": batch.src,
        "attention_mask": (batch.src != PAD).long(),
        "decoder_input_ids": batch.tgt_in,
        "labels": labels.view_as(batch.tgt_in),
    }


class _Trainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trains on ready-made batches.

    Before each turn, a pass over the batches, it releases `paused` and waits for `resume`; at the end `losses` has the
    losses of the turn.
    """

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.resume, self.paused = threading.Semaphore(0), threading.Semaphore(0)
        self.losses: list[torch.Tensor] = []

    def get_train_dataloader(self) -> Any:
        """Returns the batches as they are, without distributing them over processes."""
        return DataLoader(self.train_dataset, batch_size=None, shuffle=False)

    def training_step(self, *arguments: Any, **settings: Any) -> Any:
        """Pauses at the first step of a turn, and records the loss."""
        if len(self.losses) % len(self.train_dataset) == 0:
            self.paused.release()
            self.resume.acquire()
            self.losses.clear()
        loss = super().training_step(*arguments, **settings)
        self.losses.append(loss)
        return loss
