"""Slurm's JSON by release, and that whatever is no whole document of one is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.clients.slurm_json import jobs_of, nodes_of
from nodewatch.errors import SlurmError
from nodewatch.model.cluster import SlurmJob, SlurmNode

UNSET = {"set": False, "infinite": False, "number": 0}
INFINITE = {"set": True, "infinite": True, "number": 0}


def number(value: float) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


NODE_22_05 = {
    "architecture": "x86_64",
    "boot_time": 1699999000,
    "address": "10.0.0.2",
    "hostname": "n2",
    "name": "n2",
    "next_state_after_reboot": "invalid",
    "partitions": ["train", "all"],
    "reason": "nodewatch: n2.gpu.1",
    "reason_changed_at": 1700000100,
    "slurmd_start_time": 1700000000,
    "state": "mixed",
    "state_flags": ["DRAIN", "NOT_RESPONDING"],
}
NODE_23_02 = {
    **{key: value for key, value in NODE_22_05.items() if key != "state_flags"},
    "state": ["MIXED", "DRAIN", "NOT_RESPONDING"],
    "next_state_after_reboot": ["INVALID"],
    "cpu_load": number(12),
}
NODE_23_11 = {**NODE_23_02, "boot_time": number(1699999000), "slurmd_start_time": number(1700000000)}
NODE_23_11["reason_changed_at"] = number(1700000100)
NODE_24_11 = {**NODE_23_11, "gpu_spec": "", "res_cores_per_gpu": 0, "instance_id": "", "instance_type": ""}
NODE_25_11 = {**NODE_24_11, "topology": "default:sw1", "cert_flags": []}
NODE_COMPLEX = {**NODE_25_11, "reason_changed_at": 1700000100, "slurmd_start_time": 1700000000}

JOB_22_05 = {
    "array_job_id": 15,
    "array_task_id": 0,
    "batch_flag": True,
    "comment": None,
    "eligible_time": 1700000000,
    "end_time": 1700003600,
    "excluded_nodes": "n[2,5]",
    "exit_code": 0x0300,
    "job_id": 17,
    "job_state": "FAILED",
    "name": "train.sh",
    "nodes": "n[1-3]",
    "partition": "train",
    "priority": 4294901750,
    "required_nodes": "",
    "restart_cnt": 1,
    "start_time": 1700000010,
    "user_name": "ada",
}
# As printed by 23.02: numbers with "set", but plain times, and the wait status in such a number.
JOB_23_02 = {
    **JOB_22_05,
    "array_job_id": number(15),
    "array_task_id": number(0),
    "comment": "",
    "exit_code": number(0x0300),
    "extra": "",
    "priority": number(4294901750),
}
JOB_23_11 = {
    **JOB_23_02,
    "eligible_time": number(1700000000),
    "end_time": number(1700003600),
    "exit_code": {"status": ["ERROR"], "return_code": number(3), "signal": {"id": UNSET, "name": ""}},
    "job_state": ["FAILED"],
    "start_time": number(1700000010),
}
JOB_24_11 = {**JOB_23_11, "job_resources": {"nodes": {"list": "n[1-3]", "count": 3}}, "stdin_expanded": "/dev/null"}
JOB_25_11 = {**JOB_24_11, "licenses_allocated": "", "submit_line": "sbatch train.sh", "segment_size": 0}
JOB_PLAIN_EXIT = {**JOB_23_11, "exit_code": {"status": "ERROR", "return_code": 3, "signal": {"signal_id": 0}}}
JOB_WORDS = {**JOB_25_11, "exit_code": {"status": ["ERROR"], "return_code": "3", "signal": None}, "restart_cnt": "1"}

NODES = {
    "22.05": NODE_22_05,
    "23.02": NODE_23_02,
    "23.11": NODE_23_11,
    "24.11": NODE_24_11,
    "25.11": NODE_25_11,
    "complex": NODE_COMPLEX,
}
JOBS = {
    "22.05": JOB_22_05,
    "23.02": JOB_23_02,
    "23.11": JOB_23_11,
    "24.11": JOB_24_11,
    "25.11": JOB_25_11,
    "plain exit": JOB_PLAIN_EXIT,
    "words": JOB_WORDS,
}
NODE = SlurmNode(
    name="n2",
    address="10.0.0.2",
    states=frozenset({"MIXED", "DRAIN", "NOT_RESPONDING"}),
    reason="nodewatch: n2.gpu.1",
    partitions=("train", "all"),
    slurmd_started_at=1700000000.0,
    reason_at=1700000100.0,
)
JOB = SlurmJob(
    job_id=17,
    states=frozenset({"FAILED"}),
    nodes=("n1", "n2", "n3"),
    partition="train",
    user="ada",
    name="train.sh",
    priority=4294901750,
    restart_count=1,
    exit_code=3,
    started_at=1700000010.0,
    ended_at=1700003600.0,
    excluded_nodes=("n2", "n5"),
    array_job_id=15,
    array_task_id=0,
)


@pytest.mark.parametrize("entry", NODES.values(), ids=list(NODES))
def test_a_node_of_each_release(entry: dict[str, Any]) -> None:
    assert nodes_of({"nodes": [entry]}, "x") == {"n2": NODE}


@pytest.mark.parametrize("entry", JOBS.values(), ids=list(JOBS))
def test_a_job_of_each_release(entry: dict[str, Any]) -> None:
    assert jobs_of({"jobs": [entry]}, "x") == {17: JOB}


def test_what_only_some_releases_tell() -> None:
    told = {
        **JOB_25_11,
        "account": "physics",
        "flags": ["EXPEDITED_REQUEUE", "USING_DEFAULT_PARTITION"],
        "het_job_id": number(15),
        "het_job_offset": number(0),
        "job_state": ["PENDING", "REQUEUE_HOLD"],
        "preempt_time": number(1700000400),
        "requeue": True,
        "standard_error": "/home/ada/%j.err",
        "state_description": "",
        "state_reason": "None",
    }
    job = jobs_of({"jobs": [told]}, "x")[17]
    assert (job.is_expedited, job.held_by, job.preempted_at, job.may_requeue) == (True, "slurm", 1700000400.0, True)
    assert (job.het_job_id, job.het_job_offset, job.requeue_id) == (15, 0, "15")
    assert (job.account, job.stderr_path) == ("physics", "/home/ada/%j.err")


NOTHING: list[Any] = [
    None,
    4294967294,
    18446744073709551614,
    4294967295,
    18446744073709551615,
    -2,
    -1,
    "infinite",
    "INFINITE",
    "",
    UNSET,
    INFINITE,
    {"set": False, "infinite": True, "number": 0},
    number(18446744073709551614),
]


@pytest.mark.parametrize("value", NOTHING, ids=repr)
def test_what_stands_for_no_value(value: Any) -> None:
    fields = dict.fromkeys(("array_job_id", "array_task_id", "priority", "start_time", "end_time"), value)
    (job,) = jobs_of({"jobs": [{**JOB_25_11, **fields}]}, "x").values()
    assert (job.array_job_id, job.array_task_id, job.priority) == (None, None, 0)
    assert (job.started_at, job.ended_at) == (None, None)


@pytest.mark.parametrize(
    "exit_code",
    [
        9,
        number(9),
        {"status": ["SIGNALED"], "return_code": UNSET, "signal": {"id": number(9), "name": "SIGKILL"}},
        {"status": "SIGNALED", "return_code": 0, "signal": {"signal_id": 9, "name": "KILL"}},
    ],
)
def test_a_signal_of_each_release(exit_code: Any) -> None:
    (job,) = jobs_of({"jobs": [{**JOB_25_11, "exit_code": exit_code}]}, "x").values()
    assert (job.exit_code, job.exit_signal) == (0, 9)


BAD_NODES: list[dict[str, Any]] = [
    {"name": ""},
    {"name": None},
    {"name": 7},
    {"state": None},
    {"state": []},
    {"state": ""},
    {"state": 4},
    {"state": [None]},
    {"state": {"current": ["IDLE"]}},
    {"reason": ["x"]},
    {"partitions": {"train": 1}},
    {"partitions": [1]},
    {"slurmd_start_time": {"number": 1}},
    {"slurmd_start_time": float("inf")},
    {"slurmd_start_time": True},
    {"slurmd_start_time": "yesterday"},
    {"slurmd_start_time": [1]},
    {"reason_changed_at": "yesterday"},
]


@pytest.mark.parametrize("untold", [None, 0, {"set": False, "infinite": False, "number": 0}], ids=repr)
def test_a_reason_whose_time_is_not_told(untold: Any) -> None:
    (node,) = nodes_of({"nodes": [{**NODE_25_11, "reason_changed_at": untold}]}, "a test").values()
    assert node.reason_at == 0.0


@pytest.mark.parametrize("change", BAD_NODES, ids=repr)
def test_a_node_in_no_known_shape(change: dict[str, Any]) -> None:
    with pytest.raises(SlurmError, match="cannot read") as caught:
        nodes_of({"nodes": [NODE_25_11, {**NODE_25_11, **change}]}, "`scontrol`")
    assert str(caught.value).startswith("`scontrol` has an entry in 'nodes' that this release cannot read")


BAD_JOBS: list[dict[str, Any]] = [
    {"job_id": 0},
    {"job_id": None},
    {"job_id": 1.5},
    {"job_id": 4294967294},
    {"job_state": None},
    {"job_state": []},
    {"job_state": {"state": "RUNNING"}},
    {"nodes": ["n1"]},
    {"nodes": "n[1-"},
    {"nodes": {"list": "n1"}},
    {"excluded_nodes": 5},
    {"exit_code": {"signal": [9]}},
    {"exit_code": "SUCCESS"},
    {"priority": {"set": True}},
    {"restart_cnt": float("nan")},
    {"restart_cnt": "9" * 5000},
    {"user_name": 1001},
    {"batch_flag": "yes"},
]


@pytest.mark.parametrize("change", BAD_JOBS, ids=lambda change: repr(change)[:40])
def test_a_job_in_no_known_shape(change: dict[str, Any]) -> None:
    with pytest.raises(SlurmError, match="cannot read"):
        jobs_of({"jobs": [JOB_25_11, {**JOB_25_11, **change}]}, "x")


def test_the_sentence_stays_short() -> None:
    with pytest.raises(SlurmError) as caught:
        nodes_of({"nodes": [{**NODE_25_11, "reason": ["x" * 10_000]}]}, "x")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("key", ["name", "state"])
def test_what_a_node_must_have(key: str) -> None:
    with pytest.raises(SlurmError, match=f"KeyError.'{key}'"):
        nodes_of({"nodes": [{name: value for name, value in NODE_25_11.items() if name != key}]}, "x")


@pytest.mark.parametrize("key", ["job_id", "job_state", "nodes"])
def test_what_a_job_must_have(key: str) -> None:
    with pytest.raises(SlurmError, match=f"KeyError.'{key}'"):
        jobs_of({"jobs": [{name: value for name, value in JOB_25_11.items() if name != key}]}, "x")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(NOTHING),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(entry=st.sampled_from(list(NODES.values())), data=st.data())
def test_a_node_is_read_whole_or_refused(entry: dict[str, Any], data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from(sorted(entry)), max_size=3))
    strange = {**entry, **{key: data.draw(ANYTHING) for key in keys}}
    others = [{**entry, "name": f"other{index}"} for index in range(2)]
    try:
        nodes = nodes_of({"nodes": [others[0], strange, others[1]]}, "x")
    except SlurmError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert {"other0", "other1", strange["name"]} == set(nodes)
        assert all(node.states and all(node.states) for node in nodes.values())


@given(entry=st.sampled_from(list(JOBS.values())), data=st.data())
def test_a_job_is_read_whole_or_refused(entry: dict[str, Any], data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from(sorted(entry)), max_size=3))
    strange = {**entry, **{key: data.draw(ANYTHING) for key in keys}}
    try:
        jobs = jobs_of({"jobs": [{**entry, "job_id": 10**6}, strange]}, "x")
    except SlurmError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(jobs) == 1 if strange["job_id"] == 10**6 else len(jobs) == 2
        for job in jobs.values():
            assert job.states
            assert job.priority >= 0
            assert job.restart_count >= 0
            assert all(isinstance(node, str) and node for node in job.nodes)


@given(value=ANYTHING)
def test_a_list_that_is_none(value: Any) -> None:
    if isinstance(value, list):
        value = {"in": value}
    for read, key in ((nodes_of, "nodes"), (jobs_of, "jobs")):
        with pytest.raises(SlurmError, match="has no list"):
            read({key: value}, "x")
        with pytest.raises(SlurmError, match="has no list"):
            read({}, "x")
