"""Floating-point operations of training, counted from the sizes of the matrices and the shape of a batch."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Multiplications:
    """Multiplications in the matrix products of a model's forward pass on a padded batch, padding included.

    Attributes:
        sentence: For each sentence.
        source: For each source position.
        target: For each target position.
        output: For each target token, of the projection onto the vocabulary, which leaves padding out.
        source_pair: For each pair of source positions, as are the next two for pairs of target positions and of one of
            each side: attention.
    """

    sentence: int = 0
    source: int
    target: int
    output: int
    source_pair: int = 0
    target_pair: int = 0
    cross_pair: int

    def training_flops(self, batch_size: int, source_length: int, target_length: int, *, target_tokens: int) -> int:
        """Floating-point operations of a forward and a backward pass.

        A multiplication comes with an addition, and a backward pass costs two forward ones: Kaplan et al. (2020,
        section 2.1, arXiv:2001.08361), but here attention counts too. Recomputed activations do not count.

        Args:
            batch_size: B.
            source_length: S, padding included.
            target_length: T, padding included.
            target_tokens: Those without padding, of the whole batch.
        """
        source = source_length * (self.source + source_length * self.source_pair)
        target = target_length * (self.target + target_length * self.target_pair + source_length * self.cross_pair)
        return 6 * (batch_size * (self.sentence + source + target) + target_tokens * self.output)


def matrix_elements(*modules: nn.Module) -> int:
    """Number of elements of the modules' matrices: their multiplications for each position."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.ndim == 2)
