"""nodewatch-agent: puts the real parts together and runs them until a signal says stop."""

from __future__ import annotations

import argparse
import logging
import os
import pwd
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from nodewatch import __version__
from nodewatch.agent import bootstrap, metrics
from nodewatch.agent.hook_socket import HookSocket
from nodewatch.agent.identity import Identified
from nodewatch.agent.job_files import JobFiles
from nodewatch.agent.loop import Loop
from nodewatch.agent.progress import Progress
from nodewatch.agent.readings import sensors_of
from nodewatch.agent.self_drain import SelfDrain
from nodewatch.agent.sender import Link, NoSender, Sender
from nodewatch.agent.spool import Spool
from nodewatch.agent.state import StateFile
from nodewatch.agent.validation import write_sensor
from nodewatch.checks._api import load_checks
from nodewatch.clients.munge import Munge
from nodewatch.config.agent import (
    AgentConfig,
    CheckSettings,
    check_settings,
    efa_expected,
    gpus_expected,
    warnings_of,
)
from nodewatch.config.instance_types import load_learnt
from nodewatch.config.load import load
from nodewatch.errors import NodewatchError
from nodewatch.model.gpu_samples import GpuSample
from nodewatch.model.samples import KmsgSample
from nodewatch.policy.verdicts import CheckRule, Rules
from nodewatch.sensors import machine
from nodewatch.sensors.deep.suite import Suite, deep_sensors
from nodewatch.sensors.heartbeats import HeartbeatFiles
from nodewatch.sensors.kmsg import KernelLog
from nodewatch.sensors.reading import PolledSensor
from nodewatch.service import Notifier, watchdog_interval_s

_LOG = logging.getLogger("nodewatch.agent")
_INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,17}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent. Exit status 0 after a signal, 2 when it cannot start, with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="nodewatch-agent", description="Watches one node of a Slurm cluster.")
    parser.add_argument("--config", type=Path, default=Path("/etc/nodewatch/agent.toml"), metavar="FILE")
    parser.add_argument("--check-config", action="store_true", help="say whether the configuration is good, and end")
    parser.add_argument("--version", action="version", version=f"nodewatch-agent {__version__}")
    options = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        config = load(AgentConfig, options.config)
        load_learnt(config.instance_types_file)
        checks = check_settings(config, load_checks(), where=str(options.config))
        for sentence in warnings_of(config):
            _LOG.warning("%s: %s", options.config, sentence)
        if options.check_config:
            print(f"{options.config} is good: {len(checks)} checks are on ({', '.join(sorted(checks))})")
            return 0
        return _serve(config, checks)
    except NodewatchError as error:
        print(f"nodewatch-agent: {error}", file=sys.stderr)
        return 2


def readable(checks: Mapping[str, CheckSettings], sensors: Sequence[PolledSensor]) -> Mapping[str, CheckSettings]:
    """The checks whose samples this agent reads.

    Others judge what is only recorded here; waited for, they would make every node unknown for ever.
    """
    read = {KmsgSample, *(sensor.reads for sensor in sensors)}
    return {name: each for name, each in checks.items() if each.spec.reads in read}


def check_rules(checks: Mapping[str, CheckSettings], polled: Sequence[PolledSensor]) -> dict[str, CheckRule]:
    """What `verdicts.fold` must know of each check: those that no polled sensor feeds answer on demand alone."""
    always = {KmsgSample, *(sensor.reads for sensor in polled)}
    return {
        name: CheckRule(lasting=each.spec.lasting, every_s=each.every_s, is_on_demand=each.spec.reads not in always)
        for name, each in checks.items()
    }


