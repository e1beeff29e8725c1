"""Updates of a randomly initialized model on random ids, for measurements that need no corpus."""

import torch

from seq2seq.config.schema import Config
from seq2seq.data.batching import Batch
from seq2seq.data.loader import MicroBatch, StepBatches
from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.training.step import TrainStep


def build_step(config: Config, vocabulary: int, runtime: Runtime) -> TrainStep:
    """Builds the optimizer step of a configuration, with one vocabulary of this size for both sides."""
    torch.manual_seed(config.seed)
    model = build_model(config.model, Vocabulary(vocabulary, vocabulary, joint=True)).to(runtime.device).train()
    return TrainStep(model, config.trainer, config.optim, runtime=runtime, world=World(), seed=config.seed)


def random_batches(vocabulary: int, *, tokens: int, source: int, target: int) -> StepBatches:
    """Builds one micro-batch without padding, of sources and targets of these lengths.

    Args:
        vocabulary: Size of the vocabulary of both sides.
        tokens: Tokens on the longer side; at least one example is built.
        source: Tokens per source.
        target: Tokens per target.
    """
    rows = max(1, tokens // max(source, target))
    src, tgt = (torch.randint(4, vocabulary, (rows, length)) for length in (source, target))
    batch = Batch(src, tgt, torch.arange(tgt.numel()), tgt.flatten(), torch.arange(rows))
    return StepBatches([MicroBatch(batch, 1.0)], batch.tokens, 0.0, epoch=0, position=1, epoch_size=1)
