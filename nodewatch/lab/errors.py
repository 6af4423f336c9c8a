"""What the rehearsal cluster raises."""

from nodewatch.errors import NodewatchError


class LabError(NodewatchError):
    """The lab cannot do what was asked; the message is one sentence that says what, where and what to do."""
