"""Each action on the shipped fakes: what it does, that doing it twice is doing it once, and how a refusal comes back."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.effects.perform import client_token, perform
from nodewatch.errors import CapacityError, Ec2Error, SlurmError
from nodewatch.model import actions as act
from nodewatch.testing import FakeClock, FakeEc2, FakeSlurm

REASON = "nodewatch: n1.gpu.100 gpu.lost on GPU-0"


class Cluster:
    """Two nodes with their machines; job 1 runs on n1."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.slurm = FakeSlurm(self.clock)
        self.ec2 = FakeEc2()
        for name in ("n1", "n2"):
            self.slurm.add_node(name, self.ec2.add(name).private_ip)
        self.job = self.slurm.submit(nodes=1)
        self.slurm.schedule()

    def state(self) -> object:
        return (
            dict(self.slurm.node_table),
            dict(self.slurm.job_table),
            dict(self.slurm.reservations),
            dict(self.ec2.instances()),
        )


ACTIONS: list[act.Action] = [
    act.Drain(key="k", node="n1", reason=REASON),
    act.MarkDown(key="k", node="n1", reason=REASON),
    act.AnswerReason(key="k", node="n1", was="", reason="Action:Replce [nodewatch: ...]"),
    act.HoldSpare(key="k", node="n2", reason="nodewatch: spare"),
    act.ReleaseSpare(key="k", node="n2", stands_in_for="n1"),
    act.Requeue(key="k", job_id=1, node="n1", cause="hardware", reason="n1 failed"),
    act.Expedite(key="k", job_id=1, priority=7, exclude=("n1",), ours=("n1",), comment="nodewatch: n1 failed"),
    act.KeepNodes(key="k", job_id=1, name="nodewatch-1-0", nodes=("n2",), minutes=1),
    act.FreeNodes(key="k", job_id=1, name="nodewatch-1-0"),
    act.Reboot(key="k", node="n2", reason=REASON),
    act.Launch(key="n1.gpu.100:replace:launch:1", node="n1", launch_template="compute"),
    act.Terminate(key="k", node="n1", instance_id="i-0001"),
    act.KeepEvidence(key="k", node="n1", instance_id="i-0001", case_id="n1.gpu.100", bucket="site", wants_console=True),
    act.Quarantine(key="k", node="n1", instance_id="i-0001", case_id="n1.gpu.100", stops=True),
    act.ReportInstance(key="k", node="n1", instance_id="i-0001", reason_code="other", text="gpu.lost on GPU-0"),
    act.RebootInstance(key="k", node="n1", instance_id="i-0001"),
    act.Repoint(key="k", node="n1", address="10.0.0.9"),
    act.ReturnToService(key="k", node="n1"),
]


IN_EC2 = (act.Launch, act.Terminate, act.Quarantine, act.ReportInstance, act.RebootInstance)
BY_AGENTS = (act.DeepCheck, act.ResetGpu)
"""Nothing is done about them here: the agent takes the request with its next message."""


