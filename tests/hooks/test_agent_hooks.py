"""prolog, epilog and healthcheck against an agent that allows, denies, dawdles, babbles or is not there."""

import json
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from .conftest import FakeAgent, Hooks

ALLOW = b'{"v":1,"allow":true,"reason":"","counted":false}\n'
DENY = b'{"v":1,"allow":false,"reason":"GPU 3 fell off the bus (XID 79)","counted":true}\n'
JOB = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_USER": "ada",
    "SLURM_JOB_UID": "1000",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_JOB_RESTART_COUNT": "2",
    "SPANK_NODEWATCH_AUTO_RESUME": "3",
}
ASKING = ["prolog", "epilog", "healthcheck"]
StartAgent = Callable[[object], FakeAgent]


def misses(hooks: Hooks) -> list[dict[str, object]]:
    if not hooks.misses.exists():
        return []
    return [json.loads(line) for line in hooks.misses.read_text().splitlines()]


@pytest.mark.parametrize("hook", ASKING)
def test_allowed(hooks: Hooks, agent: StartAgent, hook: str) -> None:
    agent(ALLOW)

    ran = hooks.run(hook, **JOB)

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert misses(hooks) == []


@pytest.mark.parametrize("hook", ASKING)
def test_denied_with_the_reason_on_both_streams(hooks: Hooks, agent: StartAgent, hook: str) -> None:
    agent(DENY)

    ran = hooks.run(hook, **JOB)

    sentence = "nodewatch: GPU 3 fell off the bus (XID 79)\n"
    assert (1, sentence, sentence) == (ran.code, ran.out, ran.err)
    assert misses(hooks) == []


def test_a_reason_of_many_lines_is_told_on_one(hooks: Hooks, agent: StartAgent) -> None:
    """Slurm takes the first line of what a prolog says."""
    agent(b'{"v":1,"allow":false,"reason":"two\\n lines \\u00e9"}\n')

    assert hooks.run("prolog", LC_ALL="C.UTF-8").out == "nodewatch: two lines \u00e9\n"


def test_the_question_is_as_written_in_the_interface(hooks: Hooks, agent: StartAgent) -> None:
    fake = agent(ALLOW)

    hooks.run("prolog", **JOB)
    hooks.run("epilog", SLURM_JOB_ID="18")
    hooks.run("healthcheck", **JOB)

    assert [json.loads(question) for question in fake.questions] == [
        {
            "v": 1,
            "ask": "prolog",
            "job": {
                "id": "17",
                "user": "ada",
                "uid": "1000",
                "nodes": "n[1-3]",
                "restart": "2",
                "auto_resume": "3",
            },
        },
        {"v": 1, "ask": "epilog", "job": {"id": "18"}},
        {"v": 1, "ask": "healthcheck"},
    ]


OUTPUTS = {
    "the error file": ({"SLURM_JOB_STDERR": "/fsx/%j-%x.err", "SLURM_JOB_STDOUT": "/fsx/o"}, "/fsx/17-llama.err"),
    "with the output": ({"SLURM_JOB_STDOUT": "logs/%u.out"}, "/home/ada/logs/ada.out"),
    "by default": ({"SLURM_JOB_STDIN": "/dev/null"}, "/home/ada/slurm-17.out"),
    "of an element": (
        {"SLURM_JOB_STDIN": "/dev/null", "SLURM_ARRAY_JOB_ID": "15", "SLURM_ARRAY_TASK_ID": "2"},
        "/home/ada/slurm-15_2.out",
    ),
    "that cannot be told": ({"SLURM_JOB_STDERR": "/fsx/%N.err"}, None),
    "of no batch job": ({}, None),
}


@pytest.mark.parametrize(("variables", "path"), OUTPUTS.values(), ids=list(OUTPUTS))
@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_the_agent_is_told_where_the_errors_go(
    hooks: Hooks, agent: StartAgent, hook: str, variables: dict[str, str], path: str | None
) -> None:
    fake = agent(ALLOW)

    hooks.run(hook, **JOB, SLURM_JOB_WORK_DIR="/home/ada", SLURM_JOB_NAME="llama", **variables)

    assert json.loads(fake.questions[0])["job"].get("output") == path


@pytest.mark.parametrize("name", ['quote " and \\', "tab\tbell\x07", "Ren\u00e9e", "newline\nhere"])
def test_a_job_with_an_odd_name_is_asked_about_faithfully(hooks: Hooks, agent: StartAgent, name: str) -> None:
    fake = agent(ALLOW)

    hooks.run("prolog", SLURM_JOB_ID="17", SLURM_JOB_USER=name, LC_ALL="C.UTF-8")

    assert name == json.loads(fake.questions[0])["job"]["user"]


