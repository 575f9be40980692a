"""Sites that train many at once: the same persons, the same settings, the same quantiser, one stack of models.

Of all releases only updates by plain gradient descent are made so, under plans none and client; everything else, and
whatever a strategy adds that is not known here, sites compute one by one. A site's parameters come out as on its own
up to the order in which floats are added, and its whole numbers, given the parameters, to the last bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedseal.client.facts import settings_of
from fedseal.client.local_steps import train_settings
from fedseal.client.metrics import LOSS, loss_range
from fedseal.client.normalise import Normalisation
from fedseal.client.records import CONTROL, for_the_app, views_of
from fedseal.client.site_round import WEIGHT
from fedseal.client.task import Task, build_model, outputs_and_targets
from fedseal.client.trainer import Arrays, TrainSettings, load
from fedseal.client.work import normalisation_of
from fedseal.errors import ConfigError, FedsealError
from fedseal.privacy.plan import PlanKind, PrivacyPlan, decode_plan
from fedseal.privacy.quantize import CLIPPED, UNCLIPPED, BoundedUpdate
from fedseal.privacy.releases import METRIC_PREFIX, REGISTRY, REPORTED_PREFIX, UPDATE, VALIDATION_RATIO, VALUES
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.shares import add_share, room_of
from fedseal.simulation.engine.gradients import Descent, Slope, Stacked
from fedseal.simulation.engine.portions import Job, Portion
from fedseal.simulation.engine.rounding import NOWHERE, Bounds
from fedseal.simulation.engine.rows import Rows, RowSource, Streams, draws, gathered
from fedseal.simulation.engine.sites import Sites
from fedseal.simulation.engine.ways import Source, Start, Ways
from fedseal.simulation.grid import NodeList

Real = NDArray[np.float64]
# What a round's settings may say; another word may mean something that is not done here.
KNOWN = frozenset(
    {
        "learning-rate",
        "sample-rate",
        "local-steps",
        "batch-size",
        "proximal-mu",
        "server-round",
        "feature-mean",
        "feature-deviation",
    }
)
# Parameters of all sites that train at once: what the cache of a processor holds several times over is slower.
PARAMETERS_AT_ONCE = 1 << 20
MOST_AT_ONCE = 256
# So few sites are better together; of more, several chunks give several processes something to do.
ONE_CHUNK = 16
MEASURED_AT_ONCE = 1 << 13
# What says that sites cannot do something together, rather than that something is broken.
NOT_TOGETHER = (FedsealError, ValueError, TypeError, AttributeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job asks of its sites, read once."""

    header: Header
    received: Arrays
    settings: TrainSettings
    normalisation: Normalisation | None
    plan: PrivacyPlan

    @property
    def release(self) -> tuple[int, int]:
        """What the streams of this attempt are keyed by."""
        return self.header.release_seq, self.header.attempt


def read(job: Job, nodes: NodeList) -> Asked | None:
    """What a job asks; None where it is nothing that sites can do together."""
    header = job.header
    kind, plan = REGISTRY[header.release_name], decode_plan(header.plan)
    if header.release_name != UPDATE or plan.kind not in (PlanKind.NONE, PlanKind.CLIENT) or job.memories:
        return None
    plain = (METRIC_PREFIX, REPORTED_PREFIX)
    beside = {s.name for s in header.layout.segments if not s.name.startswith(plain)}
    if not beside <= {VALUES, CLIPPED, UNCLIPPED, header.layout.weight.name}:
        return None
    message = for_the_app(nodes.request(job.records, kind.message.value, ""), header, dict(job.records))
    settings = settings_of(message)
    records = [r for name, r in message.content.array_records.items() if name != CONTROL]
    if not KNOWN.issuperset(settings) or len(records) != 1:
        return None
    received = views_of(records[0])
    if any(array.dtype != np.float32 for array in received.values()):
        return None
    # The known settings count steps, not passes over persons.
    return Asked(header, received, train_settings(settings, 0), normalisation_of(settings), plan)


