"""The layer with the product: the packages that packaging/ builds, installed by the playbook that a site runs."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from nodewatch.lab import image
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout, file_of
from nodewatch.lab.process import run

PACKAGES = ("nodewatch-agent", "nodewatch-controller", "nodewatch-hooks", "nodewatch-spank-slurm24.11")
BUILD_DEADLINE_S = 600.0
PLAY_DEADLINE_S = 600.0


def build_packages(layout: Layout, checkout: Path, say: Callable[[str], None]) -> Path:
    """Bring the checkout's packages up to date (unchanged ones are left alone); returns their directory."""
    build = checkout / "packaging" / "build"
    if not build.is_file():
        raise LabError(
            f"{checkout} has no packaging/build to make nodewatch's packages with: run the lab from a checkout, "
            "give a directory of built ones with --packages, or use lab up --plain"
        )
    say("building nodewatch's packages")
    log = layout.images / "build.log"
    run([build], deadline_s=BUILD_DEADLINE_S, log=log, env=os.environ | {"PYTHON": sys.executable})
    builder = image.ensure_builder(layout, say)
    scratch = layout.images / f".building-spank-{os.getpid()}"
    scratch.mkdir()
    scratch.chmod(0o755)
    try:
        image.in_layer(
            layout, [builder, image.base_image(layout)], scratch,
            [str(checkout / "packaging" / "build-spank"), "{root}"],
            deadline_s=BUILD_DEADLINE_S, log=log, chroot=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return checkout / "build" / "packages"


def find_packages(directory: Path) -> list[Path]:
    """The newest .deb of each of the product's packages; LabError names those that are missing."""
    found, missing = [], []
    for name in PACKAGES:
        built = sorted(directory.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
        if built:
            found.append(built[-1])
        else:
            missing.append(name)
    if missing:
        raise LabError(
            f"{directory} lacks the package of {', '.join(missing)}: build them with packaging/build and "
            "packaging/build-spank, or use lab up --plain for a cluster without nodewatch"
        )
    return found


def ensure_product(layout: Layout, packages: list[Path], checkout: Path, say: Callable[[str], None]) -> Path:
    """Roll the packages out into a layer, if that has not been done for exactly these files, roles and slurm.conf.

    The layer's /etc/slurm/slurm.conf is the lab's template with nodewatch's block in it.
    """
    conf = file_of("files/slurm.conf").read_text()
    playbooks = checkout / "ansible"
    roles = sorted(path for path in playbooks.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not (playbooks / "site.yml").is_file():
        raise LabError(
            f"{playbooks} has no site.yml to install nodewatch with: run the lab from a checkout, or use lab up --plain"
        )
    digest = hashlib.sha256(image.base_image(layout).name.encode() + conf.encode())
    for path in [*packages, *roles]:
        digest.update(path.read_bytes())
    tree = layout.images / f"product-{digest.hexdigest()[:12]}"
    if tree.is_dir():
        return tree
    say(f"rolling {len(packages)} packages out into the machines' image, by ansible/site.yml")

    def build(upper: Path) -> None:
        slurm = upper / "etc/slurm"
        slurm.mkdir(parents=True)
        for parent in (upper / "etc", slurm):
            parent.chmod(0o755)
        (slurm / "slurm.conf").write_text(conf)
        # The cluster's own, which holds nothing yet; Debian's in the base image has an include that a site may not have.
        (slurm / "plugstack.conf").write_text("")
        scratch = layout.images / f".building-rollout-{os.getpid()}"
        (scratch / "packages").mkdir(parents=True)
        try:
            for package in packages:
                shutil.copy(package, scratch / "packages" / package.name)
            (scratch / "hosts.json").write_text(json.dumps(_hosts(scratch / "packages")))
            settings = {
                "ANSIBLE_CONFIG": playbooks / "ansible.cfg",
                "ANSIBLE_LOCAL_TEMP": scratch / "tmp",
                "ANSIBLE_NOCOLOR": "1",
                "HOME": scratch,
            }
            play = [
                sys.executable,
                "-m",
                "ansible",
                "playbook",
                "-i",
                str(scratch / "hosts.json"),
                str(playbooks / "site.yml"),
            ]
            image.in_layer(
                layout, [image.base_image(layout)], upper,
                ["env", *(f"{name}={value}" for name, value in settings.items()), *play, "-e", "nodewatch_tree={root}"],
                deadline_s=PLAY_DEADLINE_S, log=layout.images / "build.log", chroot=False,
            )  # fmt: skip
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        # The machines' own configuration is the lab's to write, machine by machine.
        for name in ("agent.toml", "controller.toml"):
            (upper / "etc/nodewatch" / name).unlink()
        shutil.rmtree(upper / "root/.ansible", ignore_errors=True)

    image.with_temporary(tree, build)
    image.prune(tree, "product-*")
    return tree


def _hosts(packages: Path) -> dict[str, object]:
    """An inventory of one machine that is head and node at once: every machine of the lab has every package."""
    here: dict[str, object] = {"hosts": {"image": {}}}
    nobody: dict[str, object] = {"hosts": {}}
    return {
        "all": {
            "vars": {
                "ansible_connection": "tree",
                "ansible_python_interpreter": "/usr/bin/python3",
                "nodewatch_packages_dir": str(packages),
                "nodewatch_booted": False,
                "nodewatch_controller": {"groups": [{"name": "gpu", "nodes": ["n1"], "partition": "train"}]},
            },
            "children": {
                "nodewatch_head": here,
                "nodewatch_compute": here,
                "nodewatch_login": nobody,
                "nodewatch_fsx": nobody,
                "nodewatch_monitor": nobody,
            },
        }
    }
