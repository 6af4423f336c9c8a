"""slurm.conf with our block and without it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

from tests.packaging.conftest import tree
from tests.packaging.trees import Tree

from .conftest import ANSIBLE, REPOSITORY, load

__all__ = ["tree"]

conf = load("nodewatch_slurm_conf")
DEFAULTS = yaml.safe_load((ANSIBLE / "roles/slurm_hooks/defaults/main.yml").read_text())
PROGRAMS = DEFAULTS["nodewatch_slurm_programs"]
VALUES = DEFAULTS["nodewatch_slurm_values"]
WORDS = DEFAULTS["nodewatch_slurm_words"]


def edited(text: str, release: str = "24.11", included: str = "") -> conf.Edited:
    return conf.with_block(
        text, path="slurm.conf", release=release, programs=PROGRAMS, values=VALUES, words=WORDS,
        chain_dir="/etc/nodewatch/chain", included=included,
    )  # fmt: skip


def block(text: str) -> dict[str, str]:
    inside = text.partition(conf.BEGIN)[2].partition(conf.END)[0]
    return dict(line.split("=", 1) for line in inside.split("\n") if line)


TEXTS = [
    "",
    "ClusterName=x\n",
    "ClusterName=x",
    "ClusterName=x\n\n",
    "\r\nClusterName=x\r\n",
    "Prolog=/a\nEpilog=/b\nTaskProlog=/c\nHealthCheckProgram=/d\nPrologSlurmctld=/e\nEpilogSlurmctld=/f",
    "SchedulerParameters=a=1,\\\n b,\\\n c # why\nPrologFlags=Contain\n",
    "healthcheckprogram = /d # ours since 2019\n",
    "Prolog=/a\nProlog=/b\n",
    "NodeName=n1 Prolog=1 CPUs=4 \\\n RealMemory=5\n",
    "# HealthCheckProgram=/d\n",
    "SchedulerParameters=\n",
    "Caf\u00e9=1\n",
]


@pytest.mark.parametrize("release", ["24.11", "22.05", ""])
@pytest.mark.parametrize("text", TEXTS)
def test_what_goes_in_comes_out_byte_for_byte(text: str, release: str) -> None:
    once = edited(text, release)

    assert once.text.count(conf.BEGIN) == 1
    assert edited(once.text, release) == once
    assert conf.without_block(once.text, "slurm.conf") == text


@pytest.mark.parametrize("text", TEXTS)
def test_lines_that_the_site_adds_below_stay(text: str) -> None:
    later = edited(text).text + "Later=1\n"

    assert conf.without_block(later, "slurm.conf") in (text + "Later=1\n", text + "\nLater=1\n")
    assert conf.without_block(edited(later).text, "slurm.conf") == conf.without_block(later, "slurm.conf")


def test_the_defaults_are_the_lines_of_the_hooks_package() -> None:
    example = (REPOSITORY / "slurm_hooks/conf/slurm.conf").read_text().splitlines()
    lines = dict(line.split("=", 1) for line in example if line and not line.startswith("#"))

    assert {**PROGRAMS, **VALUES, **{key: ",".join(words) for key, words in WORDS.items()}} == lines


@pytest.mark.parametrize(
    ("release", "chained", "prolog"),
    [
        ("24.11", {"HealthCheckProgram": ["/site/h"], "TaskProlog": ["/site/t"]}, "/usr/lib/nodewatch/hooks/prolog"),
        (
            "23.11",
            {"HealthCheckProgram": ["/site/h"], "TaskProlog": ["/site/t"], "Prolog": ["/site/p.d/*"]},
            "/etc/nodewatch/chain/prolog",
        ),
    ],
)
def test_a_second_prolog_line_where_slurm_runs_both_else_a_chain(
    release: str, chained: dict[str, list[str]], prolog: str
) -> None:
    got = edited("Prolog=/site/p.d/*\nHealthCheckProgram=/site/h\nTaskProlog=/site/t\n", release)

    assert got.chained == chained
    assert block(got.text)["Prolog"] == prolog
    assert ("\nProlog=/site/p.d/*" in "\n" + got.text) == (release == "24.11")


def test_words_are_joined_and_values_of_the_site_stay() -> None:
    got = block(edited("SchedulerParameters=bf_continue,nohold_on_prolog_fail\nPrologFlags=X11\nMinJobAge=20\n").text)

    assert "SchedulerParameters" not in got
    assert got["PrologFlags"] == "X11,Alloc"
    assert "MinJobAge" not in got
    assert got["MaxBatchRequeue"] == "100"


def test_a_site_that_calls_ours_itself_is_left_alone() -> None:
    got = edited("HealthCheckProgram=/opt/site/with-nodewatch\nProlog=/usr/lib/nodewatch/hooks/prolog\n")

    assert got.chained == {}
    assert "HealthCheckProgram" not in block(got.text)
    assert "Prolog" not in block(got.text)


@pytest.mark.parametrize(
    ("text", "included", "sentence"),
    [
        (
            "Prolog=/a HealthCheckProgram=/b\n",
            "",
            "line 1: HealthCheckProgram stands on one line with other parameters",
        ),
        ("", "HealthCheckProgram=/b\n", "HealthCheckProgram is set in an included file"),
        ("", "SchedulerParameters=x\n", "SchedulerParameters is set in an included file"),
        (f"a=1\n{conf.BEGIN}\nb=2\n", "", "is damaged"),
        (f"{conf.END}\n{conf.BEGIN}\n", "", "is damaged"),
    ],
)
def test_what_cannot_be_edited_safely_is_not(text: str, included: str, sentence: str) -> None:
    with pytest.raises(conf.ConfError, match=sentence):
        edited(text, included=included)


@pytest.mark.parametrize("release", ["24.11", "22.05"])
def test_slurm_itself_reads_what_we_write(tree: Tree, release: str) -> None:
    site = "ClusterName=x\nSlurmctldHost=localhost\nProlog=/a\nTaskProlog=/b\nNodeName=n1 CPUs=1\n"
    site += "SchedulerParameters=bf_interval=2\n"
    (tree.upper / "etc/slurm").mkdir(parents=True)
    (tree.upper / "etc/slurm/slurm.conf").write_text(edited(site, release).text)

    # No slurmctld is there to answer; an unknown key or a value of the wrong kind is an error before it is asked.
    done = tree.run("timeout 20 scontrol ping")

    assert "is DOWN" in done.stdout
    assert done.stderr == ""


def test_included_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "more.conf").write_text("Include deeper/*.conf\nA=1\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/x.conf").write_text("B=2\n")

    text = conf.included_text("include more.conf\n# include no.conf\nInclude gone.conf\n", tmp_path)

    assert {"A=1", "B=2"} <= set(text.split())


def test_toml_is_what_was_meant() -> None:
    to_toml = load("nodewatch_toml").to_toml
    table = {
        "cluster": 'a "quoted" \\ na\u00efve\nname',
        "n": 3,
        "share": 0.5,
        "on": True,
        "empty": [],
        "policy": {"mode": "observe", "deep": {"x y": 1}},
        "groups": [{"name": "a", "nodes": ["n[1-2]"]}, {"name": "b", "inner": {"c": 1}}],
        "nothing": {},
    }

    assert tomllib.loads(to_toml(table)) == table
    with pytest.raises(ValueError, match="None cannot be written"):
        to_toml({"a": None})
