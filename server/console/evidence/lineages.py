"""Lineage as pages: a model's picture and parts, a run's rounds, what a thing has reached, two models side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

from fedseal.compliance.events.bodies import Aggregated, Dropped, RunCreated
from fedseal.compliance.lineage.answers import Impact, Influenced, Shown
from fedseal.compliance.lineage.graph import GraphNode, LineageGraph
from fedseal.compliance.lineage.kinds import NodeKind
from fedseal.compliance.lineage.layout import HEIGHT, NAMES, WIDTH, Picture, Placed, layout
from fedseal.compliance.lineage.questions import Questions
from fedseal.compliance.lineage.svg import colour_of, cut
from fedseal.compliance.registry.entries import names_of
from fedseal.server.console.evidence.fields import entry_page, lineage_page
from fedseal.server.console.evidence.place import View
from fedseal.server.console.evidence.words import digits

# So many rounds of a run are listed; the log has all.
ROUNDS_LISTED = 500
# So many models that a thing has reached are listed; what is registered or in use comes first.
REACHED_LISTED = 200


@dataclass(frozen=True, slots=True)
class ShownBox:
    """A box of the picture: where it stands, its three lines, what it is called whole, and the page it leads to."""

    x: int
    y: int
    colour: str
    last: bool
    lines: tuple[str, str, str]
    tip: str
    href: str


@dataclass(frozen=True, slots=True)
class ShownLine:
    """An edge of the picture. ``chosen``: influence only by guiding a choice."""

    path: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A lineage as a picture; boxes are of one size."""

    width: int
    height: int
    box_width: int
    box_height: int
    boxes: tuple[ShownBox, ...]
    lines: tuple[ShownLine, ...]


@dataclass(frozen=True, slots=True)
class ArrowLine:
    """An edge in words: the table beside the picture."""

    source: str
    target: str
    source_index: int
    target_index: int
    how: str


@dataclass(frozen=True, slots=True)
class RoundLine:
    """A sum of a run: over how many sites, who fell out where, the model it began with."""

    index: int
    release: str
    round: int
    attempt: int
    sites: int
    dropped: tuple[str, ...]
    model_in: str | None
    time: str


@dataclass(frozen=True, slots=True)
class RunRounds:
    """A run, opened. ``more``: how many of its sums are not listed."""

    run: str
    study: str
    rounds: tuple[RoundLine, ...]
    more: int


@dataclass(frozen=True, slots=True)
class LineagePage:
    """What made a model. ``apart``: whether alike things have boxes of their own; ``opened``: the run that is."""

    shown: Shown
    picture: ShownPicture
    arrows: tuple[ArrowLine, ...]
    apart: bool
    opened: RunRounds | None


@dataclass(frozen=True, slots=True)
class ReachedLine:
    """A model that a thing has reached, and how, in words."""

    model: Influenced
    how: str


@dataclass(frozen=True, slots=True)
class ImpactPage:
    """What a thing has reached. ``more``: how many models are not listed, all of them between two rounds of a run."""

    impact: Impact
    reached: tuple[ReachedLine, ...]
    more: int


def read_lineage(questions: Questions, view: View, model: str, *, run: str = "", apart: bool = False) -> LineagePage:
    """What made a model, with one run opened.

    Args:
        questions: the lineage.
        view: the log.
        model: a model's id or the beginning of one, or an alias.
        run: the run that is opened; none if empty.
        apart: whether every thing has a box of its own.

    Raises:
        ConfigError: there is no such model, or several.
    """
    graph, shown = questions.graph(model), questions.show(model)
    opened = _rounds(view, run) if run in {part.run for part in shown.runs} else None
    picture = _pictured(layout(graph, apart=apart), shown.model.digest)
    return LineagePage(shown, picture, tuple(_arrows(graph)), apart, opened)


def read_impact(questions: Questions, thing: str) -> ImpactPage:
    """What a thing has reached: a dataset, labels, code, a site, a model; ConfigError if nothing is called so."""
    found = questions.impact(thing)
    lines = [ReachedLine(one, _how(one)) for one in found.models]
    first = [line for line in lines if line.model.registered or line.model.aliases or line.model.was]
    between = [line for line in lines if line not in first]
    listed = [*first, *between][: max(REACHED_LISTED, len(first))]
    return ImpactPage(found, tuple(listed), len(lines) - len(listed))


def _how(one: Influenced) -> str:
    if one.chosen:
        return "a choice only"
    if one.inherited:
        return "inherited"
    return f"in {one.direct_rounds} round{'' if one.direct_rounds == 1 else 's'} of its run"


def _pictured(picture: Picture, model: str) -> ShownPicture:
    boxes = tuple(_box(placed, model) for placed in picture.boxes)
    lines = tuple(ShownLine(line.path, line.chosen) for line in picture.lines)
    return ShownPicture(picture.width, picture.height, WIDTH, HEIGHT, boxes, lines)


def _box(placed: Placed, model: str) -> ShownBox:
    box, here = placed.box, lineage_page(model)
    kind, name, note = (cut(text) for text in box.lines())
    if len(box.nodes) > 1:
        href = f"{here}&apart=yes"
    elif box.kind == NodeKind.RUN:
        href = f"{here}&run={box.nodes[0].digest}#run"
    else:
        href = entry_page(box.nodes[0].idx)
    return ShownBox(placed.x, placed.y, colour_of(box.kind), placed.last, (kind, name, note), box.tip(), href)


def _arrows(graph: LineageGraph) -> Iterator[ArrowLine]:
    for edge in graph.edges:
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        how = "guided a choice" if edge.chosen else "influenced"
        yield ArrowLine(_named(source), _named(target), source.idx, target.idx, how)


def _named(node: GraphNode) -> str:
    said = node.digest if node.kind == NodeKind.SITE else digits(node.digest)
    return f"{NAMES.get(node.kind, node.kind)} {said}"


def _rounds(view: View, run: str) -> RunRounds:
    """The sums of a run, and who fell out of each."""
    entries = [e for e in view.entries.of(names_of(RunCreated, Aggregated, Dropped)) if e.event.run == run]
    names = {site.site: site.name for site in view.roster.sites}
    dropped: dict[tuple[int, int], list[str]] = {}
    study, sums = "", []
    for entry in entries:
        match entry.event.body:
            case RunCreated() as created:
                study = created.study
            case Dropped() as fell:
                said = f"{names.get(fell.site, f'site {fell.site}')}: {fell.stage.value}, {fell.reason.value}"
                dropped.setdefault((fell.sequence, fell.attempt), []).append(said)
            case Aggregated() as made:
                sums.append((entry, made))
    lines = [
        RoundLine(
            entry.index,
            made.release.value,
            made.round,
            made.attempt,
            len(made.sites),
            tuple(dropped.get((made.sequence, made.attempt), ())),
            made.model_in,
            entry.event.time,
        )
        for entry, made in sums
    ]
    return RunRounds(run, study, tuple(lines[:ROUNDS_LISTED]), max(len(lines) - ROUNDS_LISTED, 0))
