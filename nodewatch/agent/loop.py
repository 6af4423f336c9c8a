"""The agent's one loop: it waits for the kernel log, hooks, sensors and requests at once, and folds what they say.

Nothing in it blocks: whatever may hang does so in a child process or in the sender's thread. The watchdog is fed here and
nowhere else, so that a loop that hangs all the same is restarted by systemd.
"""

from __future__ import annotations

import logging
import queue
import random
import select
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nodewatch.agent.deep import DeepTool
from nodewatch.agent.gpu_reset import GpuReset, ResetDone
from nodewatch.agent.hook_socket import HookRequest, HookSocket
from nodewatch.agent.job_files import JobFiles
from nodewatch.agent.job_witness import JobWitness
from nodewatch.agent.metrics import Measurements
from nodewatch.agent.progress import Progress
from nodewatch.agent.retirement import Retirement
from nodewatch.agent.runner import Cadence, run_check
from nodewatch.agent.self_drain import SelfDrain
from nodewatch.agent.spool import Spool
from nodewatch.agent.stack_dump import StackDumps
from nodewatch.agent.state import State, StateFile
from nodewatch.agent.tally import HookMisses, Tally
from nodewatch.agent.validation import SUITES, Answers, Given, Validator
from nodewatch.agent.wake import WakePipe
from nodewatch.checks._api import Phase
from nodewatch.config.agent import CheckSettings
from nodewatch.errors import SensorError
from nodewatch.model.health import CheckResult, Finding, Verdict
from nodewatch.model.samples import GpuSample, KmsgSample
from nodewatch.policy import verdicts
from nodewatch.policy.verdicts import HookAnswer, Rules
from nodewatch.sensors.kmsg import KernelLog
from nodewatch.sensors.reading import PolledSensor, Reading
from nodewatch.service import Notifier

_LOG = logging.getLogger(__name__)
_HOUSEKEEPING_S = 5.0
_REGULAR_FILE_S = 0.2
"""A regular file cannot be waited for: it is looked at this often."""
_NEVER = float("inf")
_EPILOG_AGAIN_S = 5.0


class Reporter(Protocol):
    """What the loop needs of the sender: to wake it, and to know since when the controller is silent."""

    failures: int
    sent: int
    last_contact: float

    def wake(self) -> None:
        """Send now."""


