"""host_memlock: how much is enough."""

from __future__ import annotations

import pytest

from nodewatch.checks.host_memlock import HostMemlockThresholds, host_memlock
from nodewatch.model.network_samples import MemlockSample


@pytest.mark.parametrize(
    ("soft", "hard", "is_low"),
    [
        (None, None, False),
        (16 << 30, 16 << 30, False),
        ((16 << 30) - 1, None, True),
        (8_388_608, 8_388_608, True),
        (0, 0, True),
    ],
)
def test_limits(soft: int | None, hard: int | None, is_low: bool) -> None:
    sample = MemlockSample(daemon="slurmd", pid=77, soft=soft, hard=hard)
    found = list(host_memlock(sample, HostMemlockThresholds()))
    assert [(f.fault, f.subject, f.severity.word, f.remedy.word) for f in found] == (
        [("host.memlock_low", "slurmd", "warn", "human")] if is_low else []
    )
    assert all(f.evidence["soft_bytes"] == soft for f in found)
