"""The packages on a real Debian: installed, upgraded, downgraded, purged; and the script that a new instance runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nodewatch.agent.bootstrap import failure

from .conftest import REPOSITORY, Package
from .trees import Tree, with_version

NAMES = ("nodewatch-agent", "nodewatch-controller", "nodewatch-hooks")


def put(tree: Tree, files: list[Path], place: str) -> None:
    (tree.upper / place).mkdir(parents=True)
    for file in files:
        shutil.copy(file, tree.upper / place / file.name)


def test_upgrade_and_downgrade_work_and_a_purge_leaves_nothing(
    tree: Tree, packages: dict[str, Package], tmp_path: Path
) -> None:
    before = tree.listing()
    both = [with_version(packages[name].file, version, tmp_path) for name in NAMES for version in ("9.0", "9.1")]
    put(tree, both, "tmp/debs")

    def install(version: str) -> list[str]:
        done = tree.run(
            f"dpkg --force-confold -i /tmp/debs/*_{version}_*.deb && nodewatch --version && nodewatch-agent --version"
        )
        assert done.returncode == 0, done.stderr
        return tree.run("dpkg-query -W -f='${Version} ${db:Status-Abbrev}\n' 'nodewatch-*'").stdout.splitlines()

    assert install("9.0") == ["9.0 ii "] * 3
    tree.run("echo NODEWATCH_ON_NO_AGENT=deny >>/etc/nodewatch/hooks.env; echo 'x = 1' >/etc/nodewatch/agent.toml")
    assert install("9.1") == ["9.1 ii "] * 3
    assert install("9.0") == ["9.0 ii "] * 3
    assert "NODEWATCH_ON_NO_AGENT=deny" in tree.run("tail -n 1 /etc/nodewatch/hooks.env").stdout
    purged = tree.run("dpkg --purge nodewatch-agent nodewatch-controller nodewatch-hooks")
    assert purged.returncode == 0, purged.stderr
    assert "not empty" not in purged.stdout + purged.stderr

    assert tree.listing() == before


def test_a_new_instance_becomes_a_node(tree: Tree, packages: dict[str, Package]) -> None:
    put(tree, [packages[name].file for name in NAMES], "fsx/nodewatch")
    shutil.copy(REPOSITORY / "packaging/bootstrap", tree.upper / "fsx/nodewatch/bootstrap")
    call = "/fsx/nodewatch/bootstrap --from /fsx/nodewatch --controller http://head:9410 --shared /fsx --node n7"

    first, second = tree.run(call), tree.run(call)

    assert first.returncode == 0, first.stderr
    assert "has no nodewatch-spank-slurm24.11" in first.stderr
    assert first.stdout.endswith("nodewatch bootstrap: complete\n")
    assert second.stdout.endswith("nodewatch bootstrap: complete\n")
    config = tree.run("cat /etc/nodewatch/agent.toml").stdout
    assert 'node_name = "n7"' in config
    assert 'shared_filesystems = ["/fsx"]' in config
    # What the agent needs and no more: the controller and its boto3 are not on nodes.
    assert tree.run("dpkg-query -W -f='${Package} ' 'nodewatch-*'").stdout == "nodewatch-agent nodewatch-hooks "


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "say with --from"),
        (["--from", "/nonexistent"], "say with --controller"),
        (["--from", "/nonexistent", "--controller", "http://h:1"], "/nonexistent is not there"),
        (["--form", "x"], "--form is unknown"),
        (["--from"], "--from needs a value"),
    ],
)
def test_bootstrap_says_what_it_lacks(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = bootstrapped(*arguments, state=tmp_path)

    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def bootstrapped(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(REPOSITORY / "packaging/bootstrap"), *arguments],
        env={**os.environ, "NODEWATCH_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        # A slip in the arguments says nothing of the machine.
        (["--form", "x"], None),
        (["--failed", "on_create.sh: no licence"], "on_create.sh: no licence"),
        (["--from", "/nonexistent", "--controller", "http://h:1"], "/nonexistent is not there"),
    ],
)
def test_bootstrap_leaves_its_word_for_the_agent(arguments: list[str], left: str | None, tmp_path: Path) -> None:
    done = bootstrapped(*arguments, state=tmp_path / "state")

    assert done.returncode == 1
    assert done.stderr.startswith("nodewatch bootstrap: FAILED: ")
    told = failure(tmp_path / "state")
    assert (told == "") if left is None else told.startswith(left)


@pytest.mark.parametrize("unit", ["agent", "controller"])
def test_units_are_closed_as_far_as_they_can_be(unit: str) -> None:
    path = REPOSITORY / f"packaging/systemd/nodewatch-{unit}.service"

    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=49", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    print(done.stdout.splitlines()[-1])
    # 4.9 is the last that systemd calls OK.
    assert done.returncode == 0, done.stdout[-400:]
    assert re.search(r"exposure level for nodewatch-\w+\.service: [0-4]\.\d OK", done.stdout)
    assert "--- open, each for its reason ---" in path.read_text()


def test_the_manual_and_the_completions_are_those_of_the_commands(packages: dict[str, Package]) -> None:
    tree = packages["nodewatch-controller"].tree
    page = subprocess.run(
        ["zcat", str(tree / "usr/share/man/man1/nodewatch.1.gz")], capture_output=True, text=True, check=True
    ).stdout

    for command in ("status", "explain", "doctor", "replace", "replay"):
        assert f".SS nodewatch {command}" in page
    assert ".SS nodewatch lab" not in page
    for shell in ("bash-completion/completions/nodewatch", "zsh/vendor-completions/_nodewatch"):
        assert "_NODEWATCH_COMPLETE" in (tree / "usr/share" / shell).read_text()
    for package, name in (("nodewatch-agent", "nodewatch-agent"), ("nodewatch-controller", "nodewatch-controller")):
        assert (packages[package].tree / f"usr/share/man/man8/{name}.8.gz").is_file()


def test_the_packaged_boto3_knows_the_services_that_are_asked(packages: dict[str, Package]) -> None:
    home = packages["nodewatch-controller"].tree / "usr/lib/nodewatch/controller"
    program = (
        f"import sys; sys.path.insert(0, {str(home)!r})\nimport boto3\n"
        "session = boto3.Session(region_name='us-east-1', aws_access_key_id='a', aws_secret_access_key='b')\n"
        "print(*(session.client(name).meta.endpoint_url for name in ('ec2', 'sts')))"
    )

    done = subprocess.run(["/usr/bin/python3", "-BIS", "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "https://ec2.us-east-1.amazonaws.com https://sts.us-east-1.amazonaws.com\n"


def test_an_rpm_holds_what_the_deb_holds(packages: dict[str, Package]) -> None:
    done = subprocess.run(
        [str(REPOSITORY / "packaging/build"), "--rpm", "nodewatch-hooks"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (file,) = (REPOSITORY / "build/packages").glob("nodewatch-hooks-[0-9]*.noarch.rpm")

    def ask(*words: str) -> str:
        return subprocess.run(["rpm", *words, str(file)], capture_output=True, text=True, check=True).stdout

    ours = {f"/{name}" for name in packages["nodewatch-hooks"].files() if name.startswith(("usr/lib/", "etc/"))}
    assert ours <= set(ask("-qlp").split())
    assert ask("-qcp").split() == ["/etc/nodewatch/hooks.env"]
    assert "python3.11" in ask("-qRp").split()
