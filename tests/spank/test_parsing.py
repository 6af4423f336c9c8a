"""What may stand after --auto-resume, in plugstack.conf, and on sbatch's command line."""

import subprocess
from pathlib import Path

import pytest


def run(parser: Path, *argv: str, stdin: bytes = b"") -> tuple[int, str]:
    done = subprocess.run([str(parser), *argv], input=stdin, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr.decode()
    return done.returncode, done.stdout.decode().strip()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (None, "default"),
        ("(null)", "default"),
        ("off", "off"),
        ("0", "0"),
        ("1", "1"),
        ("07", "7"),
        ("99", "99"),
        ("0000001", "1"),
    ],
)
def test_accepted(parser: Path, text: str | None, canonical: str) -> None:
    assert (0, canonical) == run(parser, "typed", *([] if text is None else [text]))


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", " 1", "1 ", "1x", "0x3", "1.0", "100", "99999999999999999999", "on", "OFF", "yes", "default"],
)
def test_refused(parser: Path, text: str) -> None:
    assert run(parser, "typed", text) == (1, "untouched")


@pytest.mark.parametrize(
    ("text", "canonical"), [("", "default"), ("(null)", "default"), ("default", "default"), ("3", "3"), ("off", "off")]
)
def test_what_slurm_passes_on_to_a_step(parser: Path, text: str, canonical: str) -> None:
    """A bare option arrives there as an empty text."""
    assert (0, canonical) == run(parser, "forwarded", text)


@pytest.mark.parametrize(
    ("args", "append", "requeue"),
    [
        ([], 1, 1),
        (["append_output=no"], 0, 1),
        (["request_requeue=no"], 1, 0),
        (["append_output=no", "request_requeue=no", "append_output=yes"], 1, 0),
    ],
)
def test_plugstack_arguments(parser: Path, args: list[str], append: int, requeue: int) -> None:
    assert (0, f"{append} {requeue}") == run(parser, "args", *args)


@pytest.mark.parametrize(
    ("arg", "sentence"),
    [
        ("append_ouput=no", 'unknown argument "append_ouput=no"; known are append_output=yes|no and'),
        ("append", 'unknown argument "append"'),
        ("=yes", 'unknown argument "=yes"'),
        ("append_output", '"append_output" must end in =yes or =no'),
        ("append_output=YES", '"append_output=YES" must end in =yes or =no'),
        ("append_output=yesno", '"append_output=yesno" must end in =yes or =no'),
        ("x" * 4000, "unknown argument"),
    ],
)
def test_a_misspelt_plugstack_argument_is_an_error(parser: Path, arg: str, sentence: str) -> None:
    code, text = run(parser, "args", arg)

    assert code == 1
    assert sentence in text


@pytest.mark.parametrize(
    ("argv", "auto_resume", "no_requeue"),
    [
        (["sbatch", "--auto-resume", "x.sh"], 1, 0),
        (["sbatch", "--auto-resume=2", "x.sh"], 1, 0),
        (["sbatch", "--auto-r=2", "x.sh"], 1, 0),
        (["sbatch", "-N", "2", "--auto-resume", "x.sh"], 1, 0),
        (["sbatch", "-N2", "-p", "train", "--no-requeue", "--auto-resume=1", "x.sh"], 1, 1),
        (["sbatch", "--auto-resume=off", "x.sh"], 0, 0),
        (["sbatch", "--auto-resume=2", "--auto-resume=off", "x.sh"], 0, 0),
        (["sbatch", "--no-requeue", "x.sh"], 0, 1),
        (["sbatch", "x.sh"], 0, 0),
        (["sbatch", "x.sh", "--auto-resume", "--no-requeue"], 0, 0),
        (["sbatch", "--auto-resume", "x.sh", "--no-requeue"], 1, 0),
        (["sbatch", "--nodes=2", "x.sh", "--auto-resume"], 0, 0),
        (["sbatch", "-N", "2", "x.sh", "--auto-resume"], 0, 0),
        (["sbatch", "--", "--auto-resume"], 0, 0),
        (["sbatch", "--wrap", "srun --auto-resume=1 x"], 0, 0),
        (["sbatch", "--wrap=srun --auto-resume=1 x"], 0, 0),
        (["sbatch", "--auto-resumes", "x.sh"], 0, 0),
        (["sbatch", "--a", "x.sh"], 0, 0),
        (["--auto-resume"], 0, 0),
        ([], 0, 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_stands_before_the_script(parser: Path, argv: list[str], auto_resume: int, no_requeue: int) -> None:
    raw = "".join(f"{word}\0" for word in argv).encode()

    assert (0, f"{auto_resume} {no_requeue}") == run(parser, "cmdline", stdin=raw)


def test_a_command_line_cut_off_in_the_middle(parser: Path) -> None:
    assert run(parser, "cmdline", stdin=b"sbatch\0--auto-resume") == (0, "0 0")
