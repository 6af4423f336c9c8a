"""Journal records as sentences: what happened to a node or a job, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from nodewatch.model import actions as act
from nodewatch.model.records import Record

_STEPS = (("first_step", "it began at"), ("last_step", "got to"), ("checkpoint_step", "its newest checkpoint is of"))


def sentences(records: Iterable[Record], *, node: str | None = None, job_id: int | None = None) -> list[dict[str, Any]]:
    """`{"at", "text"}` for each record about `node` or `job_id`, in order; a repeated sentence stands once in a row."""
    told: list[dict[str, Any]] = []
    for record in records:
        text = _about_node(record, node) if node is not None else _about_job(record, job_id)
        if text and (not told or told[-1]["text"] != text):
            told.append({"at": record.at, "text": text})
    return told


def words_about(subject: str) -> tuple[str, ...]:
    """Texts of which each record about a node or job has one, whatever it is: what has none is not read for its story."""
    return (subject, '"kind":"paused"', '"kind":"resumed"')


def _about_node(record: Record, node: str | None) -> str | None:
    data = record.data
    match record.kind:
        case "hello" if data.get("node") == node:
            return f"the agent started on {data.get('instance_id') or 'an unnamed machine'}"
        case "verdict" if data.get("node") == node:
            return _verdict(data["verdict"])
        case "validated" if data.get("node") == node:
            words = {
                True: "the deep checks passed",
                False: "the deep checks failed",
                None: "the deep checks could not tell",
            }
            passed = data.get("passed")
            way = f", they gave way to job {data['gave_way_to']}" if data.get("gave_way_to") else ""
            return words[passed if isinstance(passed, bool) else None] + way + _failures(data)
        case "operator_asked" if node in data["nodes"]:
            forced = ", without waiting for jobs or limits" if data.get("force") else ""
            because = f": {data['reason']}" if data.get("reason") else ""
            return f"{data.get('by') or 'an operator'} asked to {data['verb']} it{forced}{because}"
        case "paused" | "resumed" if {"cluster", f"node:{node}"}.intersection(data["scopes"]):
            return f"repairs were {record.kind} by {data.get('by') or 'an operator'}"
        case "check_asked" if node in data["nodes"]:
            return f"{data['suite']} checks were asked for by {data.get('by') or 'an operator'}"
        case "gpu_reset" if data.get("node") == node:
            return f"the agent's GPU reset {'worked' if data.get('ok') else 'failed'}: {data.get('said')}"
        case "pairs_asked" | "pair_ran" | "pairs_judged" if node in data["nodes"]:
            return _pairs(record.kind, data, str(node))
        case "slow_node" if data.get("node") == node:
            return str(data.get("text"))
        case "hook_denied" if data.get("node") == node:
            return f"a job was turned away: {data.get('reason', '')}"
        case "drained_self" if data.get("node") == node:
            return "the agent drained its own node, the controller was out of reach"
        case "case" if data["case"]["node"] == node:
            case = data["case"]
            return f"case {case['case_id']}: {case['step'].replace('_', ' ')} ({case['rung']}): {case['why']}"
        case "done" if data["action"].get("node") == node or data["action"].get("stands_in_for") == node:
            return _outcome(data)
        case "failed" | "intended":
            return _pending(record, node=node)
        case "held":
            why = [item["why"] for item in data["held"] if item["subject"] == node]
            return f"held back: {'; '.join(why)}" if why else None
    return None


def _about_job(record: Record, job_id: int | None) -> str | None:
    data = record.data
    match record.kind:
        case "job_started" if data["job_id"] == job_id:
            again = f"started again (run {data['restart_count'] + 1})" if data["restart_count"] else "started"
            flag = data.get("auto_resume")
            return f"{again} on {data.get('nodes')}" + (
                f", --auto-resume={flag}" if flag else ", without --auto-resume"
            )
        case "job_ended" if data["job_id"] == job_id:
            return f"run {data['restart_count'] + 1} ended with exit code {data.get('exit_code')}"
        case "hang_suspected" if data["job_id"] == job_id:
            return f"may hang: {data['text']}; asked where it hangs: {', '.join(data['asked'])}"
        case "hang_judged" if data["job_id"] == job_id:
            return f"hangs: {data['hang']['text']}"
        case "hang_over" if data["job_id"] == job_id:
            return "makes steps again"
        case "went_on" if data["job_id"] == job_id:
            without = f"without {' and '.join(data['nodes'])} inside its allocation"
            return f"starts again {without}" if data["step"] is None else f"goes on {without}, at step {data['step']}"
        case "job_witness" if data.get("job_id") == job_id:
            return _witness(data)
        case "judged" if data["job_id"] == job_id:
            return f"judged {data['cause']}: {data['text']}"
        case "done" if data["action"].get("job_id") == job_id:
            return _outcome(data)
        case "failed" | "intended":
            return _pending(record, job_id=job_id)
        case "held":
            why = [item["why"] for item in data["held"] if item["subject"] == f"job {job_id}"]
            return f"held back: {'; '.join(why)}" if why else None
    return None


def _pairs(kind: str, data: Mapping[str, Any], node: str) -> str:
    if kind == "pairs_asked":
        return f"a pair test of {len(data['nodes'])} nodes was asked for by {data['by']}"
    if kind == "pairs_judged":
        return f"the pair test ended: {data['why']}"
    other = next((name for name in data["nodes"] if name != node), "")
    speed = f", {data['busbw_gbps']:g} GB/s" if data["busbw_gbps"] is not None else ""
    floor = f" of at least {data['floor_gbps']:g}" if speed and data["floor_gbps"] is not None else ""
    why = f": {data['why']}" if data["why"] else ""
    return f"NCCL with {other} was {data['result'].replace('_', ' ')}{speed}{floor}{why}"


def _verdict(verdict: Mapping[str, Any]) -> str:
    findings = [
        f"{f['fault']} on {f['subject']} ({f['severity']}, {f['remedy']})"
        for f in verdict.get("findings", ())
        if f["severity"] in ("degraded", "fatal")
    ]
    told = f"the agent says {verdict['state']}"
    return f"{told}: {'; '.join(findings)}" if findings else told


def _witness(data: Mapping[str, Any]) -> str:
    lines = data.get("lines")
    told = f"{len(lines)} lines of its output tell of its end" if isinstance(lines, list) else ""
    told = told or f"its output could not be read: {data.get('unread') or 'no reason was given'}"
    steps = [f"{word} step {data[name]}" for name, word in _STEPS if isinstance(data.get(name), int)]
    return f"{told}{'; ' if steps else ''}{', '.join(steps)}"


def _failures(data: Mapping[str, Any]) -> str:
    # An agent wrote this: what has another shape is left out, so that the rest of the story can still be told.
    results = data.get("results")
    bad = [
        f"{r.get('check')}: {r.get('error') or r['status']}"
        for r in (results if isinstance(results, list) else ())
        if isinstance(r, Mapping) and r.get("status") in ("findings", "unknown")
    ]
    return f" ({'; '.join(bad)})" if bad else ""


def _outcome(data: Mapping[str, Any]) -> str:
    text = act.describe(act.from_json(data["action"]))
    console = (data.get("result") or {}).get("console")
    if isinstance(console, str):
        last = next((line.strip() for line in reversed(console.splitlines()) if line.strip()), "")
        said = f"its last line: {last[:200]}" if last else "it is empty"
        return f"done: {text}, its console with it ({len(console)} characters); {said}"
    instance = (data.get("result") or {}).get("instance_id")
    return f"done: {text}" + (f": {instance} at {data['result'].get('private_ip')}" if instance else "")


def _pending(record: Record, *, node: str | None = None, job_id: int | None = None) -> str | None:
    """A failure, by the key that it names: `<node>.<family>.<time>:...` or `job:<id>:...`."""
    if record.kind != "failed":
        return None
    key = str(record.data["key"])
    # Not just what begins so: a node `a` must not be told the failures of a node `a.b`.
    about_node = node is not None and re.match(rf"({re.escape(node)}\.[^.:]+\.\d+|spare:{re.escape(node)}):", key)
    about_job = job_id is not None and key.startswith(f"job:{job_id}:")
    return f"failed: {record.data['error']}" if about_node or about_job else None
