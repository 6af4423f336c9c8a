"""A slurm.conf as sites write it: comments, continued lines, includes, lists, records of nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.clients.slurm_conf import read_slurm_conf
from nodewatch.errors import SlurmError


def test_a_file_as_sites_write_it(tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "b.conf").write_text("MinJobAge=300\n")
    (tmp_path / "extra" / "a-prod.conf").write_text("SlurmdTimeout=300 # seconds\n")
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        """# comment
ClusterName=prod
SlurmctldHost=head
Prolog=/site/prolog
PROLOG=/usr/lib/nodewatch/hooks/prolog
JobRequeue=1 ReturnToService = 2   # two on a line
SchedulerParameters=bf_continue,\\
nohold_on_prolog_fail
MailProg="/site/a mail"
include extra/a-%c.conf
Include extra/b*.conf
NodeName=n[1-3] CPUs=4 RealMemory=1000
PartitionName=train Nodes=ALL
"""
    )
    read = read_slurm_conf(conf)
    assert read.values == {
        "ClusterName": "prod",
        "SlurmctldHost[0]": "head",
        "Prolog[0]": "/site/prolog",
        "PROLOG[1]": "/usr/lib/nodewatch/hooks/prolog",
        "JobRequeue": "1",
        "ReturnToService": "2",
        "SchedulerParameters": "bf_continue,nohold_on_prolog_fail",
        "MailProg": "/site/a mail",
        "SlurmdTimeout": "300",
        "MinJobAge": "300",
    }
    assert read.repeated == []
    assert [path.name for path in read.files] == ["slurm.conf", "a-prod.conf", "b.conf"]


def test_the_last_of_two_counts_and_is_told(tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text("PrologFlags=Alloc\nprologflags=Serial\n")
    read = read_slurm_conf(conf)
    assert (read.values, read.repeated) == ({"prologflags": "Serial"}, ["prologflags"])


def test_an_escaped_hash_is_no_comment(tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text("MailDomain=a\\#b # comment\n")
    assert read_slurm_conf(conf).values == {"MailDomain": "a#b"}


@pytest.mark.parametrize(
    ("text", "says"), [("Include other.conf\n", "other.conf cannot be read"), ("Include slurm.conf\n", "by itself")]
)
def test_an_include_that_leads_nowhere(tmp_path: Path, text: str, says: str) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text(text)
    with pytest.raises(SlurmError, match=says):
        read_slurm_conf(conf)
