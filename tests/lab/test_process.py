"""Commands that the lab runs on the host."""

import os
import signal

import pytest

from nodewatch.lab.process import through


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137), ("kill -STOP $$; exit 4", 4)],
)
def test_the_exit_code_is_passed_on_even_when_the_command_stopped_itself_on_the_way(script: str, code: int) -> None:
    # In a process of its own: a wait that never ends is ended by alarm, not by the whole run's limit.
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(through(["sh", "-c", script], env={"PATH": os.environ["PATH"]}))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == code
