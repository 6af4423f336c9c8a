"""Which client speaks to Slurm: pyslurm where it can be imported and is of the release that runs, the commands elsewhere."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nodewatch.clients.command import run
from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.clients.slurm_pyslurm import CHILD, SlurmPyslurm
from nodewatch.errors import ConfigError, SlurmError

AnySlurm = SlurmCommands | SlurmPyslurm


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The client, what it is called, and why it is this one."""

    client: AnySlurm
    name: str
    why: str
    is_odd: bool = False
    """pyslurm is installed and cannot be used: somebody meant it to be."""

    @property
    def sentence(self) -> str:
        """For the operator."""
        return f"Slurm is spoken to by {self.name}: {self.why}"

    def problems(self) -> list[str]:
        """What `nodewatch status` tells of it: nothing while all is as it was meant."""
        if isinstance(self.client, SlurmPyslurm) and self.client.given_up:
            return [f"info: {self.client.given_up}"]
        return [f"info: {self.sentence}"] if self.is_odd else []

    def close(self) -> None:
        """End what the client keeps running."""
        if isinstance(self.client, SlurmPyslurm):
            self.client.close()


def choose(
    wanted: str,
    *,
    deadline_s: float = 10.0,
    child: Sequence[str] = CHILD,
    is_installed: Callable[[], bool] | None = None,
) -> Choice:
    """The client for `slurm_client = wanted`. Raises ConfigError when it is "pyslurm" and that cannot be used.

    pyslurm is imported in a child process only: where libslurm finds no slurm.conf it ends the process that imports it.
    `is_installed` tells whether there is a pyslurm to import at all.
    """
    commands = SlurmCommands(deadline_s=deadline_s)
    if wanted == "commands":
        return Choice(client=commands, name="the commands", why='slurm_client = "commands" in controller.toml')
    has_it = (is_installed or _is_installed)()
    fault, why = _judge(commands, child, deadline_s) if has_it else ("pyslurm is not installed", "")
    if not fault:
        return Choice(client=SlurmPyslurm(deadline_s=deadline_s, argv=child), name="pyslurm", why=why)
    if wanted == "pyslurm":
        raise ConfigError(f'slurm_client = "pyslurm", but {fault}: install the release that fits, or write "auto"')
    return Choice(client=commands, name="the commands", why=fault, is_odd=has_it)


def _judge(commands: SlurmCommands, child: Sequence[str], deadline_s: float) -> tuple[str, str]:
    """Why pyslurm cannot be used, or else why it can."""
    probe = run([*child, "--version"], deadline_s=deadline_s)
    try:
        if not probe.ok:
            raise ValueError(probe.complaint.replace(probe.argv[0], "the process that imports it"))
        ours = str(json.loads(probe.stdout)["version"])
    except (ValueError, KeyError, TypeError) as error:
        return f"pyslurm is installed and cannot be used: {error}", ""
    try:
        theirs = commands.version()
    except SlurmError as error:
        return f"the release of Slurm is not known, which pyslurm {ours} has to match: {error}", ""
    if _release(ours) != _release(theirs):
        return f"pyslurm {ours} is for Slurm {_release(ours)} and this is Slurm {theirs}", ""
    return "", f"pyslurm {ours} can be imported and matches Slurm {theirs}"


def _release(version: str) -> str:
    # pyslurm's version is Slurm's release and then a number of its own.
    return ".".join(version.split(".")[:2])


def _is_installed() -> bool:
    # Looks for it without importing it.
    return importlib.util.find_spec("pyslurm") is not None
