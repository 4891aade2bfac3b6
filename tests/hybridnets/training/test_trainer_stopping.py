"""One wish to stop ends the step, a later one ends at once."""

from __future__ import annotations

import os
import signal

import pytest

from hybridnets.training import stopping


def test_two_signals_at_once_are_one_wish_and_a_later_one_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with stopping.listening(lambda: told.append(1)) as request:
        assert not request.asked
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert request.asked
        assert told == [1]
        monkeypatch.setattr(stopping, "_SAME_S", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
