"""What a dishonest site does: to its update before it is bounded, to the secrets it deals, to what it answers.

It runs the production code with these changes and no others. In a sum, an update within the bounds that was turned
round, scaled or learnt from false labels cannot be told from an honest one, by anyone: what holds is the bound.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.secagg.client_states import Advertised, Shared, State, StoredState
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secagg.messages import Openings, Signed, Stage, sign
from fedseal.privacy.secagg.shamir import RandomBytes
from fedseal.privacy.secret import Secret
from fedseal.simulation.faults.tables import FaultStage
from fedseal.wire import decode


class Lie(Enum):
    """What is false."""

    SIGN_FLIP = "sign_flip"
    SCALE = "scale"
    NAN = "nan"
    LABEL_FLIP = "label_flip"
    REPLAY = "replay"
    WRONG_SHARE = "wrong_share"


# The exchange at which a fault of each stage begins.
EXCHANGES: Mapping[FaultStage, Stage] = {
    "before_round": Stage.ADVERTISE,
    "advertise": Stage.ADVERTISE,
    "share_keys": Stage.SHARE,
    "masked_input": Stage.MASK,
    "after_train": Stage.MASK,
    "consistency": Stage.CONSISTENCY,
    "unmask": Stage.UNMASK,
}
# On what has been trained, before it is bounded.
OF_UPDATES = (Lie.SIGN_FLIP, Lie.SCALE, Lie.NAN)


@dataclass(frozen=True, slots=True)
class Attack:
    """One lie at one exchange; ``factor`` is that of SCALE."""

    lie: Lie
    stage: Stage = Stage.MASK
    factor: float = 1.0

    @property
    def refused_at_once(self) -> bool:
        """Whether the server sees from the answer alone that it is false."""
        return self.lie is Lie.REPLAY or (self.lie is Lie.WRONG_SHARE and self.stage is Stage.UNMASK)


def parsed(text: str, stage: FaultStage | None) -> Attack:
    """An attack as a scenario writes it, such as "scale:10", at a stage; where none is given, where it does most."""
    name, _, factor = text.partition(":")
    lie = Lie(name)
    match lie:
        case Lie.WRONG_SHARE:
            return Attack(lie, Stage.UNMASK if stage == "unmask" else Stage.SHARE)
        case Lie.REPLAY:
            return Attack(lie, Stage.MASK if stage is None else EXCHANGES[stage])
        case Lie.SCALE:
            return Attack(lie, factor=float(factor))
        case _:
            return Attack(lie)


def attacked(update: NDArray[Any], attacks: tuple[Attack, ...]) -> NDArray[Any]:
    """An update (what training changed) as a dishonest site hands it on; a copy."""
    update = update.copy()
    for attack in attacks:
        match attack.lie:
            case Lie.SIGN_FLIP:
                update *= -1
            case Lie.SCALE:
                update *= attack.factor
            case Lie.NAN:
                update[...] = np.nan
            case _:
                pass
    return update


def flipped_labels(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Labels turned round: the first of ``classes`` becomes the last, the second the last but one, and so on."""
    order = np.argsort(classes)
    flipped: NDArray[Any] = classes[order[::-1][np.searchsorted(classes[order], labels)]]
    return flipped


def dealing_another_secret(state: StoredState | None, random_bytes: RandomBytes) -> StoredState | None:
    """A site's state before it deals, with another mask of its own than it committed to: what it deals are true
    shares of a secret that is not the advertised one.
    """
    return replace(state, self_seed=Secret(random_bytes(32))) if isinstance(state, Advertised) else state


def masking_with_the_true_one(state: State, before: StoredState | None) -> State:
    """The state after it has dealt, with its true mask again: so the shares do not open what is in the sum."""
    if isinstance(state, Shared) and isinstance(before, Advertised):
        return replace(state, self_seed=before.self_seed)
    return state


def with_other_openings(reply: Signed, key: SigningKey) -> Signed:
    """An answer at UNMASK in which every share is another than was dealt, signed like the true one."""
    payload = decode(reply.payload, Openings)
    opened = tuple(replace(o, share=o.share[:-1] + bytes((o.share[-1] ^ 1,))) for o in payload.openings)
    return sign(Stage.UNMASK, reply.site, reply.header_hash, replace(payload, openings=opened), key)
