"""What of a group's capacity is refused when the configuration is read, with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.config.controller import load_controller_config
from nodewatch.errors import ConfigError

GROUP = '[[groups]]\nname = "g"\nnodes = ["n[1-4]"]\npartition = "train"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "controller.toml"
    path.write_text(GROUP + text)
    return path


def test_sources_in_the_sites_order(tmp_path: Path) -> None:
    path = written(
        tmp_path, 'launch_template = "t"\ncapacity = ["fleet:p5.48xlarge", "spot"]\nsubnets = ["subnet-b"]\n'
    )
    (group,) = load_controller_config(path).groups
    assert group.capacity == ("fleet:p5.48xlarge", "spot")
    assert group.all_subnets == ("subnet-b",)
    assert group.has_ec2


def test_a_group_of_an_auto_scaling_group_needs_no_template(tmp_path: Path) -> None:
    (group,) = load_controller_config(written(tmp_path, 'capacity = ["asg:trainers"]\n')).groups
    assert group.has_ec2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('launch_template = "t"\ncapacity = ["sopt"]\n', "'g': capacity 'sopt': use launch_template, fleet"),
        ('launch_template = "t"\ncapacity = ["block:mine"]\n', "write it like 'block:cr-"),
        ('launch_template = "t"\ncapacity = []\n', "capacity is empty"),
        ('capacity = ["asg:trainers", "spot"]\n', "its capacity needs a launch_template"),
        ('launch_template = "t"\non_replace = "keep"\n', "on_replace must be one of terminate, quarantine"),
        (
            'launch_template = "t"\non_replace = "quarantine"\ncapacity = ["block:cr-0123456789abcdef0"]\n',
            "a machine in quarantine keeps its slot",
        ),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_controller_config(written(tmp_path, text))
