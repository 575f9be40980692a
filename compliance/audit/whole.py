"""Everything at once about one copy of a log: what is stored beside the entries, and the entries themselves."""

from collections.abc import Sequence

from fedseal.compliance.audit.source import LogCopy
from fedseal.compliance.audit.verify import Verdict, verify
from fedseal.compliance.log.check import check_log
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import SignatureError
from fedseal.compliance.log.quorum import evaluate
from fedseal.errors import ConfigError, LocalError, PeerError


def verify_copy(copy: LogCopy, earlier: Sequence[str] = ()) -> Verdict:
    """Check a copy of a log.

    Args:
        copy: the log.
        earlier: checkpoints that somebody kept.

    Raises:
        ConfigError: one of these is none that the log has signed: it proves nothing.
    """
    for kept in earlier:
        try:
            evaluate(copy.policy, kept)
        except (MalformedError, SignatureError) as error:
            raise ConfigError(f"a checkpoint that was kept proves nothing: {error.message}") from None
    note = copy.log.checkpoint()
    verdict = verify(copy.leaves(), note, copy.policy, book=copy.book, earlier=earlier, seen=copy.seen)
    verdict.origin = verdict.origin or copy.log.origin
    try:
        check_log(copy.log)
    except (LocalError, PeerError) as error:
        verdict.found(None, error.message)
    return verdict
