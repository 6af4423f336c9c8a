"""A head and two nodes for the playbooks: trees of a real Debian with Slurm, entered by a connection of the tests' own.

Nothing runs in them. The agents that the gate asks are played here, on loopback.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from tests.packaging.trees import Tree, base_tree, with_version

REPOSITORY = Path(__file__).resolve().parents[2]
ANSIBLE = REPOSITORY / "ansible"
NODES = ("n1", "n2")
HEALTHY = 'nodewatch_verdict{state="healthy"} 1.0\nnodewatch_controller_failures 0.0\n'
SITE_CONF = """\
ClusterName=site
SlurmctldHost=head
# The site's own.
Prolog=/opt/site/prolog
HealthCheckProgram=/opt/site/health
HealthCheckInterval=120
SchedulerParameters=bf_interval=2,\\
bf_continue
NodeName=n[1-2] CPUs=1
PartitionName=train Nodes=n[1-2]
"""


def load(name: str) -> ModuleType:
    """A module of ansible/, which is no package."""
    (path,) = ANSIBLE.glob(f"*/{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Agent:
    """The metrics of one node's agent."""

    def __init__(self) -> None:
        self.metrics = HEALTHY
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = agent.metrics.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the library's)
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a playbook did."""

    code: int
    output: str

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        recap = self.output.partition("PLAY RECAP")[2]
        return {name: int(count) for name, count in re.findall(r"(?m)^(\w+) +: .*?changed=(\d+)", recap)}


@dataclass(slots=True, kw_only=True)
class Cluster:
    """The machines, their agents, and the two versions of the packages."""

    trees: dict[str, Tree]
    agents: dict[str, Agent]
    packages: Path
    place: Path

    def play(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook as an administrator does."""
        inventory = self.place / "hosts.json"
        inventory.write_text(json.dumps(self._inventory()))
        mounts = " && ".join(tree.mount() for tree in self.trees.values())
        command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), playbook, *arguments]
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.place),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(self.place / "tmp"),
        }
        done = subprocess.run(
            [
                "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                "sh", "-c", f"{mounts} && exec {shlex.join(command)}",
            ],
            capture_output=True, text=True, check=False, timeout=240, cwd=ANSIBLE, env=env,
        )  # fmt: skip
        return Run(code=done.returncode, output=done.stdout + done.stderr)

    def read(self, machine: str, path: str) -> str:
        return self.trees[machine].run(f"cat {path}").stdout

    def version(self, machine: str, package: str) -> str:
        return self.trees[machine].run(f"dpkg-query -W -f='${{Version}}' {package}").stdout

    def _inventory(self) -> dict[str, object]:
        def host(name: str) -> dict[str, object]:
            agent = {"controller_url": "http://head:9410"}
            port = {"metrics_port": self.agents[name].port} if name in self.agents else {}
            return {"nodewatch_tree": str(self.trees[name].root), "nodewatch_agent": {**agent, **port}}

        return {
            "all": {
                "vars": {
                    "ansible_connection": "tree",
                    "ansible_python_interpreter": "/usr/bin/python3",
                    "nodewatch_packages_dir": str(self.packages),
                    "nodewatch_version": "1.0",
                    "nodewatch_booted": False,
                    # The tests play the agents that it asks.
                    "nodewatch_gate": True,
                    "nodewatch_plugin": False,
                    "nodewatch_slurm_conf_on_nodes": "copied",
                    "nodewatch_gate_timeout_s": 2,
                    "nodewatch_controller": {
                        "cluster": "site",
                        "groups": [{"name": "gpu", "nodes": ["n[1-2]"], "partition": "train"}],
                    },
                },
                "children": {
                    "nodewatch_head": {"hosts": {"head": host("head")}},
                    "nodewatch_compute": {"hosts": {name: host(name) for name in NODES if name in self.trees}},
                    "nodewatch_login": {"hosts": {}},
                    "nodewatch_fsx": {"hosts": {}},
                    "nodewatch_monitor": {"hosts": {}},
                },
            }
        }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("the machines' trees are entered by chroot, as root")
    place = tmp_path_factory.mktemp("cluster")
    base = base_tree()
    built = subprocess.run([str(REPOSITORY / "packaging/build")], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    packages = place / "packages"
    packages.mkdir()
    for name in ("nodewatch-agent", "nodewatch-controller", "nodewatch-hooks"):
        (file,) = (REPOSITORY / "build/packages").glob(f"{name}_*.deb")
        for version in ("1.0", "1.1"):
            with_version(file, version, packages)
    trees = {}
    for name in ("head", *NODES):
        trees[name] = Tree(base=base, place=place / name).make()
        site = trees[name].upper / "opt/site"
        site.mkdir(parents=True)
        for program in ("prolog", "health"):
            (site / program).write_text("#!/bin/sh\nexit 0\n")
            (site / program).chmod(0o755)
        conf = trees[name].upper / "etc/slurm"
        conf.mkdir(parents=True)
        (conf / "slurm.conf").write_text(SITE_CONF)
    agents = {name: Agent() for name in NODES}
    yield Cluster(trees=trees, agents=agents, packages=packages, place=place)
    for agent in agents.values():
        agent.close()
    shutil.rmtree(place, ignore_errors=True)
