"""`lab demo`: a training job outlives a dead GPU, with a live timeline, figures and a page at the end."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodewatch.errors import JournalError
from nodewatch.journal.file import read
from nodewatch.lab import inject as lab_inject
from nodewatch.lab import machine, status
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout
from nodewatch.lab.page import page
from nodewatch.lab.process import run
from nodewatch.lab.timeline import BARS_S, Fault, Run, events, summary
from nodewatch.lab.timeline import is_complete as is_complete
from nodewatch.model.records import Record

JOURNAL = "var/lib/nodewatch-controller/journal.jsonl"
USER = "ada"
_POLL_S = 0.1
_REFERENCE_DEADLINE_S = 180.0
_START_DEADLINE_S = 90.0
_STORY_DEADLINE_S = 300.0
_SETTLE_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the demo does: the job's length and pace, and when and what breaks."""

    steps: int = 300
    checkpoint_every: int = 20
    step_seconds: float = 0.15
    fault_after_step: int = 70
    fault: str = "gpu-lost"
    gpu: int = 2


Say = Callable[[str], None]


def play(layout: Layout, script: Script, output: Path, say: Say) -> Mapping[str, Any]:
    """Play it on the lab that is up; writes timeline.json and timeline.html into `output` and returns the former.

    Raises LabError with what did not come about.
    """
    _wait_for_spare(layout)
    stamp = int(time.time())
    say(f"the same run left alone first, {script.steps} steps, for its loss to compare with")
    reference_id = submit(layout, f"reference-{stamp}", script, step_seconds=0.0)
    reference = _wait_done(layout, f"reference-{stamp}", reference_id)
    name = f"pretrain-{stamp}"
    job_id = submit(layout, name, script, step_seconds=script.step_seconds)
    say(f"job {job_id} submitted with --auto-resume, {script.steps} steps, a checkpoint each {script.checkpoint_every}")
    node = _wait_for_step(layout, name, job_id, script.fault_after_step)
    injected = lab_inject.inject(layout, script.fault, node, script.gpu)
    fault = Fault(at=injected.t, name=script.fault, node=node, detail=injected.detail)
    document = _follow(layout, fault, Context(job_id=job_id, name=name, script=script, reference=reference), say)
    output.mkdir(parents=True, exist_ok=True)
    (output / "timeline.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "timeline.html").write_text(page(document))
    return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What `_follow` needs to know of the job."""

    job_id: int
    name: str
    script: Script
    reference: Sequence[Mapping[str, Any]]


def submit(layout: Layout, name: str, script: Script, *, step_seconds: float) -> int:
    """Submit the example as a user does; returns the job id."""
    variables = {
        "STEPS": script.steps,
        "CHECKPOINT_EVERY": script.checkpoint_every,
        "STEP_SECONDS": step_seconds,
    }
    exported = ",".join(["ALL", *(f"{key}={value}" for key, value in variables.items())])
    argv = [
        "runuser", "-u", USER, "--", "sbatch", "--parsable", "--auto-resume=3", "--chdir=/fsx",
        f"--job-name={name}", f"--export={exported}", lab_inject.PRETRAIN,
    ]  # fmt: skip
    done = run(machine.entering(machine.find(layout, "head"), argv), deadline_s=30, check=False)
    if done.code != 0:
        raise LabError(f"the job could not be submitted: {done.err.strip() or done.out.strip()}")
    return int(done.out.strip().split(";")[0])


def progress(layout: Layout, name: str) -> list[dict[str, Any]]:
    """The lines that the job called `name` has written so far; a line that is being written is left for later."""
    try:
        text = (layout.fsx / "checkpoints" / name / "progress.jsonl").read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def journal(layout: Layout) -> list[Record]:
    """The controller's journal as it is now."""
    pid = machine.init_pid(machine.find(layout, "head"))
    if pid is None:
        raise LabError("the head is not running: see lab status")
    path = Path(f"/proc/{pid}/root") / JOURNAL
    for _ in range(5):
        try:
            return list(read(path))
        except JournalError:
            # Read while a line was on its way to the disk.
            time.sleep(0.05)
    return list(read(path))


def lines(document: Mapping[str, Any]) -> list[str]:
    """The figures with their bars, a line each."""
    told = []
    for key, bar in BARS_S.items():
        value = document[key]
        words = key.removeprefix("t_").removesuffix("_s").replace("_", " ")
        shown = (
            "did not happen"
            if value is None
            else f"{value:6.2f} s   bar {bar:.0f} s: {'met' if value <= bar else 'MISSED'}"
        )
        told.append(f"{words:<24}{shown}")
    told.append(f"{'steps lost':<24}{document['steps_lost']}  of at most {document['checkpoint_interval_steps']}")
    same = (
        document["loss_final_hex"] is not None
        and document["loss_final_hex"] == document["loss_final_uninterrupted_hex"]
    )
    told.append(
        f"{'final loss':<24}{document['loss_final']}, uninterrupted {document['loss_final_uninterrupted']}: "
        f"{'equal to the last bit' if same else 'DIFFERENT'}"
    )
    told.append(
        f"{'instances':<24}{document['instances_launched']} launched, {document['instances_terminated']} terminated"
    )
    return told


def _follow(layout: Layout, fault: Fault, context: Context, say: Say) -> Mapping[str, Any]:
    told: set[str] = set()
    deadline = time.monotonic() + _STORY_DEADLINE_S
    while True:
        seen = Run(
            job_id=context.job_id,
            checkpoint_every=context.script.checkpoint_every,
            progress=progress(layout, context.name),
            reference=context.reference,
        )
        records = journal(layout)
        for event in events(fault, seen, records):
            if event["name"] not in told:
                told.add(event["name"])
                say(
                    f"t = {event['t']:7.2f} s  {event['name'].replace('_', ' '):<20} {event['node']:<10} {event['detail']}"
                )
        document = summary(fault, seen, records)
        if is_complete(document):
            return document
        if time.monotonic() > deadline:
            missing = [key for key, value in document.items() if value is None]
            say(f"the story did not end within {_STORY_DEADLINE_S:.0f} s; missing: {', '.join(missing) or 'the job'}")
            return document
        time.sleep(_POLL_S)


def _wait_for_spare(layout: Layout) -> None:
    deadline = time.monotonic() + _SETTLE_DEADLINE_S
    while time.monotonic() < deadline:
        nodes = status.slurm_nodes(layout)
        spares = [node for node in nodes if node.reason.startswith("nodewatch: spare")]
        if spares and all(node.in_service for node in nodes):
            return
        time.sleep(0.3)
    raise LabError(
        f"no node was held as a warm spare within {_SETTLE_DEADLINE_S:.0f} s: "
        "see `lab exec head -- nodewatch status` for what the controller waits for"
    )


def _wait_done(layout: Layout, name: str, job_id: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + _REFERENCE_DEADLINE_S
    while time.monotonic() < deadline:
        told = progress(layout, name)
        if any(line["event"] == "done" for line in told):
            return told
        _demand_alive(layout, job_id)
        time.sleep(0.3)
    raise LabError(f"job {job_id} did not end within {_REFERENCE_DEADLINE_S:.0f} s: see /fsx/{name}-{job_id}.out")


def _wait_for_step(layout: Layout, name: str, job_id: int, step: int) -> str:
    """Wait until the job is past `step`; returns the second of its nodes, which is not the one its script runs on."""
    deadline = time.monotonic() + _START_DEADLINE_S
    while time.monotonic() < deadline:
        told = progress(layout, name)
        if any(line["event"] == "step" and line["step"] >= step for line in told):
            started = [r for r in journal(layout) if r.kind == "job_started" and r.data["job_id"] == job_id]
            if started:
                return str(started[-1].data["node_names"][1])
        _demand_alive(layout, job_id)
        time.sleep(_POLL_S)
    raise LabError(f"job {job_id} did not reach step {step} within {_START_DEADLINE_S:.0f} s")


def _demand_alive(layout: Layout, job_id: int) -> None:
    head = machine.find(layout, "head")
    asked = run(
        machine.entering(head, ["squeue", "--noheader", "--states=all", "-j", str(job_id), "-o", "%T %r"]),
        deadline_s=10,
        check=False,
    )
    state = asked.out.strip()
    if state.startswith(("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL")):
        raise LabError(f"job {job_id} ended as {state}: look at its output in /fsx (`lab exec head -- ls /fsx`)")
