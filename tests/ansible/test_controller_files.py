"""What the role `controller` writes is what the controller reads: cluster.toml, controller.toml, and the check of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nodewatch.config.controller import load_controller_config
from nodewatch.errors import ConfigError

from .conftest import ANSIBLE

ROLE = ANSIBLE / "roles/controller"
PROGRAM = str(Path(sys.executable).parent / "ansible")
CLUSTER: dict[str, Any] = {
    "cluster": "east",
    "partitions": {"train": {"MaxTime": "7-0"}},
    "groups": [
        {
            "name": "trainers",
            "nodes": ["n[1-4]"],
            "count": 3,
            "instance_type": "p5.48xlarge",
            "partition": "train",
            "launch_template": "trainer",
            "domains": {"spine1": ["n[1-2]"]},
        }
    ],
}


def write(tmp_path: Path, name: str, given: Mapping[str, Any], validate: str = "") -> subprocess.CompletedProcess[str]:
    """Have ansible write one of the role's templates into `tmp_path`."""
    values = {**yaml.safe_load((ROLE / "defaults/main.yml").read_text()), **given}
    # The path that the role gives is root's: here it is that of the test.
    template = tmp_path / f"{name}.j2"
    template.write_text((ROLE / f"templates/{name}.j2").read_text().replace("/etc/nodewatch/", f"{tmp_path}/"))
    task = {"src": str(template), "dest": str(tmp_path / name), **({"validate": validate} if validate else {})}
    argv = [PROGRAM, "localhost", "-i", "localhost,", "-c", "local", "-m", "ansible.builtin.template"]
    argv += ["-a", json.dumps(task), "-e", json.dumps({**values, "ansible_python_interpreter": sys.executable})]
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
        "TMPDIR": str(tmp_path / "made"),
    }
    (tmp_path / "made").mkdir(exist_ok=True)
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=ANSIBLE, env=env)


def written(tmp_path: Path, **given: Any) -> Path:
    """Both files; returns controller.toml."""
    for name in ("cluster.toml", "controller.toml"):
        done = write(tmp_path, name, given)
        assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "controller.toml"


def test_without_a_cluster_controller_toml_has_the_groups(tmp_path: Path) -> None:
    groups = [{"name": "gpu", "nodes": ["n[1-2]"], "partition": "train"}]
    config = load_controller_config(
        written(tmp_path, nodewatch_controller={"groups": groups, "policy": {"max_out": 5}})
    )
    assert config.cluster_file is None
    assert config.groups[0].nodes == ("n1", "n2")
    assert (config.policy.mode, config.policy.max_out) == ("observe", 5)


def test_the_controller_takes_its_groups_from_the_cluster(tmp_path: Path) -> None:
    given = {"nodewatch_controller": {"tick_s": 2, "policy": {"max_out": 5}}, "nodewatch_mode": "act"}
    config = load_controller_config(written(tmp_path, nodewatch_cluster=CLUSTER, **given))
    assert config.cluster_file == tmp_path / "cluster.toml"
    assert config.cluster == "east"
    assert config.groups[0].nodes == ("n1", "n2", "n3")
    assert config.groups[0].domains == {"spine1": ("n1", "n2")}
    assert (config.policy.mode, config.policy.max_out, config.tick_s) == ("act", 5, 2)


def test_groups_in_both_are_refused(tmp_path: Path) -> None:
    more = {"groups": [{"name": "gpu", "nodes": ["n[1-2]"], "partition": "train"}]}
    path = written(tmp_path, nodewatch_cluster=CLUSTER, nodewatch_controller=more)
    with pytest.raises(ConfigError, match="keep one, cluster_file or"):
        load_controller_config(path)


@pytest.mark.parametrize(("key", "code", "says"), [("count", 0, "CHANGED"), ("cout", 2, "did you mean 'count'")])
def test_a_wrong_cluster_is_refused_before_it_is_there(tmp_path: Path, key: str, code: int, says: str) -> None:
    group = dict(CLUSTER["groups"][0])
    group[key] = group.pop("count")
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    (task,) = [each for each in tasks if each["name"] == "Say what the cluster is"]
    validate = task["ansible.builtin.template"]["validate"]
    validate = validate.replace("/usr/bin/nodewatch-controller", f"{sys.executable} -m nodewatch.controller.main")
    given = {"nodewatch_cluster": {**CLUSTER, "groups": [group]}}
    done = write(tmp_path, "cluster.toml", given, validate)
    assert (done.returncode, (tmp_path / "cluster.toml").exists()) == (code, not code), done.stdout + done.stderr
    assert says in done.stdout
    assert list((tmp_path / "made").iterdir()) == [], "what the check needed is gone"
