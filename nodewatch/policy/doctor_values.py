"""What single values of slurm.conf cost nodewatch, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nodewatch.policy.doctor_settings import Advice, SlurmSettings

_IMPLY_ALLOC = {"alloc", "contain", "x11", "runinjob", "deferbatch", "forcerequeueonfail"}
"""slurm.conf(5): each of the others sets Alloc as well."""
_EXPEDITED_SINCE = (25, 11)


def value_advice(settings: SlurmSettings) -> Iterator[Advice]:
    """All that is to be said, in the order of a job's life."""
    for rule in _RULES:
        yield from rule(settings)


def _needed(parameter: str, sentence: str) -> Advice:
    return Advice(parameter=parameter, sentence=f"slurm.conf: {sentence}")


def _wanted(parameter: str, sentence: str) -> Advice:
    return Advice(parameter=parameter, sentence=f"slurm.conf: {sentence}", is_needed=False)


def _health_check(settings: SlurmSettings) -> Iterator[Advice]:
    if not any("nodewatch" in value for value in settings.every("HealthCheckProgram")):
        return
    # Slurm's default is 0: the program is named and never run.
    if settings.number("HealthCheckInterval", 0) == 0:
        yield _needed(
            "HealthCheckInterval",
            "HealthCheckInterval=0, so the health check never runs: set HealthCheckInterval=30",
        )
    states = settings.words("HealthCheckNodeState") or {"any"}
    if "any" not in states:
        yield _wanted(
            "HealthCheckNodeState",
            f"HealthCheckNodeState={settings.text('HealthCheckNodeState')} leaves nodes in other states unasked: "
            "set HealthCheckNodeState=ANY,CYCLE",
        )
    elif "cycle" not in states:
        yield _wanted(
            "HealthCheckNodeState",
            "HealthCheckNodeState lacks CYCLE, so all nodes are asked in the same instant, which a job on all of them feels: "
            "set HealthCheckNodeState=ANY,CYCLE",
        )


def _prolog(settings: SlurmSettings) -> Iterator[Advice]:
    flags = settings.words("PrologFlags")
    if not flags & _IMPLY_ALLOC:
        yield _needed(
            "PrologFlags",
            "PrologFlags lacks Alloc, so the prolog runs on a node at its first step, when the program runs already on the "
            "others, and never where no step runs: set PrologFlags=Alloc",
        )
    if "nohold" in flags:
        yield _wanted(
            "PrologFlags",
            "PrologFlags has NoHold, so salloc returns before the prologs have answered, and a broken node is found at the "
            "first step: take NoHold out",
        )
    if "nohold_on_prolog_fail" not in settings.words("SchedulerParameters"):
        yield _needed(
            "SchedulerParameters",
            "SchedulerParameters lacks nohold_on_prolog_fail, so a job that our prolog turns away stays held: add it",
        )
    if "forcerequeueonfail" not in flags:
        yield _wanted(
            "PrologFlags",
            "PrologFlags lacks ForceRequeueOnFail, so a job submitted with --no-requeue is cancelled when our prolog turns it "
            "away: add it if such jobs may wait for another node instead",
        )
    longest = {name: settings.number(name, 0) for name in ("PrologEpilogTimeout", "PrologTimeout", "EpilogTimeout")}
    # 65534 is how 24.11 prints a limit that is not set.
    if not any(0 < value < 65534 for value in longest.values()):
        yield _wanted(
            "PrologEpilogTimeout",
            "PrologEpilogTimeout is not set, so a prolog or epilog of the site that hangs holds its node for ever (ours take "
            "1 s at most): set PrologEpilogTimeout=30, or what the slowest of the site needs",
        )


def _requeue(settings: SlurmSettings) -> Iterator[Advice]:
    if not settings.flag("JobRequeue", default=True):
        yield _needed("JobRequeue", "JobRequeue=0, so jobs cannot be started again: set JobRequeue=1")
    if not settings.flag("JobFileAppend", default=False):
        yield _needed(
            "JobFileAppend",
            "JobFileAppend=0, so a job restarted without --open-mode=append may overwrite its own output: "
            "set JobFileAppend=1",
        )
    if settings.number("MaxBatchRequeue", 5) < 20:
        yield _wanted(
            "MaxBatchRequeue",
            f"MaxBatchRequeue={settings.number('MaxBatchRequeue', 5):g}, so Slurm holds a job after so many restarts, whatever "
            "--auto-resume=N allows: set MaxBatchRequeue=100",
        )
    if settings.number("MinJobAge", 300) < 60:
        yield _needed(
            "MinJobAge",
            f"MinJobAge={settings.number('MinJobAge', 300):g}, so the record of a failed job may be gone before it was judged: "
            "set MinJobAge=300",
        )
    if settings.text("RequeueExit"):
        yield _wanted(
            "RequeueExit",
            f"RequeueExit={settings.text('RequeueExit')} makes Slurm requeue jobs by their exit code, without looking at the "
            "hardware and without a limit of ours: leave those codes to --auto-resume",
        )
    expedited = "enable_expedited_requeue" in settings.words("SlurmctldParameters")
    release = settings.release
    if release is not None and release >= _EXPEDITED_SINCE and not expedited:
        yield _wanted(
            "SlurmctldParameters",
            "SlurmctldParameters lacks enable_expedited_requeue, so sbatch --requeue=expedite is refused, with which Slurm "
            "itself restarts a job at once after our epilog found a fault: add it if users are to have it",
        )
    if release is not None and release < _EXPEDITED_SINCE and expedited:
        yield _wanted(
            "SlurmctldParameters",
            f"SlurmctldParameters has enable_expedited_requeue, which Slurm {release[0]}.{release[1]:02} does not know: it "
            "came with 25.11",
        )


