"""Processors and memory under stress-ng, which checks its own results with --verify.

Its exit status tells a stressor that failed (2) from one that could not run: lack of resources (3), not implemented (4), killed
(5, or by the OOM killer) and the rest prove nothing of the hardware. Source: the manual page stress-ng(1), EXIT STATUS.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.model.stress_samples import CpuStressSample, MemoryStressSample, StressRun
from nodewatch.sensors.deep.tool import Command, Outcome, Procedure, Step
from nodewatch.sensors.reading import Reading

CPU_READS = CpuStressSample
MEMORY_READS = MemoryStressSample
END_S = 120.0
"""Beyond its duration: a terabyte of touched memory takes the kernel a while to free."""
_MANY = 20
_LEAST = 64 << 20

_MEANS = {
    1: "its options were refused or it could not begin: look at its version",
    2: "a stressor failed without naming a wrong result: run it by hand",
    3: "it lacked resources: free memory, or lower deep.memory_share",
    4: "this stressor is not implemented here: look at its version",
    5: "a stressor was killed: look for the OOM killer in the kernel log",
    6: "a stressor ended unexpectedly: run it by hand",
    7: "its counters cannot be trusted: look for the OOM killer in the kernel log",
}
_FAIL = re.compile(r"\bfail: ")
_WRONG = re.compile(
    r"error detected|errors? detected|miscalculated|detected \d+ (?:bit|memory) error|mismatch|checksum|"
    r"verif\w* fail|fail\w* verif|incorrect|corrupt",
    re.IGNORECASE,
)
_OOM = re.compile(r"killed by (?:the )?OOM|OOM killer", re.IGNORECASE)
_SKIPPED = re.compile(r"\bskipped: [1-9]|stressor will be skipped|skipping (?:the )?stressor", re.IGNORECASE)
_DONE = re.compile(r"(?<!un)successful run completed")


def cpu_procedure(command: str, *, method: str, seconds: int) -> Procedure:
    """Each processor that this process may use computes for `seconds`."""
    workers = len(os.sched_getaffinity(0))
    options = ("--cpu", str(workers), "--cpu-method", method)
    (ended,) = yield Step(commands=(Command(argv=(command, *options, *_shared(seconds))),))
    return Reading(sample=CpuStressSample(run=of_outcome(ended, workers=workers, seconds=seconds)))


def memory_procedure(
    command: str, *, method: str, seconds: int, share: float, most: int, root: Path = Path("/")
) -> Procedure:
    """`share` of the memory that is available now, `most` bytes at most where that is above 0, is written and read back."""
    workers = len(os.sched_getaffinity(0))
    size = int(available(root) * share)
    size = min(size, most) if most else size
    # stress-ng gives each worker its part of --vm-bytes; one that has less than a few megabytes tests its caches.
    workers = max(1, min(workers, size // _LEAST))
    if size < _LEAST:
        raise SensorError(f"only {size >> 20} MiB of memory may be tested: free some, or raise deep.memory_share")
    options = ("--vm", str(workers), "--vm-bytes", str(size), "--vm-method", method)
    (ended,) = yield Step(commands=(Command(argv=(command, *options, *_shared(seconds))),))
    run = of_outcome(ended, workers=workers, seconds=seconds)
    return Reading(sample=MemoryStressSample(run=run, size=size))


def of_outcome(ended: Outcome, *, workers: int, seconds: float) -> StressRun:
    """What the run proves. Raises SensorError when that is nothing; a wrong result is kept however the run ended."""
    lines = [line.strip() for line in ended.text.splitlines() if line.strip()]
    wrong = tuple(line[:300] for line in lines if _FAIL.search(line) and _WRONG.search(line))[:_MANY]
    if wrong:
        return StressRun(workers=workers, seconds=seconds, wrong=wrong, said=ended.last_line)
    if ended.returncode != 0:
        failed = [line for line in lines if _FAIL.search(line)]
        why = _MEANS.get(ended.returncode, "run it by hand")
        if ended.returncode < 0:
            why = "it was killed: look for the OOM killer in the kernel log"
        said = failed[0][:200] if failed else ended.last_line
        raise SensorError(f"stress-ng ended with status {ended.returncode} ({said}): {why}")
    for pattern, why in ((_OOM, "the OOM killer ended a part of it"), (_SKIPPED, "it skipped what it should run")):
        if pattern.search(ended.text):
            raise SensorError(f"stress-ng proves nothing: {why}: free memory, or look at its version")
    if not _DONE.search(ended.text):
        raise SensorError(f"stress-ng does not say that its run was successful ({ended.last_line}): run it by hand")
    return StressRun(workers=workers, seconds=seconds, said=ended.last_line)


def available(root: Path) -> int:
    """Bytes that can be had without swapping: MemAvailable, or what this control group may still take where that is less.

    Raises SensorError when /proc/meminfo cannot be read.
    """
    try:
        text = (root / "proc/meminfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
        size = int(found[1]) * 1024 if found else 0
    except OSError as error:
        raise SensorError(f"the memory's size cannot be read ({error.strerror}): look at /proc/meminfo") from error
    if not size:
        raise SensorError("/proc/meminfo does not say how much memory is available: look at the kernel's release")
    return min([size, *_rooms(root)])


def _rooms(root: Path) -> list[int]:
    """What the control group that the machine's processes are in has left: a container has less than the machine."""
    base = root / "sys/fs/cgroup"
    with contextlib.suppress(OSError, ValueError):
        limit = (base / "memory.max").read_text(encoding="utf-8").strip()
        if limit != "max":
            used = int((base / "memory.current").read_text(encoding="utf-8"))
            return [max(0, int(limit) - used)]
    return []


def _shared(seconds: int) -> tuple[str, ...]:
    # --oomable: as root it would otherwise make itself the last to be killed when memory runs out, after everyone else.
    return ("--verify", "--metrics-brief", "--oomable", "-t", f"{seconds}s")
