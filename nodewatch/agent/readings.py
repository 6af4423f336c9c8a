"""Which sources this machine's agent reads, as its configuration says."""

from __future__ import annotations

import time

from nodewatch.agent.fabric_readings import fabric_sensors
from nodewatch.config.agent import AgentConfig, gpus_expected, neuron_expected, nvlinks_expected
from nodewatch.model.host_samples import (
    BootSample,
    ClockSample,
    CpuFrequencySample,
    HostSample,
    ProcessSample,
    SpaceSample,
)
from nodewatch.sensors import machine, procfs
from nodewatch.sensors.cpufreq import CpuFrequency
from nodewatch.sensors.dcgm_live import Dcgm, dcgm_sensors
from nodewatch.sensors.lustre import LustreClient, lustre_sensor
from nodewatch.sensors.mounts import MountSensor
from nodewatch.sensors.neuron import NeuronMachine, neuron_sensor
from nodewatch.sensors.nvme import NvmeMachine, nvme_sensor
from nodewatch.sensors.nvml import NvmlSensor
from nodewatch.sensors.procfs import BootNote, ProcessScan, ProcSensor
from nodewatch.sensors.reading import PolledSensor
from nodewatch.sensors.systemd import UnitSensor


def sensors_of(config: AgentConfig, boot_id: str) -> list[PolledSensor]:
    """The polled sources. One whose checks are all switched off is never asked."""
    detected = machine.first_line(config.instance_type_file)
    return [
        NvmlSensor(
            deadline_s=config.nvml_deadline_s,
            expected=gpus_expected(config, detected),
            mode=config.nvml,
            nvlinks=nvlinks_expected(config, detected),
        ),
        *dcgm_sensors(
            Dcgm(
                mode=config.dcgm,
                expected_gpus=gpus_expected(config, detected),
            ),
            deadline_s=config.dcgm_deadline_s,
        ),
        MountSensor(config.shared_filesystems, deadline_s=config.filesystem_deadline_s),
        *fabric_sensors(config),
        lustre_sensor(LustreClient(hsm_files=config.hsm_files), deadline_s=config.filesystem_deadline_s),
        neuron_sensor(NeuronMachine(expected=neuron_expected(config, detected))),
        *_host(config, boot_id, detected),
    ]


def _host(config: AgentConfig, boot_id: str, detected: str) -> list[PolledSensor]:
    in_container = procfs.is_container()
    proved = procfs.proved_type(
        config.instance_type,
        detected,
        expect_host=config.expect_host,
        in_container=in_container,
    )
    note = BootNote(config.state_dir / "boot.json", boot_id, now=time.time())
    return [
        ProcSensor("host", HostSample, lambda: procfs.read_host(proved)),
        ProcSensor("processes", ProcessSample, ProcessScan()),
        ProcSensor("space", SpaceSample, procfs.read_spaces),
        ProcSensor("clock", ClockSample, lambda: procfs.read_clock(in_container=in_container)),
        ProcSensor("cpufreq", CpuFrequencySample, CpuFrequency(time.monotonic, in_container=in_container)),
        nvme_sensor(NvmeMachine(in_container=in_container)),
        ProcSensor("boot", BootSample, note.read, on_close=note.end),
        UnitSensor(deadline_s=config.systemd_deadline_s),
    ]
