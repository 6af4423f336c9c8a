"""A client whose calls are carried out and whose answers are lost, as by a time-out a moment too short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodewatch.errors import NodewatchError


class LosesAnswers:
    """Stands before `client`. Of a method named in `loses` the next answer is lost: it is carried out, and `error` raised."""

    def __init__(self, client: Any, error: type[NodewatchError]) -> None:
        self._client = client
        self._error = error
        self.loses: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._client, name)
        if name not in self.loses:
            return method

        def unanswered(*args: Any, **named: Any) -> Any:
            self.loses.remove(name)
            method(*args, **named)
            raise self._error(f"{name} was not answered in time")

        return unanswered
