"""Where the lab keeps things, and the few numbers and names that several of its parts share."""

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nodewatch.lab.errors import LabError

STATE_DIR_DEFAULT = Path("/var/lib/nodewatch-lab")
STATE_DIR_VARIABLE = "NODEWATCH_LAB_STATE"
MARK_VARIABLE = "NODEWATCH_LAB_MARK"

CLOUD_NETNS = "nwlab-cloud"
NETNS_PREFIX = "nwlab-"
BRIDGE = "nwlab0"
SUBNET = "10.77.0.0/24"
CLOUD_ADDRESS = "10.77.0.1"
# One of the four that EC2 keeps for itself in every subnet: no instance is ever given it.
HEAD_ADDRESS = "10.77.0.2"
FIRST_NODE_ADDRESS = 11
CLOUD_PORT = 5000
CGROUP = "nodewatch-lab"

AWS_ENVIRONMENT = {
    "AWS_ENDPOINT_URL": f"http://{CLOUD_ADDRESS}:{CLOUD_PORT}",
    "AWS_ACCESS_KEY_ID": "lab",
    "AWS_SECRET_ACCESS_KEY": "lab",
    "AWS_DEFAULT_REGION": "us-east-1",
}
LAUNCH_TEMPLATE = "nodewatch-compute"
INSTANCE_TYPE = "p5.48xlarge"
NODE_TAG = "nodewatch:node"
GPUS_PER_NODE = 8

# What a machine sees of its instance: id, user data, hardware state, kernel-log feed.
INSTANCE_DIR = "/run/nodewatch-lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The state directory, opened up. `images` outlives a lab; everything under `run` belongs to the lab that is up."""

    root: Path

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def plan_file(self) -> Path:
        return self.run / "lab.json"

    @property
    def machines(self) -> Path:
        return self.run / "machines"

    @property
    def hosts(self) -> Path:
        return self.run / "hosts"

    @property
    def etc_slurm(self) -> Path:
        return self.run / "etc-slurm"

    @property
    def etc_nodewatch(self) -> Path:
        return self.run / "etc-nodewatch"

    @property
    def ssh_key(self) -> Path:
        """The private key with which root is let into every machine; its public half lies beside it."""
        return self.run / "ssh" / "id_ed25519"

    @property
    def munge_key(self) -> Path:
        return self.run / "munge.key"

    @property
    def fsx(self) -> Path:
        return self.run / "fsx"

    @property
    def cloud(self) -> Path:
        return self.run / "cloud"

    @property
    def cloud_socket(self) -> Path:
        return self.cloud / "events.sock"

    @property
    def no_capacity(self) -> Path:
        return self.cloud / "no-capacity"

    @property
    def launches_held(self) -> Path:
        return self.cloud / "launches-held"

    def machine(self, ident: str) -> Path:
        return self.machines / ident


def layout_from(option: str | None) -> Layout:
    """The layout for `--state-dir`, else for NODEWATCH_LAB_STATE, else the default."""
    chosen = Path(option or os.environ.get(STATE_DIR_VARIABLE) or STATE_DIR_DEFAULT)
    if not chosen.is_absolute():
        chosen = Path.cwd() / chosen
    if any(sign in str(chosen) for sign in ":,\\ \t\n"):
        # Overlay options and nspawn's --bind split at these.
        raise LabError(
            f"the state directory {chosen} has a space, colon, comma or backslash in its name: choose one without"
        )
    return Layout(root=chosen)


def file_of(name: str) -> Path:
    """A file that ships with the lab (scripts, units, templates, the C source)."""
    return Path(str(resources.files("nodewatch.lab"))) / name
