"""topology.conf: a line a switch, every node once, one tree."""

from __future__ import annotations

import pytest

from nodewatch.policy.topology import topology_conf, topology_problems


def test_a_tree_of_three_layers() -> None:
    paths = {"n1": ("nn-a", "nn-b", "nn-c"), "n2": ("nn-a", "nn-b", "nn-c"), "n3": ("nn-a", "nn-d", "nn-e")}
    assert topology_conf(paths) == (
        "SwitchName=nn-c Nodes=n1,n2\n"
        "SwitchName=nn-e Nodes=n3\n"
        "SwitchName=nn-a Switches=nn-b,nn-d\n"
        "SwitchName=nn-b Switches=nn-c\n"
        "SwitchName=nn-d Switches=nn-e\n"
    )


def test_a_forest_and_nodes_without_a_place_are_joined_at_the_top() -> None:
    assert topology_conf({"n1": ("nn-a", "nn-b"), "n2": ("nn-x", "nn-y"), "n3": ()}) == (
        "SwitchName=nn-b Nodes=n1\n"
        "SwitchName=nn-y Nodes=n2\n"
        "SwitchName=unplaced Nodes=n3\n"
        "SwitchName=nn-a Switches=nn-b\n"
        "SwitchName=nn-x Switches=nn-y\n"
        "SwitchName=ec2 Switches=nn-a,nn-x,unplaced\n"
    )


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        ({"n1": ("nn-a", "nn-c"), "n2": ("nn-b", "nn-c")}, "both nn-a and nn-b above nn-c"),
        ({"n1": ("nn-a", "nn-b"), "n2": ("nn-a",)}, "both switches and nodes below it"),
        ({"n1 Nodes=n2": ("nn-a",)}, "cannot be written"),
    ],
)
def test_what_makes_no_tree_is_refused(paths: dict[str, tuple[str, ...]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        topology_conf(paths)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SwitchName=s1 Nodes=n[1-2]\n", None),
        ("SwitchName=s1 Nodes=n1\nSwitchName=s2 Nodes=n2\nSwitchName=top Switches=s[1-2]\n", None),
        ("", "n1 is below no switch"),
        ("SwitchName=s1 Nodes=n[1-3]\n", "n3 is no node of Slurm's"),
        ("SwitchName=s1 Nodes=n1\n", "n2 is below no switch"),
        ("SwitchName=s1 Nodes=n[1-2]\nSwitchName=s2\n", "switch s2 has nothing below it"),
        ("SwitchName=s1 Nodes=n[1-2]\nSwitchName=top Switches=s1,s2\n", "switch s2 is named and has no line"),
        ("SwitchName=s1 Nodes=n[1-2]\nSwitchName=s2 Nodes=n2\nSwitchName=t Switches=s[1-2]\n", "n2 is below s1 and s2"),
        ("SwitchName=s1 Nodes=n[1-2]\nSwitchName=a Switches=b\nSwitchName=b Switches=a\n", "switch a is below itself"),
        (
            "SwitchName=s1 Nodes=n[1-2]\nSwitchName=a Switches=s1\nSwitchName=b Switches=s1\n",
            "switch s1 is below a and b",
        ),
        ("SwitchName=s1 Nodes=n1\nSwitchName=s2 Nodes=n2\n", "s1 and s2 have no switch in common"),
        ("SwitchName=s1 Nodes=n1\nSwitchName=s1 Nodes=n2\n", "switch s1 has two lines"),
    ],
)
def test_what_slurmctld_would_stumble_over(text: str, problem: str | None) -> None:
    problems = topology_problems(text, ["n1", "n2"])
    assert (problems[:1] or [None])[0] == problem


def test_what_we_write_has_no_problem() -> None:
    paths = {"n1": ("nn-a", "nn-b"), "n2": ("nn-x", "nn-y"), "n3": ()}
    assert topology_problems(topology_conf(paths), list(paths)) == []
