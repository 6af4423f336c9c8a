"""A year of journal: how long the controller takes to remember it, from a snapshot and from every record.

    journal.json    seconds to write the year, to start from its newest snapshot, to fold all of it, and its size on disk

The year is 2,000 nodes that report, two repairs an hour, and a job every three minutes. Nothing here asserts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nodewatch.journal import pieces
from nodewatch.journal.disk import Disk
from nodewatch.journal.file import Journal
from nodewatch.model import actions as act
from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Ledger, Rung, Step
from nodewatch.policy.draft import Draft
from nodewatch.policy.fold import case_to_json, fold, fold_into

RECORDS = 2_000_000
NODES = 2000
_YEAR_S = 365 * 86400.0
_STEPS = (Step.HELD, Step.DRAINING, Step.REBOOTING, Step.VALIDATING, Step.RETURNING, Step.WATCHING, Step.CLOSED)


class NoSync(Disk):
    """Does not wait for the disk: what is measured is the reading."""

    def sync(self, fd: int) -> None:
        """Nothing."""


def year(count: int) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """`count` records of a busy cluster: a repair of some twenty records, four jobs, and reports, over and over."""
    at = 1_700_000_000.0
    step_s = _YEAR_S / count
    number = 0
    while True:
        for kind, data in _round(number, at):
            yield at, kind, data
            at += step_s
        number += 1


def _round(number: int, at: float) -> Iterator[tuple[str, dict[str, Any]]]:
    node = f"n{number * 37 % NODES}"
    case_id = f"{node}.gpu.{int(at)}"
    for index, step in enumerate(_STEPS):
        case = Case(
            case_id=case_id,
            node=node,
            family="gpu",
            fault="gpu.xid.48",
            subject=f"GPU-{number}",
            severity=Severity.FATAL,
            rung=Rung.REBOOT,
            step=step,
            opened_at=at,
            step_at=at + index,
            tried=(Rung.REBOOT,) if step is Step.CLOSED else (),
            old_instance=f"i-{number}",
        )
        yield "case", {"case": case_to_json(case)}
        if index in (1, 2, 4):
            action = act.to_json(act.Reboot(key=f"{case_id}:{step.value}", node=node, reason=f"nodewatch: {case_id}"))
            yield "intended", {"action": action}
            yield "done", {"key": action["key"], "action": action, "result": {}}
    for job in range(number * 4, number * 4 + 4):
        told = {"job_id": job, "restart_count": 0, "nodes": "n[1-8]", "node_names": [f"n{n}" for n in range(8)]}
        yield "job_started", {**told, "auto_resume": "3", "user": "ada", "partition": "train"}
        kept = act.to_json(act.KeepNodes(key=f"job:{job}:keep", job_id=job, name="nw", nodes=("n1",), minutes=1))
        yield "intended", {"action": kept}
        yield "done", {"key": kept["key"], "action": kept, "result": {}}
        yield "job_ended", {**told, "exit_code": "0:0"}
    for index in range(16):
        name = f"n{(number * 16 + index) % NODES}"
        verdict = {"state": "healthy", "since": at, "findings": [], "unknown": []}
        yield "verdict", {"node": name, "boot_id": "b", "instance_id": f"i-{name}", "verdict": verdict}


def measure(directory: Path, count: int) -> dict[str, Any]:
    """The figures, of a journal of `count` records written into `directory`."""
    path = directory / "journal.jsonl"
    began = time.perf_counter()
    journal = Journal(path, disk=NoSync(), in_background=False)
    draft = Draft(Ledger())
    for (at, kind, data), _ in zip(year(count), range(count), strict=False):
        fold_into(draft, journal.append(at, kind, data))
        if journal.is_full:
            journal.keep(draft.ledger())
    journal.close()
    written = time.perf_counter() - began
    began = time.perf_counter()
    journal = Journal(path, in_background=False)
    ledger = journal.take_ledger()
    from_snapshot = time.perf_counter() - began
    journal.close()
    began = time.perf_counter()
    whole = fold(Ledger(), pieces.read_all(path))
    from_all = time.perf_counter() - began
    files = pieces.pieces(path)
    return {
        "records": count,
        "files": len(files),
        "megabytes_on_disk": round(sum(file.stat().st_size for file in directory.iterdir()) / 1e6, 1),
        "write_s": round(written, 1),
        "start_from_snapshot_s": round(from_snapshot, 2),
        "fold_every_record_s": round(from_all, 1),
        "microseconds_a_record": round(1e6 * from_all / count, 1),
        "same": ledger == whole,
        "most_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "cores": os.cpu_count(),
    }


def main() -> int:
    """Measure and print; with --output write journal.json there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(Path(directory), arguments.records)
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "journal.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
