"""SplitMix64 against the published outputs, for integers and for tensors."""

import torch

from seq2seq.system.splitmix64 import GOLDEN_GAMMA, mix64, wrap_int64

PUBLISHED = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of the reference, for the seed 1234567


def test_integers_and_tensors_give_the_published_outputs() -> None:
    states = [1234567 + number * GOLDEN_GAMMA for number in (1, 2, 3)]
    assert [mix64(state) % 2**64 for state in states] == PUBLISHED
    hashed = mix64(torch.tensor([wrap_int64(state) for state in states]))
    assert hashed.tolist() == [wrap_int64(output) for output in PUBLISHED]
