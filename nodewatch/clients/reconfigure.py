"""Have Slurm read its files anew, and ask it beforehand whether it would.

What was tried on 24.11.5: every command of Slurm reads slurm.conf first, so a key that it does not know ends all of them, on
every machine, at once. `scontrol reconfigure` refuses a node or partition that is defined twice and goes on with what it
had; a partition that names a node which nothing defines it takes, answers 0, and slurmctld ends. Nodes that are added or
taken away are known at once, their drain reasons are kept, and addresses that were given by `scontrol update` are lost.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

from nodewatch.clients.command import run
from nodewatch.errors import SlurmError

_INCLUDE = re.compile(r"^([ \t]*include[ \t]+)(\S+)", re.IGNORECASE | re.MULTILINE)
_UP_WITHIN_S = 15.0


def check_candidate(slurm_conf: Path, nodes_path: Path, text: str, *, deadline_s: float = 10.0) -> None:
    """Have Slurm's own parser read `slurm_conf` with `text` in the place of the file `nodes_path`. Raises SlurmError."""
    try:
        site = slurm_conf.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory(prefix="nodewatch-slurm-") as place:
            candidate = Path(place) / "nodes.conf"
            candidate.write_text(text, encoding="utf-8")

            def absolute(match: re.Match[str]) -> str:
                whole = slurm_conf.parent / match[2]
                is_ours = whole.resolve() == nodes_path.resolve()
                return f"{match[1]}{candidate if is_ours else whole}"

            whole = Path(place) / "slurm.conf"
            whole.write_text(_INCLUDE.sub(absolute, site), encoding="utf-8")
            # Asks nobody anything, and reads the file like any other of Slurm's commands.
            result = run(
                ["scontrol", "show", "hostnames", "nodewatch"],
                deadline_s=deadline_s,
                env={**os.environ, "SLURM_CONF": str(whole)},
            )
    except (OSError, UnicodeDecodeError) as error:
        raise SlurmError(f"{slurm_conf} cannot be tried with our lines: {error}") from error
    if not result.ok:
        said = next((line for line in result.stderr.splitlines() if "error" in line), result.complaint)
        raise SlurmError(f"Slurm would not take our lines, and nothing was written: {said}")


def reconfigure(*, deadline_s: float = 60.0) -> None:
    """`scontrol reconfigure`, and wait until slurmctld answers again. Raises SlurmError when it refuses or stays away."""
    result = run(["scontrol", "reconfigure"], deadline_s=deadline_s)
    if not result.ok:
        raise SlurmError(f"`scontrol reconfigure` failed: {result.complaint}")
    end = time.monotonic() + _UP_WITHIN_S
    while True:
        # From 23.11 on a new slurmctld takes over, and its predecessor may have answered 0 before it ended.
        ping = run(["scontrol", "ping"], deadline_s=10.0)
        if ping.ok and re.search(r"\bis UP\b", ping.stdout):
            return
        if time.monotonic() >= end:
            raise SlurmError("slurmctld does not answer after `scontrol reconfigure`: see its log")
        time.sleep(0.5)
