"""The ClientApp of a study where Flower starts a process for every message: `app` is what `fedseal run` names.

It is `client.app`, but torch and the study are imported for the one message of a round that trains; the other four
exchanges, and those that open and close a run, need only the protocol.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedseal.client.mod import sealed_mod

if TYPE_CHECKING:
    from fedseal.client.app import Warm

app = ClientApp(mods=[sealed_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train, as `client.app` does."""
    return _warm().train(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure, as `client.app` does."""
    return _warm().evaluate(message, context)


@lru_cache(maxsize=1)
def _warm() -> "Warm":
    from fedseal.client.app import Warm

    return Warm()
