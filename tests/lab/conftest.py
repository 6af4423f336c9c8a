import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab: brings up the rehearsal cluster on this machine (root, about a minute)")
