"""The layer with the product: the packages that packaging/ builds, installed as on any node."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from nodewatch.lab import image
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout
from nodewatch.lab.process import run

PACKAGES = ("nodewatch-agent", "nodewatch-controller", "nodewatch-hooks", "nodewatch-spank-slurm24.11")
BUILD_DEADLINE_S = 600.0
# Where the packages leave what a site copies into its Slurm configuration.
SLURM_LINES = "usr/share/doc/nodewatch-hooks/examples/slurm.conf"
PLUGSTACK = "etc/slurm/plugstack.conf.d"


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


def ensure_product(layout: Layout, packages: list[Path], say: Callable[[str], None]) -> Path:
    """Install the packages into a layer if that has not been done for exactly these files."""
    digest = hashlib.sha256(image.base_image(layout).name.encode())
    for package in packages:
        digest.update(package.read_bytes())
    tree = layout.images / f"product-{digest.hexdigest()[:12]}"
    if tree.is_dir():
        return tree
    say(f"installing {len(packages)} packages into the machines' image")

    def build(upper: Path) -> None:
        inbox = upper / "var/cache/nodewatch-lab"
        inbox.mkdir(parents=True)
        for parent in (upper / "var", upper / "var/cache"):
            parent.chmod(0o755)
        for package in packages:
            shutil.copy(package, inbox / package.name)
        names = [f"/var/cache/nodewatch-lab/{package.name}" for package in packages]
        log = layout.images / "build.log"
        image.in_layer(layout, [image.base_image(layout)], upper, ["dpkg", "-i", *names], deadline_s=300, log=log)
        shutil.rmtree(inbox)

    image.with_temporary(tree, build)
    image.prune(tree, "product-*")
    return tree
