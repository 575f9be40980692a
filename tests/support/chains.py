"""Entries of a log by several authors, each chained to its author's last."""

from support.keys import SERVER

from fedseal.compliance.events.leaf import SERVER_ORG, Place, sign_event
from fedseal.compliance.events.registry import EventType
from fedseal.config import Frozen
from fedseal.privacy.secagg.keys import SigningKey

TIME = "2026-11-20T22:04:05.123456Z"


class Chain:
    """Leaves by whoever, in the order in which they were added."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.places: dict[bytes, Place] = {}

    def add(
        self,
        body: Frozen,
        signer: SigningKey = SERVER,
        org: str = SERVER_ORG,
        *,
        actor: str | None = None,
        run: str | None = None,
        kind: EventType | None = None,
    ) -> "Chain":
        """One more, signed by the server unless told otherwise."""
        place = self.places.get(signer.public, Place())
        leaf = sign_event(body, signer, place, org=org, time=TIME, actor=actor, run=run, kind=kind)
        self.places[signer.public] = place.after(leaf)
        self.leaves.append(leaf)
        return self
