"""What a site's file says about isolation: table ``[isolation]``, optional."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from fedseal.config import Frozen


class Barrier(StrEnum):
    """What keeps the study's code from something; a platform has each or has it not."""

    NETWORK = "network"
    FILES = "files"
    PROCESSES = "processes"
    CALLS = "calls"
    PRIVILEGES = "privileges"
    MEMORY = "memory"


class IsolationPart(Frozen):
    """How the study's code is kept apart.

    ``mode = "off"`` runs it in the node's own process, with the site's keys in its memory. ``require`` names the
    barriers without which the node does not start. The others are limits on the process: seconds of one answer, MB of
    memory, MB of files it may write (they vanish with it), open files, and threads.
    """

    mode: Literal["process", "off"] = "process"
    require: tuple[Barrier, ...] = (Barrier.NETWORK, Barrier.FILES)
    seconds: Annotated[float, Field(gt=0, le=7 * 86400)] = 3600.0
    memory_mb: Annotated[int, Field(ge=256, le=1 << 24)] = 8192
    scratch_mb: Annotated[int, Field(ge=1, le=1 << 20)] = 64
    open_files: Annotated[int, Field(ge=64, le=1 << 20)] = 1024
    threads: Annotated[int, Field(ge=16, le=1 << 16)] = 512
