"""One wish to stop ends the step, a later one ends at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

# in a process of its own: a signal that comes a moment late would end the one that runs the tests
SCRIPT = """
import os
import signal

from hybridnets.training import stopping

# whoever started the tests may have set SIGINT to be ignored, which children inherit
signal.signal(signal.SIGINT, signal.default_int_handler)
told = []
before = signal.getsignal(signal.SIGTERM)
with stopping.listening(lambda: told.append(1)) as request:
    assert not request.asked
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert request.asked
    assert told == [1]
    stopping._SAME_S = -1.0
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()  # never reached where the signal interrupts
    except KeyboardInterrupt:
        print("interrupted")
assert signal.getsignal(signal.SIGTERM) == before
"""


def test_two_signals_at_once_are_one_wish_and_a_later_one_interrupts() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted"]
