"""nodewatch-controller: the composition root. Real adapters are built here and nowhere else."""

from __future__ import annotations

import argparse
import glob
import logging
import os
import pwd
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from nodewatch import __version__
from nodewatch.clients.ec2 import Ec2
from nodewatch.clients.munge import Munge
from nodewatch.clients.s3 import S3
from nodewatch.clients.slurm_choice import Choice, choose
from nodewatch.config.controller import ControllerConfig, load_controller_config
from nodewatch.controller.agents import AgentServer
from nodewatch.controller.clock import SteadyClock
from nodewatch.controller.cloud_watch import CloudWatch
from nodewatch.controller.cluster_file import ClusterFile
from nodewatch.controller.engine import Engine
from nodewatch.controller.fencing import Fence, FencedError, Stance, ask_slurm, own_names
from nodewatch.controller.inbox import take_all
from nodewatch.controller.metrics import EngineCollector
from nodewatch.controller.operators import OperatorServer
from nodewatch.controller.pair_tests import PairTests, SlurmPairs
from nodewatch.controller.questions import Questions
from nodewatch.controller.standby import StandBy, Watch
from nodewatch.errors import ConfigError, JournalError, NodewatchError
from nodewatch.journal.file import Journal
from nodewatch.policy.doctor import slurm_problems
from nodewatch.service import Notifier

_log = logging.getLogger("nodewatch.controller")
_REACH_TIMEOUT_S = 0.5
_INBOX_PERIOD_S = 0.2
_HURRIED_TICK_S = 0.1
_BEGIN_AGAIN = -1
"""No exit code: the process begins again, with the configuration as it is now."""


class Controller:
    """The engine with its sockets and its loop."""

    def __init__(
        self,
        config: ControllerConfig,
        engine: Engine,
        munge: Munge,
        choice: Choice,
        watch: CloudWatch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._cluster_file = ClusterFile(config)
        self._engine = engine
        self._choice = choice
        self._watch = watch
        self._clock = clock
        self._pair_tests = PairTests(engine, SlurmPairs(config.pairs, clock), config.pairs, clock)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._problems: list[str] = []
        self.stood_down = ""
        self.begins_again = ""
        """Why it ended in order to begin again, empty for no such reason."""
        self.is_stopped = False
        """It was asked to stop, which goes before."""
        registry = CollectorRegistry()
        registry.register(EngineCollector(engine, clock))
        self._agents = AgentServer(
            (config.listen_address, config.listen_port),
            decode=munge.decode,
            uids={0, _uid_of(config.slurm_user)},
            receive=self._receive,
            metrics=lambda: generate_latest(registry),
        )
        questions = Questions(
            engine,
            may_act={0, _uid_of(config.slurm_user)},
            problems=lambda: [*self._problems, *self._choice.problems(), *self._cluster_file.problems],
            clock=clock,
            wake=self._wake.set,
        )
        self._operators = OperatorServer(config.socket, questions.answer)

    def run(self, notifier: Notifier) -> None:
        """Work until stopped, or until another is to act: `stood_down` says why then.

        Raises JournalError when the journal can no longer be written: nothing may be done then.
        """
        config = self._config
        config.inbox.mkdir(parents=True, exist_ok=True)
        servers = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
            for server in (self._agents, self._operators)
        ]
        if self._watch is not None:
            servers.append(threading.Thread(target=self._watch.run, daemon=True))
        for thread in servers:
            thread.start()
        notifier.ready()
        self._look_at_setup()
        try:
            while not self._stop.is_set():
                self._tick(notifier)
                why = self._cluster_file.look(self._engine.ledger.open_cases)
                if why is not None:
                    self.begins_again = why
                    self._stop.set()
                self._rest()
        finally:
            # Told that it stops, systemd would wait for the end of a process that goes on.
            if self.is_stopped or not self.begins_again:
                notifier.stopping()
            self._pair_tests.close()
            if self._watch is not None:
                self._watch.stop()
            self._agents.shutdown()
            self._operators.shutdown()

    def stop(self) -> None:
        """End after the action under way."""
        self.is_stopped = True
        self._stop.set()
        self._wake.set()

    def stand_down(self, why: str) -> None:
        """Another controller is to act: end, and begin again standing by."""
        self.stood_down = why
        self.stop()

    def _tick(self, notifier: Notifier) -> None:
        self._wake.clear()
        try:
            take_all(self._config.inbox, self._engine.receive_hook)
            self._engine.tick()
            self._pair_tests.look()
        except JournalError:
            raise
        except Exception:
            # One of the two places where everything is caught: a bug in a tick must not end the watch over the cluster.
            _log.exception("a tick failed; this is a bug, please report it")
        cases = len(self._engine.ledger.open_cases)
        notifier.status(f"{self._engine.rules.mode}: {len(self._engine.snapshot.nodes)} nodes, {cases} open cases")
        notifier.watchdog()

    def _rest(self) -> None:
        """Until the next tick is due, an agent has news, or a hook has left a file."""
        tick_s = min(self._config.tick_s, _HURRIED_TICK_S) if self._engine.is_hurried else self._config.tick_s
        end = time.monotonic() + tick_s
        while not self._stop.is_set():
            left = end - time.monotonic()
            if left <= 0 or self._wake.wait(min(left, _INBOX_PERIOD_S)):
                return
            if any(self._config.inbox.glob("*.json")):
                return

    def _receive(self, message: Mapping[str, Any]) -> dict[str, Any]:
        accepted, requests, is_news = self._engine.receive_agent(message)
        if is_news:
            self._wake.set()
        told = self._engine.jobs.cluster(str(message["node"]), self._clock())
        return {"v": 1, "accepted": accepted, "requests": requests, "cluster": told}

    def _look_at_setup(self) -> None:
        try:
            config = self._choice.client.config()
        except NodewatchError as error:
            self._problems = [f"slurmctld could not be asked for its configuration: {error}"]
        else:
            self._problems = slurm_problems(config, read_plugstack(config))
        for problem in self._problems:
            _log.warning("%s", problem)