def test_a_name_that_is_no_utf8_does_not_stop_the_hook(hooks: Hooks, agent: StartAgent) -> None:
    fake = agent(ALLOW)

    ran = hooks.run("prolog", SLURM_JOB_ID="17", SLURM_JOB_USER="a\udcff", LC_ALL="C.UTF-8")

    assert ran.code == 0
    assert json.loads(fake.questions[0])["job"]["user"] == "a?"


def hang(connection: socket.socket, question: bytes) -> None:
    time.sleep(3)


def drip(connection: socket.socket, question: bytes) -> None:
    """A byte now and then: a timeout per read would never end."""
    for byte in ALLOW:
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


def close(connection: socket.socket, question: bytes) -> None:
    """Say nothing."""


UNUSABLE = {
    "slow": (hang, "nothing within 1 s"),
    "dripping": (drip, "nothing within 1 s"),
    "closes early": (close, "it closed the connection without a word"),
    "half a line": (ALLOW[:-1], "its answer is cut off"),
    "garbage": (b"\x80\x81garbage\n", "its answer is not JSON"),
    "not an object": (b"[true]\n", "its answer has no true or false under 'allow'"),
    "allow is a word": (b'{"v":1,"allow":"yes"}\n', "its answer has no true or false under 'allow'"),
    "allow is missing": (b'{"v":1}\n', "its answer has no true or false under 'allow'"),
    "two values": (b'{"v":1,"allow":false} {}\n', "its answer is not JSON"),
    "deep nesting": (b"[" * 60000 + b"\n", "its answer is not JSON"),
    "another version": (b'{"v":2,"allow":false}\n', "version 2 of the hook protocol"),
    "endless": (b"x" * 200_000, "its answer is cut off"),
}


@pytest.mark.parametrize("hook", ASKING)
@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_answer_allows_in_time_and_is_counted(
    hooks: Hooks, agent: StartAgent, hook: str, case: str
) -> None:
    answer, why = UNUSABLE[case]
    agent(answer)

    ran = hooks.run(hook, **JOB)

    assert ran.code == 0, ran.err
    assert ran.seconds < 1.5
    (miss,) = misses(hooks)
    assert why in str(miss["why"])
    assert hook == miss["ask"]


@pytest.mark.parametrize("hook", ASKING)
def test_no_agent_at_all(hooks: Hooks, hook: str) -> None:
    ran = hooks.run(hook, **JOB)

    assert ran.code == 0
    (miss,) = misses(hooks)
    assert "No such file or directory" in str(miss["why"])


def test_an_agent_that_died_and_left_its_socket(hooks: Hooks) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(hooks.socket_path))
    listener.close()

    assert hooks.run("prolog", **JOB).code == 0
    assert "Connection refused" in str(misses(hooks)[0]["why"])


