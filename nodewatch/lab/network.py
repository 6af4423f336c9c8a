"""The cloud's network: a bridge in a namespace of its own and one a machine. The host's own is not touched."""

import os
from pathlib import Path

from nodewatch.lab.layout import BRIDGE, CLOUD_ADDRESS, CLOUD_NETNS, NETNS_PREFIX
from nodewatch.lab.process import run

NETNS_DIR = Path("/run/netns")


def netns_of(ident: str) -> str:
    """The network namespace of the machine `head` or of an instance."""
    return NETNS_PREFIX + ident


def lab_namespaces() -> list[str]:
    """The lab's network namespaces on this host, whichever state directory they belong to."""
    try:
        return sorted(entry.name for entry in NETNS_DIR.iterdir() if entry.name.startswith(NETNS_PREFIX))
    except FileNotFoundError:
        return []


def make_cloud_network() -> None:
    run(["ip", "netns", "add", CLOUD_NETNS], deadline_s=10)
    batch = [
        "link set lo up",
        # A bridge without an address of its own takes a port's, and another one's when machines come and go: whoever
        # had looked it up then talks to nobody for half a minute.
        f"link add {BRIDGE} address {mac_of(CLOUD_ADDRESS)} type bridge",
        # Ports forward at once: with the default 15 s a machine would boot without a network.
        f"link set {BRIDGE} type bridge forward_delay 0 stp_state 0",
        f"addr add {CLOUD_ADDRESS}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]
    run(["ip", "-n", CLOUD_NETNS, "-batch", "-"], deadline_s=10, stdin_text="\n".join(batch))


def plug_in(ident: str, address: str) -> None:
    """Make the machine's network namespace and connect it to the bridge."""
    name, port = netns_of(ident), port_of(ident)
    run(["ip", "netns", "add", name], deadline_s=10)
    wires = [
        f"link add {port} type veth peer name eth0 address {mac_of(address)} netns {name}",
        f"link set {port} master {BRIDGE} up",
    ]
    run(["ip", "-n", CLOUD_NETNS, "-batch", "-"], deadline_s=10, stdin_text="\n".join(wires))
    inside = [
        "link set lo up",
        f"addr add {address}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {CLOUD_ADDRESS}",
    ]
    run(["ip", "-n", name, "-batch", "-"], deadline_s=10, stdin_text="\n".join(inside))


def pull_cable(ident: str) -> None:
    """Take the machine's port down: its peers see silence, as when a machine dies, not refused connections."""
    run(["ip", "-n", CLOUD_NETNS, "link", "set", port_of(ident), "down"], deadline_s=10)


def plug_back(ident: str) -> None:
    run(["ip", "-n", CLOUD_NETNS, "link", "set", port_of(ident), "up"], deadline_s=10)


def unplug(ident: str) -> None:
    """Remove the machine's port and namespace. Missing ones are fine: half-made machines are unplugged too."""
    run(["ip", "-n", CLOUD_NETNS, "link", "del", port_of(ident)], deadline_s=10, check=False)
    run(["ip", "netns", "del", netns_of(ident)], deadline_s=10, check=False)


def remove_all() -> None:
    """Remove every namespace of the lab; the bridge and the veth pairs go with them."""
    for name in lab_namespaces():
        run(["ip", "netns", "del", name], deadline_s=10, check=False)
    # `ip netns add` makes /run/netns a mount of its own; nobody's after the last namespace in it is gone.
    if NETNS_DIR.is_dir() and not any(NETNS_DIR.iterdir()) and os.path.ismount(NETNS_DIR):
        run(["umount", NETNS_DIR], deadline_s=10, check=False)


def mac_of(address: str) -> str:
    """The hardware address that goes with an IP address: one that a new instance inherits is reachable at once."""
    return "02:4e:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def port_of(ident: str) -> str:
    # Interface names end at 15 characters; the tail of an instance id is what differs.
    return "v-" + ident[-12:]
