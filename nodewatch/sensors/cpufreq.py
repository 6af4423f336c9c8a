"""How fast the processors may run, and for how long heat held them back: from the kernel's own memory, a millisecond or two.

Frequencies of the moment are not read: an idle core is slow on purpose, and asking one wakes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from nodewatch.model.host_samples import CpuFrequencySample, CpuPolicy
from nodewatch.sensors import machine
from nodewatch.sensors.procfs import NotHere

_POLICY = re.compile(r"policy[0-9]{1,5}", re.ASCII)
_CPU = re.compile(r"cpu[0-9]{1,5}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_THROTTLED = ("package_throttle_total_time_ms", "core_throttle_total_time_ms")


class CpuFrequency:
    """Reads the policies of all processors; remembers the reading before, so that throttling is judged by what it rose."""

    def __init__(self, clock: Callable[[], float], *, in_container: bool, root: Path = Path("/")) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._in_container = in_container
        self._cpu = root / "sys/devices/system/cpu"
        self._before: tuple[float, int] | None = None

    def __call__(self) -> CpuFrequencySample:
        """The sample. Raises NotHere where the kernel does not steer frequencies, as on most virtual machines; OSError."""
        if self._in_container:
            raise NotHere("a container has its host's processors")
        policies = self._policies()
        throttled_ms = self._throttled_ms()
        if not policies and throttled_ms is None:
            raise NotHere("the kernel neither steers nor counts the processors' frequencies here")
        now = self._clock()
        before, self._before = self._before, None if throttled_ms is None else (now, throttled_ms)
        sample = CpuFrequencySample(policies=policies, throttled_ms=throttled_ms)
        if before is None or throttled_ms is None or now <= before[0] or throttled_ms < before[1]:
            return sample
        return CpuFrequencySample(
            policies=policies,
            throttled_ms=throttled_ms,
            throttled_rise_ms=throttled_ms - before[1],
            interval_s=now - before[0],
        )

    def _policies(self) -> tuple[CpuPolicy, ...]:
        try:
            places = [place for place in (self._cpu / "cpufreq").iterdir() if _POLICY.fullmatch(place.name)]
        except FileNotFoundError:
            return ()
        return tuple(
            CpuPolicy(
                cpu=int(place.name.removeprefix("policy")),
                driver=machine.first_line(place / "scaling_driver"),
                governor=machine.first_line(place / "scaling_governor"),
                limit_khz=_number(place / "scaling_max_freq"),
                maximum_khz=_number(place / "cpuinfo_max_freq"),
            )
            for place in sorted(places, key=lambda place: int(place.name.removeprefix("policy")))
        )

    def _throttled_ms(self) -> int | None:
        """The most that any processor was held back, since each counts its package's time too."""
        times = [
            value
            for place in self._cpu.iterdir()
            if _CPU.fullmatch(place.name)
            for name in _THROTTLED
            if (value := _number(place / "thermal_throttle" / name)) is not None
        ]
        return max(times, default=None)


def _number(path: Path) -> int | None:
    text = machine.first_line(path)
    return int(text) if _NUMBER.fullmatch(text) else None
