"""One error root, one subclass a boundary. Adapters translate at the edge and chain with `from`.

Each message is one sentence that an operator can act on: what is wrong, where, and what to do.
"""


class NodewatchError(Exception):
    """Root of every error that nodewatch raises on purpose."""


class ConfigError(NodewatchError):
    """A configuration file, or a value in it, cannot be used."""


class SlurmError(NodewatchError):
    """Slurm could not be read, or refused a change."""


class Ec2Error(NodewatchError):
    """EC2 could not be read, or refused a change. `code` is EC2's own error code, empty when it gave none."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class CapacityError(Ec2Error):
    """EC2 has no capacity for the request now; the same request may succeed later."""


class SensorError(NodewatchError):
    """A source of samples could not be read: the checks that read it say UNKNOWN."""


class ChannelError(NodewatchError):
    """The agent and the controller could not understand or reach each other."""


class JournalError(NodewatchError):
    """The journal cannot be read or written; nothing may be done that it does not hold."""
