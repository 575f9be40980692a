"""`[[fault]]` in `LocalGrid`: the production's sealed apps and stores, with a network, sites and a server that fail.

Messages are plain Flower ones, whose names only the grid may know here. What a fault changes is changed from outside
of the production code: messages are dropped, stores are put back, and a dishonest site alters what its own functions
return, what it keeps and what it sends.
"""

import copy
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedseal.client.mod import DATA_KEY, sealed_mod
from fedseal.client.records import BYTES, CONTROL, LOG, arrays_of, sealed_reply
from fedseal.errors import ConfigError
from fedseal.privacy.plan import PlanKind, decode_plan
from fedseal.privacy.releases import REGISTRY
from fedseal.privacy.secagg.client_states import STORED_STATES, StoredState
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.masks import RingVector
from fedseal.privacy.secagg.messages import Refusal, ShareReply, Signed, Stage
from fedseal.privacy.store import SiteStore
from fedseal.server.exchange import vector_of
from fedseal.simulation.exchanges import Exchange, Exchanges
from fedseal.simulation.faults.attacks import (
    OF_UPDATES,
    Attack,
    Lie,
    attacked,
    dealing_another_secret,
    masking_with_the_true_one,
    with_other_openings,
)
from fedseal.simulation.faults.crash import ServerCrashed
from fedseal.simulation.faults.draws import QUIET, RoundFaults, faults_of_round, struck
from fedseal.simulation.faults.tables import Fault
from fedseal.simulation.grid import Deliver, answer_of
from fedseal.wire import decode, encode

# An app's own function: a message and a context in, a message out.
AppFunction = Callable[[Any, Any], Any]
ANSWERS: tuple[type[Signed | ShareReply | Refusal], ...] = (Signed, ShareReply, Refusal)


