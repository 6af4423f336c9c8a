"""`python -m nodewatch.lab`: the same commands as `nodewatch lab`."""

from nodewatch.lab.command import lab

lab(prog_name="nodewatch lab")
