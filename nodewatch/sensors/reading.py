"""What a sensor hands over: a sample, or one sentence that says why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from nodewatch.model.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading. Exactly one of the three is set.

    `error` makes every check of this source UNKNOWN, `not_applicable` makes it NOT_APPLICABLE.
    """

    sample: Sample | None = None
    error: str | None = None
    not_applicable: str | None = None


class PolledSensor(Protocol):
    """A source that is asked now and answers later, so that one hung driver call cannot hold up the whole agent.

    All times are monotonic seconds. None of the calls blocks or raises.
    """

    @property
    def name(self) -> str:
        """The word for this source in logs and metrics."""

    @property
    def reads(self) -> type[Any]:
        """The type of its samples: checks that read this type are its own."""

    def start(self, now: float) -> None:
        """Begin a reading; nothing happens while one is under way."""

    def filenos(self) -> tuple[int, ...]:
        """Descriptors that become readable when `result` may have something new."""

    def due_at(self) -> float | None:
        """When `result` must be asked even if no descriptor became readable; None while no reading is under way."""

    def result(self, now: float) -> Reading | None:
        """The reading that was begun, once: None while it is under way or when none was begun."""

    def close(self) -> None:
        """End every child process that can be ended, without waiting for one that cannot."""
