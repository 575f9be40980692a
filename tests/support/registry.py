"""A federation's registry in memory: its log, its sites as witnesses, and people who sign."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import safetensors.numpy
from sqlalchemy import Engine
from support.keys import SERVER, key, make_roster

from fedseal.compliance.events.bodies import Charged, PersonAdded, PersonRemoved
from fedseal.compliance.events.fields import Alias, Meaning, ModelKind, ReleaseName, Role
from fedseal.compliance.events.leaf import TIME_FORMAT, Place, sign_event
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.events.subjects import Measure
from fedseal.compliance.journal.attachment import OK, LogReply
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.log import checkpoint, witness
from fedseal.compliance.log.database import open_database
from fedseal.compliance.registry.bundle import Bundle, BundleStore, InputSchema, Recipe, make_bundle, tensors_of
from fedseal.compliance.registry.promotion import Aim, Origin, Registry
from fedseal.compliance.registry.rules import RegistryRules
from fedseal.config import Frozen, parse_toml
from fedseal.privacy.plan import LocalGaussian, PrivacyPlan

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
TIME = NOW.strftime(TIME_FORMAT)
POPULATION = "hmac:" + 64 * "a"
# Costs epsilon 0.45 at delta 1e-5.
QUIET = LocalGaussian(clip_norm=1.0, noise_multiplier=10.0, sample_rate=1.0, steps=1, releases=9, retries=0)

RULES = """
version = 1
[candidate]
[production]
[[production.approvals]]
meaning = "authored"
roles = ["ml-engineer"]
[[production.approvals]]
meaning = "approved"
roles = ["approver"]
persons = 2
[[production.gates]]
kind = "metric"
measure = "auc"
at_least = 0.8
"""


def rules(text: str = RULES) -> RegistryRules:
    """Rules as a file has them."""
    return RegistryRules.model_validate(parse_toml(text, "registry.toml"))


def weights(seed: int) -> bytes:
    """A small model's safetensors file."""
    rng = np.random.default_rng(seed)
    arrays = {"weight": rng.normal(size=(1, 3)).astype(np.float32), "bias": np.zeros(1, np.float32)}
    return safetensors.numpy.save(arrays)


def bundle(seed: int = 1, threshold: float = 0.5) -> Bundle:
    """A bundle that differs with its seed, or with its threshold alone."""
    recipe = Recipe(study="tiny", task="task:Blobs", thresholds={"label": threshold})
    return make_bundle(weights(seed), recipe, InputSchema(shape=(3,), tensors=tensors_of(weights(seed))))


def actor(name: str) -> str:
    """A person's pseudonym."""
    return "act_" + key(f"actor-{name}").public.hex()[:32]


