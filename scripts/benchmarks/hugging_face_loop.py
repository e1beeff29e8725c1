"""Training by `Seq2SeqTrainer` of Hugging Face transformers, on the batches that the others get."""

import tempfile
import threading
from typing import Any

import torch
from bare_loop import PAD, Problem, build_batch
from peers import marian
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback


class HuggingFaceLoop:
    """One call of `train` that goes on for as long as there are turns, in a thread that waits between them.

    Args:
        problem: What on what; a post-norm Transformer.
        precision: bf16 or fp32.
    """

    def __init__(self, problem: Problem, precision: str):
        self._batches = [_tensors(problem, number) for number in range(len(problem.batches))]
        self._pause = _Pause(len(self._batches))
        self._model = marian(problem.model, problem.vocab_size)
        self._losses: list[float] = []
        optim = problem.optim
        self._folder = tempfile.TemporaryDirectory()
        arguments = Seq2SeqTrainingArguments(
            self._folder.name, max_steps=1_000_000, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=True, bf16=precision == "bf16", label_smoothing_factor=problem.label_smoothing,
            learning_rate=optim["lr"], warmup_steps=optim["warmup_steps"], weight_decay=optim["weight_decay"],
            adam_beta1=optim["betas"][0], adam_beta2=optim["betas"][1], adam_epsilon=optim["eps"],
            max_grad_norm=optim["clip_norm"], lr_scheduler_type="constant_with_warmup", seed=problem.seed,
        )  # fmt: skip
        trainer = _Trainer(self._model, arguments, train_dataset=self._batches, callbacks=[self._pause])
        self._trainer = trainer
        self._thread = threading.Thread(target=trainer.train, daemon=True)
        self._thread.start()
        self._wait()

    def turn(self) -> float:
        """An update on each batch; returns the mean of their losses."""
        self._trainer.seen.clear()
        self._pause.may_go.release()
        self._wait()
        return float(torch.stack(self._trainer.seen).mean())

    def _wait(self) -> None:
        while not self._pause.is_over.acquire(timeout=1.0):
            if not self._thread.is_alive():
                raise RuntimeError("Seq2SeqTrainer has ended")

    def facts(self) -> dict[str, Any]:
        """Counts of a turn, as the bare loop's."""
        used = sum(int((batch[key] > PAD).sum()) for batch in self._batches for key in ("input_ids", "labels"))
        places = sum(batch[key].numel() for batch in self._batches for key in ("input_ids", "labels"))
        return {
            "tokens": sum(int((batch["labels"] > PAD).sum()) for batch in self._batches),
            "padding_share": 1 - used / places,
            "parameters": sum(p.numel() for p in self._model.parameters() if p.requires_grad),
        }


def _tensors(problem: Problem, number: int) -> dict[str, torch.Tensor]:
    batch = build_batch(problem.batches[number])
    labels = torch.full_like(batch.tgt_in, -100).flatten()  # what the loss leaves out
    labels[batch.rows] = batch.labels
    return {
        "input_ids": batch.src,
        "attention_mask": (batch.src != PAD).long(),
        "decoder_input_ids": batch.tgt_in,
        "labels": labels.view_as(batch.tgt_in),
    }


class _Trainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Takes batches as they are; the losses of a turn are in `seen`."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.seen: list[torch.Tensor] = []

    def get_train_dataloader(self) -> Any:
        """The batches, without what would divide them among processes."""
        return DataLoader(self.train_dataset, batch_size=None, shuffle=False)

    def training_step(self, *arguments: Any, **settings: Any) -> Any:
        """Remembers the loss."""
        loss = super().training_step(*arguments, **settings)
        self.seen.append(loss)
        return loss


class _Pause(TrainerCallback):  # type: ignore[misc]
    """Holds the training up after each turn, until it is to go on."""

    def __init__(self, steps: int):
        self._steps, self._begun = steps, 0
        self.may_go, self.is_over = threading.Semaphore(0), threading.Semaphore(0)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Called by the trainer."""
        if self._begun % self._steps == 0:
            self.is_over.release()
            self.may_go.acquire()
        self._begun += 1