def _nodes(settings: SlurmSettings) -> Iterator[Advice]:
    returns = settings.number("ReturnToService", 0)
    if returns >= 2:
        yield _needed(
            "ReturnToService",
            "ReturnToService=2, so a node that went down by itself takes jobs again before anything was tested: "
            "set ReturnToService=1",
        )
    elif returns == 0:
        yield _wanted(
            "ReturnToService",
            "ReturnToService=0, so a node that was only cut off for a while waits for an operator or for the controller's "
            "repair: set ReturnToService=1",
        )
    timeout = settings.number("SlurmdTimeout", 300)
    if timeout == 0 or timeout == float("inf"):
        yield _needed(
            "SlurmdTimeout",
            "SlurmdTimeout=0, so Slurm never gives up a node that stopped dead, nor its job: set SlurmdTimeout=300",
        )
    elif timeout > 600:
        yield _wanted(
            "SlurmdTimeout",
            f"SlurmdTimeout={timeout:g}, so without the controller a job waits so many seconds for a node that stopped dead: "
            "set SlurmdTimeout=300 or less",
        )
    if settings.number("UnkillableStepTimeout", 60) < 60:
        yield _wanted(
            "UnkillableStepTimeout",
            f"UnkillableStepTimeout={settings.number('UnkillableStepTimeout', 60):g}, so a process that needs longer to die, "
            "as one that frees eight GPUs or waits for a file system, drains its node: set UnkillableStepTimeout=180",
        )
    if not settings.text("RebootProgram"):
        yield _needed(
            "RebootProgram",
            "RebootProgram is not set, so the controller's reboots are refused: set RebootProgram=/usr/sbin/reboot",
        )
    if settings.number("ResumeTimeout", 60) < 60:
        yield _wanted(
            "ResumeTimeout",
            f"ResumeTimeout={settings.number('ResumeTimeout', 60):g}, so Slurm gives up a node that is still booting: "
            "set ResumeTimeout to what the machines need, 900 for large ones",
        )


def _power(settings: SlurmSettings) -> Iterator[Advice]:
    if not settings.text("SuspendProgram") or not 0 < settings.number("SuspendTime", float("inf")) < float("inf"):
        return
    if not any(settings.text(name) for name in ("SuspendExcNodes", "SuspendExcParts", "SuspendExcStates")):
        yield _needed(
            "SuspendExcNodes",
            "SuspendProgram and SuspendTime are set and nothing is excepted, so Slurm turns off idle nodes and warm spares "
            "under the controller: set SuspendExcNodes to the nodes that nodewatch looks after",
        )


def _users(settings: SlurmSettings) -> Iterator[Advice]:
    # scontrol prints slurm(64030).
    user = settings.text("SlurmUser").partition("(")[0] or "root"
    if user != "slurm":
        yield _wanted(
            "SlurmUser",
            f'SlurmUser is {user}: set slurm_user = "{user}" in agent.toml and controller.toml, and give that user the '
            "controller's directories",
        )
    daemon = settings.text("SlurmdUser").partition("(")[0] or "root"
    if daemon != "root":
        yield _needed(
            "SlurmdUser",
            f"SlurmdUser is {daemon}, so the hooks may not ask the agent, which answers root and SlurmUser: "
            "set SlurmdUser=root",
        )
    if settings.text("AuthType") not in ("", "auth/munge"):
        yield _wanted(
            "AuthType",
            f"AuthType={settings.text('AuthType')}: agents seal what they send with MUNGE, so keep munged running on all nodes",
        )


_RULES: tuple[Callable[[SlurmSettings], Iterator[Advice]], ...] = (
    _health_check,
    _prolog,
    _requeue,
    _nodes,
    _power,
    _users,
)
