"""The shipped fakes and the real clients offer the same: what holds in a test must be callable in production."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from nodewatch.clients.ec2 import Ec2
from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.clients.slurm_pyslurm import SlurmPyslurm
from nodewatch.controller.engine import JournalStore
from nodewatch.effects.perform import Ec2Client, SlurmClient
from nodewatch.journal.file import Journal
from nodewatch.testing import FakeEc2, FakeSlurm, MemoryJournal


def methods(protocol: type[Any]) -> Iterator[str]:
    for base in protocol.__mro__:
        if base.__module__.startswith("nodewatch."):
            yield from (name for name, value in vars(base).items() if inspect.isfunction(value) and name[0] != "_")


PAIRS = [
    (protocol, kind, name)
    for protocol, kinds in {
        SlurmClient: (SlurmCommands, SlurmPyslurm, FakeSlurm),
        Ec2Client: (Ec2, FakeEc2),
        JournalStore: (Journal, MemoryJournal),
    }.items()
    for kind in kinds
    for name in sorted(set(methods(protocol)))
]


@pytest.mark.parametrize(("protocol", "kind", "name"), PAIRS, ids=lambda value: getattr(value, "__name__", value))
def test_the_same_parameters(protocol: type[Any], kind: type[Any], name: str) -> None:
    def parameters(owner: type[Any]) -> list[tuple[str, Any, Any]]:
        signature = inspect.signature(getattr(owner, name))
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    assert parameters(kind) == parameters(protocol)


def test_there_is_something_to_compare() -> None:
    assert {name for protocol, _, name in PAIRS if protocol is SlurmClient} == {
        "nodes",
        "jobs",
        "drain",
        "mark_down",
        "set_reason",
        "resume",
        "set_address",
        "reboot",
        "requeue",
        "release",
        "expedite",
        "reserve",
        "unreserve",
    }
