"""What a site's Slurm configuration lacks for nodewatch to work, from what `scontrol show config` or slurm.conf says.

The rules about our programs stand here, those about single values in doctor_values.py. Figures that are not ours are those of
slurm.conf(5); what a failing prolog or epilog does was seen on Slurm 24.11.5 (docs/hooks.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nodewatch.policy.doctor_settings import Advice, SlurmSettings
from nodewatch.policy.doctor_values import value_advice

HOOKS = "/usr/lib/nodewatch/hooks"
_PROGRAMS = {
    "HealthCheckProgram": ("healthcheck", "nodes are not asked for their health"),
    "Prolog": ("prolog", "a job may start on a node that is known to be broken"),
    "Epilog": ("epilog", "faults that a job leaves behind are seen later"),
    "PrologSlurmctld": ("prolog_slurmctld", "--auto-resume is not known to the controller"),
    "EpilogSlurmctld": ("epilog_slurmctld", "the controller learns late that a job has failed"),
}


def slurm_problems(config: Mapping[str, str], plugstack: str | None) -> list[str]:
    """One sentence for each thing that must be changed: what is missing, what that costs, and the line to add."""
    return [advice.sentence for advice in slurm_advice(config, plugstack) if advice.is_needed]


def slurm_advice(config: Mapping[str, str], plugstack: str | None, *, release: str = "") -> list[Advice]:
    """What must and what should be changed. Empty when all is well.

    `config` is slurmctld's configuration by parameter; one that is not there has Slurm's default. `plugstack` is the text of
    plugstack.conf (None: unreadable). `release` says which Slurm it is where `config` does not, such as 25.11.
    A site's own scripts that call ours are not seen from here, which each sentence about a program allows for.
    """
    settings = SlurmSettings(config, release=release)
    return [*_programs(settings), *_plugin(settings, plugstack), *value_advice(settings)]


def _programs(settings: SlurmSettings) -> Iterator[Advice]:
    for parameter, (program, cost) in _PROGRAMS.items():
        if not any("nodewatch" in value for value in settings.every(parameter)):
            yield Advice(
                parameter=parameter,
                sentence=f"slurm.conf: {parameter} does not call nodewatch, so {cost}: set {parameter}={HOOKS}/{program}, "
                "or call it from the site's own script",
            )
    if not any("nodewatch" in value for value in settings.every("TaskProlog")):
        yield Advice(
            parameter="TaskProlog",
            is_needed=False,
            sentence="slurm.conf: TaskProlog does not call nodewatch, so the output of a resumed job does not say which start "
            f"it is: set TaskProlog={HOOKS}/task_prolog, or call it from the site's own script",
        )


def _plugin(settings: SlurmSettings, plugstack: str | None) -> Iterator[Advice]:
    where = settings.text("PlugStackConfig") or "plugstack.conf"
    if plugstack is None:
        yield Advice(
            parameter="PlugStackConfig",
            sentence=f"{where} cannot be read, so it is not known whether sbatch has --auto-resume: make it readable",
        )
    elif not re.search(r"^\s*(optional|required)\s+\S*nodewatch", plugstack, re.MULTILINE):
        yield Advice(
            parameter="PlugStackConfig",
            sentence=f"{where} does not load our plugin, so sbatch has no --auto-resume: add the line "
            "`optional nodewatch_auto_resume.so`",
        )
    elif re.search(r"^\s*required\s+\S*nodewatch", plugstack, re.MULTILINE):
        yield Advice(
            parameter="PlugStackConfig",
            is_needed=False,
            sentence=f"{where} requires our plugin, so no job starts where it cannot be loaded, as after an update of Slurm: "
            "write `optional nodewatch_auto_resume.so`",
        )