def test_an_agent_that_accepts_nobody(hooks: Hooks) -> None:
    """A stopped agent: its queue fills, then connect itself would wait."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(hooks.socket_path))
    listener.listen(0)
    waiting = []
    for _ in range(3):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(str(hooks.socket_path))
        except BlockingIOError:
            break
        waiting.append(client)

    ran = hooks.run("prolog", **JOB)

    assert ran.code == 0
    assert 0.9 < ran.seconds < 1.5
    assert "nothing within 1 s" in str(misses(hooks)[0]["why"])
    for client in waiting:
        client.close()
    listener.close()


DENY_SOME = "NODEWATCH_DENY_PARTITIONS=train,big-mem\n"
ALLOW_SOME = "NODEWATCH_ON_NO_AGENT=deny\nNODEWATCH_ALLOW_PARTITIONS='debug interactive.2'\n"


@pytest.mark.parametrize(
    ("settings", "partition", "code", "complaint"),
    [
        ("NODEWATCH_ON_NO_AGENT=deny\n", "train", 1, ""),
        ("# comment\nNODEWATCH_ON_NO_AGENT='deny'\n", "train", 1, ""),
        ("export NODEWATCH_ON_NO_AGENT=deny\n", "train", 1, ""),
        ("NODEWATCH_ON_NO_AGENT=allow\n", "train", 0, ""),
        ("OTHER=deny\n", "train", 0, ""),
        ("#NODEWATCH_ON_NO_AGENT=deny\n", "train", 0, ""),
        (DENY_SOME, "train", 1, ""),
        (DENY_SOME, "big-mem", 1, ""),
        (DENY_SOME, "big", 0, ""),
        (DENY_SOME, "", 0, ""),
        (ALLOW_SOME, "debug", 0, ""),
        (ALLOW_SOME, "interactive.2", 0, ""),
        (ALLOW_SOME, "train", 1, ""),
        ("NODEWATCH_ON_NO_AGENT=perhaps\n", "train", 0, "'perhaps' is neither allow nor deny"),
        (DENY_SOME + "NODEWATCH_ON_NO_AGENT=perhaps\n", "train", 1, ""),
        (DENY_SOME + "NODEWATCH_ALLOW_PARTITIONS=train\n", "train", 0, "the partition train is in"),
        ("NODEWATCH_ON_NO_AGENT_train=deny\n", "train", 0, "write partitions as NODEWATCH_DENY_PARTITIONS="),
        (
            "NODEWATCH_DENY_PARTITION=train\n",
            "train",
            0,
            "NODEWATCH_DENY_PARTITION is unknown and was ignored; known are",
        ),
        ("\x00\xff nonsense", "train", 0, ""),
    ],
)
def test_a_site_may_choose_to_deny_without_an_agent(
    hooks: Hooks, settings: str, partition: str, code: int, complaint: str
) -> None:
    hooks.settings.write_text(settings)

    ran = hooks.run("prolog", SLURM_JOB_PARTITION=partition)

    assert code == ran.code
    assert len(misses(hooks)) == 1
    if code:
        assert "did not answer" in ran.out
    assert complaint in ran.err
    assert (1 if code or complaint else 0) == ran.err.count("\n")


@pytest.mark.parametrize("case", ["slow", "garbage", "half a line", "endless"])
def test_a_site_that_denies_does_so_in_time(hooks: Hooks, agent: StartAgent, case: str) -> None:
    answer, why = UNUSABLE[case]
    agent(answer)
    hooks.settings.write_text("NODEWATCH_DENY_PARTITIONS=train\n")

    ran = hooks.run("prolog", SLURM_JOB_PARTITION="train")

    assert ran.code == 1
    assert why in ran.out
    assert len(misses(hooks)) == 1


def test_an_epilog_never_fails_for_want_of_an_agent(hooks: Hooks) -> None:
    """Slurm would drain the node, and requeue the job at once where it was submitted with --requeue=expedite."""
    hooks.settings.write_text("NODEWATCH_ON_NO_AGENT=deny\nNODEWATCH_DENY_PARTITIONS=train\n")

    ran = hooks.run("epilog", SLURM_JOB_PARTITION="train")

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert len(misses(hooks)) == 1


def test_an_agent_that_is_upgraded_between_two_questions(hooks: Hooks, agent: StartAgent) -> None:
    """Its socket goes and comes: each hook has the answer of its own moment."""
    hooks.settings.write_text("NODEWATCH_DENY_PARTITIONS=train\n")
    codes = [hooks.run("prolog", SLURM_JOB_PARTITION="train").code]
    fake = agent(ALLOW)
    codes.append(hooks.run("prolog", SLURM_JOB_PARTITION="train").code)
    fake.listener.shutdown(socket.SHUT_RDWR)
    fake.listener.close()
    codes.append(hooks.run("prolog", SLURM_JOB_PARTITION="train").code)
    hooks.socket_path.unlink()
    agent(ALLOW)
    codes.append(hooks.run("prolog", SLURM_JOB_PARTITION="train").code)

    assert codes == [1, 0, 1, 0]
    assert len(misses(hooks)) == 2


def test_an_agent_that_dies_in_the_middle_of_its_answer(hooks: Hooks, agent: StartAgent) -> None:
    def die(connection: socket.socket, question: bytes) -> None:
        connection.sendall(DENY[:30])
        connection.shutdown(socket.SHUT_RDWR)

    agent(die)

    assert hooks.run("prolog", **JOB).code == 0
    assert "its answer is cut off" in str(misses(hooks)[0]["why"])


def test_misses_that_cannot_be_written_are_told(hooks: Hooks) -> None:
    ran = hooks.run("prolog", NODEWATCH_HOOK_MISSES="/nonexistent/hook-misses", **JOB)

    assert ran.code == 0
    assert ran.err.count("\n") == 1
    assert "/nonexistent/hook-misses could not be written" in ran.err


def test_misses_do_not_fill_the_disk(hooks: Hooks) -> None:
    hooks.misses.write_bytes(b"x" * (1 << 20))

    assert hooks.run("healthcheck").code == 0
    assert hooks.misses.stat().st_size == 1 << 20


def test_misses_are_not_written_through_a_link(hooks: Hooks) -> None:
    hooks.misses.symlink_to(hooks.work / "elsewhere")

    assert hooks.run("healthcheck").code == 0
    assert not (hooks.work / "elsewhere").exists()


def test_closed_streams_do_not_change_the_answer(hooks: Hooks, agent: StartAgent) -> None:
    agent(DENY)

    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "{hooks.directory}/prolog" >&- 2>&-'],
        env={"NODEWATCH_AGENT_SOCKET": str(hooks.socket_path)},
        check=False,
    )

    assert done.returncode == 1


def test_many_hooks_at_once_all_get_their_answer(hooks: Hooks, agent: StartAgent) -> None:
    agent(DENY)
    env = {"NODEWATCH_AGENT_SOCKET": str(hooks.socket_path), "NODEWATCH_HOOK_MISSES": str(hooks.misses)}

    running = [
        subprocess.Popen(
            [str(hooks.directory / "prolog")], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(30)
    ]

    assert [process.wait(timeout=20) for process in running] == [1] * 30
    assert misses(hooks) == []
