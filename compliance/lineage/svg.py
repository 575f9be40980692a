"""A lineage as a picture: layers from left to right, what came first on the left. SVG, in light and dark."""

from html import escape

from fedseal.compliance.lineage.graph import LineageGraph
from fedseal.compliance.lineage.layout import HEIGHT, MARGIN, WIDTH, Line, Placed, layout

# Characters that a box has room for.
ROOM = 30

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
COLOURS = {
    "model": "model",
    "run": "run",
    "dataset": "data",
    "population": "data",
    "site": "data",
    "label_set": "labels",
    "guideline": "labels",
}


def draw(graph: LineageGraph) -> str:
    """The picture of a lineage, as the text of an SVG file."""
    picture = layout(graph)
    width, height, last = picture.width, picture.height, graph.nodes[-1]
    shapes = [*map(_edge, picture.lines), *map(_drawn, picture.boxes)]
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


def colour_of(kind: str) -> str:
    """Which of the picture's colours a kind of thing has."""
    return COLOURS.get(kind, "code")


def cut(text: str) -> str:
    """A text as far as a box has room for it."""
    return text if len(text) <= ROOM else text[: ROOM - 1] + "…"


def _edge(line: Line) -> str:
    kind = "edge choice" if line.chosen else "edge"
    return f'<path class="{kind}" marker-end="url(#tip)" d="{line.path}"/>'


def _drawn(placed: Placed) -> str:
    x, y, box = placed.x, placed.y, placed.box
    heading, name, note = (escape(cut(line)) for line in box.lines())
    style, inner, colour = "box last" if placed.last else "box", x + 10, f"var(--{colour_of(box.kind)})"
    return "".join(
        [
            f"<g><title>{escape(box.tip())}</title>",
            f'<rect class="{style}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" ',
            f'style="stroke:{colour}"/>',
            f'<text class="kind" x="{inner}" y="{y + 15}" style="fill:{colour}">{heading}</text>',
            f'<text class="name" x="{inner}" y="{y + 30}">{name}</text>',
            f'<text class="note" x="{inner}" y="{y + 43}">{note}</text></g>',
        ]
    )
