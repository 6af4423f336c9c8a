import time
from collections.abc import Iterator

import pytest

from nodewatch.lab.network import lab_namespaces
from tests.lab.rehearsal import UP_DEADLINE_S, all_well, eventually, lab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab: brings up the rehearsal cluster on this machine (root, about a minute)")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    lab("down")
    done = lab("up", deadline_s=UP_DEADLINE_S)
    try:
        assert done.returncode == 0, done.stderr
        yield
    finally:
        gone = lab("down")
        assert gone.returncode == 0, gone.stderr
        assert lab_namespaces() == []


@pytest.fixture
def calm(cluster: None) -> float:
    """A cluster with a spare and no open case; gives the time from which the test's records count."""
    eventually(all_well, "every node is healthy and one is the spare", 120)
    return time.time()
