"""`sealed_mod`: the one line that seals a Flower ClientApp.

    app = ClientApp(mods=[sealed_mod])

Every message passes through it. It answers the five exchanges of a round and the messages that open and close a run;
the app's own train or evaluate function is called once a round, and what it returns leaves only as a masked vector.
Everything else is refused: messages without fedseal's control bytes, unknown message types, nodes without a site
store. An error leaves as a fixed code; its text stays in the site's store.
"""

import traceback
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedseal.client.records import control_bytes, sealed_reply
from fedseal.client.session import Session
from fedseal.errors import (
    BudgetExceeded,
    ConfigError,
    FedsealError,
    OperatorError,
    PeerError,
    PolicyRefused,
)
from fedseal.privacy.quantize import RangeError
from fedseal.privacy.secagg.messages import Refusal, RefusalCode
from fedseal.privacy.store import SiteStore
from fedseal.wire import encode

STORE_KEY = "fedseal-store"


def sealed_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Answer a message so that nothing of this site is visible outside it but its part of a sealed sum."""
    try:
        store = open_store(context)
    except FedsealError:
        return sealed_reply(message, encode(Refusal(int(RefusalCode.NOT_ENROLLED), None)))
    try:
        raw = control_bytes(message)
        answer = Session(store, context.node_id).answer(raw, message, lambda inner: call_next(inner, context))
    except FedsealError as error:
        return _refuse(store, message, refusal_for(error), error)
    # The one blanket except of this package: whatever the study's code raises may quote data, and must not travel.
    except Exception as error:  # noqa: BLE001
        return _refuse(store, message, Refusal(int(RefusalCode.TASK), None), error)
    return sealed_reply(message, answer.control, answer.vector)


def open_store(context: Context) -> SiteStore:
    """The store named in the node's own configuration.

    Raises:
        ConfigError: the node names none, or there is none. Such a node answers nothing.
    """
    path = context.node_config.get(STORE_KEY)
    if not isinstance(path, str):
        raise ConfigError(f"the node's configuration has no {STORE_KEY!r}")
    return SiteStore.open(Path(path))


def refusal_for(error: FedsealError) -> Refusal:
    """The fixed code of an error, and nothing of its text."""
    match error:
        case PolicyRefused():
            code = RefusalCode.POLICY
        case BudgetExceeded():
            code = RefusalCode.BUDGET
        case PeerError(blamed=int(site)):
            return Refusal(int(RefusalCode.BAD_PEER), site)
        case PeerError():
            code = RefusalCode.PROTOCOL
        case RangeError():
            code = RefusalCode.OUT_OF_RANGE
        case OperatorError():
            code = RefusalCode.TASK
        case _:
            code = RefusalCode.INTERNAL
    return Refusal(int(code), None)


def _refuse(store: SiteStore, message: Message, refusal: Refusal, error: Exception) -> Message:
    with store.transaction() as transaction:
        text = "".join(traceback.format_exception(error))
        transaction.record_incident(RefusalCode(refusal.code).name, text)
    return sealed_reply(message, encode(refusal))
