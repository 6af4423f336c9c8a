"""Is a node's agent well, and does it find no more than before? The gate after each batch of a rollout.

Reads the agent's own metrics (nodewatch_verdict, nodewatch_findings, nodewatch_controller_failures), so that the gate needs
neither Slurm nor the controller. Runs under the Python of the machine, 3.8 or later.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

DOCUMENTATION = r"""
module: nodewatch_gate
short_description: Waits until an agent is well
description:
  - Reads the agent's metrics until it is healthy and finds nothing that it did not find before.
options:
  url: {description: The agent's metrics., type: str, default: "http://127.0.0.1:9411/metrics"}
  measure: {description: Only tell what is found now., type: bool, default: false}
  before: {description: What was found before., type: list, elements: str, default: []}
  accept: {description: Faults that may be found., type: list, elements: str, default: []}
  needs_controller: {description: Whether the controller must be heard., type: bool, default: true}
  timeout_s: {description: How long to wait., type: float, default: 60}
author: The nodewatch authors
"""

_SAMPLE = re.compile(r"^(nodewatch_\w+)(?:\{([^}]*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
STANDING = ("degraded", "fatal")


@dataclass
class Health:
    """What an agent says of its node."""

    state: str = ""
    findings: list[str] = field(default_factory=list)
    """`severity fault`, sorted; only those that keep jobs away."""
    unknown: list[str] = field(default_factory=list)
    controller_failures: float = 0.0
    is_told: bool = False
    """Whether anything of the agent's controller was in the answer."""


def parse(text: str) -> Health:
    """Read Prometheus' text format."""
    health = Health()
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        labels = dict(_LABEL.findall(match[2] or ""))
        value = float(match[3])
        if match[1] == "nodewatch_verdict" and value == 1.0:
            health.state = labels.get("state", "")
        elif match[1] == "nodewatch_findings" and value > 0 and labels.get("severity") in STANDING:
            health.findings.append(f"{labels['severity']} {labels.get('fault', '')}")
        elif match[1] == "nodewatch_check_unknown":
            health.unknown.append(labels.get("check", ""))
        elif match[1] == "nodewatch_controller_failures":
            health.controller_failures, health.is_told = value, True
    health.findings.sort()
    return health


def objection(health: Health, *, before: list[str], accept: list[str], needs_controller: bool) -> str:
    """Why the rollout may not go on, and what to look at; empty when it may."""
    accepted = {*before, *(f"{severity} {fault}" for severity in STANDING for fault in accept)}
    new = [finding for finding in health.findings if finding not in accepted]
    if not health.state:
        return "the agent's metrics name no state: look at `journalctl -u nodewatch-agent`"
    if new:
        return (
            f"the agent finds what was not found before: {', '.join(new)}. Look at `nodewatch explain NODE` on the head and "
            "`journalctl -u nodewatch-agent` on the node; a fault that is real and known goes into nodewatch_accept_findings"
        )
    if health.state in ("failed", "degraded") and not health.findings:
        return f"the node is {health.state} and no finding says why: look at `journalctl -u nodewatch-agent`"
    if health.state == "unknown":
        return (
            f"too little can be read to call the node healthy ({', '.join(health.unknown) or 'no check has run yet'}): "
            "look at `journalctl -u nodewatch-agent`"
        )
    if needs_controller and health.controller_failures > 0:
        return (
            f"the agent has tried the controller {health.controller_failures:g} times without an answer: look at "
            "controller_url in agent.toml, port 9410 of the head, and munge on both"
        )
    return ""


def main() -> None:
    """Run as a module of ansible."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:9411/metrics"},
            "measure": {"type": "bool", "default": False},
            "before": {"type": "list", "elements": "str", "default": []},
            "accept": {"type": "list", "elements": "str", "default": []},
            "needs_controller": {"type": "bool", "default": True},
            "timeout_s": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    given = module.params
    deadline = time.monotonic() + given["timeout_s"]
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # a proxy of the site's is not asked for loopback
    while True:
        health, why = Health(), ""
        try:
            with opener.open(given["url"], timeout=5) as answer:
                health = parse(answer.read(4 << 20).decode("utf-8", "replace"))
        except (OSError, urllib.error.URLError, ValueError) as error:
            why = f"the agent does not answer at {given['url']} ({error}): look at `systemctl status nodewatch-agent`"
        if given["measure"]:
            module.exit_json(changed=False, findings=health.findings, state=health.state, is_there=not why)
        why = why or objection(
            health, before=given["before"], accept=given["accept"], needs_controller=given["needs_controller"]
        )
        if not why:
            module.exit_json(changed=False, findings=health.findings, state=health.state, is_there=True)
        if time.monotonic() >= deadline:
            module.fail_json(msg=why, findings=health.findings, state=health.state)
        time.sleep(1)


if __name__ == "__main__":
    main()