def chunks(sites: tuple[int, ...], parameters: int) -> list[tuple[int, ...]]:
    """Which sites train together: the same whatever the number of processes.

    Args:
        sites: of one job.
        parameters: of the model.
    """
    size = max(4, min(MOST_AT_ONCE, PARAMETERS_AT_ONCE // max(parameters, 1)))
    size = min(size, max(ONE_CHUNK, -(-len(sites) // 4)))
    return [sites[start : start + size] for start in range(0, len(sites), size)]


class Together:
    """Computes one chunk of sites.

    Args:
        sites: the federation's.
        source: gives their persons.
        descent: how a step is taken.
    """

    def __init__(self, sites: Sites, source: RowSource, descent: Descent) -> None:
        self._sites = sites
        self._source = source
        self._descent = descent
        self._module = build_model(sites.task)
        self._bounds: Bounds | None = None
        # Whose parameters the module holds.
        self._loaded: Asked | None = None

    def portion(self, job: Job, asked: Asked) -> Portion:
        """What a chunk of sites comes to.

        Raises:
            FedsealError: some of it cannot be done together.
        """
        layout, bounds = job.header.layout, self._bounds_of(job.header)
        rows = self._source.training(job.sites, asked.normalisation)
        streams = [Streams(self._sites.seed, n, asked.release) for n in job.sites]
        trained = self._trained(rows, asked, streams)
        beside = self._ride_along(job.sites, rows, asked, bounds) if asked.plan.kind is PlanKind.NONE else None
        start, limit = Start(asked.received), layout.segment(VALUES).high
        total = bounds.nothing()
        for first in range(0, len(job.sites), bounds.at_once):
            part = slice(first, first + bounds.at_once)
            ways = Ways(start, {name: values[part] for name, values in trained.items()}, limit)
            if beside is None:
                tail = self._of_sites(ways, bounds, job.sites[part])
            else:
                tail = _of_persons(ways, bounds, beside, part)
            # What is within a ball is in the range of each coordinate, and rounding does not lead out of it.
            inside = bounds.places[VALUES] if (ways.factors == 1.0).all() else NOWHERE
            bounds.add(total, _followed(ways, bounds, tail), [stream("rounding") for stream in streams[part]], inside)
        summed = bounds.in_ring(total)
        if (room := room_of(job.header, asked.plan)) is not None:
            # Shares are added to the sum: in the ring that is the same as to each site's vector.
            for stream in streams:
                add_share(BoundedUpdate(layout, summed), room, stream("noise-share"))
        return Portion(summed, list(job.sites))

    def trained(self, numbers: tuple[int, ...], asked: Asked) -> Stacked:
        """The parameters of some sites after training, stacked in their order."""
        streams = [Streams(self._sites.seed, n, asked.release) for n in numbers]
        return self._trained(self._source.training(numbers, asked.normalisation), asked, streams)

    def _trained(self, rows: Rows, asked: Asked, streams: list[Streams]) -> Stacked:
        settings = asked.settings
        anchor = {n: torch.from_numpy(np.array(a)) for n, a in self._ordered(asked.received).items()}
        stacked = {n: a.expand(len(streams), *a.shape).clone() for n, a in anchor.items()}
        slope = Slope(settings.learning_rate, settings.proximal_mu, anchor)
        for draw, batch in gathered(rows, draws(rows, settings, streams)):
            self._descent(stacked, batch, draw.weights, slope)
        return stacked

    def _ordered(self, received: Arrays) -> Arrays:
        """The received parameters in the model's order."""
        names = [name for name, p in self._module.named_parameters() if p.requires_grad]
        if set(names) != set(received):
            raise ConfigError("the received arrays are not this model's trainable parameters")
        return {name: received[name] for name in names}

    def _of_sites(self, ways: Ways, bounds: Bounds, numbers: tuple[int, ...]) -> Real:
        """Under plan client, as `client.release` does for one site: weigh the ways, and say what follows them in the
        layout.
        """
        layout, first = bounds.layout, bounds.places[VALUES].stop
        tail, largest = np.zeros((len(numbers), bounds.length - first)), layout.weight.high
        weights = np.array([min(float(self._sites.public_persons(n)), largest) for n in numbers])
        ways.shares = weights / largest
        tail[:, bounds.places[layout.weight.name].start - first] = weights
        if UNCLIPPED in bounds.places:
            tail[:, bounds.places[UNCLIPPED].start - first] = np.where(ways.factors == 1.0, 0.5, -0.5)
        return tail

    def _ride_along(self, numbers: tuple[int, ...], training: Rows, asked: Asked, bounds: Bounds) -> "_Beside":
        """What `client.app` sends beside an update: means on validation persons by their ratio to training persons, the
        ratio, and the number of persons.
        """
        if self._loaded is not asked:
            load(self._module, asked.received)
            self._loaded = asked
        rows = self._source.validation(numbers, asked.normalisation)
        persons = training.counts.astype(np.float64)
        ratio = (rows.counts / np.maximum(training.counts, 1))[:, None]
        found = {name: ratio * mean for name, mean in measured(self._sites.task, self._module, rows).items()}
        return _beside(bounds, persons, found | {VALIDATION_RATIO: ratio, WEIGHT: persons[:, None]})

    def _bounds_of(self, header: Header) -> Bounds:
        if self._bounds is None or self._bounds.layout != header.layout:
            self._bounds = Bounds(header.layout)
        return self._bounds


def _followed(ways: Ways, bounds: Bounds, tail: Real) -> Source:
    """The ways, and what follows them in the layout, of shape (sites, coordinates after the update's)."""
    end = bounds.places[VALUES].stop

    def write(piece: slice, out: Real) -> None:
        if piece.stop <= end:
            ways.write(piece, out)
            return
        first = max(piece.start, end)
        if piece.start < end:
            ways.write(slice(piece.start, end), out[:, : end - piece.start])
        out[:, first - piece.start :] = tail[:, first - end : piece.stop - end]

    return write


@dataclass(frozen=True, slots=True)
class _Beside:
    """What rides along of an update under plan none, of all sites at once: ``values`` of the layout's coordinates after
    the update's, to be multiplied by a site's weight, and whether something of a site had to be bounded.
    """

    values: Real
    flags: NDArray[np.bool_]
    persons: Real


def _beside(bounds: Bounds, persons: Real, found: Mapping[str, Real]) -> _Beside:
    """As `client.release` bounds it.

    Args:
        bounds: the layout's.
        persons: how many train at each site.
        found: by metric, shape (sites, values).
    """
    layout, first = bounds.layout, bounds.places[VALUES].stop
    values, flags = np.zeros((len(persons), bounds.length - first)), persons > layout.weight.high
    for segment in layout.segments:
        name = segment.name.removeprefix(METRIC_PREFIX)
        if name == segment.name or name not in found:
            continue
        rows = found[name]
        if rows.shape[1] != segment.length:
            raise ConfigError(f"{segment.name!r} was declared with {segment.length} values")
        unknown: NDArray[np.bool_] = np.isnan(np.max(rows, axis=1))
        inside = np.where(unknown[:, None], 0.0, np.clip(rows, segment.low, segment.high))
        np.logical_or(flags, (inside != rows).any(axis=1), out=flags)
        place = bounds.places[segment.name]
        values[:, place.start - first : place.stop - first] = inside
        values[:, bounds.places[REPORTED_PREFIX + name].start - first] = ~unknown
    return _Beside(values, flags, np.minimum(persons, layout.weight.high))


def _of_persons(ways: Ways, bounds: Bounds, beside: _Beside, part: slice) -> Real:
    """Under plan none, likewise."""
    layout, first = bounds.layout, bounds.places[VALUES].stop
    shares = np.where(np.isnan(ways.factors), 0.0, beside.persons[part]) / layout.weight.high
    ways.shares = shares
    tail = shares[:, None] * beside.values[part]
    tail[:, bounds.places[layout.weight.name].start - first] = shares * layout.weight.high
    tail[:, bounds.places[CLIPPED].start - first] = beside.flags[part] | (ways.factors != 1.0)
    return tail


def measured(task: Task, module: nn.Module, rows: Rows) -> dict[str, Real]:
    """The means of the loss and the task's metrics over each site's persons, by name, shape (sites, values): what
    `client.metrics.measure` gives site by site, of one model for all.

    Raises:
        ConfigError: the loss is not one number a person.
    """
    count = int(rows.counts.sum())
    if not count:
        lengths = {LOSS: 1} | {metric.name: metric.length for metric in task.metrics()}
        return {name: np.zeros((len(rows.counts), length)) for name, length in lengths.items()}
    parts: dict[str, list[Any]] = {name: [] for name in (LOSS, *(m.name for m in task.metrics()))}
    module.eval()
    with torch.no_grad():
        for start in range(0, count, MEASURED_AT_ONCE):
            batch = rows.batch(np.arange(start, min(start + MEASURED_AT_ONCE, count)))
            losses = task.loss(module, batch).double()
            if losses.shape != batch[0].shape[:1]:
                raise ConfigError("the loss is not one number a person")
            parts[LOSS].append(losses.clamp(*loss_range(task))[:, None])
            for metric in task.metrics():
                said = metric.statistic(*outputs_and_targets(module, batch)).double().clamp(metric.low, metric.high)
                parts[metric.name].append(said.reshape(len(said), metric.length))
    module.train()
    site = torch.from_numpy(np.repeat(np.arange(len(rows.counts)), rows.counts))
    divisors = np.maximum(rows.counts, 1)[:, None]
    return {name: _by_site(torch.cat(found), site, len(rows.counts)) / divisors for name, found in parts.items()}


def _by_site(rows: Tensor, site: Tensor, sites: int) -> Real:
    return cast(Real, torch.zeros(sites, rows.shape[1], dtype=torch.float64).index_add_(0, site, rows).numpy())


def agrees(one: Arrays, many: Stacked, place: int, received: Arrays, tolerance: float) -> bool:
    """Whether a site trained together came out as on its own.

    Args:
        one: its parameters on its own.
        many: those of the stack.
        place: its place in the stack.
        received: where both began.
        tolerance: of the distance between the two, relative to the way from the beginning.
    """
    way = np.concatenate([(one[n] - received[n]).astype(np.float64).ravel() for n in sorted(one)])
    other = np.concatenate([(many[n][place].numpy() - received[n]).astype(np.float64).ravel() for n in sorted(one)])
    distance = float(np.linalg.norm(way - other))
    return distance <= tolerance * float(np.linalg.norm(way)) + 1e-6
