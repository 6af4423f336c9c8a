"""GPU identities are told once, and a GPU that is lost later stays told."""

from __future__ import annotations

import dataclasses

from nodewatch.agent.identity import Identified, identities
from nodewatch.model.gpu_samples import Gpu, GpuSample
from nodewatch.sensors.reading import Reading


def gpu(index: int, uuid: str, serial: str | None = None) -> Gpu:
    names = {field.name for field in dataclasses.fields(Gpu)}
    given: dict[str, object] = {"index": index, "uuid": uuid, "pci_bus_id": f"0000:{index:02d}:00.0", "serial": serial}
    return Gpu(**{name: value for name, value in given.items() if name in names})  # type: ignore[arg-type]


class Recorded:
    """A sensor that gives what it was given."""

    name = "nvml"
    reads = GpuSample
    restarts = 3

    def __init__(self, *readings: Reading | None) -> None:
        self.readings = list(readings)
        self.calls: list[str] = []

    def start(self, now: float) -> None:
        self.calls.append(f"start {now:.0f}")

    def filenos(self) -> tuple[int, ...]:
        return (7,)

    def due_at(self) -> float | None:
        return 5.0

    def result(self, now: float) -> Reading | None:
        del now
        return self.readings.pop(0)

    def close(self) -> None:
        self.calls.append("close")


def test_uuids_and_real_serial_numbers() -> None:
    sample = GpuSample(gpus=(gpu(0, "GPU-a", "165"), gpu(1, "GPU-b", "[N/A]"), gpu(2, "", "0")))
    assert identities(sample) == ("GPU-a", "GPU-b", "serial 165")


def test_told_once_and_again_when_there_is_more() -> None:
    told: list[list[str]] = []
    readings = [
        None,
        Reading(error="the driver does not answer"),
        Reading(sample=GpuSample(gpus=(gpu(0, "GPU-a"),))),
        Reading(sample=GpuSample(gpus=(gpu(0, "GPU-a"), gpu(1, "GPU-b")))),
        Reading(sample=GpuSample(gpus=(gpu(0, "GPU-a"),))),
    ]
    sensor = Identified(Recorded(*readings), lambda known: told.append(list(known)))
    assert [sensor.result(0.0) for _ in range(5)] == readings
    assert told == [["GPU-a"], ["GPU-a", "GPU-b"]]


def test_everything_else_is_the_sensors_own() -> None:
    inner = Recorded()
    sensor = Identified(inner, lambda _: None)
    sensor.start(1.0)
    sensor.close()
    assert (sensor.name, sensor.reads, sensor.filenos(), sensor.due_at(), sensor.restarts) == (
        "nvml",
        GpuSample,
        (7,),
        5.0,
        3,
    )
    assert inner.calls == ["start 1", "close"]
