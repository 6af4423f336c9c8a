"""nodewatch cluster as a process: EC2 by moto's server, scontrol and squeue as files in front of it on PATH."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
server_module = pytest.importorskip("moto.server", reason="moto's server is not installed")

FAKE = Path(__file__).with_name("fake_slurm.py")
CLUSTER = """# ours
cluster = "east"
slurm_conf = "{place}/slurm.conf"

[partitions.train]
MaxTime = "7-0"

[[groups]]
name = "a"          # the old ones
nodes = ["a[1-4]"]
count = {a}
instance_type = "p5.48xlarge"
partition = "train"
launch_template = "compute"
lifecycle_script = "s3://site/on-create.sh"

[[groups]]
name = "b"
nodes = ["b[1-4]"]
count = {b}
cpus = 4
memory_mb = 1000
partition = "burst"
launch_template = "compute"
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bench:
    """A site's head: slurm.conf, cluster.toml, the fakes, and an EC2 client to look with."""

    def __init__(self, place: Path, endpoint: str) -> None:
        self.place = place
        self.ec2 = boto3.client(
            "ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x", endpoint_url=endpoint
        )
        self.env = {
            "PATH": f"{place}/bin:{os.environ['PATH']}",
            "FAKE_SLURM": str(place),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        (place / "bin").mkdir()
        for name in ("scontrol", "squeue"):
            program = place / "bin" / name
            # Without the site's packages it starts in a tenth of the time, and it is started often.
            program.write_text(
                f"#!{sys.executable} -SE\nimport runpy, sys\nsys.path.insert(0, {str(FAKE.parents[2])!r})\n"
                f"sys.argv[0] = {name!r}\nrunpy.run_path({str(FAKE)!r}, init_globals={{'PROGRAM': {name!r}}})\n"
            )
            program.chmod(0o755)
        self.conf = place / "slurm.conf"
        self.conf.write_text("ClusterName=east\nNodeName=site1 CPUs=4\ninclude nodewatch-nodes.conf\n")
        self.lines = place / "nodewatch-nodes.conf"
        self.lines.write_text("")
        (place / "boots").write_text("")
        self.toml = place / "cluster.toml"
        self.write(2, 1)

    def write(self, a: int, b: int) -> None:
        self.toml.write_text(CLUSTER.format(place=self.place, a=a, b=b))

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        verb, *rest = words
        argv = [sys.executable, "-m", "nodewatch.cli", "cluster", verb, *rest, "--config", str(self.toml)]
        if verb != "topology":
            argv += ["--record", str(self.place / "record.jsonl"), "--socket", str(self.place / "none.sock")]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **self.env}, input=stdin
        )

    def machines(self) -> dict[str, dict[str, str]]:
        """The tags of living machines by node."""
        found = {}
        for reservation in self.ec2.describe_instances()["Reservations"]:
            for item in reservation["Instances"]:
                if item["State"]["Name"] in ("pending", "running"):
                    tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}
                    assert tags["nodewatch:node"] not in found
                    found[tags["nodewatch:node"]] = tags
        return found

    @property
    def state(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.place / "state.json").read_text())
        return data

    def set_jobs(self, **jobs: str) -> None:
        state = self.state
        state["jobs"] = {key.strip("_"): nodes for key, nodes in jobs.items()}
        (self.place / "state.json").write_text(json.dumps(state))

    def calls(self) -> list[str]:
        return (self.place / "calls").read_text().splitlines()


@pytest.fixture
def bench(tmp_path: Path, endpoint: str) -> Iterator[Bench]:
    made = Bench(tmp_path, endpoint)
    made.ec2.create_launch_template(
        LaunchTemplateName="compute",
        LaunchTemplateData={"ImageId": "ami-0ab1ab1ab1ab1ab1a", "InstanceType": "p5.48xlarge"},
    )
    yield made
    made.ec2.delete_launch_template(LaunchTemplateName="compute")
    ids = [
        item["InstanceId"]
        for reservation in made.ec2.describe_instances()["Reservations"]
        for item in reservation["Instances"]
    ]
    if ids:
        made.ec2.terminate_instances(InstanceIds=ids)


