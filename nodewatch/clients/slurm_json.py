"""Read Slurm's JSON, as every release from 22.05 to 26.05 prints it, and refuse what cannot be read whole.

The shapes by release (Slurm's OpenAPI release notes, and outputs of each):

- 22.05 (openapi v0.0.38): plain numbers, a job's state one word, a node's state a word in lower case beside `state_flags`,
  a wait status as exit code. What has no value is null, NO_VAL or, where it went through a signed number, -2.
- 23.02 (data_parser v0.0.39): `{"set", "infinite", "number"}` for some numbers, the exit code among them; times plain.
- 23.11 to 26.05 (v0.0.40 to v0.0.45): states are lists, times `{"set", ...}`, the exit code an object.

A field that a release does not have yet reads as empty. A field that is there in a shape not known is an error, and so is an
entry without its name or state: taken for "nothing there" it would be a picture of a cluster that does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nodewatch.errors import SlurmError
from nodewatch.model.cluster import SlurmJob, SlurmNode
from nodewatch.model.hostlist import expand

_T = TypeVar("_T")

# slurm.h: NO_VAL and INFINITE of 32 and of 64 bits. 16 bits are left out: 65,534 is a number that a field may really have.
_NO_VALUES = frozenset({0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF})
_NO_VALUE_WORDS = frozenset({"", "infinite", "infinity", "unlimited", "none", "n/a", "unknown"})
_HELD_WORDS = frozenset({"REQUEUE_HOLD", "SPECIAL_EXIT"})
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


def nodes_of(document: Mapping[str, Any], source: str) -> dict[str, SlurmNode]:
    """The nodes of `document` by name; `source` is the command that printed it. Raises SlurmError."""
    return {node.name: node for node in _entries(parse_node, document, "nodes", source)}


def jobs_of(document: Mapping[str, Any], source: str) -> dict[int, SlurmJob]:
    """The jobs of `document` by job id. Raises SlurmError."""
    return {job.job_id: job for job in _entries(parse_job, document, "jobs", source)}


def parse_node(data: Mapping[str, Any]) -> SlurmNode:
    """One entry of `scontrol show nodes --json`. Raises KeyError, TypeError or ValueError for one that is none."""
    name = _text(data["name"])
    if not name:
        raise ValueError("a node has an empty name")
    return SlurmNode(
        name=name,
        address=_text(data.get("address")),
        states=_states(data["state"]) | _words(data.get("state_flags")),
        reason=_text(data.get("reason")),
        partitions=_names(data.get("partitions")),
        slurmd_started_at=_time(data.get("slurmd_start_time")) or 0.0,
        reason_at=_time(data.get("reason_changed_at")) or 0.0,
    )


def parse_job(data: Mapping[str, Any]) -> SlurmJob:
    """One entry of `squeue --json`. Raises KeyError, TypeError or ValueError for one that is none."""
    code, signal_number = _exit(data.get("exit_code"))
    states = _states(data["job_state"])
    if len(states) == 1 and states & _HELD_WORDS:
        # 22.05 and pyslurm have one word for a job's state, and this one hides that it waits.
        states |= {"PENDING"}
    job_id = _whole(data["job_id"])
    if not job_id:
        raise ValueError(f"a job has the id {data['job_id']!r}")
    is_expedited = "EXPEDITED_REQUEUE" in _words(data.get("flags"))
    het_job_id = _whole(data.get("het_job_id")) or None
    return SlurmJob(
        job_id=job_id,
        states=states,
        # Required: a running job whose nodes were not read would leave them looking empty.
        nodes=_hosts(data["nodes"]),
        partition=_text(data.get("partition")),
        user=_text(data.get("user_name")),
        name=_text(data.get("name")),
        priority=_whole(data.get("priority")) or 0,
        restart_count=_whole(data.get("restart_cnt")) or 0,
        exit_code=code,
        exit_signal=signal_number,
        begins_at=_time(data.get("eligible_time")) if "PENDING" in states else None,
        started_at=_time(data.get("start_time")),
        ended_at=_time(data.get("end_time")),
        excluded_nodes=_hosts(data.get("excluded_nodes")),
        required_nodes=_hosts(data.get("required_nodes")),
        is_batch=_flag(data.get("batch_flag", True)),
        comment=_text(data.get("comment")),
        extra=_text(data.get("extra")),
        array_job_id=_whole(data.get("array_job_id")) or None,
        array_task_id=_whole(data.get("array_task_id")),
        may_requeue=_flag(data.get("requeue")),
        is_expedited=is_expedited,
        held_by=_held_by(states, _text(data.get("state_reason")), _text(data.get("state_description")), is_expedited),
        preempted_at=_time(data.get("preempt_time")),
        het_job_id=het_job_id,
        # pyslurm gives None for a zero.
        het_job_offset=None if het_job_id is None else _whole(data.get("het_job_offset")) or 0,
        account=_text(data.get("account")),
        stderr_path=_text(data.get("standard_error")),
    )


def _held_by(states: frozenset[str], reason: str, description: str, is_expedited: bool) -> str:
    """Who holds a job that waits. Slurm words of its own holds: slurmctld's job_mgr.c, job_state_reason.c (22.05 to 26.05)."""
    if "PENDING" not in states:
        return ""
    if reason == "JobHeldUser":
        return "user"
    told = f"{reason} {description}".replace("_", " ").lower()
    # More requeues than MaxBatchRequeue, or a launch that failed; since 25.11 a job that failed while all its epilogs passed.
    if reason.startswith("JobHoldMax") or "launch failed requeued held" in told:
        return "slurm"
    if "REQUEUE_HOLD" in states and is_expedited:
        return "slurm"
    return "administrator" if reason == "JobHeldAdmin" or states & {"REQUEUE_HOLD", "SPECIAL_EXIT"} else ""