def read_plugstack(config: Mapping[str, str]) -> str | None:
    """The text of the plugstack.conf that `config` names and of the files that it includes; None when it cannot be read."""
    named = config.get("PlugStackConfig", "")
    # scontrol prints a parameter that is not set as "(null)".
    path = Path("/etc/slurm/plugstack.conf" if named in ("", "(null)") else named)
    try:
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            words = line.split()
            if len(words) == 2 and words[0] == "include":
                # A pattern may be absolute, which Path.glob does not take.
                for included in sorted(glob.glob(str(path.parent / words[1]))):  # noqa: PTH207
                    text += "\n" + Path(included).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text


def _uid_of(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise ConfigError(f"slurm_user = {user!r}: there is no such user on this machine") from error


def _reacher(config: ControllerConfig) -> Any:
    def reach(_node: str, address: str) -> bool:
        for port in (config.agent_port, config.slurmd_port):
            try:
                socket.create_connection((address, port), timeout=_REACH_TIMEOUT_S).close()
            except ConnectionRefusedError:
                # The machine itself answered: its daemons are away, it is not.
                return True
            except OSError:
                continue
            return True
        return False

    return reach


def build(
    config: ControllerConfig, notifier: Notifier, fence: Fence, choice: Choice, clock: SteadyClock
) -> tuple[Controller, Journal]:
    """The controller on real adapters, once the fence is held. Raises NodewatchError, or OSError when an address is taken."""
    munge = Munge()
    wants_ec2 = any(group.has_ec2 for group in config.groups)
    ec2 = Ec2(cluster=config.cluster) if wants_ec2 else None
    store = S3() if wants_ec2 and config.policy.evidence_bucket else None
    journal = Journal(
        config.journal,
        rotate_bytes=config.journal_mb << 20,
        keep_days=config.journal_keep_days,
        guard=fence.check,
        takes_over=fence.took_over,
    )
    # The lists are the engine's of its last tick: a machine that came a moment ago is asked about a minute later.
    watch = None if ec2 is None else CloudWatch(ask=ec2.statuses, instances=lambda: _alive(engine), clock=clock)
    engine = Engine(
        journal=journal,
        past=journal.take_past(),
        slurm=choice.client,
        ec2=ec2,
        rules=config.rules,
        clock=clock,
        reach=_reacher(config),
        ec2_period_s=config.ec2_period_s,
        alive=notifier.watchdog,
        ledger=journal.take_ledger(),
        may_act=fence.check,
        store=store,
        cloud=dict if watch is None else watch.findings,
        hang=config.hang,
        site_defaults=config.auto_resume,
    )
    return Controller(config, engine, munge, choice, watch, clock), journal


def _alive(engine: Engine) -> list[str]:
    return [each.instance_id for each in engine.snapshot.instances.values() if each.is_alive and each.node]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code: 0 stopped, 1 the journal failed, 2 cannot start, 3 another is to act."""
    parser = argparse.ArgumentParser(
        prog="nodewatch-controller", description="Watches a Slurm cluster's nodes and repairs them, within limits."
    )
    parser.add_argument("--config", type=Path, default=Path("/etc/nodewatch/controller.toml"), metavar="FILE")
    parser.add_argument(
        "--check-config", action="store_true", help="read the configuration, say what is wrong, and stop"
    )
    parser.add_argument("--version", action="version", version=f"nodewatch-controller {__version__}")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        config = load_controller_config(arguments.config)
        if arguments.check_config:
            print(f"{arguments.config} is valid: mode {config.policy.mode}, {len(config.groups)} groups")
            return 0
        code = _serve(config, Notifier.from_environment())
        return _begin_again() if code == _BEGIN_AGAIN else code
    except (NodewatchError, OSError) as error:
        print(f"nodewatch-controller: {error}", file=sys.stderr)
        return 2


def _serve(config: ControllerConfig, notifier: Notifier) -> int:
    choice = choose(config.slurm_client, deadline_s=config.slurm_deadline_s)
    _log.log(logging.WARNING if choice.is_odd else logging.INFO, "%s", choice.sentence)
    clock = SteadyClock()
    names = own_names(config.slurmctld_host)
    fence = Fence(config.state_dir, takeover_s=config.takeover_s, host=config.slurmctld_host)

    def ask() -> Stance:
        return ask_slurm(names, deadline_s=config.slurm_deadline_s)

    standby = StandBy(
        fence=fence,
        ask=ask,
        slurm=choice.client,
        rules=config.rules,
        operators=config.socket,
        period_s=config.tick_s,
        clock=clock,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: standby.stop())
    try:
        if not standby.wait(notifier):
            return 0
        if ClusterFile(config).is_other():
            return _BEGIN_AGAIN
        return _act(config, notifier, fence, choice, clock, ask)
    finally:
        choice.close()
        fence.close()


def _act(
    config: ControllerConfig,
    notifier: Notifier,
    fence: Fence,
    choice: Choice,
    clock: SteadyClock,
    ask: Callable[[], Stance],
) -> int:
    controller, journal = build(config, notifier, fence, choice, clock)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: controller.stop())
    watch = Watch(fence=fence, ask=ask, lost=controller.stand_down, period_s=config.takeover_s / 6)
    watch.start()
    try:
        controller.run(notifier)
    except FencedError as error:
        controller.stand_down(str(error))
    except JournalError as error:
        _log.critical("%s: nothing can be done without the journal, stopping", error)
        return 1
    finally:
        watch.stop()
        journal.close()
    if controller.stood_down:
        _log.warning("standing down: %s", controller.stood_down)
        return 3
    for number in (signal.SIGTERM, signal.SIGINT):
        # Asked to stop from here on, it ends at once: the process that it becomes would not know of it.
        signal.signal(number, signal.SIG_DFL)
    if controller.begins_again and not controller.is_stopped:
        _log.info("beginning again: %s", controller.begins_again)
        return _BEGIN_AGAIN
    return 0


def _begin_again() -> int:
    """Become the same command anew, in the same process: for systemd nothing has ended, and nothing of before is left over."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
