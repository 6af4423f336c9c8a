"""topology.conf: a line a switch, every node once, one tree."""

from __future__ import annotations

import pytest

from nodewatch.policy.topology import topology_conf


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
