"""Builds of the plugin against a stub of Slurm's header: no Slurm is needed to test how it parses."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SPANK = REPOSITORY / "slurm_hooks" / "spank"
HERE = Path(__file__).resolve().parent
STRICT = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g"]


def require_compiler() -> str:
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("make") is None:
        pytest.skip("a C compiler and make are needed to build the SPANK plugin")
    return compiler


def build_plugin(out: Path, version: str = "24,11,5") -> Path:
    """Run the real Makefile against the stub header, out of the source tree."""
    require_compiler()
    subprocess.run(
        [
            "make",
            "-s",
            "-C",
            str(SPANK),
            f"BUILD={out}",
            f"SLURM_INCLUDE={HERE / 'stub'}",
            f"CFLAGS=-O2 -DSLURM_VERSION_NUMBER='SLURM_VERSION_NUM({version})'",
        ],
        check=True,
    )
    return out / "nodewatch_auto_resume.so"


@pytest.fixture(scope="session")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pure parsers behind a tiny main."""
    program = tmp_path_factory.mktemp("spank-parser") / "parse"
    sources = [HERE / "parse_main.c", *(SPANK / f"{name}.c" for name in ("value", "args", "cmdline"))]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        [require_compiler(), *STRICT, *sanitizers, f"-I{SPANK}", "-o", str(program), *map(str, sources)], check=True
    )
    return program


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_plugin(tmp_path_factory.mktemp("spank-plugin"))


@pytest.fixture(scope="session")
def stub_slurm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that loads the plugin as a Slurm command does; the name it is called by is the command's."""
    directory = tmp_path_factory.mktemp("stub-slurm")
    program = directory / "sbatch"
    subprocess.run(
        [
            require_compiler(),
            *STRICT,
            f"-I{HERE / 'stub'}",
            "-rdynamic",
            "-o",
            str(program),
            str(HERE / "stub_slurm.c"),
            "-ldl",
        ],
        check=True,
    )
    for name in ("salloc", "srun"):
        shutil.copy(program, directory / name)
    return directory