class Bucket:
    """S3 in memory; out of order with EC2."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kept: dict[str, bytes] = {}

    def put(self, bucket: str, name: str, body: bytes) -> str:
        if self.cluster.ec2.outage:
            raise Ec2Error("S3 could not be asked")
        self.kept[name] = body
        return f"s3://{bucket}/{name}"


def word(action: act.Action) -> str:
    return act.word_of(action)


def test_every_action_is_here() -> None:
    assert {type(action) for action in ACTIONS} | set(BY_AGENTS) == set(get_args(act.Action))


@pytest.mark.parametrize("action", ACTIONS, ids=word)
def test_twice_is_once(action: act.Action) -> None:
    cluster = Cluster()
    bucket = Bucket(cluster)
    first = perform(action, cluster.slurm, cluster.ec2, bucket)
    after = cluster.state()
    assert perform(action, cluster.slurm, cluster.ec2, bucket) == first
    assert cluster.state() == after


@pytest.mark.parametrize("action", ACTIONS, ids=word)
def test_a_refusal_is_one_of_our_errors(action: act.Action) -> None:
    cluster = Cluster()
    cluster.slurm.outage = cluster.ec2.outage = True
    before = (dict(cluster.slurm.node_table), dict(cluster.slurm.job_table))
    with pytest.raises((SlurmError, Ec2Error)):
        perform(action, cluster.slurm, cluster.ec2, Bucket(cluster))
    assert (cluster.slurm.node_table, cluster.slurm.job_table) == before


@pytest.mark.parametrize("action", ACTIONS, ids=word)
def test_without_ec2_its_actions_fail_with_a_sentence_and_slurms_do_not(action: act.Action) -> None:
    cluster = Cluster()
    if isinstance(action, act.KeepEvidence):
        with pytest.raises(Ec2Error, match="there is no S3 client"):
            perform(action, cluster.slurm, None)
    elif isinstance(action, IN_EC2):
        with pytest.raises(Ec2Error, match=r"EC2 is not configured: give .* a launch_template"):
            perform(action, cluster.slurm, None)
    else:
        assert perform(action, cluster.slurm, None) == {}


def test_what_slurm_is_told() -> None:
    cluster = Cluster()
    for action in ACTIONS:
        if not isinstance(action, (act.Requeue, act.Expedite, act.KeepEvidence, *IN_EC2)):
            perform(action, cluster.slurm, cluster.ec2)
    assert cluster.slurm.calls == [
        "drain n1",
        "down n1",
        "reason n1",
        "drain n2",
        "resume n2",
        "reserve nodewatch-1-0",
        "unreserve nodewatch-1-0",
        "reboot n2",
        "address n1 10.0.0.9",
        "resume n1",
    ]


def test_a_spare_that_slurm_had_given_up_is_up_again() -> None:
    cluster = Cluster()
    cluster.slurm.operator("n2", "down", "Not responding")
    action = act.HoldSpare(key="k", node="n2", reason="nodewatch: spare", is_down=True)
    perform(action, cluster.slurm, cluster.ec2)
    assert cluster.slurm.node_table["n2"].is_spare
    assert not cluster.slurm.node_table["n2"].is_down


def test_a_launch_says_what_came_of_it() -> None:
    cluster = Cluster()
    result = perform(act.Launch(key="k", node="n1", launch_template="compute"), cluster.slurm, cluster.ec2)
    assert result == {"instance_id": "i-0003", "private_ip": "10.0.0.3"}
    assert cluster.ec2.alive("n1") == ["i-0001", "i-0003"]


@pytest.mark.parametrize(
    "source", ["", "spot", "fleet:p5.48xlarge", "reservation:cr-0123456789abcdef0", "asg:trainers"]
)
def test_a_new_machine_is_told_of_the_script_that_makes_it_a_node(source: str) -> None:
    cluster = Cluster()
    action = act.Launch(
        key="k", node="n1", launch_template="compute", source=source, lifecycle_script="s3://site/on.sh"
    )
    made = perform(action, cluster.slurm, cluster.ec2)["instance_id"]
    assert cluster.ec2.instances()[made].tags == {
        "nodewatch:node": "n1",
        "nodewatch:action": "k",
        "Name": "n1",
        "nodewatch:lifecycle-script": "s3://site/on.sh",
    }


def test_no_capacity_keeps_its_kind() -> None:
    cluster = Cluster()
    cluster.ec2.no_capacity = True
    with pytest.raises(CapacityError):
        perform(act.Launch(key="k", node="n1", launch_template="compute"), cluster.slurm, cluster.ec2)


@given(st.text())
def test_a_token_is_one_that_ec2_takes(key: str) -> None:
    token = client_token(key)
    assert token.isascii()
    assert len(token) <= 64
    assert token == client_token(key)


@given(st.text(), st.text())
def test_two_keys_have_two_tokens(one: str, other: str) -> None:
    assert (client_token(one) == client_token(other)) == (one == other)


def test_a_short_key_is_its_own_token() -> None:
    assert client_token("n1.gpu.100:replace:launch:1") == "n1.gpu.100:replace:launch:1"
    assert len(client_token("n" * 65)) == 64


def test_evidence_goes_to_s3_with_the_console_where_that_is_wanted() -> None:
    cluster = Cluster()
    cluster.ec2.consoles["i-0001"] = "cloud-init failed"
    bucket = Bucket(cluster)
    known = {"case": {"fault": "gpu.lost"}, "findings": []}
    action = act.KeepEvidence(
        key="k", node="n1", instance_id="i-0001", case_id="c", bucket="site", wants_console=True, evidence=known
    )
    result = perform(action, cluster.slurm, cluster.ec2, bucket)
    name = "nodewatch/evidence/n1/c/i-0001.json"
    assert result == {"console": "cloud-init failed", "kept_at": f"s3://site/{name}"}
    kept = json.loads(bucket.kept[name])
    assert (kept["case"], kept["console"], kept["instance_id"]) == (
        {"fault": "gpu.lost"},
        "cloud-init failed",
        "i-0001",
    )


def test_a_console_that_ec2_does_not_give_keeps_nothing_else_from_being_kept() -> None:
    cluster = Cluster()
    action = act.KeepEvidence(key="k", node="n1", instance_id="i-0001", case_id="c", bucket="", wants_console=True)
    cluster.ec2.outage = True
    assert perform(action, cluster.slurm, cluster.ec2) == {
        "console_error": "EC2 could not be asked: connection refused"
    }
    assert perform(action, cluster.slurm, None) == {"console_error": "EC2 is not configured"}