@dataclass
class World:
    """One federation of three sites, all of whom have to cosign but one."""

    folder: Path
    simulated: bool = True
    now: Callable[[], datetime] = lambda: NOW
    places: dict[str, Place] = field(default_factory=dict)
    seen: dict[int, witness.WitnessState] = field(default_factory=dict)
    engine: Engine = field(init=False)
    journal: FederationJournal = field(init=False)
    registry: Registry = field(init=False)

    def __post_init__(self) -> None:
        self.engine = open_database(self.folder / "server.sqlite")
        self.open()

    def open(self) -> None:
        """As another program would."""
        roster = make_roster(3, simulated=self.simulated)
        self.journal = FederationJournal(self.engine, SERVER, roster, faulty=0, now=lambda: self.now())
        self.registry = Registry(self.journal, self.engine, BundleStore(self.folder / "bundles"))

    def witness(self, sites: Iterable[int] = (1, 2, 3)) -> int:
        """Let sites cosign the log as it stands; the size that is final then."""
        for site in sites:
            state = self.seen.get(site, witness.WitnessState(self.journal.origin))
            request = self.journal.request_for(site)
            name = checkpoint.site_origin("test", f"site-{site}")
            self.seen[site], response = witness.answer(
                state,
                request.body,
                checkpoint.log_key(self.journal.origin, SERVER.public),
                checkpoint.Cosigner(name, key(f"site-{site}")),
                int(self.now().timestamp()),
            )
            reply = LogReply(response.status, self.seen[site].size, response.body, ())
            assert reply.status == OK
            self.journal.take(site, reply)
        self.journal.commit()
        return self.journal.final_size()

    def site_says(self, site: int, body: Frozen, run: str | None = None) -> int:
        """A site's event in the log; its index."""
        name = f"site-{site}"
        leaf = sign_event(
            body, key(name), self.places.get(name, Place()), org=name, time=self.now().strftime(TIME_FORMAT), run=run
        )
        self.places[name] = self.places.get(name, Place()).after(leaf)
        self.journal.take(site, LogReply(0, 0, b"", (leaf,)))
        return self.journal.commit() - 1

    def server_says(self, body: Frozen) -> int:
        """The server's event in the log, whatever it says; its index."""
        return self.journal.commit([Fact(body)]) - 1

    def person(self, name: str, *roles: Role, site: int | None = None, signing: str | None = None) -> str:
        """Add a person of the server's or a site's, or change one; the pseudonym."""
        body = PersonAdded(person=actor(name), key=key(signing or name).public.hex(), roles=roles)
        if site is None:
            self.server_says(body)
        else:
            self.site_says(site, body)
        return actor(name)

    def remove(self, name: str) -> None:
        """Remove a person of the server's."""
        self.server_says(PersonRemoved(person=actor(name)))

    def register(self, made: Bundle, auc: str = "0.9", margin: str = "0") -> None:
        """Register a bundle, and say how good its model is."""
        self.registry.register(made, Origin(run=16 * b"r", round=3, parent=None, kind=ModelKind.GLOBAL))
        self.evaluate(made, Measure(name="auc", value=auc, margin=margin))

    def evaluate(self, made: Bundle, *measures: Measure, simulated: bool = True) -> None:
        """The server says how good a model is."""
        self.registry.evaluate(made.model_digest, measures, simulated=simulated, report=None)

    def charge(self, site: int, plan: PrivacyPlan = QUIET, times: int = 1, release: str = "update") -> None:
        """A site charges a release to its training persons."""
        for _ in range(times):
            body = Charged(
                release=ReleaseName(release),
                sequence=1,
                attempt=0,
                population=POPULATION,
                plan=plan_facts(plan),
                delta="0.00001",
                alpha="8",
            )
            self.site_says(site, body, run=32 * "1")

    def sign(
        self,
        made: Bundle,
        name: str,
        meaning: Meaning = Meaning.APPROVED,
        role: Role = Role.APPROVER,
        alias: Alias = Alias.PRODUCTION,
    ) -> int:
        """A person signs a bundle; the index."""
        registration = self.registry.find(made.digest, self.registry.state())
        return self.registry.approve(registration, Aim(alias, meaning, role), key(name), self.now())

    def people(self) -> None:
        """An engineer and two approvers."""
        self.person("ana", Role.ML_ENGINEER)
        self.person("ben", Role.APPROVER)
        self.person("eva", Role.APPROVER)

    def sign_all(self, made: Bundle, approvers: Sequence[str] = ("ben", "eva")) -> None:
        """Everything that the rules for production ask people for."""
        self.sign(made, "ana", Meaning.AUTHORED, Role.ML_ENGINEER)
        for name in approvers:
            self.sign(made, name)

    def promote(self, made: Bundle, alias: Alias = Alias.PRODUCTION, text: str = RULES) -> None:
        """Promote a bundle."""
        self.registry.promote(self.registry.find(made.digest, self.registry.state()), alias, rules(text))

    def current(self, alias: Alias = Alias.PRODUCTION) -> str | None:
        """The digest of the bundle that an alias points to, by the log alone."""
        binding = self.registry.state().aliases.get(alias)
        return None if binding is None else binding.bundle

    def ready(self, made: Bundle) -> None:
        """A bundle that nothing stands in the way of."""
        self.register(made)
        self.sign_all(made)
        self.witness()
