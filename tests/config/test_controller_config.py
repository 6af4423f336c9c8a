"""controller.toml: what is wrong is said in one sentence that names the file, the key and the remedy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nodewatch.config.controller import ControllerConfig, load_controller_config
from nodewatch.errors import ConfigError
from nodewatch.policy.rules import Rules

GOOD = """
cluster = "east"
tick_s = 2
socket = "/run/nodewatch-controller/other.sock"

[policy]
mode = "act"
max_out = 3
max_out_share = 1
shared_families = ["filesystem"]
first_rung = { "gpu.lost" = "reboot" }

[[groups]]
name = "compute"
nodes = ["n[1-3]", "n10"]
partition = "train"
spares = 1
launch_template = "compute"

[[groups]]
name = "debug"
nodes = ["d*"]
partition = "debug"
"""
GROUP = '[[groups]]\nname = "g"\npartition = "p"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> str:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_controller_config(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}")


def test_a_good_file(tmp_path: Path) -> None:
    config = load_controller_config(write(tmp_path, GOOD))
    assert (config.cluster, config.tick_s, config.socket) == (
        "east",
        2.0,
        Path("/run/nodewatch-controller/other.sock"),
    )
    assert isinstance(config.tick_s, float)
    assert config.groups[0].nodes == ("n1", "n2", "n3", "n10")
    rules = config.rules
    assert (rules.mode, rules.max_out, rules.shared_families) == ("act", 3, ("filesystem",))
    assert rules.first_rung == {"gpu.lost": "reboot"}
    assert [group.name for group in rules.groups] == ["compute", "debug"]
    assert rules.group_of("d17") is rules.groups[1]
    assert rules.group_of("x") is None
    assert config.journal == Path("/var/lib/nodewatch-controller/journal.jsonl")


def test_an_empty_file_is_the_first_install(tmp_path: Path) -> None:
    config = load_controller_config(write(tmp_path, ""))
    assert config == ControllerConfig()
    assert config.policy == Rules()
    assert config.policy.mode == "observe"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        # a key that is not there
        ("tick = 1", ": unknown key 'tick'; did you mean 'tick_s'?"),
        ("[policy]\nmax_outs = 1", ": policy: unknown key 'max_outs'; did you mean 'max_out'?"),
        (GROUP + 'nodes = ["n1"]\nspare = 1', ": groups: unknown key 'spare'; did you mean 'spares'?"),
        ("[polcy]", ": unknown key 'polcy'; did you mean 'policy'?"),
        ("[policy]\nzzz = 1", ": policy: unknown key 'zzz'; the known keys are agent_silence_s, "),
        # another type
        ('tick_s = "1"', ": tick_s must be a number, not '1'"),
        ("tick_s = true", ": tick_s must be a number, not True"),
        ("tick_s = nan", ": tick_s must be a finite number, not nan"),
        ("[policy]\nlaunch_timeout_s = inf", ": policy: launch_timeout_s must be a finite number, not inf"),
        ("listen_port = 9410.0", ": listen_port must be a whole number, not 9410.0"),
        ("[policy]\nmax_out = true", ": policy: max_out must be a number, not True"),
        ("[policy]\npaused = 1", ": policy: paused must be true or false, not 1"),
        ("cluster = 7", ": cluster must be text in quotes, not 7"),
        ("state_dir = 7", ": state_dir must be a path in quotes, not 7"),
        ("policy = 7", ": policy must be a table, not 7"),
        ("groups = 7", ": groups must be a list, not 7"),
        ("groups = [7]", ": groups must be a table, not 7"),
        (GROUP + 'nodes = "n1"', ": groups: nodes must be a list, not 'n1'"),
        (GROUP + "nodes = [1]", ": groups: nodes must be text in quotes, not 1"),
        ('[policy]\nshared_families = "filesystem"', ": policy: shared_families must be a list, not 'filesystem'"),
        ("[policy]\nfirst_rung = 3", ": policy: first_rung must be a table, not 3"),
        ('[policy]\nfirst_rung = { "gpu.lost" = 4 }', ": policy: first_rung.gpu.lost must be text in quotes, not 4"),
        # required and missing
        (GROUP, ": groups: the key 'nodes' is required and missing"),
        ("[[groups]]\nspares = 1", ": groups: the key 'name', 'nodes', 'partition' is required and missing"),
        # out of range
        ("tick_s = 0", ": tick_s is 0.0: use a number of seconds from 0.01 to 3600"),
        ("slurm_deadline_s = -1", ": slurm_deadline_s is -1.0: use a number of seconds from 0.01 to 3600"),
        ("ec2_period_s = -1", ": ec2_period_s is -1.0: use a number of seconds from 0 to 3600"),
        ("listen_port = 65536", ": listen_port is 65536: use a port from 1 to 65535"),
        ("agent_port = 0", ": agent_port is 0: use a port from 1 to 65535"),
        ('[policy]\nmode = "dry-run"', ": policy: mode must be one of observe, act, not 'dry-run'"),
        ("[policy]\nmax_out = -1", ": policy: max_out must not be negative"),
        ("[policy]\nmax_out_share = 1.5", "max_out_share must lie between 0 and 1"),
        ("[policy]\nattempts = 0", ": policy: attempts must be at least 1"),
        ('[policy]\nfirst_rung = { "gpu.lost" = "explode" }', "first_rung of 'gpu.lost' must be one of drain, "),
        # groups
        (GROUP + 'nodes = ["n[1-"]', ": groups: nodes of 'g': 'n[1-' is no hostlist: a bracket is not closed"),
        (GROUP + 'nodes = ["n[5-2]"]', ": groups: nodes of 'g': 'n[5-2]' is no hostlist: the range '5-2' is empty"),
        (GROUP + "nodes = []", ": groups: 'g' has no nodes; give a hostlist"),
        (GROUP + 'nodes = [""]', ": groups: 'g' has no nodes; give a hostlist"),
        (GROUP + 'nodes = ["n[1-2]"]\nspares = 2', ": groups: 'g' has 2 nodes and wants 2 of them as spares"),
        (GROUP + 'nodes = ["n[1-2]"]\nspares = -1', ": groups: 'g' has 2 nodes and wants -1 of them as spares"),
        (GROUP + 'nodes = ["n[1-3]", "n2"]', ": groups: n2 is in 'g' and in 'g'; name it once"),
        (GOOD + GROUP + 'nodes = ["n3"]', ": groups: n3 is in 'compute' and in 'g'; name it once"),
        (GOOD + GROUP + 'nodes = ["n*"]', ": groups: n1 is in 'compute' and matches a pattern of 'g'; name it once"),
        (GOOD + GROUP + 'nodes = ["d1"]', ": groups: d1 is in 'g' and matches a pattern of 'debug'; name it once"),
        ('[[policy.groups]]\nname = "g"\nnodes = ["n1"]\npartition = "p"', ": groups stand at the top level"),
        # no TOML
        ("tick_s = ", " is not valid TOML: "),
        ("tick_s = 1\ntick_s = 2", " is not valid TOML: "),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(tmp_path, text)


def test_a_group_by_pattern_may_have_spares(tmp_path: Path) -> None:
    config = load_controller_config(write(tmp_path, GROUP + 'nodes = ["n*"]\nspares = 2'))
    assert config.groups[0].spares == 2


def test_a_missing_file_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match="does not exist: create it, or name another file with --config"):
        load_controller_config(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "controller.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{path} cannot be read: "):
        load_controller_config(path)


def test_every_setting_is_documented() -> None:
    """Each field but those that speak for themselves has a text below it, which the reference is made of."""
    source = Path(__file__).resolve().parents[2] / "nodewatch" / "config" / "controller.py"
    lines = source.read_text(encoding="utf-8").splitlines()
    undocumented = [
        field.name
        for field in dataclasses.fields(ControllerConfig)
        for index, line in enumerate(lines)
        if line.startswith(f"    {field.name}: ") and not lines[index + 1].strip().startswith('"""')
    ]
    assert undocumented == ["listen_port"]


DEFAULTS = """
[[auto_resume]]
partition = "train"
value = "3,dir=/fsx/{user}/{job_name}"

[[auto_resume]]
account = "llm"
always = true
"""


def test_what_jobs_do_not_say_of_auto_resume(tmp_path: Path) -> None:
    first, second = load_controller_config(write(tmp_path, DEFAULTS)).auto_resume

    assert (first.partition, first.account, first.value, first.always) == (
        "train",
        "",
        "3,dir=/fsx/{user}/{job_name}",
        False,
    )
    assert (second.partition, second.account, second.value, second.always) == ("", "llm", "default", True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('value = "many"', "'many' in 'many' is not understood"),
        ('value = "off"', "leave the table out"),
        ('value = "3,dir=/fsx/{home}"', "{home} in value is unknown: known are {user} and {job_name}"),
        ('partitoin = "train"', "partition"),
    ],
)
def test_a_default_that_makes_no_sense_is_refused(tmp_path: Path, line: str, words: str) -> None:
    said = refusal(tmp_path, f"[[auto_resume]]\n{line}\n")

    assert "auto_resume" in said
    assert words in said
