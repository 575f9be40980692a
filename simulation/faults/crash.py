"""A server whose process ends in the middle of a round, and is started again with the same run."""

from collections.abc import Callable
from typing import ClassVar

from fedseal.errors import ExitCode, FedsealError


class ServerCrashed(FedsealError):  # noqa: N818 - what happened, on purpose
    """The simulated server's process ended. ``run`` is the run that goes on from its last checkpoint."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERRUPTED
    fault = "scenario"

    def __init__(self, run: bytes, fl_round: int) -> None:
        super().__init__(
            f"the server crashed in round {fl_round}, as the scenario says",
            next_step="Serve again with the same run, which goes on after its last checkpoint.",
        )
        self.run = run


def served_through_crashes(serve: Callable[[bytes | None], None]) -> int:
    """Serve, and after each crash serve again.

    Args:
        serve: runs the server to its end; given None for a new run, or the id of the run to go on with.

    Returns:
        How often the server crashed.
    """
    run: bytes | None = None
    crashes = 0
    while True:
        try:
            serve(run)
        except ServerCrashed as crash:
            run = crash.run
            crashes += 1
        else:
            return crashes
