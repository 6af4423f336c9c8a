"""What the agent must remember over a restart: the findings that stand, and up to where the kernel log was read.

Both are one file, replaced as a whole. Were they two, a stop between them could lose a fault: a line counted as read whose
finding was not kept.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from nodewatch.policy.verdicts import Memory, booted
from nodewatch.sensors.kmsg import Position

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The content of the state file."""

    memory: Memory
    position: Position | None = None


class StateFile:
    """Reads and replaces the state file. A disk that cannot be written costs memory over restarts, never the agent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.error: str | None = None

    def load(self, boot_id: str) -> State:
        """What an earlier run left, as of the boot `boot_id`; an empty state when there is none or it is garbage."""
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            memory = Memory.from_json(data["memory"])
            position = None if data["position"] is None else Position.from_json(data["position"])
        except FileNotFoundError:
            return State(memory=Memory(boot_id=boot_id))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _LOG.warning("the state %s cannot be used (%s): the agent starts without memory", self._path, error)
            return State(memory=Memory(boot_id=boot_id))
        return State(memory=booted(memory, boot_id), position=position)

    def save(self, state: State) -> None:
        """Replace the file. A failure is logged once and stands in `error` until a save succeeds."""
        position = None if state.position is None else state.position.to_json()
        data = json.dumps({"v": 1, "memory": state.memory.to_json(), "position": position})
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "w", encoding="utf-8") as stream:
                stream.write(data)
                stream.flush()
                os.fdatasync(stream.fileno())
            temporary.replace(self._path)
        except OSError as error:
            if self.error is None:
                _LOG.error("the state %s cannot be written (%s): free the disk", self._path, error)
            self.error = str(error)
            return
        self.error = None
