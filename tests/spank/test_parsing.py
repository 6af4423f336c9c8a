"""What may stand after --auto-resume, in plugstack.conf, and on sbatch's command line."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.model.auto_resume import merged, parse


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
        ("default", "default"),
        ("3,dir=/fsx/run1,spares=1", "3,dir=/fsx/run1,spares=1"),
        ("spares=01,dir=/fsx/run 1=b,3", "3,dir=/fsx/run 1=b,spares=1"),
        ("dir=/fsx/läufe", "default,dir=/fsx/läufe"),
        ("spares=0", "default,spares=0"),
        ("dir=/" + "x" * 895, "default,dir=/" + "x" * 895),
    ],
)
def test_accepted(parser: Path, text: str | None, canonical: str) -> None:
    assert (0, canonical) == run(parser, "typed", *([] if text is None else [text]))


@pytest.mark.parametrize(
    "text", [" ", "-1", "+1", " 1", "1 ", "1x", "0x3", "1.0", "100", "99999999999999999999", "on", "OFF", "yes"]
)
def test_no_number(parser: Path, text: str) -> None:
    forms = "write N (0 to 99), default or off, and dir=/PATH or spares=K after a comma"

    assert run(parser, "typed", text) == (1, f'untouched "{text}" is not understood: {forms}')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", 'nothing follows the "="'),
        ("3,", "a comma has nothing beside it"),
        ("3,4", "N is said twice"),
        ("3,default", "N is said twice"),
        ("off,3", "N is said twice"),
        ("off,dir=/a", "off stands alone"),
        ("dir=/a,dir=/b", "dir is said twice"),
        ("spares=1,spares=1", "spares is said twice"),
        ("3,dir=run1", '"dir=run1" is no absolute path: write dir=/PATH'),
        ("dir=", '"dir=" is no absolute path'),
        ("dir=/a\x1b[1m", "is no absolute path"),
        ("3,spares=x", '"spares=x" is no number from 0 to 999'),
        ("spares=", '"spares=" is no number from 0 to 999'),
        ("spares=1000", "is no number from 0 to 999"),
        ("directory=/a", '"directory=/a" is unknown: known are dir=/PATH and spares=K'),
        ("=", '"=" is unknown'),
        ("dir=/" + "x" * 896, "more than 900 bytes follow: write a shorter path"),
    ],
)
def test_refused_in_one_sentence(parser: Path, text: str, sentence: str) -> None:
    code, said = run(parser, "typed", text)

    assert code == 1
    assert sentence in said


@given(st.text(alphabet="0123456789,=dirspaefult/off ²", max_size=30).filter(lambda text: text != ""))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_it_judges_as_the_controller_does(parser: Path, text: str) -> None:
    """Two languages, one grammar: what one side accepts and the other does not would be lost in between."""
    code, said = run(parser, "typed", text)

    try:
        parse(text)
    except ValueError:
        assert code == 1
    else:
        assert (code, said) == (0, merged(text, "default"))


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
