"""stress-ng: the real program for two seconds, and what other runs of it print and end with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.stress_cpu import stress_cpu
from nodewatch.checks.stress_memory import stress_memory
from nodewatch.errors import SensorError
from nodewatch.model.stress_samples import CpuStressSample, MemoryStressSample
from nodewatch.sensors.deep import stress
from nodewatch.sensors.deep.tool import Outcome, ToolSensor
from nodewatch.sensors.reading import Reading

Run = Callable[..., Reading]
GOOD = "stress-ng: info:  [7] dispatching hogs: 2 cpu\nstress-ng: info:  [7] successful run completed in 2.01s\n"


def program(directory: Path, script: str) -> str:
    path = directory / "stress-ng"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def cpu(command: str, seconds: int = 2) -> ToolSensor:
    return ToolSensor(
        "cpu", stress.CPU_READS, lambda: stress.cpu_procedure(command, method="all", seconds=seconds), deadline_s=60.0
    )


def memory(command: str, *, most: int = 256 << 20, share: float = 0.5, root: Path = Path("/")) -> ToolSensor:
    def procedure() -> stress.Procedure:
        return stress.memory_procedure(command, method="all", seconds=2, share=share, most=most, root=root)

    return ToolSensor("memory", stress.MEMORY_READS, procedure, deadline_s=60.0)


def test_the_real_program_on_the_processors(run: Run) -> None:
    reading = run(cpu("stress-ng"), 60.0)
    assert isinstance(reading.sample, CpuStressSample), reading
    assert list(stress_cpu(reading.sample)) == []


def test_the_real_program_on_memory(run: Run) -> None:
    reading = run(memory("stress-ng"), 60.0)
    assert isinstance(reading.sample, MemoryStressSample), reading
    assert list(stress_memory(reading.sample)) == [] and reading.sample.size == 256 << 20


def test_the_real_program_refuses_a_method_that_is_none(run: Run) -> None:
    tool = ToolSensor(
        "cpu",
        stress.CPU_READS,
        lambda: stress.cpu_procedure("stress-ng", method="none-such", seconds=1),
        deadline_s=60.0,
    )
    error = run(tool).error
    assert error is not None and "status 1" in error and "options were refused" in error


def test_a_wrong_result(run: Run, tmp_path: Path) -> None:
    line = "stress-ng: fail:  [7] cpu: prime error detected, number of primes has been miscalculated"
    reading = run(cpu(program(tmp_path, f"echo '{line}' >&2; exit 2")))
    assert isinstance(reading.sample, CpuStressSample), reading
    (finding,) = stress_cpu(reading.sample)
    assert finding.evidence["said"] == [line]


@pytest.mark.parametrize(
    "line",
    [
        "stress-ng: fail:  [7] vm: detected 3 bit errors while stressing memory",
        "stress-ng: fail: 12:00:01.02 [7] vm: detected 1 memory error, offset 0x10",
    ],
)
@pytest.mark.parametrize("status", [2, 5, -9])
def test_wrong_bytes_count_however_it_ended(line: str, status: int) -> None:
    found = stress.of_outcome(Outcome(returncode=status, stdout=line, stderr=""), workers=2, seconds=2)
    assert found.wrong == (line,)


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (1, "stress-ng: unrecognized option", "options were refused"),
        (2, "stress-ng: fail:  [7] vm: gave up trying to mmap, no available memory", "without naming a wrong result"),
        (3, "stress-ng: info: no resources", "lacked resources"),
        (4, "", "not implemented"),
        (5, "", "OOM killer"),
        (6, "", "unexpectedly"),
        (7, GOOD, "cannot be trusted"),
        (-9, "", "OOM killer"),
        (77, "", "status 77"),
        (
            0,
            GOOD + "stress-ng: info: [7] vm: assuming killed by OOM killer, restarting again (instance 0)",
            "OOM killer",
        ),
        (0, GOOD + "stress-ng: info:  [7] skipped: 1: vm (1)", "skipped"),
        (0, "", "does not say"),
        (0, "stress-ng: info: [7] unsuccessful run completed in 2.01s", "does not say"),
    ],
)
def test_what_proves_nothing(status: int, text: str, words: str) -> None:
    with pytest.raises(SensorError, match=words):
        stress.of_outcome(Outcome(returncode=status, stdout=text, stderr=""), workers=2, seconds=2)


def test_newer_releases_count_what_passed() -> None:
    text = (
        GOOD
        + "stress-ng: info:  [7] skipped: 0\nstress-ng: info:  [7] passed: 2: cpu (2)\nstress-ng: info:  [7] failed: 0\n"
    )
    assert stress.of_outcome(Outcome(returncode=0, stdout="", stderr=text), workers=2, seconds=2).wrong == ()


@given(st.text(), st.integers(min_value=-64, max_value=255))
def test_no_text_is_a_pass_by_accident(text: str, status: int) -> None:
    try:
        found = stress.of_outcome(Outcome(returncode=status, stdout=text, stderr=""), workers=1, seconds=1)
    except SensorError:
        return
    assert found.wrong or "successful run completed" in text


def test_not_installed(run: Run, tmp_path: Path) -> None:
    error = run(cpu(str(tmp_path / "stress-ng"))).error
    assert error is not None and "is not installed" in error


def machine(root: Path, *, available_kb: int, limit: str = "", used: str = "") -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal:  99999999 kB\nMemAvailable:  {available_kb} kB\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    if limit:
        (root / "sys/fs/cgroup/memory.max").write_text(limit + "\n")
        (root / "sys/fs/cgroup/memory.current").write_text(used + "\n")
    return root


@pytest.mark.parametrize(
    ("available_kb", "limit", "used", "expected"),
    [
        (4 << 20, "", "", 4 << 30),
        (4 << 20, "max", "5", 4 << 30),
        (4 << 20, str(3 << 30), str(1 << 30), 2 << 30),
        (4 << 20, str(3 << 30), str(4 << 30), 0),
    ],
)
def test_how_much_may_be_taken(tmp_path: Path, available_kb: int, limit: str, used: str, expected: int) -> None:
    assert stress.available(machine(tmp_path, available_kb=available_kb, limit=limit, used=used)) == expected


def test_too_little_memory_to_test(run: Run, tmp_path: Path) -> None:
    error = run(memory("stress-ng", root=machine(tmp_path, available_kb=65536))).error
    assert error is not None and "32 MiB" in error


def test_a_share_of_what_is_available_with_a_bound(run: Run, tmp_path: Path) -> None:
    root = machine(tmp_path, available_kb=4 << 20)
    command = program(tmp_path, f"echo \"$@\"\necho '{GOOD.splitlines()[-1]}'")
    for share, most, size in ((0.5, 0, 2 << 30), (0.5, 1 << 30, 1 << 30)):
        reading = run(memory(command, most=most, share=share, root=root))
        assert isinstance(reading.sample, MemoryStressSample) and reading.sample.size == size
