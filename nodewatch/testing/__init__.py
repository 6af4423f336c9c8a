"""A cluster in memory, shipped so that sites can try their own policies: the real engine and planner on fakes."""

from nodewatch.testing.ec2 import FakeEc2
from nodewatch.testing.journal import MemoryJournal
from nodewatch.testing.slurm import FakeSlurm
from nodewatch.testing.world import FakeClock, World

__all__ = ["FakeClock", "FakeEc2", "FakeSlurm", "MemoryJournal", "World"]
