"""[pairs] of controller.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.config.controller import load_controller_config
from nodewatch.errors import ConfigError


def load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "controller.toml"
    path.write_text(text, encoding="utf-8")
    load_controller_config(path)


def test_the_defaults_and_a_command_of_the_site_are_taken(tmp_path: Path) -> None:
    load(tmp_path, "")
    load(tmp_path, '[pairs]\ncommand = ["pair-test", "{nodes}", "{extra}"]\nextra = ["--qos=x"]\nsweep_every_s = 86400')
    load(tmp_path, '[[groups]]\nname = "g"\npartition = "p"\nnodes = ["n[1-2]"]\ninstance_type = "p5.48xlarge"')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('command = ["srun", "--nodelist={hosts}"]', "placeholder {hosts}, which is none"),
        ('command = ["srun", "all_reduce_perf"]', "does not say {nodes}"),
        ("command = []", "does not say {nodes}"),
        ("at_once = 0", "at_once is 0: use a number from 1 to 1000"),
        ("deadline_s = 0.5", "deadline_s is 0.5"),
        ("sweep_every_s = 60", "use at least 3600 seconds, or 0 for never"),
        ("sweep_every_s = -1", "use at least 3600 seconds, or 0 for never"),
        ("floor_gbps = -1.0", "floor_gbps is -1.0"),
        ("begin_bytes = 8\nend_bytes = 4", "the end not below the begin"),
        ("atonce = 1", "did you mean 'at_once'?"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"[pairs]\n{text}")
    assert says in str(caught.value)
