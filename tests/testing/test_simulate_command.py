"""`nodewatch simulate` as it is typed."""

import json
from pathlib import Path

from click.testing import CliRunner

from nodewatch.testing.sim_command import render, simulate
from nodewatch.testing.sim_report import Report


def test_the_report_is_printed_as_text_and_as_json() -> None:
    arguments = ["--nodes", "60", "--days", "1", "--seed", "2"]
    text = CliRunner().invoke(simulate, arguments)
    document = CliRunner().invoke(simulate, [*arguments, "--json"])

    assert (text.exit_code, document.exit_code) == (0, 0)
    assert "all invariants held" in text.output
    assert json.loads(document.stdout)["nodes_wrongly_touched"] == 0


def test_a_configuration_gives_the_nodes_and_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "controller.toml"
    path.write_text('[[groups]]\nname = "g"\npartition = "train"\nnodes = ["n[1-20]"]\nlaunch_template = "t"\n')
    result = CliRunner().invoke(simulate, ["--config", str(path), "--days", "1", "--json"])

    document = json.loads(result.stdout)
    assert (result.exit_code, document["nodes"]) == (0, 20)
    assert document["actions"] == {}, "the default policy observes"


def test_a_broken_invariant_is_said() -> None:
    report = CliRunner().invoke(simulate, ["--nodes", "20", "--days", "0.1", "--json"])
    figures = {key: value for key, value in json.loads(report.stdout).items() if key != "invariants_broken"}

    assert "BROKEN  day 1.00: drain n1" in render(Report(figures=figures, broken=("day 1.00: drain n1",)))
