"""`sealed_mod`: the one line that seals a Flower ClientApp.

    app = ClientApp(mods=[sealed_mod])

Every message passes through it. It answers the five exchanges of a round and the messages that open and close a run;
the app's own train or evaluate function is called once a round, and what it returns leaves only as a masked vector.
Everything else is refused: messages without fedseal's control bytes, unknown message types, nodes without a site
store. An error leaves as a fixed code; its text stays in the site's store.
"""

import contextlib
import traceback
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from sqlalchemy.exc import SQLAlchemyError

from fedseal.client.records import control_bytes, sealed_reply, without_run_config
from fedseal.client.session import Session
from fedseal.compliance.events.fields import RefusedRule
from fedseal.compliance.site_rules.refused import Refused
from fedseal.errors import (
    BudgetExceeded,
    ConfigError,
    FedsealError,
    LogContradicted,
    OperatorError,
    PeerError,
    PolicyRefused,
)
from fedseal.privacy.secagg.messages import Refusal, RefusalCode
from fedseal.privacy.store import SiteStore
from fedseal.wire import encode

STORE_KEY = "fedseal-store"
DATA_KEY = "fedseal-data"
STUDY_KEY = "fedseal-study"


def sealed_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Answer a message so that nothing of this site is visible outside it but its part of a sealed sum."""
    store: SiteStore | None = None
    session: Session | None = None

    def call_app(task: Message, configured: bool) -> Message:
        return call_next(task, context if configured else without_run_config(context))

    try:
        store = open_store(context)
        session = Session(store, context.node_id, context.run_config, data_folder(context), code_folder(context))
        answer = session.answer(control_bytes(message), message, call_app)
        return sealed_reply(message, answer.control, answer.vector, session.logbook.speak())
    # The one blanket except of this package: whatever the study's code raises may quote data, and must not travel.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        refusal = refusal_for(error) if store is not None else Refusal(int(RefusalCode.NOT_ENROLLED), None)
        _write_down(store, refusal, error)
        return sealed_reply(message, encode(refusal), log=_last_word(session))


def open_store(context: Context) -> SiteStore:
    """The store named in the node's own configuration.

    Raises:
        ConfigError: the node names none, or there is none. Such a node answers nothing.
    """
    path = context.node_config.get(STORE_KEY)
    if not isinstance(path, str):
        raise ConfigError(f"the node's configuration has no {STORE_KEY!r}")
    return SiteStore.open(Path(path))


def data_folder(context: Context) -> Path | None:
    """The data folder named in the node's own configuration, if one is."""
    path = context.node_config.get(DATA_KEY)
    return Path(path) if isinstance(path, str) else None


def code_folder(context: Context) -> Path | None:
    """The folder of the study's code, if the node's own configuration names it."""
    path = context.node_config.get(STUDY_KEY)
    return Path(path) if isinstance(path, str) else None


def refusal_for(error: BaseException) -> Refusal:
    """The fixed code of an error, and nothing of its text."""
    match error:
        case Refused(rule=RefusedRule.HOURS):
            code = RefusalCode.LATER
        case Refused(rule=RefusedRule.WAITING):
            code = RefusalCode.WAITING
        case Refused(rule=RefusedRule.PERIOD):
            code = RefusalCode.BUDGET
        case PolicyRefused():
            code = RefusalCode.POLICY
        case BudgetExceeded():
            code = RefusalCode.BUDGET
        case LogContradicted():
            code = RefusalCode.LOG
        case PeerError(blamed=int(site)):
            return Refusal(int(RefusalCode.BAD_PEER), site)
        case PeerError():
            code = RefusalCode.PROTOCOL
        case FedsealError() if not isinstance(error, OperatorError):
            code = RefusalCode.INTERNAL
        case _:
            code = RefusalCode.TASK
    return Refusal(int(code), None)


def _last_word(session: Session | None) -> bytes | None:
    """What a refusal says about the log; nothing where the store cannot even be read."""
    with contextlib.suppress(SQLAlchemyError, OSError, FedsealError):
        return None if session is None else session.logbook.speak()
    return None


def _write_down(store: SiteStore | None, refusal: Refusal, error: BaseException) -> None:
    """Keep the error's text at the site. If even that fails (a full disk), the code is answered all the same."""
    if store is None:
        return
    text = "".join(traceback.format_exception(error))
    with contextlib.suppress(SQLAlchemyError, OSError), store.transaction() as transaction:
        transaction.record_incident(RefusalCode(refusal.code).name, text)
