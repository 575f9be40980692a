"""Logs with a story of a test's own: every entry signed by whom it should be, in chains that hold."""

from collections.abc import Iterator

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool
from support.keys import SERVER, key

from fedseal.compliance.events import bodies
from fedseal.compliance.events.fields import ModelKind, ReleaseName, sha256
from fedseal.compliance.events.leaf import SERVER_ORG, Place, keyid_of, sign_event
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.events.registry import EventType
from fedseal.compliance.events.subjects import ModelRegistered
from fedseal.compliance.log.checkpoint import server_origin
from fedseal.compliance.log.store import Log
from fedseal.config import Frozen
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan
from fedseal.privacy.secagg.keys import SigningKey

TIME = "2026-11-20T22:04:05.123456Z"
FREE: PrivacyPlan = NoPrivacy(releases=100, retries=10)
NOISY: PrivacyPlan = LocalGaussian(
    clip_norm=1.0, noise_multiplier=4.0, sample_rate=1.0, steps=1, releases=100, retries=10
)


def digest(name: str) -> str:
    """The digest of a public thing."""
    return sha256(name.encode())


def secret(name: str) -> str:
    """The commitment to a thing of a site."""
    return "hmac:" + digest(name).partition(":")[2]


def run_of(name: str) -> str:
    """A run's id."""
    return digest(name).partition(":")[2][:32]


def memory() -> Engine:
    """A database that is gone at the end."""
    return create_engine("sqlite://", poolclass=StaticPool)