def test_apply_twice(bench: Bench) -> None:
    plan = bench.run("apply", "--dry-run")
    assert (plan.returncode, plan.stderr) == (0, "")
    assert plan.stdout.splitlines() == [
        "+ launch a machine for a1 (group a p5.48xlarge)",
        "+ launch a machine for a2 (group a p5.48xlarge)",
        "+ launch a machine for b1 (group b)",
        f"~ write {bench.lines} with a[1-2],b1",
        "~ scontrol reconfigure",
    ]
    assert (bench.machines(), bench.lines.read_text()) == ({}, "")

    done = bench.run("apply", "--yes")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "the cluster is as cluster.toml says"), done.stderr
    machines = bench.machines()
    assert sorted(machines) == ["a1", "a2", "b1"]
    assert machines["a1"]["nodewatch:cluster"] == "east"
    assert machines["a1"]["nodewatch:action"].startswith("cluster:a1:")
    assert machines["a1"]["nodewatch:lifecycle-script"] == "s3://site/on-create.sh"
    assert bench.lines.read_text().splitlines()[1:] == [
        "NodeName=a[1-2] CPUs=192 RealMemory=1992294 Gres=gpu:8 State=UNKNOWN",
        "NodeName=b1 CPUs=4 RealMemory=1000 State=UNKNOWN",
        "PartitionName=burst Nodes=b1 State=UP",
        "PartitionName=train Nodes=a[1-2] State=UP MaxTime=7-0",
    ]
    assert all(bench.state["nodes"][name]["address"][0].isdigit() for name in ("a1", "a2", "b1"))
    assert bench.state["nodes"]["site1"]["address"] == "site1"

    before = bench.calls()
    again = bench.run("apply", "--yes")
    assert (again.returncode, again.stdout) == (0, "nothing is to be done\nthe cluster is as cluster.toml says\n")
    assert not [call for call in bench.calls()[len(before) :] if "update" in call or "reconfigure" in call]
    assert sorted(bench.machines()) == ["a1", "a2", "b1"]


def test_nothing_without_a_yes(bench: Bench) -> None:
    done = bench.run("apply", stdin="n\n")
    assert done.returncode == 1
    assert "carry out 5 steps on east?" in done.stderr
    assert bench.machines() == {}


def test_a_count_is_moved_by_scale_and_a_job_is_waited_for(bench: Bench) -> None:
    bench.run("apply", "--yes")
    bench.set_jobs(_7="a2")
    done = bench.run("scale", "a=1", "b=2", "--json", "--wait", "0")
    assert done.returncode == 1, done.stderr
    data = json.loads(done.stdout)
    assert data["held"] == [{"node": "a2", "why": "job 7 runs there: its machine goes afterwards"}]
    assert (data["complete"], data["waiting"]) == (False, [])
    assert sorted(bench.machines()) == ["a1", "a2", "b1", "b2"]
    assert bench.state["nodes"]["a2"]["reason"] == "nodewatch: cluster: taken out by cluster.toml"
    assert 'name = "a"          # the old ones' in bench.toml.read_text()
    assert bench.toml.read_text() == CLUSTER.format(place=bench.place, a=1, b=2)

    bench.set_jobs()
    assert bench.run("apply", "--yes").returncode == 0
    assert sorted(bench.machines()) == ["a1", "b1", "b2"]
    assert sorted(bench.state["nodes"]) == ["a1", "b1", "b2", "site1"]


def test_scale_keeps_the_file_when_nobody_agrees(bench: Bench) -> None:
    before = bench.toml.read_text()
    assert bench.run("scale", "a=3", stdin="n\n").returncode == 1
    assert bench.run("scale", "a=3", "--dry-run").returncode == 0
    for words, said in {
        ("c=1",): "there is no group 'c' in cluster.toml; its groups: a, b",
        ("a",): "'a' is no GROUP=N",
        ("a=9",): f"{bench.toml}: groups: 'a': count is 9 and there are 4 names",
    }.items():
        refused = bench.run("scale", *words)
        assert refused.returncode == 2
        assert said in refused.stderr
    assert bench.toml.read_text() == before


def test_describe(bench: Bench) -> None:
    bench.run("apply", "--yes")
    data = json.loads(bench.run("describe", "--json").stdout)
    rows = {row["group"]: row for row in data["groups"]}
    assert (rows["a"]["count"], rows["a"]["machines"], rows["a"]["up"], rows["a"]["out"]) == (2, 2, 2, 0)
    assert (data["steps"], data["held"]) == (0, [])
    text = bench.run("describe").stdout
    assert text.startswith("cluster east\nGROUP  TYPE         PARTITION  WANTED  MACHINES  UP  SPARES  OUT\n")
    assert "a1    a      i-" in text


def test_delete_asks_for_the_name_and_tells_what_remains(bench: Bench) -> None:
    bench.run("apply", "--yes")
    wrong = bench.run("delete", stdin="west\n")
    assert (wrong.returncode, len(bench.machines())) == (2, 3)
    assert "nothing was done: the cluster is 'east', not 'west'" in wrong.stderr
    bench.set_jobs(_7="b1")
    part = bench.run("delete", "--confirm", "east", "--wait", "0", "--json")
    remains = json.loads(part.stdout)["remains"]
    assert (part.returncode, remains["lines"], [m["node"] for m in remains["machines"]]) == (1, ["b1"], ["b1"])
    assert remains["held"] == [{"node": "b1", "why": "job 7 runs there: its machine goes afterwards"}]
    bench.set_jobs()
    whole = bench.run("delete", stdin="east\n")
    assert whole.returncode == 0, whole.stderr
    assert f"nothing remains of east in EC2 and in {bench.lines}" in whole.stdout
    assert (bench.machines(), list(bench.state["nodes"])) == ({}, ["site1"])


