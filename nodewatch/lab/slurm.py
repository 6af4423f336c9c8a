"""The cluster's Slurm configuration and the machines' nodewatch configuration, from the templates in files/."""

from dataclasses import dataclass
from pathlib import Path
from string import Template

from nodewatch.lab.layout import AWS_ENVIRONMENT, GPUS_PER_NODE, INSTANCE_TYPE, LAUNCH_TEMPLATE, Layout, file_of


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

    With `product`, the layer in which nodewatch is installed, slurm.conf and plugstack.conf are as the playbook left them
    there.
    """
    layout.etc_slurm.mkdir(parents=True, exist_ok=True)
    values = {"nodes": shape.node_list, "gpus": str(GPUS_PER_NODE), "last_gpu": str(GPUS_PER_NODE - 1)}
    template = file_of("files/slurm.conf") if product is None else product / "etc/slurm/slurm.conf"
    _put(layout.etc_slurm / "slurm.conf", Template(template.read_text()).substitute(values))
    _put(layout.etc_slurm / "gres.conf", _fill("gres.conf", values))
    _put(layout.etc_slurm / "cgroup.conf", "CgroupPlugin=disabled\n")
    plug = "" if product is None else (product / "etc/slurm/plugstack.conf").read_text()
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


def _fill(name: str, values: dict[str, str]) -> str:
    return Template(file_of(f"files/{name}").read_text()).substitute(values)


def _put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)
