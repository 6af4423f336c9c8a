"""cluster.toml: what is wrong is said in one sentence; what it means for Slurm and for the controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.config.cluster import load_cluster_config
from nodewatch.config.controller import load_controller_config
from nodewatch.config.counts import with_counts
from nodewatch.errors import ConfigError

GOOD = """
cluster = "east"

[partitions.train]
Default = "YES"

[[groups]]
name = "gpu"
nodes = ["n[1-8]"]
count = 4
spares = 1
instance_type = "p5.48xlarge"
partition = "train"
launch_template = "gpu-node"
subnets = ["subnet-0aaa"]
domains = { left = ["n[1-2]"], right = ["n[3-8]"] }

[[groups]]
name = "debug"
nodes = ["d[1-2]"]
count = 0
cpus = 8
memory_mb = 1000
sockets = 1
cores_per_socket = 4
threads_per_core = 2
gres = "gpu:t4:1"
features = ["small", "cheap"]
partition = "debug"
"""
GROUP = '[[groups]]\nname = "g"\nnodes = ["n[1-2]"]\npartition = "p"\ninstance_type = "p5.48xlarge"\n'

OTHER = GROUP.replace('"g"', '"h"')


def write(tmp_path: Path, text: str, name: str = "cluster.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    config = load_cluster_config(write(tmp_path, GOOD))
    gpu, debug = config.wanted
    assert (gpu.nodes, len(gpu.pool), gpu.group.spares) == (("n1", "n2", "n3", "n4"), 8, 1)
    assert gpu.shape.keys == {"CPUs": "192", "RealMemory": "1992294", "Gres": "gpu:8"}
    assert debug.shape.keys == {
        "CPUs": "8",
        "Sockets": "1",
        "CoresPerSocket": "4",
        "ThreadsPerCore": "2",
        "RealMemory": "1000",
        "Gres": "gpu:t4:1",
        "Feature": "small,cheap",
    }
    assert (debug.count, debug.nodes) == (0, ())
    assert config.nodes_path == Path("/etc/slurm/nodewatch-nodes.conf")
    (rule,) = config.rule_groups
    assert (rule.nodes, rule.launch_template, rule.all_subnets) == (gpu.nodes, "gpu-node", ("subnet-0aaa",))
    assert rule.domains == {"left": ("n1", "n2"), "right": ("n3", "n4")}


def test_without_a_count_all_names_are_in_use(tmp_path: Path) -> None:
    config = load_cluster_config(write(tmp_path, f'cluster = "east"\n{GROUP}'))
    assert config.wanted[0].nodes == ("n1", "n2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GROUP, "the key 'cluster' is required and missing"),
        (f'cluster = ""\n{GROUP}', "cluster is empty"),
        (f'cluster = "e"\n{GROUP}cont = 3\n', "unknown key 'cont'; did you mean 'count'?"),
        (f'cluster = "e"\n{GROUP}count = 3\n', "count is 3 and there are 2 names: lengthen its hostlist"),
        (f'cluster = "e"\n{GROUP}count = -1\n', "count must not be negative"),
        (f'cluster = "e"\n{GROUP}spares = 2\n', "wants 2 of them as spares"),
        (f'cluster = "e"\n{GROUP}count = 0\nspares = 1\n', "it has no machines and wants 1 as spares"),
        (f'cluster = "e"\n{GROUP}{GROUP}', "'g' is there twice"),
        (f'cluster = "e"\n{GROUP}{OTHER}', "n1 is in 'g' and in 'h'; name it once"),
        (f'cluster = "e"\n{GROUP.replace("n[1-2]", "n*")}', "nodes with a pattern cannot be made"),
        (
            f'cluster = "e"\n{GROUP.replace("p5.48xlarge", "x9.large")}',
            "'x9.large' is not in the table of instance types",
        ),
        (f'cluster = "e"\n{GROUP}capacity = ["bock:x"]\n', "capacity 'bock:x': use "),
        (f'cluster = "e"\n{GROUP}features = ["a b"]\n', "'a b' cannot be Feature's value in slurm.conf"),
        (f'cluster = "e"\n[partitions.q]\nMaxTime = "1"\n{GROUP}', "no group is in 'q'"),
        (f'cluster = "e"\n[partitions.p]\nNodes = "n1"\n{GROUP}', "Nodes follows from the groups"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_cluster_config(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_controller_takes_its_groups_from_it(tmp_path: Path) -> None:
    cluster = write(tmp_path, GOOD)
    config = load_controller_config(write(tmp_path, f'cluster_file = "{cluster}"\n', "controller.toml"))
    assert config.cluster == "east"
    assert [group.name for group in config.rules.groups] == ["gpu"]
    assert config.rules.group_of("n5") is None


@pytest.mark.parametrize(
    ("more", "said"),
    [(GROUP, "keep one, cluster_file or [[groups]]"), ('cluster = "west"\n', "leave it out here")],
)
def test_there_is_one_truth(tmp_path: Path, more: str, said: str) -> None:
    cluster = write(tmp_path, GOOD)
    text = f'cluster_file = "{cluster}"\n{more}'
    with pytest.raises(ConfigError, match="cluster") as caught:
        load_controller_config(write(tmp_path, text, "controller.toml"))
    assert said in str(caught.value)


def test_counts_are_changed_and_nothing_else() -> None:
    changed = with_counts(GOOD, {"gpu": 6, "debug": 2})
    assert changed == GOOD.replace("count = 4", "count = 6").replace("count = 0", "count = 2")
    assert "count = 1\n" in with_counts(f'cluster = "e"\n{GROUP}', {"g": 1})
    with pytest.raises(ConfigError, match=r"there is no group 'x' in cluster\.toml; its groups: debug, gpu"):
        with_counts(GOOD, {"x": 1})


def test_a_file_that_cannot_be_edited_safely_is_left() -> None:
    inline = 'cluster = "e"\ngroups = [{ name = "g", nodes = ["n1"], partition = "p", count = 1 }]\n'
    with pytest.raises(ConfigError, match="edit them by hand"):
        with_counts(inline, {"g": 0})
