"""The first signal is handled, outside and inside the training loop; a second one exits immediately."""

import os
import signal
import subprocess
import sys

import pytest

from seq2seq.errors import Interrupted
from seq2seq.system.signals import Aborted, deferred_signals, exit_on_signal, interruptible, stop_requests


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_outside_the_loop_a_signal_interrupts(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stop, interruptible():
        os.kill(os.getpid(), number)
    assert stop.value.exit_code == code
    assert number.name in str(stop.value)
    assert signal.getsignal(number) is before


def test_an_error_that_a_library_makes_of_a_signal_is_an_interruption() -> None:
    def library() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            raise ImportError("half imported") from None

    with pytest.raises(Interrupted) as stop, interruptible():
        library()
    assert stop.value.exit_code == 143
    with pytest.raises(ImportError), interruptible():
        raise ImportError


def test_during_imports_a_signal_leaves_with_one_line() -> None:
    code = (
        "import os, signal\nfrom seq2seq.system.signals import exit_on_signal\nwith exit_on_signal():\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n    except BaseException:\n        pass\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "seq2seq: stopped by SIGINT\n")
    with exit_on_signal():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_is_delivered_at_the_end(number: signal.Signals) -> None:
    done = []
    with pytest.raises(Interrupted, match=number.name), interruptible(), deferred_signals():  # noqa: PT012
        os.kill(os.getpid(), number)
        done.append(number)
    assert done == [number]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_process_started_with_deferred_signals_never_gets_a_sigint() -> None:
    code = "import time; print('up', flush=True); time.sleep(0.2); print('done')"
    with (
        deferred_signals(),
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0


def test_inside_the_loop_a_signal_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun may pass the same signal on again
    with pytest.raises(RuntimeError, match="handled"), interruptible(), stop_requests() as request:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.exit_code == 143
        raise RuntimeError("handled")


def test_a_signal_that_nobody_handled_is_not_lost() -> None:
    reached = False
    with pytest.raises(Interrupted) as stop, stop_requests():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGUSR1)
        reached = True
    assert reached
    assert stop.value.exit_code == 75


@pytest.mark.parametrize("inside", [True, False])
def test_a_signal_aborts_work_that_can_be_repeated(inside: bool) -> None:
    """Also one that came right before: nobody waits for minutes after it."""
    began = False
    with pytest.raises(Interrupted), stop_requests() as request:  # noqa: PT012
        if not inside:
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Aborted), request.abort_on_signal(True):  # noqa: PT012
            began = True
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it continues")
    assert began == inside


def test_a_second_signal_leaves_at_once() -> None:
    code = (
        "import os, signal\nfrom seq2seq.system.signals import stop_requests\nwith stop_requests():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n    os.kill(os.getpid(), signal.SIGINT)\n    print('still here')\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TORCHELASTIC_RUN_ID"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
