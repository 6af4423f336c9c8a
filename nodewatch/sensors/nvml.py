"""The GPUs as NVML describes them, read through a child process under a deadline (nvml_child says what is exchanged)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import EccCounts, Gpu, GpuProcess, GpuSample
from nodewatch.sensors.reading import Reading

_START = "import sys; sys.path[:] = sys.argv[1:]; from nodewatch.sensors.nvml_child import main; main()"
_NVIDIA = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")
_QUIET_S = 300.0
"""How long a machine without GPUs is left alone before NVML is looked for again."""
_MAX_ANSWER = 1 << 20
_RATE_S = 60.0
"""Counters are judged by their growth over at least this long: one replay in five seconds is no rate."""
_PLAIN: Mapping[str, type[Any]] = {
    **dict.fromkeys(("serial", "name", "fabric_state", "fabric_status", "recovery_action"), str),
    **dict.fromkeys(
        ("remap_pending", "remap_failed", "retirement_pending", "ecc_enabled", "sram_threshold_exceeded"), bool
    ),
    **dict.fromkeys(("persistence", "mig_enabled", "mig_pending"), bool),
    **dict.fromkeys(
        ("remapped_correctable", "remapped_uncorrectable", "retired_single_bit", "retired_double_bit"), int
    ),
    **dict.fromkeys(("temperature_c", "slowdown_at_c", "shutdown_at_c", "memory_temperature_c", "memory_max_c"), int),
    **dict.fromkeys(("hw_thermal_us", "hw_power_brake_us", "performance_state", "utilization_percent"), int),
    **dict.fromkeys(("pcie_generation", "pcie_generation_max", "pcie_width", "pcie_width_max", "pcie_replays"), int),
    **dict.fromkeys(("nvlinks_active", "nvlink_crc_errors", "nvlink_replays", "nvlink_recoveries"), int),
    **dict.fromkeys(("memory_total_mib", "memory_used_mib"), int),
    "job_on_node": bool,
}
"""The fields of `Gpu` that travel as they are, and their types."""


def has_nvidia_device(devices: Path) -> bool:
    """Whether a PCI device under `devices` (/sys/bus/pci/devices) is an NVIDIA GPU, driver or not."""
    for device in sorted(devices.glob("*")):
        with contextlib.suppress(OSError):
            vendor = (device / "vendor").read_text(encoding="ascii", errors="replace").strip()
            kind = (device / "class").read_text(encoding="ascii", errors="replace").strip()
            if vendor == _NVIDIA and kind.startswith(_DISPLAY_CLASSES):
                return True
    return False


def parse_answer(line: str, *, expected: int | None) -> GpuSample:
    """The sample in one answer of the child. Raises SensorError for its error and for anything that is no answer."""
    try:
        data = json.loads(line)
        if "error" in data:
            raise SensorError(f"NVML cannot be read ({data['error']}): check the driver with nvidia-smi")
        return GpuSample(
            gpus=tuple(_gpu(item) for item in data["gpus"]),
            driver_version=None if data["driver"] is None else str(data["driver"]),
            expected=expected,
            unreadable=tuple((int(index), str(why)) for index, why in data["unreadable"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SensorError(
            f"the NVML process answered with something else than GPUs ({error!r}): it was ended"
        ) from error


def _gpu(item: Mapping[str, Any]) -> Gpu:
    banks = item.get("remap_banks")
    reasons = item.get("clock_reasons")
    values = {name: _checked(item.get(name), kind) for name, kind in _PLAIN.items()}
    return Gpu(
        index=int(item["index"]),
        uuid=str(item["uuid"]),
        pci_bus_id=str(item["pci_bus_id"]),
        is_lost=bool(item["is_lost"]),
        failed_fields=tuple(str(name) for name in item.get("failed_fields", ())),
        remap_banks=None if banks is None else _five([int(count) for count in banks]),
        ecc_volatile=_ecc(item.get("ecc_volatile")),
        ecc_aggregate=_ecc(item.get("ecc_aggregate")),
        clock_reasons=None if reasons is None else frozenset(str(reason) for reason in reasons),
        nvlinks_inactive=tuple(int(link) for link in item.get("nvlinks_inactive", ())),
        processes=None if item.get("processes") is None else tuple(_process(one) for one in item["processes"]),
        **values,
    )


def _process(item: Mapping[str, Any]) -> GpuProcess:
    return GpuProcess(
        pid=int(item["pid"]),
        owner=str(item["owner"]),
        name=str(item.get("name") or ""),
        uid=_checked(item.get("uid"), int),
        started=_checked(item.get("started"), int),
        age_s=None if item.get("age_s") is None else float(item["age_s"]),
        job=None if item.get("job") is None else str(item["job"]),
        used_mib=_checked(item.get("used_mib"), int),
    )


def _checked(value: Any, kind: type[Any]) -> Any:
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _ecc(counts: Any) -> EccCounts | None:
    if counts is None:
        return None
    correctable, uncorrectable, sram, dram = (_checked(count, int) for count in counts)
    return EccCounts(
        correctable=correctable, uncorrectable=uncorrectable, sram_uncorrectable=sram, dram_uncorrectable=dram
    )


def _five(counts: list[int]) -> tuple[int, int, int, int, int]:
    most, high, partial, low, none = counts
    return most, high, partial, low, none


def _is_gone(process: subprocess.Popen[bytes]) -> bool:
    # A process that was just killed needs a moment to be gone: that is not yet one that cannot be ended.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.05)
    return process.poll() is not None


class NvmlSensor:
    """Polled source of `GpuSample`. The child stays between readings; one that misses its deadline is killed."""

    name = "nvml"
    reads = GpuSample

    def __init__(
        self,
        *,
        deadline_s: float,
        expected: int | None,
        mode: str = "auto",
        nvlinks: int | None = None,
        pci_devices: Path = Path("/sys/bus/pci/devices"),
    ) -> None:
        """`mode` is on, off or auto: in auto a machine that should have no GPU, and shows none, is not applicable.

        `nvlinks` is how many each GPU should have; None: not known.
        """
        self._deadline_s = deadline_s
        self._expected = expected
        self._mode = mode
        self._nvlinks = nvlinks
        self._earlier: list[tuple[float, GpuSample]] = []
        self._pci_devices = pci_devices
        self._process: subprocess.Popen[bytes] | None = None
        self._stuck: subprocess.Popen[bytes] | None = None
        self._asked_at: float | None = None
        self._buffer = bytearray()
        self._ready: Reading | None = None
        self._quiet_until: float | None = None
        self.restarts = 0

    def start(self, now: float) -> None:
        """Ask the child for the GPUs, starting it when there is none."""
        if self._asked_at is not None or self._ready is not None:
            return
        if self._mode == "off" or self._expected == 0:
            self._ready = Reading(not_applicable="no GPU is expected on this machine")
            return
        if self._quiet_until is not None and now < self._quiet_until:
            self._ready = Reading(not_applicable="this machine shows no NVIDIA GPU")
            return
        if self._stuck is not None and not _is_gone(self._stuck):
            # A second child would hang in the same driver call, then a third: one is enough.
            self._ready = Reading(error="NVML hangs in the driver and its process cannot be ended: look at dmesg")
            return
        self._stuck = None
        self._asked_at = now
        try:
            if self._process is None or self._process.poll() is not None:
                self._spawn()
            assert self._process is not None and self._process.stdin is not None
            self._process.stdin.write(b'{"ask":"gpus"}\n')
            self._process.stdin.flush()
        except OSError as error:
            self._fail(
                f"the NVML process cannot be started or asked ({error}): it is started again at the next reading"
            )

    def filenos(self) -> tuple[int, ...]:
        """The child's output while an answer is awaited."""
        if self._asked_at is None or self._process is None or self._process.stdout is None:
            return ()
        return (self._process.stdout.fileno(),)

    def due_at(self) -> float | None:
        """When the answer is late."""
        if self._ready is not None:
            return 0.0
        return None if self._asked_at is None else self._asked_at + self._deadline_s

    def result(self, now: float) -> Reading | None:
        """The sample, or the reason why there is none; None while the child may still answer in time."""
        if self._ready is None and self._asked_at is not None:
            self._collect(now)
        ready, self._ready = self._ready, None
        return ready

    def close(self) -> None:
        """End the child."""
        self._end()

    def _spawn(self) -> None:
        self._end()
        self.restarts += 1
        self._process = subprocess.Popen(
            # No site, no user's directory: the same modules as ours, found the same way, and a start in milliseconds.
            [sys.executable, "-I", "-S", "-c", _START, *[entry for entry in sys.path if entry]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._buffer.clear()

    def _collect(self, now: float) -> None:
        assert self._asked_at is not None and self._process is not None and self._process.stdout is not None
        ended = False
        try:
            while chunk := os.read(self._process.stdout.fileno(), 65536):
                self._buffer.extend(chunk)
                if len(self._buffer) > _MAX_ANSWER:
                    self._fail("the NVML process answered with more than 1 MiB: it was ended")
                    return
            ended = True
        except BlockingIOError:
            pass
        line, newline, rest = bytes(self._buffer).partition(b"\n")
        if newline:
            self._buffer[:] = rest
            self._asked_at = None
            self._answer(line.decode("utf-8", "replace"), now)
        elif ended:
            self._fail("the NVML process ended without an answer: it is started again at the next reading")
        elif now - self._asked_at >= self._deadline_s:
            self._fail(f"NVML did not answer within {self._deadline_s:g} s: its process was ended")

    def _answer(self, line: str, now: float) -> None:
        try:
            sample = parse_answer(line, expected=self._expected)
            self._ready = Reading(sample=self._with_earlier(replace(sample, nvlinks_expected=self._nvlinks), now))
        except SensorError as error:
            if self._is_absent(line):
                self._quiet_until = now + _QUIET_S
                self._end()
                self._ready = Reading(not_applicable="this machine shows no NVIDIA GPU")
            else:
                self._ready = Reading(error=str(error))

    def _with_earlier(self, sample: GpuSample, now: float) -> GpuSample:
        """The sample with one from a minute or more before, where there is one."""
        old = [(at, earlier) for at, earlier in self._earlier if now - at >= _RATE_S]
        if not self._earlier or now - self._earlier[-1][0] >= _RATE_S:
            self._earlier = [*self._earlier[-2:], (now, sample)]
        if not old:
            return sample
        at, earlier = old[-1]
        return replace(sample, previous=earlier, interval_s=now - at)

    def _is_absent(self, line: str) -> bool:
        """Whether NVML is missing where nothing says that it should be there."""
        if self._mode != "auto" or self._expected is not None:
            return False
        try:
            kind = json.loads(line)["kind"]
        except (ValueError, KeyError, TypeError):
            return False
        return kind in ("no_library", "no_driver") and not has_nvidia_device(self._pci_devices)

    def _fail(self, sentence: str) -> None:
        self._end()
        self._asked_at = None
        self._ready = Reading(error=sentence)

    def _end(self) -> None:
        process, self._process = self._process, None
        self._buffer.clear()
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        if process.poll() is None:
            self._stuck = process