@dataclass(frozen=True, slots=True)
class RealSite:
    """A site of a simulated federation: its name, its Flower node, its store.

    ``flipped``: a data folder like its own with the labels turned round, for the attack "label_flip".
    """

    name: str
    node: int
    store: Path
    flipped: Path | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the server waits, in seconds: what is slower is late. As `server.sealing` waits if not given."""

    stage: float = 120.0
    training: float = 3600.0

    def of(self, stage: Stage) -> float:
        """In one exchange."""
        return self.training if stage is Stage.MASK else self.stage


@dataclass(frozen=True, slots=True)
class _Answered:
    """What a site has sent at an exchange, for a replay."""

    control: bytes
    vector: RingVector | None


class FaultyDelivery:
    """Delivers messages as a scenario's faults will have it.

    Args:
        faults: the scenario's.
        sites: of the federation.
        seed: the scenario's.
        backups: a folder for copies of stores.
        ordinary: what the sites' app does without its seal; needed for attacks on updates.
        patience: how long the server waits.
        deliver: how messages are delivered otherwise.

    Raises:
        ConfigError: a fault names an unknown site, or an attack needs what is not given.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        sites: Sequence[RealSite],
        seed: int,
        *,
        backups: Path,
        ordinary: AppFunction | None = None,
        patience: Patience | None = None,
        deliver: Deliver = answer_of,
    ) -> None:
        self._faults, self._sites, self._seed = tuple(faults), tuple(sites), seed
        self._names = [site.name for site in sites]
        self._places = {site.node: place for place, site in enumerate(sites)}
        self._backups, self._ordinary, self._patience = backups, ordinary, patience or Patience()
        self._deliver, self._exchanges = deliver, Exchanges()
        self._rounds: dict[int, RoundFaults] = {}
        self._answered: dict[tuple[int, Stage], tuple[int, _Answered]] = {}
        self._restored: set[tuple[int, int]] = set()
        self._crashed: set[int] = set()
        self._asked: dict[tuple[bytes, Stage], int] = {}
        self._check()

    def __call__(self, app: Any, message: Any, context: Any) -> Any:
        """Deliver one message: the site's answer, or None where none arrives in time."""
        exchange = self._exchanges.read(message)
        if exchange is None:
            return self._deliver(app, message, context)
        place = self._places[context.node_id]
        faults = self._of_round(exchange.header)
        self._crash_here(exchange, faults)
        stage, first = exchange.stage, exchange.header.attempt == 0
        if faults.silent.get(place, stage + 1) <= stage:
            return None
        self._put_back(exchange, place, faults)
        attacks = faults.attacks.get(place, ())
        reply = self._lied(app, message, context, exchange, attacks) if attacks else None
        if reply is None:
            reply = self._deliver(app, message, context)
        self._remember(exchange, place, reply)
        late = faults.delays.get((place, stage), 0.0) > self._patience.of(stage)
        once = first and (late or (place, stage) in faults.lost_once)
        return None if once or (place, stage) in faults.lost else reply

    # What strikes when

    def _check(self) -> None:
        for index, fault in enumerate(self._faults):
            hit = [self._sites[i] for i in struck(fault, index, self._names, fault.rounds[0], self._seed)]
            if fault.attack == "label_flip" and any(site.flipped is None for site in hit):
                raise ConfigError("label_flip needs data folders with flipped labels, which these sites lack")
            if fault.attack is not None and fault.attack.startswith(("sign", "scale", "nan")) and not self._ordinary:
                raise ConfigError(f"{fault.attack} needs the app's functions without their seal")

    def _of_round(self, header: Header) -> RoundFaults:
        number = header.fl_round
        # Statistics before the first round have the number 0.
        if number < 1:
            return QUIET
        if number not in self._rounds:
            self._rounds[number] = faults_of_round(self._faults, self._names, number, self._seed)
            self._back_up(number)
        return self._rounds[number]

    def _crash_here(self, exchange: Exchange, faults: RoundFaults) -> None:
        header, stage = exchange.header, exchange.stage
        key = header.digest(), stage
        self._asked[key] = asked = self._asked.get(key, 0) + 1
        if faults.crash is None or header.fl_round in self._crashed:
            return
        match faults.crash:
            case "before_round":
                due = stage is Stage.ADVERTISE
            case "after_train":
                due = stage is Stage.CONSISTENCY
            case where:
                # After the first answers, before the last ones.
                due = stage is _HALFWAY[where] and asked == max(len(header.cohort) // 2, 1) + 1
        if due:
            self._crashed.add(header.fl_round)
            raise ServerCrashed(header.run, header.fl_round)

    # Backups

    def _back_up(self, number: int) -> None:
        for index, fault in enumerate(self._faults):
            if fault.kind == "restored_backup" and fault.backup == number:
                for place in struck(fault, index, self._names, fault.rounds[0], self._seed):
                    self._backups.mkdir(parents=True, exist_ok=True)
                    copy_store(self._sites[place].store, self._backup(place))

    def _put_back(self, exchange: Exchange, place: int, faults: RoundFaults) -> None:
        """Once a round, so that a retry finds the store as it was left."""
        once = exchange.header.fl_round, place
        if faults.restored.get(place) is exchange.stage and once not in self._restored:
            self._restored.add(once)
            if self._backup(place).exists():
                copy_store(self._backup(place), self._sites[place].store)

    def _backup(self, place: int) -> Path:
        return self._backups / f"{self._names[place]}.backup"

    # Lies

    def _lied(self, app: Any, message: Any, context: Any, exchange: Exchange, attacks: tuple[Attack, ...]) -> Any:
        """The answer of a site that lies at this exchange; None where it has nothing to lie about."""
        stage, place = exchange.stage, self._places[context.node_id]
        lies = {attack.lie for attack in attacks if attack.stage is stage}
        site = self._sites[place]
        if stage is Stage.MASK and lies & {*OF_UPDATES, Lie.LABEL_FLIP}:
            return self._trained_falsely(app, message, context, exchange.header, attacks)
        if Lie.WRONG_SHARE in lies and stage is Stage.SHARE:
            return self._dealt_falsely(app, message, context, exchange.header, site)
        if Lie.WRONG_SHARE in lies and stage is Stage.UNMASK:
            reply = self._deliver(app, message, context)
            answer = decode(_control(reply), *ANSWERS)
            if not isinstance(answer, Signed):
                return reply
            false = with_other_openings(answer, SiteStore.open(site.store).identity.key)
            return sealed_reply(message, encode(false), None, _log(reply))
        if Lie.REPLAY in lies and (place, stage) in self._answered:
            number, old = self._answered[place, stage]
            # It takes the request in like any other site.
            reply = self._deliver(app, message, context)
            if number == exchange.header.fl_round:
                return reply
            return sealed_reply(message, old.control, old.vector, _log(reply))
        return None

    def _trained_falsely(
        self, app: Any, message: Any, context: Any, header: Header, attacks: tuple[Attack, ...]
    ) -> Any:
        """Through the seal like any other update, which bounds it like any other."""
        site = self._sites[self._places[context.node_id]]
        if site.flipped is not None and any(attack.lie is Lie.LABEL_FLIP for attack in attacks):
            context = copy.copy(context)
            context.node_config = {**context.node_config, DATA_KEY: str(site.flipped)}
        of_updates = tuple(attack for attack in attacks if attack.lie in OF_UPDATES)
        ordinary = self._ordinary
        if not of_updates or ordinary is None or not REGISTRY[header.release_name].has_values:
            return self._deliver(app, message, context)
        difference = decode_plan(header.plan).kind is not PlanKind.DISTRIBUTED

        def false(task: Any, own: Any) -> Any:
            return altered(task, ordinary(task, own), of_updates, difference=difference)

        return sealed_mod(message, context, false)

    def _dealt_falsely(self, app: Any, message: Any, context: Any, header: Header, site: RealSite) -> Any:
        """Another secret is dealt than the one that was committed to and that masks the update."""
        true = _swap(site.store, header, lambda state: dealing_another_secret(state, os.urandom))
        reply = self._deliver(app, message, context)
        _swap(site.store, header, lambda state: state and _stored(masking_with_the_true_one(state, true)))
        return reply

    def _remember(self, exchange: Exchange, place: int, reply: Any) -> None:
        """Keep what a site has sent, if anyone ever replays."""
        if reply is None or not reply.has_content() or not any(fault.attack == "replay" for fault in self._faults):
            return
        number, key = exchange.header.fl_round, (place, exchange.stage)
        if key not in self._answered or self._answered[key][0] == number - 1:
            self._answered.setdefault(key, (number, _Answered(_control(reply), vector_of(reply))))


_HALFWAY: Mapping[str, Stage] = {
    "advertise": Stage.ADVERTISE,
    "share_keys": Stage.SHARE,
    "masked_input": Stage.MASK,
    "consistency": Stage.CONSISTENCY,
    "unmask": Stage.UNMASK,
}


def altered(message: Any, reply: Any, attacks: tuple[Attack, ...], *, difference: bool) -> Any:
    """What an app's function returned, with its update as a dishonest site hands it on; ``reply`` is changed.

    Args:
        message: what the function was given.
        reply: what it returned.
        attacks: on the update.
        difference: whether the update is what changed of the arrays received, and not the arrays themselves.
    """
    (record,) = reply.content.array_records.values()
    received = arrays_of(next(iter(message.content.array_records.values()))) if difference else {}
    for name, made in arrays_of(record).items():
        base = received.get(name, np.zeros_like(made))
        false = base + attacked(made.astype(np.float64) - base, attacks)
        record[name] = type(record[name])(false.astype(made.dtype))
    return reply


def copy_store(source: Path, target: Path) -> None:
    """A store's whole content into another file, which may be in use between two transactions."""
    with closing(sqlite3.connect(source)) as before, closing(sqlite3.connect(target)) as after:
        before.backup(after)


def _swap(path: Path, header: Header, change: Callable[[StoredState | None], StoredState | None]) -> StoredState | None:
    """Change a site's state of a round in its store; what it was."""
    with SiteStore.open(path).transaction() as transaction:
        before = transaction.state(header.digest())
        after = change(before)
        if after is not None and after is not before:
            transaction.put_state(header.digest(), header.run, after)
    return before


def _stored(state: Any) -> StoredState | None:
    return state if isinstance(state, STORED_STATES) else None


def _control(reply: Any) -> bytes:
    raw = reply.content[CONTROL][BYTES]
    return raw if isinstance(raw, bytes) else b""


def _log(reply: Any) -> bytes | None:
    raw = reply.content[CONTROL].get(LOG)
    return raw if isinstance(raw, bytes) else None