def _serve(config: AgentConfig, checks: Mapping[str, CheckSettings]) -> int:
    notifier = Notifier.from_environment()
    watchdog_s = watchdog_interval_s()
    node = config.node_name or machine.node_name()
    boot_id = machine.boot_id(config.boot_id_file)
    # Before anything is written: a second agent must not touch the spool of the first.
    hooks = _hook_socket(config)
    hooks.open()
    try:
        state_file = StateFile(config.state_dir / "state.json")
        state = state_file.load(boot_id)
        spool = Spool(
            config.state_dir / "spool.jsonl", boot_id=boot_id, max_bytes=config.spool_max_bytes, now=time.time()
        )
        sensors = [
            Identified(sensor, lambda known: loop.emit("hardware", {"hardware": known}))
            if sensor.reads is GpuSample
            else sensor
            for sensor in sensors_of(config, boot_id)
        ]
        progress = Progress(HeartbeatFiles(config.jobs_dir, clock=time.time))
        suite = _deep_suite(config)
        checks = readable(checks, [*sensors, *suite.sensors])
        loop = Loop(
            checks=checks,
            rules=Rules(
                checks=check_rules(checks, sensors),
                clear_after=config.clear_after,
                info_ttl_s=config.info_ttl_s,
            ),
            sensors=sensors,
            write_sensor=write_sensor(config.shared_filesystems, deadline_s=config.filesystem_deadline_s)
            if config.deep_write_probe and config.shared_filesystems and "shared_filesystem" in checks
            else None,
            tools=suite.sensors,
            not_run=suite.not_run,
            gpu_reset=config.gpu_reset,
            gpu_services=config.gpu_services,
            log=KernelLog(config.kmsg, boot_id=boot_id, position=state.position, lookback_s=config.kmsg_lookback_s),
            hooks=hooks,
            spool=spool,
            state=state,
            state_file=state_file,
            drain=SelfDrain(node=node, scontrol=config.scontrol, silence_s=config.controller_silence_s)
            if config.self_drain
            else None,
            notifier=notifier,
            watchdog_s=watchdog_s,
            validate_timeout_s=config.validate_timeout_s,
            hook_misses=config.hook_misses,
            progress=progress,
            job_files=JobFiles(config.jobs_dir),
            node=node,
            stack_dump=config.stack_dump,
        )
        sender = _sender(config, node, boot_id, loop, spool, progress)
        loop.report_to(sender)
        progress.start()
        _run(config, loop, sender, notifier, checks)
        progress.stop()
        spool.close()
    finally:
        hooks.close()
        notifier.close()
    return 0


def _deep_suite(config: AgentConfig) -> Suite:
    detected = machine.first_line(config.instance_type_file)
    suite = deep_sensors(
        config.deep,
        instance_type=config.instance_type or detected,
        gpus=gpus_expected(config, detected),
        efa_devices=efa_expected(config, detected),
    )
    for tool, why in suite.not_run:
        _LOG.info("deep checks leave out %s: %s", tool, why)
    return suite


def _run(
    config: AgentConfig,
    loop: Loop,
    sender: Sender | NoSender,
    notifier: Notifier,
    checks: Mapping[str, CheckSettings],
) -> None:
    def stop(number: int, _frame: FrameType | None) -> None:
        _LOG.info("stopping on signal %d", number)
        loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.set_wakeup_fd(loop.wake_fd, warn_on_full_buffer=False)
    failed = bootstrap.failure(config.state_dir)
    loop.emit(
        "hello",
        {"agent": __version__, "checks": sorted(checks), **({"bootstrap": failed} if failed else {})},
    )
    sender.start()
    stop_metrics = (
        metrics.serve(loop.measurements, address=config.metrics_address, port=config.metrics_port)
        if config.metrics_port
        else None
    )
    notifier.ready()
    loop.run()
    notifier.stopping()
    sender.stop()
    if stop_metrics is not None:
        stop_metrics()


def _hook_socket(config: AgentConfig) -> HookSocket:
    try:
        owner = pwd.getpwnam(config.slurm_user).pw_uid
    except KeyError:
        _LOG.warning("there is no user %r: only root may ask on %s (set slurm_user)", config.slurm_user, config.socket)
        owner = os.geteuid()
    return HookSocket(config.socket, uids=(owner, os.geteuid()), owner=owner)


def _sender(
    config: AgentConfig, node: str, boot_id: str, loop: Loop, spool: Spool, progress: Progress
) -> Sender | NoSender:
    if not config.controller_url:
        return NoSender()
    munge = Munge(socket=Path(config.munge_socket) if config.munge_socket else None)
    instance = machine.first_line(config.instance_id_file)
    header = {
        "v": 1,
        "node": node,
        "boot_id": boot_id,
        # Firmware of other makers says "Not Specified" or a serial number there.
        "instance_id": instance if _INSTANCE_ID.fullmatch(instance) else "",
        "agent": __version__,
    }

    def describe() -> dict[str, Any]:
        state = {"sent_at": time.time(), "verdict": loop.verdict.to_json(), "validation": loop.progress}
        return {**header, **state, **progress.part()}

    return Sender(
        link=Link(config.controller_url, seal=munge.encode),
        spool=spool,
        describe=describe,
        heartbeat_s=config.heartbeat_s,
        on_requests=loop.request,
        on_sent=progress.sent,
    )


if __name__ == "__main__":
    sys.exit(main())
