"""How long a phase goes on."""

from __future__ import annotations

from pea.config import Phase, TrainConfig
from stages.training.phase import PhaseDone, PhasePosition, expected_steps


def _position(max_minutes: float | None, seconds_before: float = 0.0) -> PhasePosition:
    phase = Phase("unet", TrainConfig(max_minutes=max_minutes))
    done = (PhaseDone("text", 1, 1, seconds_before, None, 0.0),) if seconds_before else ()
    return PhasePosition((phase,) * (1 + len(done)), done)


def test_the_steps_that_are_to_come_end_with_the_time() -> None:
    assert expected_steps(_position(None), 10, 100, 60.0) == 100
    assert expected_steps(_position(2.0), 10, 100, 60.0) == 20, "as many again in the second minute"
    assert expected_steps(_position(60.0), 10, 100, 60.0) == 100
    assert expected_steps(_position(2.0, seconds_before=30.0), 10, 100, 60.0) == 15
    assert expected_steps(_position(1.0), 10, 100, 90.0) == 10