class Loop:
    """State and wiring of the running agent. `run` returns after `stop`."""

    def __init__(
        self,
        *,
        checks: Mapping[str, CheckSettings],
        rules: Rules,
        sensors: Sequence[PolledSensor],
        write_sensor: PolledSensor | None,
        tools: Sequence[DeepTool] = (),
        not_run: Sequence[tuple[str, str]] = (),
        gpu_reset: Sequence[str] = (),
        gpu_services: Sequence[str] = (),
        log: KernelLog,
        hooks: HookSocket,
        spool: Spool,
        state: State,
        state_file: StateFile,
        drain: SelfDrain | None,
        notifier: Notifier,
        watchdog_s: float | None,
        validate_timeout_s: float,
        hook_misses: Path,
        progress: Progress,
        job_files: JobFiles,
        node: str,
        stack_dump: Sequence[str] = (),
    ) -> None:
        self._checks = checks
        self._rules = rules
        self._sensors = {sensor.name: sensor for sensor in sensors if self._of(sensor)}
        self._log = log
        self._hooks = hooks
        self._spool = spool
        self._state_file = state_file
        self._drain = drain
        self._notifier = notifier
        self._watchdog_s = watchdog_s
        self._validator = Validator(
            host=self,
            checks=checks,
            tools=tools,
            not_run=not_run,
            writer=write_sensor,
            timeout_s=validate_timeout_s,
            clear_after=rules.clear_after,
        )
        self._misses = HookMisses(hook_misses)
        self._progress = progress
        self._job_files = job_files
        self._witness = JobWitness(
            node,
            marks=job_files.mark,
            steps=progress.last_step,
            tell=lambda content: self.emit("job_witness", content),
        )
        self._retirement = Retirement()
        self._dumps = StackDumps(
            progress.ranks,
            command=stack_dump,
            tell=lambda content: self.emit("stack_dump", content),
            is_told=self.is_told,
        )
        self._tally = Tally()
        self._memory, self._verdict, _ = verdicts.fold(state.memory, (), time.time(), rules)
        self._reporter: Reporter | None = None
        self._requests: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._wake_pipe = WakePipe()
        self._is_stopping = False
        chance = random.Random()
        self._cadences = {
            name: Cadence(period_s=min(each.every_s for each in self._of(sensor)), random=chance)
            for name, sensor in self._sensors.items()
        }
        self._last_run: dict[str, float] = {}
        self._reading_began: dict[str, float] = {}
        self._begun_at: dict[str, float] = {}
        self._hastened: dict[str, float] = {}
        """Since when the checks of a job's end wait for the next reading of a sensor."""
        self._streams = [each for each in checks.values() if each.spec.reads is KmsgSample]
        stream_s = min((each.every_s for each in self._streams), default=10.0)
        self._stream_cadence = Cadence(period_s=stream_s, random=chance)
        self._housekeeping = Cadence(period_s=_HOUSEKEEPING_S, random=chance)
        self._fed_at = 0.0
        self._forgotten: list[str] = []
        self._gpu_reset = tuple(gpu_reset)
        self._gpu_services = tuple(gpu_services)
        self._reset: GpuReset | None = None
        self._resets = Answers()
        self._saved = state

    @property
    def verdict(self) -> Verdict:
        """The state of the node now. May be read from any thread."""
        return self._verdict

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far a validation is; None while there is none. May be read from any thread."""
        return self._validator.progress(time.monotonic())

    @property
    def wake_fd(self) -> int:
        """A byte written here ends the loop's wait; signals write it too."""
        return self._wake_pipe.write_fd

    def report_to(self, reporter: Reporter) -> None:
        """Wake `reporter` for every event from now on."""
        self._reporter = reporter

    def request(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Take the controller's requests. Called from the sender's thread."""
        for each in requests:
            self._requests.put(each)
        self._wake_pipe.wake()

    def stop(self) -> None:
        """End the loop. May be called from a signal handler."""
        self._is_stopping = True

    def emit(self, kind: str, content: Mapping[str, Any]) -> str:
        """Put one event into the spool and wake the sender."""
        event_id = self._spool.append(kind, time.time(), content)
        if self._reporter is not None:
            self._reporter.wake()
        return event_id

    def measurements(self) -> Measurements:
        """The figures for the metrics server. Called from its thread; each copy is made in one step."""
        return Measurements(
            verdict=self._verdict,
            check_seconds=dict(self._tally.check_seconds),
            check_runs=dict(self._tally.check_runs),
            check_unknowns=dict(self._tally.check_unknowns),
            hook_answers=dict(self._tally.hook_answers),
            hook_refused=self._hooks.refused,
            hook_errors=self._hooks.errors,
            hook_misses=self._misses.count,
            spool_depth=self._spool.depth,
            spool_dropped=self._spool.dropped,
            spool_on_disk=self._spool.error is None,
            kmsg_garbled=self._log.garbled,
            kmsg_overruns=self._log.overruns,
            messages_sent=self._reporter.sent if self._reporter is not None else 0,
            controller_failures=self._reporter.failures if self._reporter is not None else 0,
            nvml_restarts=sum(getattr(sensor, "restarts", 0) for sensor in self._sensors.values()),
        )

    def run(self) -> None:
        """Serve until stopped."""
        self.emit("verdict", {"verdict": self._verdict.to_json()})
        while not self._is_stopping:
            ready = self._wait()
            if self._wake_pipe.read_fd in ready:
                self._wake_pipe.clear()
            now = time.monotonic()
            # The kernel log first: a job that asks in the same instant must hear of the fault.
            if self._streams:
                self._read_log(now, is_ready=self._log.fileno() in ready)
            self._hooks.serve(ready, now, self._decide)
            self._poll_sensors(now)
            self._serve_requests(now)
            self._validator.step(now)
            self._advance_reset(now)
            self._dumps.step(now)
            self._witness.step(now)
            self._advance_drain(now)
            if self._housekeeping.is_due(now):
                self._keep_house(now)
            self._feed(now)
        self._save()
        for sensor in self._sensors.values():
            sensor.close()
        self._validator.close()
        self._job_files.close()
        self._dumps.close()
        self._witness.close()
        if self._reset is not None:
            self._reset.close()
        if self._drain is not None:
            self._drain.close()

    def _wait(self) -> set[int]:
        poll = select.poll()
        log_fd = self._log.fileno() if self._streams else None
        fds = [self._wake_pipe.read_fd, *self._hooks.filenos()]
        fds += [fd for sensor in self._sensors.values() for fd in sensor.filenos()]
        fds += self._validator.filenos()
        fds += self._dumps.filenos()
        fds += self._witness.filenos()
        fds += self._reset.filenos() if self._reset is not None else ()
        fds += [] if log_fd is None else [log_fd]
        fds += self._drain.filenos() if self._drain is not None else ()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        # poll takes whole milliseconds: rounded up, or the loop would spin through the last one.
        timeout_ms = int(max(0.0, min(self._next_at() - time.monotonic(), 60.0)) * 1000) + 1
        return {fd for fd, _ in poll.poll(timeout_ms)}

    def _next_at(self) -> float:
        times: list[float | None] = [
            cadence.next_at
            for name, cadence in self._cadences.items()
            # Nothing is due of the GPUs while they are reset: a time that has passed would make the loop spin.
            if self._reset is None or self._sensors[name].reads is not GpuSample
        ]
        times += [sensor.due_at() for sensor in self._sensors.values()]
        times += [self._hooks.due_at(), self._housekeeping.next_at, self._validator.due_at(), self._dumps.due_at()]
        times.append(self._witness.due_at())
        if self._streams:
            times.append(self._stream_cadence.next_at)
            if self._log.is_open and self._log.fileno() is None:
                times.append(time.monotonic() + _REGULAR_FILE_S)
        if self._reset is not None:
            times.append(self._reset.due_at())
        if self._watchdog_s is not None:
            times.append(self._fed_at + self._watchdog_s)
        if self._drain is not None:
            times.append(self._drain.due_at(self._verdict, self._last_contact()))
        return min((at for at in times if at is not None), default=_NEVER)

    def _read_log(self, now: float, *, is_ready: bool) -> None:
        is_due = self._stream_cadence.is_due(now)
        is_file = self._log.is_open and self._log.fileno() is None
        if not (is_ready or is_due or is_file):
            return
        reading = self._log_reading(look_again=is_due)
        sample = reading.sample
        if not is_due and isinstance(sample, KmsgSample) and not sample.records:
            return
        self._stream_cadence.done(now)
        self.fold([self.judge(each, reading) for each in self._streams])

    def _log_reading(self, *, look_again: bool) -> Reading:
        try:
            if look_again:
                self._log.reopen_if_replaced()
            return Reading(sample=self._log.read())
        except SensorError as error:
            return Reading(error=str(error))

    def _poll_sensors(self, now: float) -> None:
        for name, sensor in self._sensors.items():
            if self._reset is not None and sensor.reads is GpuSample:
                # Begun now it would hold the GPUs open, and the driver would refuse to reset them.
                continue
            reading = sensor.result(now)
            if reading is not None:
                self._judge(sensor, reading, now)
            wanted = name not in self._reading_began and self._validator.awaits(sensor)
            if self._cadences[name].is_due(now) or wanted:
                self.begin(sensor, now)
                self._cadences[name].done(now)

    def begin(self, sensor: PolledSensor, now: float) -> None:
        """Begin a reading of `sensor` unless one is under way."""
        if sensor.name not in self._reading_began:
            self._reading_began[sensor.name] = self._begun_at[sensor.name] = now
            sensor.start(now)

    def _judge(self, sensor: PolledSensor, reading: Reading, now: float) -> None:
        began = self._reading_began.pop(sensor.name, now)
        if isinstance(reading.sample, GpuSample):
            self._progress.gpus.take(reading.sample)
        validation = self._validator.now
        is_hastened = began >= self._hastened.get(sensor.name, _NEVER)
        if is_hastened:
            del self._hastened[sensor.name]
        results = []
        for each in self._of(sensor):
            name = each.spec.name
            wanted = validation is not None and name in validation.awaited
            # A little early is on time: cadences of one sensor and its checks are the same number with a jitter.
            is_after_job = is_hastened and Phase.EPILOG in each.spec.phases
            if wanted or is_after_job or began - self._last_run.get(name, -_NEVER) >= 0.8 * each.every_s:
                self._last_run[name] = began
                results.append(self.judge(each, reading))
        self.fold(results)
        if validation is not None:
            deep = [result for result in results if result.check in validation.awaited]
            validation.take(deep, began_at=began)

    def judge(self, settings: CheckSettings, reading: Reading) -> CheckResult:
        """One check on one reading, counted."""
        result = run_check(settings, reading)
        self._tally.ran(result)
        return result

    def fold(self, results: Sequence[CheckResult], *, tell: bool = False) -> None:
        """Results into the verdict; the controller hears of a change, and with `tell` in any case."""
        before = self._memory.held
        self._memory, self._verdict, changed = verdicts.fold(self._memory, results, time.time(), self._rules)
        if changed or tell:
            _LOG.info("verdict %s: %s", self._verdict.state.value, _outline(self._verdict))
            self.emit("verdict", {"verdict": self._verdict.to_json()})
        # Findings that last are kept before the line counts as read; the rest is seen again after a restart.
        if {item.finding.identity for item in before} != {item.finding.identity for item in self._memory.held}:
            self._save()

    def _decide(self, request: HookRequest) -> HookAnswer:
        answer = verdicts.answer(request.ask, self._verdict)
        self._tally.answered(request.ask, answer)
        if not answer.allow:
            # Every look of a health check at a node that is out would be an event a minute and no news.
            if request.ask != "healthcheck":
                content = {"ask": request.ask, "job": dict(request.job), "reason": answer.reason}
                self.emit("hook_denied", content)
            _LOG.warning("%s denied: %s", request.ask, answer.reason)
        elif request.ask == "prolog":
            self._validator.job_starts(request.job.get("id", "?"), time.monotonic())
            # Before the answer: the job's first process may ask for them.
            self._job_files.opened(request.job, time.monotonic())
            self._witness.started(request.job, time.monotonic())
        if request.ask == "epilog":
            self._validator.job_ended(request.job.get("id", "?"))
            self._witness.ended(request.job, time.monotonic())
            self._job_files.closed(request.job.get("id", ""), time.monotonic())
            self._look_again(time.monotonic())
        return answer

    def _look_again(self, now: float) -> None:
        """A job has ended: what its end may have left is looked for now and not at the next turn.

        Its own epilog does not wait for that; the next job's prolog is answered from it.
        """
        for name, sensor in self._sensors.items():
            if not any(Phase.EPILOG in each.spec.phases for each in self._of(sensor)):
                continue
            self._hastened[name] = now
            # A queue of short jobs must not have the driver asked at each of their ends.
            if now - self._begun_at.get(name, -_NEVER) >= _EPILOG_AGAIN_S and name not in self._reading_began:
                self._cadences[name].next_at = now

    def _serve_requests(self, now: float) -> None:
        while not self._requests.empty():
            request = self._requests.get()
            if self._job_files.asked(request, now):
                continue
            kind, key = request.get("kind"), request.get("key")
            if not isinstance(key, str) or not key:
                _LOG.warning("a request of the controller without a key was ignored: %.200r", request)
            elif kind == "validate":
                self._ask_validation(key, request, now)
            elif kind == "reset_gpu":
                self._ask_reset(key, now)
            elif kind == "stack_dump":
                self._dumps.ask(key, request.get("job"), now)
            elif kind == "retire":
                self._retirement.ask(now)
            elif kind == "forget":
                self._forget(key, request.get("family"))
            else:
                _LOG.warning("the controller asks for %.100r, which this agent does not know: update the agent", kind)

    def _ask_validation(self, key: str, request: Mapping[str, Any], now: float) -> None:
        suite = request.get("suite", "deep")
        if suite not in SUITES:
            _LOG.warning("the controller asks for the suite %.100r, which this agent does not know: update it", suite)
            return
        if self._validator.ask(key, suite, now) and request.get("forget") is not None:
            self._forget(key, request.get("forget"))

    def _ask_reset(self, key: str, now: float) -> None:
        """Reset the GPUs once for each key; the answer is repeated to a controller that asks again."""
        given = self._resets.given(key)
        if given is not None:
            if self._resets.may_repeat(key, now) and self.is_told(given.event_id):
                self._tell_reset(key, given.content, now)
        elif self._reset is not None or self._validator.now is not None:
            return
        elif self._validator.is_job_near(now) or not self._gpu_reset:
            why = "a job was let in just now" if self._gpu_reset else "gpu_reset is empty in agent.toml"
            self._end_reset(ResetDone(key=key, is_done=False, said=f"{why}: nothing was reset"), now)
        else:
            # The agent's own look at the GPUs holds them open: the driver would refuse.
            for sensor in self._sensors.values():
                if sensor.reads is GpuSample:
                    sensor.close()
                    self._reading_began.pop(sensor.name, None)
            self._reset = GpuReset(key, command=self._gpu_reset, services=self._gpu_services, now=now)

    def _advance_reset(self, now: float) -> None:
        done = self._reset.step(now) if self._reset is not None else None
        if done is not None:
            self._reset = None
            if done.is_done:
                self._forget(f"{done.key}:forget", "gpu")
            self._end_reset(done, now)

    def _end_reset(self, done: ResetDone, now: float) -> None:
        content = {"key": done.key, "ok": done.is_done, "said": done.said}
        self._tell_reset(done.key, content, now)

    def _tell_reset(self, key: str, content: Mapping[str, Any], now: float) -> None:
        self._resets.keep(key, Given(content=content, event_id=self.emit("gpu_reset", content), at=now))

    def _forget(self, key: str, family: object) -> None:
        if key in self._forgotten:
            return
        self._forgotten = [*self._forgotten[-63:], key]
        if not isinstance(family, str) or not family:
            _LOG.warning("the request %.100r names no fault family to forget: it was ignored", key)
            return
        _LOG.info("findings of %s are forgotten after a repair (%s)", family, key)
        self._memory = verdicts.forget(self._memory, None if family == "all" else family)
        self.fold((), tell=True)
        self._save()

    def standing(self, check: str) -> tuple[Finding, ...]:
        """The findings of `check` that stand."""
        return verdicts.standing_of(self._memory, check)

    def log_reading(self) -> Reading:
        """The kernel log, read now."""
        return self._log_reading(look_again=True)

    def sensors(self) -> Iterable[PolledSensor]:
        """The polled sensors."""
        return self._sensors.values()

    def tell(self, content: Mapping[str, Any]) -> str:
        """The answer to a validation, as an event; returns its id."""
        return self.emit("validated", content)

    def is_told(self, event_id: str) -> bool:
        """Whether the controller has accepted that event."""
        return not self._spool.is_waiting(event_id)

    def _advance_drain(self, now: float) -> None:
        if self._drain is None:
            return
        drained = self._drain.step(self._verdict, self._last_contact(), now)
        if drained is not None:
            content = {"reason": drained.reason, "fault": drained.fault, "subject": drained.subject}
            self.emit("drained_self", content)

    def _keep_house(self, now: float) -> None:
        self._housekeeping.done(now)
        # Without results: checks that fell silent become unknown, information expires.
        self.fold(())
        if self._log.position != self._saved.position:
            self._save()
        self._misses.look()
        self._job_files.keep_house(now)
        self._notifier.status(f"{self._verdict.state.value}, {self._spool.depth} events wait for the controller")

    def _feed(self, now: float) -> None:
        if self._watchdog_s is not None and now >= self._fed_at + self._watchdog_s:
            self._fed_at = now
            self._notifier.watchdog()

    def _save(self) -> None:
        self._saved = State(memory=self._memory, position=self._log.position)
        self._state_file.save(self._saved)

    def _last_contact(self) -> float:
        return time.monotonic() if self._reporter is None else self._reporter.last_contact

    def _of(self, sensor: PolledSensor) -> list[CheckSettings]:
        return [each for each in self._checks.values() if each.spec.reads is sensor.reads]


def _outline(verdict: Verdict) -> str:
    parts = [f"{s.finding.fault} on {s.finding.subject} ({s.finding.severity.word})" for s in verdict.findings]
    parts += [f"{check} cannot tell ({why})" for check, why in verdict.unknown]
    return "; ".join(parts) or "nothing is wrong"
