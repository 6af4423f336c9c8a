"""The GPUs as NVML describes them, read through a child process under a deadline (nvml_child says what is exchanged)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.model.samples import Gpu, GpuSample
from nodewatch.sensors.reading import Reading

_START = "import sys; sys.path[:] = sys.argv[1:]; from nodewatch.sensors.nvml_child import main; main()"
_NVIDIA = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")
_QUIET_S = 300.0
"""How long a machine without GPUs is left alone before NVML is looked for again."""
_MAX_ANSWER = 1 << 20


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
    return Gpu(
        index=int(item["index"]),
        uuid=str(item["uuid"]),
        pci_bus_id=str(item["pci_bus_id"]),
        serial=item.get("serial"),
        name=item.get("name"),
        is_lost=bool(item["is_lost"]),
        remap_pending=item.get("remap_pending"),
        remap_failed=item.get("remap_failed"),
        remapped_correctable=item.get("remapped_correctable"),
        remapped_uncorrectable=item.get("remapped_uncorrectable"),
        temperature_c=item.get("temperature_c"),
    )


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
        pci_devices: Path = Path("/sys/bus/pci/devices"),
    ) -> None:
        """`mode` is on, off or auto: in auto a machine that should have no GPU, and shows none, is not applicable."""
        self._deadline_s = deadline_s
        self._expected = expected
        self._mode = mode
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
            self._ready = Reading(sample=parse_answer(line, expected=self._expected))
        except SensorError as error:
            if self._is_absent(line):
                self._quiet_until = now + _QUIET_S
                self._end()
                self._ready = Reading(not_applicable="this machine shows no NVIDIA GPU")
            else:
                self._ready = Reading(error=str(error))

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
