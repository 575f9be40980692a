"""A lineage as a picture: layers from left to right, what came first on the left. SVG, in light and dark."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
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
# Characters that a box has room for.
ROOM = 30
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

_STYLE = """
svg{--paper:#ffffff;--ink:#1c2733;--quiet:#5d6b7a;--line:#93a1b0;--box:#f6f8fa;
--model:#0b7285;--run:#6741d9;--data:#2b8a3e;--labels:#b35900;--code:#475569;
font-family:ui-sans-serif,system-ui,"Segoe UI",Helvetica,Arial,sans-serif;background:var(--paper)}
@media (prefers-color-scheme:dark){svg{--paper:#0f151c;--ink:#e6edf3;--quiet:#9aa8b7;--line:#5b6b7c;--box:#18212b;
--model:#3bc9db;--run:#b197fc;--data:#69db7c;--labels:#ffa94d;--code:#a8b6c6}}
.box{fill:var(--box);stroke-width:1.4}.edge{fill:none;stroke:var(--line);stroke-width:1.3}
.choice{stroke-dasharray:5 4}.head{fill:var(--ink);font-size:16px;font-weight:600}
.kind{font-size:11px;font-weight:600;letter-spacing:.02em}.name{fill:var(--ink);font-size:12.5px}
.note{fill:var(--quiet);font-size:11px}.tip{fill:var(--line)}.last{stroke-width:3}
"""
_COLOURS = {
    "model": "model",
    "run": "run",
    "dataset": "data",
    "population": "data",
    "site": "data",
    "label_set": "labels",
    "guideline": "labels",
}


@dataclass(frozen=True, slots=True)
class _Box:
    """One box: a node, or several of a kind that are alike."""

    nodes: tuple[GraphNode, ...]

    @property
    def kind(self) -> str:
        return self.nodes[0].kind

    @property
    def colour(self) -> str:
        return f"var(--{_COLOURS.get(self.kind, 'code')})"

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


def draw(graph: LineageGraph) -> str:
    """The picture of a lineage, as the text of an SVG file."""
    boxes, edges = _alike(_without_holders(graph))
    layers = _layers(len(boxes), edges)
    ways = _ways(layers, edges)
    columns = _ordered(layers, ways, boxes)
    place = _places(columns, len(boxes))
    width = 2 * MARGIN + (len(columns) - 1) * COLUMN + WIDTH
    height = MARGIN + max(y for _, y in place.values()) + HEIGHT
    last = graph.nodes[-1]
    shapes = [_edge([place[stop] for stop in ways[ends]], chosen) for ends, chosen in sorted(edges.items())]
    shapes += [_drawn(box, place[number], last=box.nodes[-1] is last) for number, box in enumerate(boxes)]
    name = escape(last.digest.partition(":")[2][:16])
    note = "solid: influence; dashed: only guided a choice; #: index of the entry in the log"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    tip = 'id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
        f'<title id="title">Lineage of model {escape(last.digest)}</title>',
        f"<style>{_STYLE}</style>",
        f'<defs><marker {tip}><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="var(--paper)"/>',
        f'<text class="head" x="{MARGIN}" y="30">Lineage of model {name}</text>',
        f'<text class="note" x="{MARGIN}" y="48">{note}</text>',
    ]
    return "\n".join([*head, *shapes, "</svg>", ""])


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


def _alike(graph: LineageGraph) -> tuple[list[_Box], dict[tuple[int, int], bool]]:
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
    boxes: list[_Box] = []
    at: dict[int, int] = {}
    for members in groups.values():
        members.sort()
        parts = [members] if len(members) > MOST_ALIKE else [[number] for number in members]
        for part in parts:
            at |= dict.fromkeys(part, len(boxes))
            boxes.append(_Box(tuple(graph.nodes[number] for number in part)))
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


def _ordered(layers: list[int], ways: Mapping[tuple[int, int], list[int]], boxes: list[_Box]) -> list[list[int]]:
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


def _edge(stops: list[tuple[int, int]], chosen: bool) -> str:
    """A line from the right side of the first box, straight past the boxes between, to the left side of the last."""
    x, y = stops[0][0] + WIDTH, stops[0][1] + HEIGHT // 2
    path = f"M{x} {y}"
    for number, (left, top) in enumerate(stops[1:], start=2):
        bend, middle = max((left - x) // 2, 24), top + HEIGHT // 2
        path += f"C{x + bend} {y} {left - bend} {middle} {left} {middle}"
        x, y = left + WIDTH, middle
        if number < len(stops):
            path += f"H{x}"
    kind = "edge choice" if chosen else "edge"
    return f'<path class="{kind}" marker-end="url(#tip)" d="{path}"/>'


def _drawn(box: _Box, place: tuple[int, int], *, last: bool) -> str:
    x, y = place
    heading, name, note = (escape(_cut(line)) for line in box.lines())
    style, inner = "box last" if last else "box", x + 10
    return "".join(
        [
            f"<g><title>{escape(box.tip())}</title>",
            f'<rect class="{style}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" ',
            f'style="stroke:{box.colour}"/>',
            f'<text class="kind" x="{inner}" y="{y + 15}" style="fill:{box.colour}">{heading}</text>',
            f'<text class="name" x="{inner}" y="{y + 30}">{name}</text>',
            f'<text class="note" x="{inner}" y="{y + 43}">{note}</text></g>',
        ]
    )


def _cut(text: str) -> str:
    return text if len(text) <= ROOM else text[: ROOM - 1] + "…"