class Story:
    """A federation's log on a connection, and what happens in it.

    Args:
        connection: the log's.
        sites: sites 1 to this, called ``site-1`` and so on, join at once.
    """

    def __init__(self, connection: Connection, sites: int = 2) -> None:
        Log.create_tables(connection)
        self.log = Log(connection, server_origin("test"))
        self._places: dict[str, Place] = {}
        self._sequences: dict[str, int] = {}
        self.sites = tuple(range(1, sites + 1))
        for number in self.sites:
            name = f"site-{number}"
            self.site(number, bodies.Joined(site=number, name=name, key=key(name).public.hex(), roster=digest("r")))

    def _add(self, body: Frozen, signer: SigningKey, org: str, run: str | None, kind: EventType | None) -> int:
        place = self._places.get(keyid_of(signer.public), Place())
        leaf = sign_event(body, signer, place, org=org, time=TIME, run=None if run is None else run_of(run), kind=kind)
        self._places[keyid_of(signer.public)] = place.after(leaf)
        return self.log.append([leaf])[0]

    def server(self, body: Frozen, run: str | None = None, kind: EventType | None = None) -> int:
        """The server says something; its index."""
        return self._add(body, SERVER, SERVER_ORG, run, kind)

    def site(self, number: int, body: Frozen, run: str | None = None) -> int:
        """A site says something; its index."""
        return self._add(body, key(f"site-{number}"), f"site-{number}", run, None)

    def person(self, name: str, body: Frozen) -> int:
        """A person signs something; its index."""
        return self._add(body, key(name), "site-1", None, None)

    # Runs

    def begin(
        self, run: str, model: str, *, plan: PrivacyPlan = FREE, rounds: int = 0, selected: tuple[str, ...] = ()
    ) -> int:
        """A run from a model; what it uses is called after itself."""
        return self.server(
            bodies.RunCreated(
                study=f"study-{run}",
                contract=digest(f"contract {run}"),
                code=digest("code"),
                environment=digest("environment"),
                model_in=digest(model),
                strategy="FedAvg",
                rounds=rounds,
                sites=self.sites,
                plan=plan_facts(plan),
                selected_with=selected,
            ),
            run,
        )

    def accept(self, run: str, number: int, data: str | None, labels: str | None = None) -> int:
        """A site takes part in a run."""
        return self.site(
            number,
            bodies.RunAccepted(
                code=digest("code"),
                policy=secret(f"policy {number}"),
                population=secret(f"population {number}"),
                dataset=None if data is None else secret(data),
                label_set=None if labels is None else secret(labels),
            ),
            run,
        )

    def contribute(
        self,
        run: str,
        number: int,
        round_number: int,
        sequence: int,
        data: str | None,
        labels: str | None = None,
        *,
        release: ReleaseName = ReleaseName.UPDATE,
        attempt: int = 0,
    ) -> int:
        """A site's vector is on its way."""
        return self.site(
            number,
            bodies.Contributed(
                release=release,
                round=round_number,
                sequence=sequence,
                attempt=attempt,
                header=digest(f"header {run} {sequence}"),
                update=digest(f"update {run} {sequence} {number}"),
                dataset=None if data is None else secret(data),
                label_set=None if labels is None else secret(labels),
                code=digest("code"),
                anchor=bodies.Anchor(size=1, root=digest("root")),
            ),
            run,
        )

    def charge(self, run: str, number: int, sequence: int, plan: PrivacyPlan = NOISY, attempt: int = 0) -> int:
        """A site charges its population."""
        return self.site(
            number,
            bodies.Charged(
                release=ReleaseName.UPDATE,
                sequence=sequence,
                attempt=attempt,
                population=secret(f"population {number}"),
                plan=plan_facts(plan),
                delta="0.00001",
                alpha="8",
            ),
            run,
        )

    def sum(
        self,
        run: str,
        round_number: int,
        sequence: int,
        model: str | None,
        sites: tuple[int, ...],
        *,
        release: ReleaseName = ReleaseName.UPDATE,
        attempt: int = 0,
    ) -> int:
        """A sum was unmasked."""
        return self.server(
            bodies.Aggregated(
                release=release,
                round=round_number,
                sequence=sequence,
                attempt=attempt,
                header=digest(f"header {run} {sequence}"),
                sites=sites,
                threshold=2,
                colluders=0,
                aggregate=digest(f"sum {run} {sequence}"),
                model_in=None if model is None else digest(model),
            ),
            run,
        )

    def round(
        self,
        run: str,
        model: str | None,
        data: dict[int, str],
        *,
        release: ReleaseName = ReleaseName.UPDATE,
        at: int = 0,
    ) -> int:
        """A whole round with these sites' data, numbered on or ``at``; the index of its sum."""
        sequence = self._sequences[run] = self._sequences.get(run, 0) + 1
        number = at or sequence
        for site, name in data.items():
            self.contribute(run, site, number, sequence, name, release=release)
        return self.sum(run, number, sequence, model, tuple(data), release=release)

    def finish(self, run: str, model: str | None, rounds: int = 0) -> int:
        """A run is over."""
        found = self.server(bodies.RunFinished(rounds=rounds, model=None if model is None else digest(model)), run)
        if model is not None:
            self.register(model, run=run, rounds=rounds)
        return found

    def register(self, model: str, *, parent: str | None = None, run: str | None = None, rounds: int = 0) -> int:
        """A model is registered."""
        return self.server(
            ModelRegistered(
                model=digest(model),
                parent=None if parent is None else digest(parent),
                kind=ModelKind.INITIAL if run is None else ModelKind.GLOBAL,
                round=rounds,
                bundle=None,
            ),
            run,
        )


def chapters(story: Story) -> Iterator[None]:
    """A story in steps, with a crash, statistics, two runs that take turns, approvals."""
    story.register("m0")
    story.begin("a", "m0", plan=NOISY)
    yield
    for number in (1, 2, 3):
        story.accept("a", number, f"data {number}")
    story.round("a", None, {1: "data 1"}, release=ReleaseName.MOMENTS)
    yield
    story.charge("a", 1, 2)
    story.round("a", "m0", {1: "data 1", 2: "data 2"}, at=1)
    story.begin("b", "m0")
    yield
    story.round("a", "m1", {1: "data 1", 3: "data 3"}, at=2)
    yield
    story.round("b", "m0", {2: "other"}, at=1)
    story.round("a", "m1", {1: "data 1", 2: "data 2"}, at=2)
    yield
    story.sum("a", 3, 9, "m2", (1, 3))
    yield
    story.contribute("a", 3, 3, 9, "late data")
    story.finish("a", "m3")
    story.finish("b", "m9")
