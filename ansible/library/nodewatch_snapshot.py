"""Remember the last state of a machine that passed the gate, and bring it back.

Under `place`: `good/` is the last state that passed, `previous/` the one before it. A state is the packages' versions, their
files and what /etc/nodewatch held. Runs under the Python of the machine, 3.8 or later: the standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

DOCUMENTATION = r"""
module: nodewatch_snapshot
short_description: The earlier state of a machine
description:
  - Saves what is installed after a good gate, or brings back the newest saved state that differs from what is there.
options:
  action: {description: What to do., type: str, choices: [save, restore], required: true}
  place: {description: Where states are kept., type: path, default: /var/cache/nodewatch}
  etc: {description: The configuration., type: path, default: /etc/nodewatch}
  packages: {description: Versions that are installed by name., type: dict, default: {}}
  files: {description: The package files by name., type: dict, default: {}}
author: The nodewatch authors
"""

#: Written by packages or by the roles anew; not the site's.
SKIPPED = ("chain", "hooks.env.dpkg-dist", "hooks.env.dpkg-old")


class SnapshotError(Exception):
    """There is nothing to bring back; the text says what to do."""


def configuration(directory: Path) -> dict[str, str]:
    """The files of /etc/nodewatch by name, as latin-1 so that any bytes survive JSON."""
    if not directory.is_dir():
        return {}
    return {
        path.name: path.read_bytes().decode("latin-1")
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name not in SKIPPED
    }


def save(place: Path, etc: Path, packages: dict[str, str], files: dict[str, str], *, check: bool) -> bool:
    """Make what is there the last good state; the one before it becomes `previous`. Tells whether anything changed."""
    now = {"packages": packages, "etc": configuration(etc)}
    if load(place / "good") == now:
        return False
    if check:
        return True
    place.mkdir(parents=True, exist_ok=True)
    draft = place / "good.part"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)  # controller.env may hold keys
    for name, file in files.items():
        if file and Path(file).is_file():
            # A link where it can be one: three states of packages would be 60 MB on every node.
            target = draft / Path(file).name
            try:
                os.link(file, target)
            except OSError:
                shutil.copyfile(file, target)
            now.setdefault("files", {})[name] = target.name
    (draft / "state.json").write_text(json.dumps(now))
    if (place / "good").is_dir():
        shutil.rmtree(place / "previous", ignore_errors=True)
        (place / "good").rename(place / "previous")
    draft.rename(place / "good")
    return True


def load(directory: Path) -> dict:
    """A saved state without its file names; empty when there is none."""
    try:
        state = json.loads((directory / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return {"packages": state["packages"], "etc": state["etc"]}


def files_of(directory: Path) -> dict[str, str]:
    """The package files of a saved state, by package."""
    try:
        state = json.loads((directory / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return {name: str(directory / file) for name, file in state.get("files", {}).items()}


def choose(place: Path, etc: Path, packages: dict[str, str], *, check: bool) -> Path:
    """The saved state to go back to. Raises SnapshotError when there is none.

    The last good state when that is not what is there (a rollout has failed), else the one before it, which is the last good
    one from then on. Asked again after that it has nothing to do: two runs of a rollback go back one step.
    """
    now = {"packages": packages, "etc": configuration(etc)}
    good, previous = place / "good", place / "previous"
    if not load(good):
        raise SnapshotError(
            f"{place} holds no state that passed the gate: nodewatch came with this rollout, run uninstall.yml"
        )
    chosen = previous if load(good) == now and load(previous) else good
    files = files_of(chosen)
    for name, version in load(chosen)["packages"].items():
        if packages.get(name) != version and name not in files:
            raise SnapshotError(f"{chosen} lacks the file of {name} {version}: install it by hand")
    if check:
        return chosen
    if chosen == previous:
        shutil.rmtree(good)
        previous.rename(good)
    elif load(good) != now:
        shutil.rmtree(previous, ignore_errors=True)
    return good


def restore_configuration(state: Path, etc: Path, *, check: bool) -> bool:
    """Write a saved configuration back. Tells whether anything differed."""
    wanted, there = load(state)["etc"], configuration(etc)
    if wanted == there:
        return False
    if not check:
        for name, text in wanted.items():
            if there.get(name) != text:
                draft = etc / f".{name}.part"
                draft.write_bytes(text.encode("latin-1"))
                draft.chmod((etc / name).stat().st_mode & 0o7777 if (etc / name).exists() else 0o640)
                if (etc / name).exists():
                    stat = (etc / name).stat()
                    os.chown(draft, stat.st_uid, stat.st_gid)
                draft.replace(etc / name)
        for name in set(there) - set(wanted):
            (etc / name).unlink()
    return True


def main() -> None:
    """Run as a module of ansible."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "choices": ["save", "restore"], "required": True},
            "place": {"type": "path", "default": "/var/cache/nodewatch"},
            "etc": {"type": "path", "default": "/etc/nodewatch"},
            "packages": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    place, etc = Path(given["place"]), Path(given["etc"])
    try:
        if given["action"] == "save":
            changed = save(place, etc, given["packages"], given["files"], check=module.check_mode)
            module.exit_json(changed=changed)
        state = choose(place, etc, given["packages"], check=module.check_mode)
        changed = restore_configuration(state, etc, check=module.check_mode)
        module.exit_json(changed=changed, state=str(state), packages=load(state)["packages"], files=files_of(state))
    except SnapshotError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
