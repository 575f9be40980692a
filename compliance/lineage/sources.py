"""Proofs of the entries that an answer rests on."""

from fedseal.compliance.log.checkpoint import read_checkpoint
from fedseal.compliance.log.proof import Proof
from fedseal.compliance.log.reading import ReadableLog
from fedseal.errors import ConfigError


def prove(source: ReadableLog, index: int) -> Proof:
    """The proof that an entry stands in the log, by its newest checkpoint.

    Raises:
        ConfigError: no checkpoint covers it yet.
    """
    note = source.checkpoint()
    size = 0 if note is None else read_checkpoint(note)[0].size
    if note is None or index >= size:
        raise ConfigError(
            f"no checkpoint covers entry {index} yet",
            next_step="Wait for the next checkpoint, or ask the server's log.",
        )
    return Proof(index, source.inclusion(index, size), note)
