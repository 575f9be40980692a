"""Where a lineage's boxes stand, and the ways of its edges: layers from left to right, what came first on the left."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from fedseal.compliance.lineage.graph import GraphEdge, GraphNode, LineageGraph
from fedseal.compliance.lineage.kinds import NodeKind

WIDTH, HEIGHT, GAP, COLUMN = 208, 50, 14, 276
MARGIN = 28
# What an edge that passes a column takes of its height.
BEND = 6
HEAD = 64
# So many things of a kind with the same edges stand as they are; more become one box.
MOST_ALIKE = 3
NAMES = {
    "model": "model",
    "dataset": "dataset",
    "label_set": "label set",
    "guideline": "guideline",
    "code": "code",
    "environment": "environment",
    "config": "contract",
    "population": "population",
    "site": "site",
    "run": "run",
}
PLURALS = {"code": "pieces of code"}


@dataclass(frozen=True, slots=True)
class Box:
    """One box: a node, or several of a kind that are alike."""

    nodes: tuple[GraphNode, ...]

    @property
    def kind(self) -> str:
        """What it is: the value of a `NodeKind`."""
        return self.nodes[0].kind

    def lines(self) -> tuple[str, str, str]:
        """Kind with the entry's index, name, note."""
        first = self.nodes[0]
        if len(self.nodes) > 1:
            name = PLURALS.get(self.kind, f"{NAMES[self.kind]}s")
            owners = {site for node in self.nodes for site in node.sites}
            return f"{len(self.nodes)} {name}", f"first in #{first.idx}", f"of {len(owners)} sites" if owners else ""
        sites = ", ".join(first.sites) if len(first.sites) < 4 else f"{len(first.sites)} sites"
        if self.kind == NodeKind.RUN:
            return f"run {first.digest[:12]}  #{first.idx}", first.note, sites
        if self.kind == NodeKind.SITE:
            return f"site  #{first.idx}", first.digest, first.note
        name = first.digest.partition(":")[2][:16]
        return f"{NAMES[self.kind]}  #{first.idx}", name, ", ".join(filter(None, (first.note, sites)))

    def tip(self) -> str:
        """What is shown on pointing at it: everything."""
        return "\n".join(f"{n.kind} {n.digest} #{n.idx} {n.note} {', '.join(n.sites)}".rstrip() for n in self.nodes)


@dataclass(frozen=True, slots=True)
class Placed:
    """A box and its upper left corner. ``last``: it is the model whose lineage this is."""

    box: Box
    x: int
    y: int
    last: bool


@dataclass(frozen=True, slots=True)
class Line:
    """An edge as the path of an SVG. ``chosen``: influence only by guiding a choice."""

    path: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """A lineage, laid out: boxes of `WIDTH` x `HEIGHT` below a head of `HEAD`, within a width and a height."""

    width: int
    height: int
    boxes: tuple[Placed, ...]
    lines: tuple[Line, ...]


def layout(graph: LineageGraph, *, apart: bool = False) -> Picture:
    """Lay a lineage out.

    Args:
        graph: what is shown.
        apart: whether every thing has a box of its own, however many are alike.
    """
    boxes, edges = _alike(_without_holders(graph), len(graph.nodes) if apart else MOST_ALIKE)
    layers = _layers(len(boxes), edges)
    ways = _ways(layers, edges)
    columns = _ordered(layers, ways, boxes)
    place = _places(columns, len(boxes))
    last = graph.nodes[-1]
    return Picture(
        2 * MARGIN + (len(columns) - 1) * COLUMN + WIDTH,
        MARGIN + max(y for _, y in place.values()) + HEIGHT,
        tuple(Placed(box, *place[number], box.nodes[-1] is last) for number, box in enumerate(boxes)),
        tuple(Line(_path([place[stop] for stop in ways[ends]]), chosen) for ends, chosen in sorted(edges.items())),
    )


def _without_holders(graph: LineageGraph) -> LineageGraph:
    """Sites and populations only where nothing else says whose data it is: a dataset's box names its site."""
    out: dict[int, set[int]] = {}
    for edge in graph.edges:
        out.setdefault(edge.source, set()).add(edge.target)
    kinds = [node.kind for node in graph.nodes]
    told = (NodeKind.SITE, NodeKind.POPULATION)
    below = (NodeKind.POPULATION, NodeKind.DATASET)
    left = [n for n, kind in enumerate(kinds) if kind not in told or any(kinds[t] not in below for t in out.get(n, ()))]
    place = {number: at for at, number in enumerate(left)}
    edges = [
        GraphEdge(place[e.source], place[e.target], e.kind, e.chosen)
        for e in graph.edges
        if e.source in place and e.target in place
    ]
    return LineageGraph(tuple(graph.nodes[number] for number in left), tuple(edges))


def _alike(graph: LineageGraph, most: int) -> tuple[list[Box], dict[tuple[int, int], bool]]:
    """Boxes, and edges with whether they are choices. Things of a kind with the same edges may share a box."""
    out: dict[int, list[tuple[int, bool]]] = {}
    into: dict[int, list[tuple[str, bool]]] = {}
    for edge in graph.edges:
        out.setdefault(edge.source, []).append((edge.target, edge.chosen))
        into.setdefault(edge.target, []).append((graph.nodes[edge.source].kind, edge.chosen))
    groups: dict[object, list[int]] = {}
    targets: dict[int, object] = {}
    # From the right: what is alike leads to things that are alike.
    for number in _backwards(graph):
        node = graph.nodes[number]
        leads = frozenset((targets[t], chosen) for t, chosen in out.get(number, []) if t in targets)
        alone = node.kind in (NodeKind.MODEL, NodeKind.RUN)
        key: object = number if alone else (node.kind, leads, frozenset(into.get(number, [])))
        targets[number] = key
        groups.setdefault(key, []).append(number)
    boxes: list[Box] = []
    at: dict[int, int] = {}
    for members in groups.values():
        members.sort()
        parts = [members] if len(members) > most else [[number] for number in members]
        for part in parts:
            at |= dict.fromkeys(part, len(boxes))
            boxes.append(Box(tuple(graph.nodes[number] for number in part)))
    edges: dict[tuple[int, int], bool] = {}
    for edge in graph.edges:
        ends = at[edge.source], at[edge.target]
        if ends[0] != ends[1]:
            edges[ends] = edges.get(ends, True) and edge.chosen
    return boxes, edges


