"""The demo's story as data: what the journal and the training job wrote down, put on one axis of time.

Pure: records and lines in, events and figures out. Times are seconds since the fault was injected.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nodewatch.model.records import Record

# The limits that the demo is measured against; None where only the figure is of interest.
BARS_S = {"t_fault_to_drained_s": 3.0, "t_fault_to_first_step_s": 20.0, "t_fault_to_replaced_s": 120.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What was injected, where and when (seconds since the epoch)."""

    at: float
    name: str
    node: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The job that was interrupted: its progress lines, and those of the same run left alone."""

    job_id: int
    checkpoint_every: int
    progress: Sequence[Mapping[str, Any]]
    reference: Sequence[Mapping[str, Any]]


def events(fault: Fault, run: Run, records: Sequence[Record]) -> list[dict[str, Any]]:
    """`{"t","name","node","detail"}` in order of time, each name of the story at most once."""
    told: dict[str, dict[str, Any]] = {}
    for at, name, node, detail in (*_from_journal(fault, run, records), *_from_progress(fault, run)):
        if name not in told:
            told[name] = {"t": round(at - fault.at, 3), "name": name, "node": node, "detail": detail}
    first = {"t": 0.0, "name": "fault_injected", "node": fault.node, "detail": f"{fault.name}: {fault.detail}"}
    return [first, *sorted(told.values(), key=lambda event: event["t"])]


def summary(fault: Fault, run: Run, records: Sequence[Record]) -> dict[str, Any]:
    """The document of build/demo/timeline.json; a figure that did not come about is None."""
    story = events(fault, run, records)
    times = {event["name"]: event["t"] for event in story}
    done = [r for r in records if r.kind == "done" and r.at >= fault.at]
    words = [r.data["action"]["action"] for r in done]
    resumed_at = _resumed_step(run)
    reached = [line["step"] for line in run.progress if line["event"] == "step" and line["restart"] == 0]
    first_step = _first_step(run)
    return {
        "fault_at": fault.at,
        "events": story,
        "t_fault_to_drained_s": times.get("drained"),
        "t_fault_to_first_step_s": None if first_step is None else round(first_step["t"] - fault.at, 3),
        "t_fault_to_replaced_s": times.get("returned_to_service"),
        "steps_lost": None if resumed_at is None or not reached else max(reached) - resumed_at,
        "checkpoint_interval_steps": run.checkpoint_every,
        "loss_final": _final(run.progress, "loss"),
        "loss_final_uninterrupted": _final(run.reference, "loss"),
        "loss_final_hex": _final(run.progress, "loss_hex"),
        "loss_final_uninterrupted_hex": _final(run.reference, "loss_hex"),
        "instances_launched": words.count("launch"),
        "instances_terminated": words.count("terminate"),
    }


def is_complete(document: Mapping[str, Any]) -> bool:
    """Whether the whole story was seen: the machine replaced and back, the job done with the very same loss."""
    return (
        all(document[key] is not None for key in (*BARS_S, "steps_lost", "loss_final_hex"))
        and document["loss_final_hex"] == document["loss_final_uninterrupted_hex"]
        and document["steps_lost"] <= document["checkpoint_interval_steps"]
        and document["instances_launched"] == document["instances_terminated"] == 1
        and {"validated", "job_completed"} <= {event["name"] for event in document["events"]}
    )


def _from_journal(fault: Fault, run: Run, records: Sequence[Record]) -> Iterator[tuple[float, str, str, str]]:
    for record in records:
        if record.at < fault.at:
            continue
        data = record.data
        match record.kind:
            case "verdict" if data["node"] == fault.node and data["verdict"]["state"] == "failed":
                found = data["verdict"]["findings"]
                yield record.at, "finding", fault.node, ", ".join(f"{f['fault']} on {f['subject']}" for f in found)
            case "case" if data["case"]["node"] == fault.node and data["case"]["family"] == "node":
                # A machine that stopped dead reports nothing: the controller's own finding stands in.
                yield record.at, "finding", fault.node, f"{data['case']['fault']}: {data['case']['evidence']}"
            case "done":
                yield from _from_outcome(fault, run, record)
            case "job_started" if data["job_id"] == run.job_id and data["restart_count"] > 0:
                yield record.at, "job_running", str(data["nodes"]), f"run {data['restart_count'] + 1}"
            case "validated" if data["node"] == fault.node and data["passed"]:
                yield record.at, "validated", fault.node, f"{data.get('instance_id', '')}: the deep checks passed"


def _from_outcome(fault: Fault, run: Run, record: Record) -> Iterator[tuple[float, str, str, str]]:
    action, result = record.data["action"], record.data.get("result") or {}
    node = str(action.get("node", ""))
    match action["action"]:
        case "drain" if node == fault.node:
            yield record.at, "drained", node, action["reason"]
        case "requeue" if action["job_id"] == run.job_id:
            yield record.at, "requeued", fault.node, f"job {run.job_id}: {action['reason']}"
        case "launch" if node == fault.node:
            yield record.at, "instance_launched", node, f"{result.get('instance_id')} at {result.get('private_ip')}"
        case "terminate" if node == fault.node:
            yield record.at, "instance_terminated", node, action["instance_id"]
        case "hold_spare" if node == fault.node:
            yield record.at, "returned_to_service", node, "as the warm spare"
        case "return_to_service" if node == fault.node:
            yield record.at, "returned_to_service", node, "takes jobs again"


def _from_progress(fault: Fault, run: Run) -> Iterator[tuple[float, str, str, str]]:
    first = _first_step(run)
    for line in run.progress:
        if line["restart"] > 0 and line["event"] == "start":
            at = first["t"] if first is not None else line["t"]
            whence = line.get("resumed_from") or "the beginning"
            yield at, "resumed_step", "", f"goes on at step {line['step']} from {whence}"
        if line["event"] == "done" and line["t"] >= fault.at:
            yield line["t"], "job_completed", "", f"step {line['step']}, loss {line['loss']:.6f}"


def _resumed_step(run: Run) -> int | None:
    return next((line["step"] for line in run.progress if line["event"] == "start" and line["restart"] > 0), None)


def _first_step(run: Run) -> Mapping[str, Any] | None:
    return next((line for line in run.progress if line["event"] == "step" and line["restart"] > 0), None)


def _final(lines: Sequence[Mapping[str, Any]], key: str) -> Any:
    return next((line[key] for line in reversed(lines) if line["event"] == "done"), None)
