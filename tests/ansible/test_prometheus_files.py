"""Prometheus's and Alertmanager's own tools read what the observability role writes: a slip would keep them from starting."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.trees import Tree

from .conftest import ANSIBLE
from .prometheus import tools

ROLE = ANSIBLE / "roles/observability"
SLACK = {"name": "people", "slack_configs": [{"api_url": "http://192.0.2.9/hook", "channel": "#gpu"}]}
SITES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "all that a site may set": {
        "nodewatch_exporters": ["node", "dcgm"],
        "nodewatch_alert_receivers": [{"name": "nobody"}, SLACK],
        "nodewatch_alert_receiver": "people",
        "nodewatch_agent": {"metrics_port": 9500},
        "nodewatch_controller": {"listen_port": 9501},
    },
}


@pytest.fixture(scope="module")
def promtree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    if os.geteuid() != 0:
        pytest.skip("a tree is entered by chroot, as root")
    tree = Tree(base=Path(tools()), place=tmp_path_factory.mktemp("prometheus") / "tree").make()
    rules = tree.upper / "etc/prometheus/rules"
    rules.mkdir(parents=True)
    (rules / "nodewatch.yml").write_bytes((ROLE / "files/nodewatch-rules.yml").read_bytes())
    return tree


def written(site: dict[str, Any], place: Path) -> Path:
    """What the role's templates become for a head and two nodes, by Ansible itself."""
    variables = yaml.safe_load((ROLE / "defaults/main.yml").read_text()) | {
        "nodewatch_agent": {},
        "nodewatch_controller": {},
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
    }
    hosts = {
        "nodewatch_head": {"hosts": {"head": {"ansible_host": "192.0.2.1"}}},
        "nodewatch_compute": {"hosts": {"n1": {}, "n2": {}}},
    }
    inventory = place / "hosts.json"
    inventory.write_text(json.dumps({"all": {"vars": variables | site, "children": hosts}}))
    made = place / "made"
    made.mkdir()
    tasks = [
        {"ansible.builtin.template": {"src": str(source), "dest": f"{made}/{source.stem}", "mode": "0644"}}
        for source in sorted((ROLE / "templates").glob("*.j2"))
    ]
    play = place / "play.yml"
    play.write_text(json.dumps([{"hosts": "head", "gather_facts": False, "tasks": tasks}]))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(play)],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(place / "tmp"), "HOME": str(place), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def asked(tree: Tree, *words: str) -> subprocess.CompletedProcess[str]:
    return tree.run(f"exec {shlex.join(words)} 2>&1")


def given(tree: Tree, name: str, text: str) -> str:
    """Put a file where the tools find it."""
    (tree.upper / "etc/prometheus" / name).write_text(text)
    return f"/etc/prometheus/{name}"


def test_the_rules_are_rules(promtree: Tree) -> None:
    done = asked(
        promtree, "promtool", "check", "rules", "--lint=all", "--lint-fatal", "/etc/prometheus/rules/nodewatch.yml"
    )
    count = len(re.findall(r"- alert:", (ROLE / "files/nodewatch-rules.yml").read_text()))

    assert done.returncode == 0, done.stdout
    assert f"SUCCESS: {count} rules found" in done.stdout


def test_a_slip_in_a_rule_is_found(promtree: Tree) -> None:
    """The check itself is checked: a bracket that is never closed."""
    text = (ROLE / "files/nodewatch-rules.yml").read_text().replace("expr: ", "expr: (", 1)

    assert asked(promtree, "promtool", "check", "rules", given(promtree, "broken.yml", text)).returncode != 0


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_both_configurations_are_taken(promtree: Tree, tmp_path: Path, site: dict[str, Any]) -> None:
    made = written(site, tmp_path)
    checks = {"prometheus.yml": ["promtool", "check", "config"], "alertmanager.yml": ["amtool", "check-config"]}
    for name, words in checks.items():
        done = asked(promtree, *words, given(promtree, name, (made / name).read_text()))
        assert done.returncode == 0, f"{name}: {done.stdout}"
        assert "SUCCESS" in done.stdout

    jobs = {
        job["job_name"]: job["static_configs"]
        for job in yaml.safe_load((made / "prometheus.yml").read_text())["scrape_configs"]
    }
    agents = {config["targets"][0]: config["labels"]["node"] for config in jobs["nodewatch-agent"]}
    port = site.get("nodewatch_agent", {}).get("metrics_port", 9411)
    assert agents == {f"n1:{port}": "n1", f"n2:{port}": "n2"}
    assert jobs.keys() == {"nodewatch-controller", "nodewatch-agent", *site.get("nodewatch_exporters", [])}