def _backwards(graph: LineageGraph) -> list[int]:
    """Nodes so that every one comes after all that it leads to; circles are cut somewhere."""
    out: dict[int, list[int]] = {}
    for edge in graph.edges:
        out.setdefault(edge.source, []).append(edge.target)
    found: dict[int, None] = {}
    open_now: set[int] = set()
    for first in range(len(graph.nodes)):
        stack = [first]
        while stack:
            number = stack[-1]
            waiting = [t for t in out.get(number, []) if t not in found and t not in open_now]
            open_now.add(number)
            if waiting:
                stack.append(waiting[0])
            else:
                found[stack.pop()] = None
    return list(found)


def _layers(count: int, edges: Mapping[tuple[int, int], bool]) -> list[int]:
    """A layer for each box: right of all that led to it, and as far right as what it leads to allows."""
    layer = [0] * count
    # A longest way has fewer steps than there are boxes; circles stop it there.
    for _ in range(count):
        moved = False
        for source, target in edges:
            if layer[target] <= layer[source] < count:
                layer[target] = layer[source] + 1
                moved = True
        if not moved:
            break
    sources = {target for _, target in edges}
    for _ in range(count):
        for number in range(count):
            ahead = [layer[t] for s, t in edges if s == number]
            if ahead and (number not in sources or all(layer[s] < min(ahead) - 1 for s, t in edges if t == number)):
                layer[number] = max(layer[number], min(ahead) - 1)
    used = {number: rank for rank, number in enumerate(sorted(set(layer)))}
    return [used[number] for number in layer]


def _ways(layers: list[int], edges: Mapping[tuple[int, int], bool]) -> dict[tuple[int, int], list[int]]:
    """For each edge its stops: a box, a bend in every layer between, a box. Bends are numbered behind the boxes.

    Edges that leave one box, and are choices or not, bend together.
    """
    bends: dict[tuple[int, int, bool], int] = {}
    found = {}
    for (source, target), chosen in edges.items():
        between = range(layers[source] + 1, layers[target])
        stops = [bends.setdefault((source, layer, chosen), len(layers) + len(bends)) for layer in between]
        found[source, target] = [source, *stops, target]
    layers += [layer for _, layer, _ in bends]
    return found


def _ordered(layers: list[int], ways: Mapping[tuple[int, int], list[int]], boxes: list[Box]) -> list[list[int]]:
    """Columns of boxes and bends, ordered so that edges cross little: by the mean place of what each is joined to."""
    columns: list[list[int]] = [[] for _ in range(max(layers) + 1)]
    rank = {kind: place for place, kind in enumerate(("model", "run", "site", "population", "dataset", "label_set"))}

    def first(number: int) -> tuple[int, str, int]:
        kind = boxes[number].kind if number < len(boxes) else ""
        return rank.get(kind, 9), kind, number

    for number in sorted(range(len(layers)), key=first):
        columns[layers[number]].append(number)
    joined: dict[int, set[int]] = {}
    for stops in ways.values():
        for one, two in pairwise(stops):
            joined.setdefault(one, set()).add(two)
            joined.setdefault(two, set()).add(one)
    for sweep in range(8):
        place = {number: row - len(c) / 2 for c in columns for row, number in enumerate(c)}
        for column in columns if sweep % 2 else reversed(columns):
            means = {n: sum(place[m] for m in joined[n]) / len(joined[n]) for n in column if joined.get(n)}
            column.sort(key=lambda number, means=means: means.get(number, 0.0))  # type: ignore[misc]
            place |= {number: row - len(column) / 2 for row, number in enumerate(column)}
    return columns


def _places(columns: list[list[int]], boxes: int) -> dict[int, tuple[int, int]]:
    """The upper left corner of each box, and of each bend; columns are centred."""
    heights = [sum((HEIGHT if n < boxes else BEND) + GAP for n in column) for column in columns]
    place = {}
    for number, column in enumerate(columns):
        y = HEAD + (max(heights) - heights[number]) // 2
        for stop in column:
            place[stop] = (MARGIN + number * COLUMN, y if stop < boxes else y + (BEND - HEIGHT) // 2)
            y += (HEIGHT if stop < boxes else BEND) + GAP
    return place


def _path(stops: list[tuple[int, int]]) -> str:
    """From the right side of the first box, straight past the boxes between, to the left side of the last."""
    x, y = stops[0][0] + WIDTH, stops[0][1] + HEIGHT // 2
    path = f"M{x} {y}"
    for number, (left, top) in enumerate(stops[1:], start=2):
        bend, middle = max((left - x) // 2, 24), top + HEIGHT // 2
        path += f"C{x + bend} {y} {left - bend} {middle} {left} {middle}"
        x, y = left + WIDTH, middle
        if number < len(stops):
            path += f"H{x}"
    return path
