"""What `up` decided and the cloud carries out: one JSON file in the state directory."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout
from nodewatch.lab.slurm import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The lab that is up: its shape, the image layers of its machines (topmost first) and what is bound into them."""

    nodes: int
    spares: int
    plain: bool
    lower: Sequence[str]
    binds: Sequence[str]
    munge_ids: tuple[int, int]
    started_at: float

    @property
    def shape(self) -> Shape:
        return Shape(nodes=self.nodes, spares=self.spares, plain=self.plain)


def save(layout: Layout, plan: Plan) -> None:
    layout.plan_file.write_text(json.dumps(asdict(plan), indent=1) + "\n")


def load(layout: Layout) -> Plan:
    """The plan of the lab that is up; LabError when none is."""
    try:
        fields = json.loads(layout.plan_file.read_text())
    except FileNotFoundError:
        raise LabError("the lab is not up: run lab up first") from None
    except (OSError, ValueError) as error:
        raise LabError(f"{layout.plan_file} cannot be read ({error}): run lab down, then lab up") from error
    return Plan(**(fields | {"munge_ids": tuple(fields["munge_ids"])}))
