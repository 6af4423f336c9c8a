"""[deep] of agent.toml: defaults that are good, and one sentence for each value that is not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from nodewatch.config.deep import TOOLS, DeepConfig
from nodewatch.config.load import build
from nodewatch.errors import ConfigError


def read(text: str) -> DeepConfig:
    return build(DeepConfig, tomllib.loads(text), where="agent.toml: deep")


def test_everything_is_automatic_unless_said() -> None:
    config = read("")
    assert config == DeepConfig() and {getattr(config, name) for name in TOOLS} == {"auto"}


def test_what_can_be_said() -> None:
    config = read(
        'dcgm = "on"\nnccl = "off"\ndcgm_level = 4\ndcgm_deadline_s = 7200\nlock = "/run/other.lock"\n'
        'disk_directories = ["/opt/dlami/nvme"]\nnccl_environment = { LD_LIBRARY_PATH = "/opt/nccl/lib" }\n'
    )
    assert (config.dcgm, config.nccl, config.dcgm_level, config.dcgm_deadline_s) == ("on", "off", 4, 7200.0)
    assert (config.lock, config.disk_directories) == (Path("/run/other.lock"), ("/opt/dlami/nvme",))
    assert config.nccl_environment == {"LD_LIBRARY_PATH": "/opt/nccl/lib"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((f'{name} = "maybe"', f'{name} is \'maybe\': use "auto", "on" or "off"') for name in TOOLS),
        ("dcgm_level = 0", "use 1, 2, 3 or 4"),
        ("dcgm_level = 5", "use 1, 2, 3 or 4"),
        ("dcgm_deadline_s = -1", "or 0 for the level's own"),
        ("dcgm_deadline_s = nan", "finite"),
        ("nccl_deadline_s = 0", "use 1 to 86400 seconds"),
        ("nccl_stuck_after_s = 0", "use 1 to 3600 seconds"),
        ("fi_pingpong_each_s = 0.5", "use 1 to 3600 seconds"),
        ("fabric_deadline_s = 1e9", "use 1 to 86400 seconds"),
        ("fi_pingpong_devices = 0", "from 1 to 64"),
        ("fi_pingpong_iterations = 0", "from 1 to 1000000"),
        ("fi_pingpong_port = 70000", "from 1 to 65535"),
        ("cpu_seconds = 0", "use 1 to 86400 seconds"),
        ("memory_seconds = -3", "use 1 to 86400 seconds"),
        ("memory_share = 0.95", "a share above 0"),
        ("memory_share = 0", "a share above 0"),
        ("memory_max_mib = -1", "from 0 to"),
        ("disk_mib = 0", "from 1 to"),
        ("disk_deadline_s = 0", "use 1 to 86400 seconds"),
        ('disk_directories = ["nvme"]', "write a whole path"),
        ('dcgmi = ""', "name the command"),
        ("dcgm = true", "text in quotes"),
        ("dgcm_level = 2", "did you mean 'dcgm_level'?"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert words in str(caught.value) and str(caught.value).startswith("agent.toml: deep")
