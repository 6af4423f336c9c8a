"""The command line of one pair test, and the end of what such tests left behind in Slurm."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence

from nodewatch.model.pairs import JOB_NAME

# salloc takes the two nodes for itself and srun starts the ranks in them. One `srun --exclusive` would do both, and would give
# each rank a single core (for a step, --exclusive means --exact): NCCL's proxy threads starve then, on good nodes as well.
# One rank a GPU, each seeing all GPUs of its node: nccl-tests takes the one of its local rank. -T makes the tool say itself
# that a collective hangs.
DEFAULT_COMMAND = (
    "salloc",
    "--job-name={name}",
    "--nodelist={nodes}",
    "--nodes=2",
    "--ntasks-per-node={tasks}",
    "--gpus-per-node={gpus}",
    "--exclusive",
    "--mem=0",
    "--immediate={immediate}",
    "--time={minutes}",
    "--partition={partition}",
    "{extra}",
    "srun",
    "--mpi={mpi}",
    "--cpu-bind=none",
    "--kill-on-bad-exit=1",
    "--chdir=/tmp",
    "{program}",
    "-b",
    "{begin}",
    "-e",
    "{end}",
    "-f",
    "2",
    "-g",
    "1",
    "-T",
    "{stuck}",
)
PLACEHOLDERS = frozenset(
    "name nodes tasks gpus immediate minutes partition extra mpi program begin end stuck".split()  # noqa: SIM905
)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def argv(command: Sequence[str], values: Mapping[str, str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """`command` with its placeholders filled in; a word whose placeholder has no value is left out.

    `{extra}` as a word of its own stands for all of `extra`.
    """
    words: list[str] = []
    for word in command:
        if word == "{extra}":
            words += extra
        elif all(values.get(name) for name in _PLACEHOLDER.findall(word)):
            words.append(_PLACEHOLDER.sub(lambda found: values[found[1]], word))
    return tuple(words)


def unknown_placeholders(command: Sequence[str]) -> list[str]:
    """Placeholders in `command` that have no meaning here."""
    return sorted({name for word in command for name in _PLACEHOLDER.findall(word)} - PLACEHOLDERS)


def cancel_argv(nodes: Sequence[str] = ()) -> tuple[str, ...]:
    """How this user's pair tests are cancelled, on `nodes` or everywhere: what a killed salloc could not give back."""
    # Without a user, SlurmUser would cancel everybody's jobs of that name.
    words = ("scancel", f"--name={JOB_NAME}", f"--user={_user()}")
    return (*words, f"--nodelist={','.join(nodes)}") if nodes else words


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
