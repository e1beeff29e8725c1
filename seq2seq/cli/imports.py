"""Imports that take long: how the command line waits for them."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from seq2seq.system.signals import leaving_at_once


@contextmanager
def importing() -> Iterator[None]:
    """Within the context, a signal ends the process with one line, and no garbage is looked for.

    What imports make stays to the end. The garbage collector is spared looking it through, which took a tenth of the
    imports, and a quarter of the time in which a corpus is encoded.
    """
    known = len(sys.modules)
    gc.disable()
    try:
        with leaving_at_once():
            yield
        if len(sys.modules) > known:  # a later job of a sweep imports nothing, and what is left of others may go
            gc.freeze()
    finally:
        gc.enable()