def _entries(parse: Callable[[Mapping[str, Any]], _T], document: Mapping[str, Any], key: str, source: str) -> list[_T]:
    items = document.get(key)
    if not isinstance(items, list):
        raise SlurmError(f"{source} has no list {key!r}: its format is not one that this release knows")
    try:
        return [parse(item) for item in items]
    except _UNREADABLE as error:
        # Half a list must not pass for the whole one.
        raise SlurmError(
            f"{source} has an entry in {key!r} that this release cannot read ({repr(error)[:300]}): report it with the output"
        ) from error


def _states(value: Any) -> frozenset[str]:
    words = _words(value)
    if not words:
        # Without a state a node would look neither drained nor down, and a job neither running nor ended.
        raise ValueError(f"a state is {value!r}")
    return words


def _words(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    items = value if isinstance(value, list) else _text(value).split("+")
    return frozenset(_text(item).strip().upper() for item in items if _text(item).strip())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} stands where a text is expected")
    return value


def _names(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else _text(value).split(",")
    return tuple(name for name in map(_text, items) if name)


def _hosts(value: Any) -> tuple[str, ...]:
    return tuple(expand(_text(value)))


def _flag(value: Any) -> bool:
    return value if isinstance(value, bool) else bool(_number(value))


def _number(value: Any) -> int | float | None:
    if isinstance(value, Mapping):
        if not value["set"] or value.get("infinite"):
            return None
        value = value["number"]
    if value is None:
        return None
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _NO_VALUE_WORDS:
            return None
        if not (word.isascii() and word.isdigit() and len(word) <= 20):
            raise ValueError(f"{value[:100]!r} stands where a number is expected")
        value = int(word)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{value!r} stands where a number is expected")
    return None if value < 0 or value in _NO_VALUES else value


def _whole(value: Any) -> int | None:
    number = _number(value)
    if number is not None and number != int(number):
        raise ValueError(f"{value!r} stands where a whole number is expected")
    return None if number is None else int(number)


def _time(value: Any) -> float | None:
    return float(number) if (number := _number(value)) else None


def _exit(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping) and "number" not in value:
        signal_data = value.get("signal") or {}
        # v0.0.39 wrote `signal_id`, its successors `id`.
        signal_number = signal_data.get("id", signal_data.get("signal_id"))
        return _whole(value.get("return_code")) or 0, _whole(signal_number) or 0
    # A wait status, as wait(2) gives it.
    status = _whole(value) or 0
    return status >> 8 & 0xFF, status & 0x7F
