"""Which deep diagnostics this node runs, in their order, and why the others are not run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nodewatch.sensors.deep import dcgm, disk, fabric, nccl, stress
from nodewatch.sensors.deep.tool import SCOPE, Procedure, ToolSensor, search_path

_EFA_VENDOR = "0x1d0f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The diagnostics in running order, and (tool, one sentence why) for each that is not run."""

    sensors: tuple[ToolSensor, ...]
    not_run: tuple[tuple[str, str], ...]


class DeepSettings(Protocol):
    """What is read of the configuration: `nodewatch.config.deep.DeepConfig`, which this layer does not know."""

    # fmt: off
    @property
    def dcgm(self) -> str: ...
    @property
    def nccl(self) -> str: ...
    @property
    def fi_info(self) -> str: ...
    @property
    def fi_pingpong(self) -> str: ...
    @property
    def cpu(self) -> str: ...
    @property
    def memory(self) -> str: ...
    @property
    def disk(self) -> str: ...
    @property
    def lock(self) -> Path: ...
    @property
    def own_scope(self) -> bool: ...
    @property
    def dcgmi(self) -> str: ...
    @property
    def dcgm_level(self) -> int: ...
    @property
    def dcgm_deadline_s(self) -> float: ...
    @property
    def all_reduce_perf(self) -> str: ...
    @property
    def nccl_environment(self) -> Mapping[str, str]: ...
    @property
    def nccl_stuck_after_s(self) -> int: ...
    @property
    def nccl_deadline_s(self) -> float: ...
    @property
    def fi_info_command(self) -> str: ...
    @property
    def fi_pingpong_command(self) -> str: ...
    @property
    def fi_pingpong_devices(self) -> int: ...
    @property
    def fi_pingpong_iterations(self) -> int: ...
    @property
    def fi_pingpong_port(self) -> int: ...
    @property
    def fi_pingpong_each_s(self) -> float: ...
    @property
    def fabric_deadline_s(self) -> float: ...
    @property
    def stress_ng(self) -> str: ...
    @property
    def cpu_method(self) -> str: ...
    @property
    def cpu_seconds(self) -> int: ...
    @property
    def memory_method(self) -> str: ...
    @property
    def memory_seconds(self) -> int: ...
    @property
    def memory_share(self) -> float: ...
    @property
    def memory_max_mib(self) -> int: ...
    @property
    def disk_directories(self) -> tuple[str, ...]: ...
    @property
    def disk_mib(self) -> int: ...
    @property
    def disk_deadline_s(self) -> float: ...
    # fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One diagnostic: whether its hardware is there, what commands it needs, and what it runs."""

    name: str
    mode: str
    missing: str
    """Why it cannot run here, as a sentence; empty when its hardware is there."""
    commands: tuple[str, ...]
    reads: type[Any]
    procedure: Callable[[], Procedure]
    deadline_s: float
    grace_s: float = 1.0


def deep_sensors(
    config: DeepSettings, *, instance_type: str, gpus: int | None, efa_devices: int | None, root: Path = Path("/")
) -> Suite:
    """The diagnostics of this node.

    `gpus` and `efa_devices` are how many it should have; None: not known, the machine itself is looked at.
    """
    prefix = SCOPE if config.own_scope and (root / "run/systemd/system").is_dir() else ()
    sensors: list[ToolSensor] = []
    not_run: list[tuple[str, str]] = []
    for plan in _plans(config, instance_type, gpus, efa_devices, root):
        why = _why_not(plan)
        if why:
            not_run.append((plan.name, why))
            continue
        sensors.append(
            ToolSensor(
                plan.name,
                plan.reads,
                plan.procedure,
                deadline_s=plan.deadline_s,
                grace_s=plan.grace_s,
                lock=config.lock,
                prefix=prefix,
            )
        )
    return Suite(sensors=tuple(sensors), not_run=tuple(not_run))


def _why_not(plan: _Plan) -> str:
    if plan.mode == "off":
        return f"{plan.name} is switched off in [deep] of agent.toml"
    if plan.mode == "on":
        return ""
    if plan.missing:
        return plan.missing
    absent = [command for command in plan.commands if shutil.which(command, path=search_path()) is None]
    return f"{absent[0]} is not installed: install it, or name its path in [deep] of agent.toml" if absent else ""


