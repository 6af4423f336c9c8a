"""Carry out one step of a cluster plan. Done twice it has the effect of doing it once."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodewatch.clients.reconfigure import check_candidate, reconfigure
from nodewatch.clients.replace_file import replace_file
from nodewatch.effects.perform import Ec2Control, SlurmClient, launch
from nodewatch.errors import CapacityError, ConfigError, Ec2Error, SlurmError
from nodewatch.model.actions import Launch
from nodewatch.model.cluster import Instance
from nodewatch.policy import capacity
from nodewatch.policy import cluster_plan as to
from nodewatch.policy.cluster_nodes import HEADER, Lines, conf_problems
from nodewatch.policy.rules import Group


class Record:
    """What applies have done: JSON lines, each synced, `intended` before the step and its outcome after it.

    A launch that was cut off is found here and asked for again as it was, so that its ClientToken gives the same machine. An
    apply holds the file: two at once would each launch.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other apply meanwhile. Raises ConfigError when there is one, or when the file cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be written ({error.strerror}): run this as root or SlurmUser"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A line that was torn when the machine died must not swallow the next one.
            if self._path.stat().st_size and not self._path.read_bytes().endswith(b"\n"):
                os.write(handle, b"\n")
            yield
        except BlockingIOError:
            raise ConfigError("another `nodewatch cluster` is at work: wait until it has ended") from None
        finally:
            os.close(handle)

    def add(self, kind: str, **what: Any) -> None:
        """Write one line and sync it. Raises ConfigError: nothing may be done that it does not hold."""
        line = json.dumps({"v": 1, "at": time.time(), "kind": kind, **what}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written ({error.strerror}): nothing more is done") from error

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines; none where there is no file yet, or none that may be read."""
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        found = []
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                found.append(entry)
        return found

    def loaded(self) -> str:
        """The digest of the lines that slurmctld took last, empty while that is not known."""
        told = [e for e in self.lines() if e.get("kind") in ("writing", "loaded")]
        return str(told[-1].get("digest", "")) if told and told[-1]["kind"] == "loaded" else ""

    def open_launch(self, node: str) -> dict[str, Any] | None:
        """The last launch for `node` if nobody knows how it ended."""
        told = [e for e in self.lines() if e.get("node") == node and str(e.get("kind", "")).startswith("launch")]
        return told[-1] if told and told[-1]["kind"] == "launching" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What the steps are done with."""

    slurm: SlurmClient
    ec2: Ec2Control
    record: Record
    groups: Mapping[str, Group]
    slurm_conf: Path
    nodes_path: Path
    theirs: Lines


def carry_out(step: to.Step, hands: Hands) -> str:
    """Do `step`; returns what came of it, for the operator. Raises CapacityError, Ec2Error, SlurmError or ConfigError."""
    match step:
        case to.LaunchNode(node=node, group=group):
            instance = _launch(node, hands.groups[group], hands)
            return f"{instance.instance_id} launched for {node}"
        case to.DrainNode(node=node, reason=reason):
            hands.slurm.drain(node, reason)
            return f"{node} drained"
        case to.DownNode(node=node):
            hands.slurm.mark_down(node, to.LEAVING)
            return f"{node} down, its jobs ended or put back"
        case to.KeepNode(node=node):
            hands.slurm.resume(node)
            return f"{node} back in service"
        case to.EndMachine(node=node, instance_id=instance_id):
            hands.record.add("ending", node=node, instance_id=instance_id)
            hands.ec2.terminate(instance_id)
            hands.record.add("ended", node=node, instance_id=instance_id)
            return f"{instance_id} of {node} ended"
        case to.WriteLines(text=text):
            _write(text, hands)
            return f"{hands.nodes_path} written"
        case to.Reconfigure(digest=digest):
            _reconfigure(digest, hands)
            return "Slurm has read it"
        case to.PointNode(node=node, address=address):
            hands.slurm.set_address(node, address)
            return f"{node} is at {address}"


def _launch(node: str, group: Group, hands: Hands) -> Instance:
    """A machine for `node`, from the first source that has one. Raises CapacityError when none has."""
    sources = [s.word for s in capacity.sources(group) if s.kind is not capacity.Kind.ASG]
    begun = hands.record.open_launch(node)
    if begun is not None:
        # As it was asked for, wherever the source stands by now: another one would give a second machine.
        sources = [begun["source"], *(word for word in sources if word != begun["source"])]
    key = begun["key"] if begun is not None else f"{to.KEY_PREFIX}{node}:{secrets.token_hex(8)}"
    refusals = []
    for word in sources:
        hands.record.add("launching", node=node, key=key, source=word)
        try:
            instance = _ask(node, key, capacity.parse(word), group, hands)
        except CapacityError as error:
            hands.record.add("launch_refused", node=node, key=key, source=word, code=error.code)
            refusals.append(f"{word}: {error.code or error}")
            # The next source is another request: a token that has been refused may be used up.
            key = f"{to.KEY_PREFIX}{node}:{secrets.token_hex(8)}"
            continue
        except Ec2Error as error:
            if error.code in capacity.UNTOLD:
                raise
            hands.record.add("launch_failed", node=node, key=key, source=word, code=error.code)
            raise
        hands.record.add("launched", node=node, key=key, instance_id=instance.instance_id)
        return instance
    raise CapacityError("; ".join(refusals) or f"group {group.name} has no source of capacity", code="")


def _ask(node: str, key: str, source: capacity.Source, group: Group, hands: Hands) -> Instance:
    wanted = Launch(key="", node=node, launch_template=group.launch_template, lifecycle_script=group.lifecycle_script)
    return launch(capacity.launch_from(source, key, wanted, group), hands.ec2)


def _write(text: str, hands: Hands) -> None:
    problems = conf_problems(text, theirs=hands.theirs)
    if problems:
        raise SlurmError(f"our lines would end slurmctld, and nothing was written: {problems[0]}")
    check_candidate(hands.slurm_conf, hands.nodes_path, text)
    if hands.nodes_path.exists():
        replace_file(_last(hands), hands.nodes_path.read_text(encoding="utf-8"))
    hands.record.add("writing", digest=to.digest_of(text))
    replace_file(hands.nodes_path, text)


def _reconfigure(digest: str, hands: Hands) -> None:
    before = hands.slurm.nodes()
    try:
        reconfigure()
    except SlurmError as error:
        last = _last(hands)
        replace_file(hands.nodes_path, last.read_text(encoding="utf-8") if last.exists() else HEADER)
        raise SlurmError(f"{error}; the lines of before are back in {hands.nodes_path}") from error
    hands.record.add("loaded", digest=digest)
    for name, node in hands.slurm.nodes().items():
        known = before.get(name)
        # Reading the files anew takes the addresses away that replacements of machines were given.
        if known is not None and known.address and known.address != node.address:
            hands.slurm.set_address(name, known.address)


def _last(hands: Hands) -> Path:
    # No name that an `include conf.d/*.conf` would take in.
    return hands.nodes_path.with_name(f"{hands.nodes_path.name}.last")
