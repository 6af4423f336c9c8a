"""Install, upgrade, downgrade or purge one package from a file, with dpkg or rpm and nothing else.

A compute node may have no package index, no internet and no python3-apt: the file is all that is needed. What a check run would
do is told, as by any module. Runs under the Python of the machine, 3.8 or later.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

DOCUMENTATION = r"""
module: nodewatch_package
short_description: One package from a file, by dpkg or rpm
description:
  - Brings a package to the version of a file, up or down, or purges it.
options:
  name: {description: Its name., type: str, required: true}
  state: {description: Whether it is there., type: str, choices: [present, absent], default: present}
  file: {description: The package's file on this machine., type: path, default: ""}
  exclude: {description: "Patterns of paths that are not unpacked.", type: list, elements: str, default: []}
  version: {description: "The version in the file. Equal ones are left alone.", type: str, default: ""}
author: The nodewatch authors
"""

DEADLINE_S = 300


class PackageError(Exception):
    """The package manager refused; the text has its words."""


def version_in_name(file: str) -> str:
    """The version that a package's file name states, as dpkg or rpm would print it; empty when it states none."""
    base = Path(file).name
    if base.endswith(".deb"):
        parts = base[: -len(".deb")].split("_")
        return parts[1] if len(parts) == 3 else ""
    match = re.fullmatch(r".+-([^-]+-[^-]+)\.[^.]+\.rpm", base)
    return match[1] if match else ""


def installed_version(tool: str, name: str) -> str:
    """Empty when it is not installed whole; a package of which only the configuration is left counts as `config`."""
    if tool == "dpkg":
        done = _run(["dpkg-query", "-W", "-f=${db:Status-Status} ${Version}", name])
        status, _, version = done.stdout.partition(" ")
        if done.returncode != 0 or status == "not-installed":
            return ""
        return version.strip() if status == "installed" else status
    done = _run(["rpm", "-q", "--qf", "%{VERSION}-%{RELEASE}", name])
    return done.stdout.strip() if done.returncode == 0 else ""


def command(tool: str, name: str, state: str, file: str, exclude: Sequence[str] = ()) -> list[str]:
    """What brings the package to its state. What the site changed in a configuration file stays.

    `exclude` (directories, as patterns that end in /*) is not unpacked, and not touched by a removal either: another machine
    serves it, perhaps read-only.
    """
    if state == "absent":
        removal = ["dpkg", "--purge", name] if tool == "dpkg" else ["rpm", "--erase", name]
        if not exclude:
            return removal
        # dpkg knows no exclusion here, and fails over a file that it cannot remove although it never unpacked it: it gets to
        # see an empty directory, in a mount namespace that ends with it.
        hide = "".join(
            f"[ ! -d {directory} ] || mount -t tmpfs nodewatch {directory}; " for directory in map(_directory, exclude)
        )
        return ["unshare", "--mount", "sh", "-ec", f'{hide}exec "$@"', "sh", *removal]
    if tool == "dpkg":
        out = [f"--path-exclude={pattern}" for pattern in exclude]
        return ["dpkg", "--force-confdef", "--force-confold", *out, "--install", file]
    return ["rpm", "--upgrade", "--oldpackage", *(f"--excludepath={_directory(pattern)}" for pattern in exclude), file]


def _directory(pattern: str) -> str:
    return shlex.quote(pattern[: -len("/*")] if pattern.endswith("/*") else pattern)


def _run(argv: list[str]) -> subprocess.CompletedProcess:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=DEADLINE_S, env=env)


def main() -> None:
    """Run as a module of ansible."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "file": {"type": "path", "default": ""},
            "version": {"type": "str", "default": ""},
            "exclude": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    name, state, file = module.params["name"], module.params["state"], module.params["file"]
    tool = "dpkg" if shutil.which("dpkg") else "rpm" if shutil.which("rpm") else ""
    if not tool:
        module.fail_json(msg="there is neither dpkg nor rpm on this machine: nodewatch is installed from its packages")
    try:
        before = installed_version(tool, name)
        wanted = "" if state == "absent" else module.params["version"] or version_in_name(file)
        changed = before != wanted
        if changed and not module.check_mode:
            done = _run(command(tool, name, state, file, module.params["exclude"]))
            if done.returncode != 0:
                raise PackageError(f"{name}: {' '.join(done.stderr.split()) or 'no reason was given'}")
            after = installed_version(tool, name)
            if after != wanted:
                raise PackageError(f"{name} is {after or 'not installed'} after that, not {wanted or 'gone'}")
    except PackageError as error:
        module.fail_json(msg=str(error))
    except subprocess.TimeoutExpired:
        module.fail_json(
            msg=f"{name}: {tool} had not finished after {DEADLINE_S} s: another run of it may hold its lock"
        )
    module.exit_json(
        changed=changed,
        before=before,
        version=wanted,
        diff={"before": f"{name} {before or '-'}\n", "after": f"{name} {wanted or '-'}\n"},
    )


if __name__ == "__main__":
    main()
