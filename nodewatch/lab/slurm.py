"""The cluster's Slurm configuration and the machines' nodewatch configuration, from the templates in files/."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from nodewatch.lab.layout import AWS_ENVIRONMENT, GPUS_PER_NODE, INSTANCE_TYPE, LAUNCH_TEMPLATE, Layout, file_of
from nodewatch.lab.product import PLUGSTACK, SLURM_LINES


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the lab is, and whether the product is in it."""

    nodes: int
    spares: int
    plain: bool

    @property
    def names(self) -> list[str]:
        return [f"n{index}" for index in range(1, self.nodes + self.spares + 1)]

    @property
    def node_list(self) -> str:
        last = self.nodes + self.spares
        return "n1" if last == 1 else f"n[1-{last}]"


def write_slurm_config(layout: Layout, shape: Shape, product: Path | None) -> None:
    """Fill /etc/slurm of the cluster: one directory, seen by the head and, read-only, by every node.

    With `product`, the layer in which nodewatch is installed, its packages' own lines for slurm.conf and plugstack.conf
    are used, so that the lab tries what a site is told to write.
    """
    layout.etc_slurm.mkdir(parents=True, exist_ok=True)
    values = {"nodes": shape.node_list, "gpus": str(GPUS_PER_NODE), "last_gpu": str(GPUS_PER_NODE - 1)}
    text = _fill("slurm.conf", values)
    if product is not None:
        text = merged(text, (product / SLURM_LINES).read_text())
        shutil.copytree(product / PLUGSTACK, layout.etc_slurm / "plugstack.conf.d")
    _put(layout.etc_slurm / "slurm.conf", text)
    _put(layout.etc_slurm / "gres.conf", _fill("gres.conf", values))
    _put(layout.etc_slurm / "cgroup.conf", "CgroupPlugin=disabled\n")
    plug = "" if product is None else "include /etc/slurm/plugstack.conf.d/*.conf\n"
    _put(layout.etc_slurm / "plugstack.conf", plug)


def write_nodewatch_config(layout: Layout, shape: Shape) -> None:
    """Fill /etc/nodewatch of the machines."""
    layout.etc_nodewatch.mkdir(parents=True, exist_ok=True)
    values = {
        "instance_type": INSTANCE_TYPE,
        "launch_template": LAUNCH_TEMPLATE,
        "nodes": shape.node_list,
        "spares": str(shape.spares),
        "gpus": str(GPUS_PER_NODE),
    }
    for name in ("agent.toml", "controller.toml"):
        _put(layout.etc_nodewatch / name, _fill(name, values))
    environment = "".join(f"{name}={value}\n" for name, value in AWS_ENVIRONMENT.items())
    _put(layout.etc_nodewatch / "controller.env", environment)


def merged(ours: str, theirs: str) -> str:
    """A slurm.conf with lines added: a key that both set is taken from `theirs`, lists of parameters are joined.

    Slurm keeps one line of a key and only warns about the other.
    """
    added = {key: line for line in theirs.splitlines() if (key := key_of(line))}
    kept = []
    for line in ours.splitlines():
        key = key_of(line)
        if key == "schedulerparameters" and key in added:
            added[key] += "," + line.partition("=")[2]
        if key not in added:
            kept.append(line)
    return "\n".join([*kept, "", "# From nodewatch's packages.", *added.values()]) + "\n"


def key_of(line: str) -> str:
    """The key that a line of slurm.conf sets, in lower case since Slurm does not mind; empty for the other lines."""
    key, equals, _ = line.partition("=")
    return key.strip().lower() if equals and not line.lstrip().startswith("#") else ""


def _fill(name: str, values: dict[str, str]) -> str:
    return Template(file_of(f"files/{name}").read_text()).substitute(values)


def _put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)
