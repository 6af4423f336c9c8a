"""DCGM's active diagnostic: `dcgmi diag -r LEVEL -j`, after the host engine was asked whether it answers.

On SIGTERM dcgmi tells the host engine to stop the diagnostic, which runs there and not in dcgmi (DCGM's dcgmi/Diag.cpp); killed
at once, it would leave it running. So it is given three seconds.
"""

from __future__ import annotations

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import DcgmDiagSample
from nodewatch.sensors.dcgm_diag import of_command
from nodewatch.sensors.deep.tool import Command, Outcome, Procedure, Step
from nodewatch.sensors.reading import Reading

READS = DcgmDiagSample
GRACE_S = 3.0
ANSWER_S = 30.0
"""For the question whether the host engine is alive; it answers in well under a second when it is."""
DEADLINES_S = {1: 300.0, 2: 900.0, 3: 3600.0, 4: 10800.0}
"""By level. NVIDIA's documentation: seconds, about 2 and 15 minutes, and longer; seen in the field on 8 GPUs: 10 to 30 s for
level 1 and 45 minutes to 2.25 hours for level 4. Each is several times what is usual, 4 is above the longest that was seen."""


def procedure(dcgmi: str, level: int) -> Procedure:
    """Ask, then run."""
    (asked,) = yield Step(commands=(Command(argv=(dcgmi, "discovery", "-l")),), within_s=ANSWER_S)
    _refuse_without_engine(asked)
    (ended,) = yield Step(commands=(Command(argv=(dcgmi, "diag", "-r", str(level), "-j")),))
    return Reading(sample=of_command(ended.returncode, ended.stdout, ended.stderr))


def _refuse_without_engine(asked: Outcome) -> None:
    if asked.is_late:
        raise SensorError(
            f"DCGM's host engine has not answered for {ANSWER_S:g} s: restart it with systemctl restart nvidia-dcgm"
        )
    if asked.returncode != 0:
        raise SensorError(f"no DCGM host engine answers ({asked.last_line}): start it with systemctl start nvidia-dcgm")
