"""What is raised where bytes from a peer or a file are not what their format says."""

from fedseal.errors import FedsealError


class MalformedError(FedsealError):
    """Bytes or text that are not what their format says.

    Callers turn it into the fault of whoever sent them.
    """
