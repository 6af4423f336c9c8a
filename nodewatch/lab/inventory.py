"""An Ansible inventory of the lab that is up: its machines by SSH, and as variables what its configuration says."""

import tomllib
from typing import Any

from nodewatch.lab import machine
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import AWS_ENVIRONMENT, Layout
from nodewatch.lab.plan import load

HEAD = "head"


def inventory(layout: Layout) -> dict[str, Any]:
    """The inventory, in the form that Ansible reads as YAML or JSON. Raises LabError when no lab is up.

    The addresses are reached from the lab's network alone: `lab exec cloud -- ansible-playbook ...`.
    """
    plan = load(layout)
    names = plan.shape.names
    found = {each.name: each for each in machine.machines(layout) if each.name in (HEAD, *names)}
    missing = [name for name in (HEAD, *names) if name not in found]
    if missing:
        raise LabError(f"the lab has no machine {missing[0]} at the moment: see lab status")
    hosts = {name: {"ansible_host": found[name].address} for name in found}
    return {
        "all": {
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(layout.ssh_key),
                # A replaced machine has the old one's name and a key of its own; nobody is between us and a namespace.
                "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
                "ansible_python_interpreter": "/usr/bin/python3",
                # /etc/slurm is one directory, and read-only on the nodes.
                "nodewatch_slurm_conf_on_nodes": "shared",
                "nodewatch_agent": tomllib.loads((layout.etc_nodewatch / "agent.toml").read_text()),
                "nodewatch_controller": tomllib.loads((layout.etc_nodewatch / "controller.toml").read_text()),
                "nodewatch_controller_environment": AWS_ENVIRONMENT,
            },
            "children": {
                "nodewatch_head": {"hosts": {HEAD: hosts[HEAD]}},
                "nodewatch_compute": {"hosts": {name: hosts[name] for name in names}},
                "nodewatch_login": {"hosts": {}},
                "nodewatch_fsx": {"hosts": {}},
                "nodewatch_monitor": {"hosts": {}},
            },
        }
    }
