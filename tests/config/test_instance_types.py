"""The site's file of instance types: absent, good, unreadable, in contradiction; and that the agent's table knows its rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nodewatch.config.instance_types import read_learnt
from nodewatch.errors import ConfigError

ROW = """[types."p9.48xlarge"]
gpus = 6
vcpus = 192
memory_gib = 2048
efa_devices = 12
source = ["learnt on n1 2026-11-24"]
"""


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_learnt(tmp_path / "none.toml") == {}


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "types.toml"
    path.write_text(ROW)
    assert read_learnt(path)["p9.48xlarge"].gpus == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff\xfe", "cannot be read"),
        (b"[", "not valid TOML"),
        (ROW.replace("p9", "p5").encode(), "gpus is 6 here and 8 in the built-in table"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "types.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        read_learnt(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_agents_table_knows_them(tmp_path: Path) -> None:
    """In a process of its own: the table is the whole process's."""
    path = tmp_path / "types.toml"
    path.write_text(ROW)
    program = (
        "import sys; from pathlib import Path; from nodewatch.config.instance_types import load_learnt;"
        "from nodewatch.config.agent import AgentConfig, efa_expected, gpus_expected;"
        "load_learnt(Path(sys.argv[1])); load_learnt(Path(sys.argv[1]));"
        "c = AgentConfig(); print(gpus_expected(c, 'p9.48xlarge'), efa_expected(c, 'p9.48xlarge'), "
        "gpus_expected(c, 'p5.48xlarge'))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "6 12 8\n"


def test_the_agent_refuses_to_start_with_a_contradiction(tmp_path: Path) -> None:
    path = tmp_path / "types.toml"
    path.write_text(ROW.replace("p9", "p5"))
    (tmp_path / "agent.toml").write_text(f'instance_types_file = "{path}"\n')
    argv = [sys.executable, "-m", "nodewatch.agent.main", "--check-config", "--config", str(tmp_path / "agent.toml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "gpus is 6 here and 8" in done.stderr