def test_the_missing_include_is_told_and_the_file_made(bench: Bench) -> None:
    bench.conf.write_text("ClusterName=east\n")
    bench.lines.unlink()
    done = bench.run("apply", "--yes")
    assert done.returncode == 2
    assert "add the line `include nodewatch-nodes.conf` to it" in done.stderr
    assert bench.lines.read_text().startswith("# Written by")
    assert bench.machines() == {}


def test_lines_that_slurm_does_not_parse_are_not_put_in_place(bench: Bench) -> None:
    bench.toml.write_text(bench.toml.read_text().replace('MaxTime = "7-0"', 'MaxTimes = "7-0"'))
    done = bench.run("apply", "--yes")
    assert done.returncode == 2
    assert "Slurm would not take our lines, and nothing was written" in done.stderr
    assert "unrecognized key: MaxTimes" in done.stderr
    assert bench.lines.read_text() == ""


def test_a_refused_reconfigure_puts_the_old_lines_back(bench: Bench) -> None:
    bench.run("apply", "--yes")
    good = bench.lines.read_text()
    (bench.place / "refuse").write_text("")
    done = bench.run("scale", "a=3", "--yes")
    assert done.returncode == 2
    assert "the lines of before are back" in done.stderr
    assert bench.lines.read_text() == good
    (bench.place / "refuse").unlink()
    assert bench.run("apply", "--yes").returncode == 0
    assert sorted(bench.machines()) == ["a1", "a2", "a3", "b1"]


def test_a_launch_that_was_cut_off_is_asked_for_again_with_its_token(bench: Bench) -> None:
    record = bench.place / "record.jsonl"
    begun = {
        "v": 1,
        "at": 1.0,
        "kind": "launching",
        "node": "a1",
        "key": "cluster:a1:0011",
        "source": "launch_template",
    }
    record.write_text(json.dumps(begun) + '\n{"torn')
    assert bench.run("apply", "--yes").returncode == 0
    assert bench.machines()["a1"]["nodewatch:action"] == "cluster:a1:0011"
    kinds = [json.loads(line)["kind"] for line in record.read_text().splitlines() if line.startswith('{"v"')]
    assert kinds.count("launched") == 3


def test_nodes_that_do_not_boot_are_told(bench: Bench) -> None:
    (bench.place / "boots").unlink()
    done = bench.run("apply", "--yes", "--wait", "0")
    assert done.returncode == 1
    assert "not up yet: a[1-2],b1" in done.stdout


ANSWERS = {
    "DescribeInstances": "<reservationSet><item><instancesSet>"
    + "".join(
        f"<item><instanceId>i-{node}</instanceId><instanceState><name>running</name></instanceState>"
        f"<tagSet><item><key>nodewatch:node</key><value>{node}</value></item></tagSet></item>"
        for node in ("a1", "a2")
    )
    + "</instancesSet></item></reservationSet>",
    "DescribeInstanceTopology": "<instanceSet>"
    + "".join(
        f"<item><instanceId>i-{node}</instanceId><networkNodeSet>{''.join(f'<item>{s}</item>' for s in path)}"
        "</networkNodeSet></item>"
        for node, path in {"a1": ("nn-a", "nn-b"), "a2": ("nn-a", "nn-c")}.items()
    )
    + "</instanceSet>",
}


class Answering(http.server.BaseHTTPRequestHandler):
    """Two of EC2's calls; moto has no DescribeInstanceTopology."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = parse_qs(body)["Action"][0]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"<{action}Response>{ANSWERS[action]}</{action}Response>".encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_topology_has_every_node(bench: Bench) -> None:
    bench.lines.write_text("NodeName=a[1-2] CPUs=4\n")
    subprocess.run(["scontrol", "reconfigure"], env={**os.environ, **bench.env}, check=True, timeout=30)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        bench.env["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.server_address[1]}"
        target = bench.place / "topology.conf"
        done = bench.run("topology", "--write", str(target))
        printed = bench.run("topology")
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert "EC2 does not say where site1 are" in done.stderr
    assert printed.stdout == target.read_text()
    assert target.read_text().splitlines() == [
        "SwitchName=nn-b Nodes=a1",
        "SwitchName=nn-c Nodes=a2",
        "SwitchName=unplaced Nodes=site1",
        "SwitchName=nn-a Switches=nn-b,nn-c",
        "SwitchName=ec2 Switches=nn-a,unplaced",
    ]