def _plans(
    config: DeepSettings, instance_type: str, gpus: int | None, efa_devices: int | None, root: Path
) -> tuple[_Plan, ...]:
    seen_gpus = gpus_seen(root) if gpus is None else gpus
    seen_efa = efa_seen(root) if efa_devices is None else efa_devices
    no_gpu = "" if seen_gpus else "the machine has no GPU"
    no_efa = "" if seen_efa else "the machine has no EFA device"
    return (
        _Plan(
            name="dcgm",
            mode=config.dcgm,
            missing=no_gpu,
            commands=(config.dcgmi,),
            reads=dcgm.READS,
            procedure=lambda: dcgm.procedure(config.dcgmi, config.dcgm_level),
            deadline_s=config.dcgm_deadline_s or dcgm.DEADLINES_S[config.dcgm_level],
            grace_s=dcgm.GRACE_S,
        ),
        _Plan(
            name="nccl",
            mode=config.nccl,
            missing=no_gpu,
            commands=(config.all_reduce_perf,),
            reads=nccl.READS,
            procedure=lambda: nccl.procedure(
                nccl.argv(
                    config.all_reduce_perf,
                    instance_type=instance_type,
                    gpus=max(1, seen_gpus),
                    stuck_after_s=config.nccl_stuck_after_s,
                ),
                instance_type=instance_type,
                env=config.nccl_environment,
            ),
            deadline_s=config.nccl_deadline_s,
        ),
        _Plan(
            name="fi_info",
            mode=config.fi_info,
            missing=no_efa,
            commands=(config.fi_info_command,),
            reads=fabric.INFO_READS,
            procedure=lambda: fabric.info_procedure(config.fi_info_command, expected=efa_devices),
            deadline_s=fabric.LIST_S + 5.0,
        ),
        _Plan(
            name="fi_pingpong",
            mode=config.fi_pingpong,
            missing=no_efa,
            commands=(config.fi_info_command, config.fi_pingpong_command),
            reads=fabric.PINGPONG_READS,
            procedure=lambda: fabric.pingpong_procedure(
                config.fi_info_command,
                config.fi_pingpong_command,
                expected=efa_devices,
                most=config.fi_pingpong_devices,
                port=config.fi_pingpong_port,
                each_s=config.fi_pingpong_each_s,
                iterations=config.fi_pingpong_iterations,
            ),
            deadline_s=config.fabric_deadline_s,
        ),
        *_host_plans(config, root),
    )


def _host_plans(config: DeepSettings, root: Path) -> tuple[_Plan, ...]:
    return (
        _Plan(
            name="cpu",
            mode=config.cpu,
            missing="",
            commands=(config.stress_ng,),
            reads=stress.CPU_READS,
            procedure=lambda: stress.cpu_procedure(
                config.stress_ng, method=config.cpu_method, seconds=config.cpu_seconds
            ),
            deadline_s=config.cpu_seconds + stress.END_S,
        ),
        _Plan(
            name="memory",
            mode=config.memory,
            missing="",
            commands=(config.stress_ng,),
            reads=stress.MEMORY_READS,
            procedure=lambda: stress.memory_procedure(
                config.stress_ng,
                method=config.memory_method,
                seconds=config.memory_seconds,
                share=config.memory_share,
                most=config.memory_max_mib << 20,
                root=root,
            ),
            deadline_s=config.memory_seconds + stress.END_S,
        ),
        _Plan(
            name="disk",
            mode=config.disk if config.disk_directories or config.disk == "off" else "auto",
            missing=""
            if config.disk_directories
            else "no local directory is configured: set disk_directories in [deep]",
            commands=(),
            reads=disk.READS,
            procedure=lambda: disk.procedure(config.disk_directories, size=config.disk_mib << 20),
            deadline_s=config.disk_deadline_s,
        ),
    )


def gpus_seen(root: Path) -> int:
    """How many GPUs the driver has, by its entries in /proc; 0 without a driver."""
    try:
        return sum(1 for _ in (root / "proc/driver/nvidia/gpus").iterdir())
    except OSError:
        return 0


def efa_seen(root: Path) -> int:
    """How many EFA devices the kernel has, by /sys/class/infiniband; one that vanishes meanwhile is none."""
    found = 0
    try:
        for device in (root / "sys/class/infiniband").iterdir():
            vendor = device / "device/vendor"
            found += vendor.is_file() and vendor.read_text(encoding="utf-8", errors="replace").strip() == _EFA_VENDOR
    except OSError:
        return found
    return found
