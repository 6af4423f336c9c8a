"""The sources of fabric, network and cloud that this machine's agent reads, as its configuration says."""

from __future__ import annotations

from nodewatch.config.agent import AgentConfig, efa_expected
from nodewatch.model.network_samples import MemlockSample, ModulesSample
from nodewatch.sensors import imds, machine, modules, procfs
from nodewatch.sensors.efa import EfaSensor
from nodewatch.sensors.ena import EnaSensor
from nodewatch.sensors.ib import IbSensor
from nodewatch.sensors.imds import ImdsSensor
from nodewatch.sensors.procfs import ProcSensor
from nodewatch.sensors.reading import PolledSensor


def fabric_sensors(config: AgentConfig) -> list[PolledSensor]:
    """The polled sources. Where there is no such device they answer so at once, without a process."""
    in_container = procfs.is_container()
    return [
        EfaSensor(
            expected=efa_expected(config, machine.first_line(config.instance_type_file)),
            grace_s=config.efa_grace_s,
            deadline_s=config.fabric_deadline_s,
        ),
        IbSensor(deadline_s=config.fabric_deadline_s),
        EnaSensor(deadline_s=config.fabric_deadline_s),
        ImdsSensor(config.imds_url, is_ec2=imds.is_ec2(), capacity_block_ends=config.capacity_block_ends),
        ProcSensor(
            "modules",
            ModulesSample,
            lambda: modules.read_modules(
                gpus=config.gpus != 0 and config.nvml != "off", efa=config.efa_devices != 0, in_container=in_container
            ),
        ),
        ProcSensor("memlock", MemlockSample, modules.MemlockReader()),
    ]
