"""The layer with the product: the packages that packaging/build makes, installed as on any node."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from nodewatch.lab import image
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout

PACKAGES = ("nodewatch-agent", "nodewatch-controller", "nodewatch-hooks", "nodewatch-spank-slurm24.11")


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
            f"{directory} lacks the package of {', '.join(missing)}: run packaging/build first, "
            "or lab up --plain for a cluster without nodewatch"
        )
    return found


def ensure_product(layout: Layout, checkout: Path, say: Callable[[str], None]) -> Path:
    """Install the packages into a layer if that has not been done for exactly these files."""
    packages = find_packages(checkout / "build" / "packages")
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
        for package in packages:
            shutil.copy(package, inbox / package.name)
        names = [f"/var/cache/nodewatch-lab/{package.name}" for package in packages]
        log = layout.images / "build.log"
        image.in_layer(layout, [image.base_image(layout)], upper, ["dpkg", "-i", *names], deadline_s=300, log=log)
        shutil.rmtree(inbox)

    image.with_temporary(tree, build)
    # Layers of earlier builds are of no use to anyone, and each is as large as the product.
    for old in layout.images.glob("product-*"):
        if old != tree:
            shutil.rmtree(old, ignore_errors=True)
    return tree
