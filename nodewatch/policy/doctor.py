"""What a site's Slurm configuration lacks for nodewatch to work, from what `scontrol show config` says."""

from __future__ import annotations

import re
from collections.abc import Mapping

HOOKS = "/usr/lib/nodewatch/hooks"
_PROGRAMS = {
    "HealthCheckProgram": ("healthcheck", "nodes are not asked for their health"),
    "Prolog": ("prolog", "a job may start on a node that is known to be broken"),
    "Epilog": ("epilog", "faults that a job leaves behind are seen later"),
    "PrologSlurmctld": ("prolog_slurmctld", "--auto-resume is not known to the controller"),
    "EpilogSlurmctld": ("epilog_slurmctld", "the controller learns late that a job has failed"),
}


def slurm_problems(config: Mapping[str, str], plugstack: str | None) -> list[str]:
    """One sentence a problem: what is missing, what that costs, and the line to add. Empty when all is well.

    `config` is slurmctld's configuration by parameter, `plugstack` the text of its plugstack.conf (None: unreadable).
    A site's own scripts that call ours are not seen from here, which each sentence about a program allows for.
    """
    problems = []
    for parameter, (program, cost) in _PROGRAMS.items():
        values = [value for key, value in config.items() if re.fullmatch(rf"{parameter}(\[\d+\])?", key)]
        if not any("nodewatch" in value for value in values):
            problems.append(
                f"slurm.conf: {parameter} does not call nodewatch, so {cost}: set {parameter}={HOOKS}/{program}, "
                "or call it from the site's own script"
            )
    where = config.get("PlugStackConfig", "(null)").replace("(null)", "plugstack.conf")
    if plugstack is None:
        problems.append(
            f"{where} cannot be read, so it is not known whether sbatch has --auto-resume: make it readable"
        )
    elif not re.search(r"^\s*(optional|required)\s+\S*nodewatch", plugstack, re.MULTILINE):
        problems.append(
            f"{where} does not load our plugin, so sbatch has no --auto-resume: add the line "
            "`optional nodewatch_auto_resume.so`"
        )
    scheduler = config.get("SchedulerParameters", "")
    if "nohold_on_prolog_fail" not in scheduler:
        problems.append(
            "slurm.conf: SchedulerParameters lacks nohold_on_prolog_fail, so a job that our prolog turns away stays held: "
            "add it"
        )
    if config.get("JobRequeue", "1") == "0":
        problems.append("slurm.conf: JobRequeue=0, so jobs cannot be started again: set JobRequeue=1")
    if config.get("JobFileAppend", "0") == "0":
        problems.append(
            "slurm.conf: JobFileAppend=0, so a job restarted without --open-mode=append may overwrite its own output: "
            "set JobFileAppend=1"
        )
    return problems
