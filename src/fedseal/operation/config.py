"""The table `[operation]` of a site's and of a server's file."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fedseal.config import Frozen

LogFormat = Literal["text", "json"]
# A literal address, so that nobody binds by accident to what a name server says.
Endpoint = Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[0-9.]+|localhost):[0-9]{1,5}$")]


class OperationPart(Frozen):
    """How a program that stays speaks to those who look after it.

    ``log`` is the form of its log on standard error. ``metrics`` is where it answers `/metrics`, `/healthz` and
    `/readyz`, as host:port; without it it listens nowhere. The listener has no sign-in and no encryption: give it an
    address of this machine only, such as 127.0.0.1:9464, or one of a network that holds nothing else. Not ready is a
    site whose node has been without the server for longer than ``patience`` seconds.
    """

    log: LogFormat = "text"
    metrics: Endpoint | None = None
    patience: float = Field(default=60.0, gt=0, le=86_400)

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Host and port of the listener; None where there is none."""
        if self.metrics is None:
            return None
        host, _, port = self.metrics.rpartition(":")
        return host.strip("[]"), int(port)
