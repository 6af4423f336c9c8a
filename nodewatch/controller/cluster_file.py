"""Whether the groups in cluster.toml are still those that the controller looks after; other ones are taken by beginning again.

A file that is wrong changes nothing: a controller without its groups would heal nothing, or the wrong nodes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from nodewatch.config.cluster import load_cluster_config
from nodewatch.config.controller import ControllerConfig
from nodewatch.errors import ConfigError
from nodewatch.model.ledger import Case, Step
from nodewatch.policy.rules import Group

_log = logging.getLogger("nodewatch.controller")
_SETTLE_S = 2.0
"""A file that was changed less long ago is not read yet: of one that an editor writes in place the first half may be valid."""

_State = tuple[int, int, int] | None


class ClusterFile:
    """Watches the `cluster_file` of `config`; does nothing where there is none. `monotonic` is seconds."""

    def __init__(self, config: ControllerConfig, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = config.cluster_file
        self._cluster = config.cluster
        self._groups = config.groups
        self._monotonic = monotonic
        self._state: _State = None
        self._since = monotonic()
        self._is_read = False
        self._wanted: tuple[Group, ...] | None = None
        self._wrong = ""
        self._waits = ""

    @property
    def problems(self) -> list[str]:
        """What `nodewatch status` tells of it."""
        return [text for text in (self._wrong, self._waits) if text]

    def look(self, cases: Iterable[Case]) -> str | None:
        """Why to begin again, None while there is no reason to. `cases` are the open ones.

        Groups without a node that is under repair wait until that is over: nobody would bring it to its end.
        """
        if self._path is None:
            return None
        state, now = _state_of(self._path), self._monotonic()
        if state != self._state:
            self._state, self._since, self._is_read = state, now, False
        if not self._is_read and now - self._since >= _SETTLE_S:
            self._is_read = True
            self._read(self._path)
        self._waits = ""
        if self._wanted is None:
            return None
        left = sorted({case.node for case in cases if _is_at_work(case) and self._loses(case.node, self._wanted)})
        if left:
            self._waits = (
                f"info: {self._path} has other groups: they are taken once {', '.join(left)} is not under repair"
            )
            return None
        return f"{self._path} has other groups"

    def is_other(self) -> bool:
        """Whether its groups are other ones now, without waiting: for a controller that has stood by for days."""
        if self._path is not None:
            self._read(self._path)
        return self._wanted is not None

    def _read(self, path: Path) -> None:
        self._wanted = None
        before, self._wrong = self._wrong, ""
        try:
            config = load_cluster_config(path)
        except ConfigError as error:
            self._wrong = f"{error}; the groups of before stay in force"
        else:
            if config.cluster != self._cluster:
                self._wrong = (
                    f"{path}: cluster is {config.cluster!r} and was {self._cluster!r}: machines bear the old name, so the "
                    "groups of before stay in force until nodewatch-controller is restarted"
                )
            elif config.rule_groups != self._groups:
                self._wanted = config.rule_groups
        if self._wrong and self._wrong != before:
            _log.warning("%s", self._wrong)

    def _loses(self, node: str, wanted: tuple[Group, ...]) -> bool:
        is_in = any(group.holds(node) for group in self._groups)
        return is_in and not any(group.holds(node) for group in wanted)


def _is_at_work(case: Case) -> bool:
    return case.is_admitted and case.step is not Step.WAITING_FOR_HUMAN


def _state_of(path: Path) -> _State:
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size, told.st_ino
