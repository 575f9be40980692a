"""Draw the pictures of docs/heterogeneity-and-drift.md: the digits at ten sites, spread in two ways."""

import tomllib
from pathlib import Path

from fedseal.simulation.heterogeneity import heterogeneity, heterogeneity_figure
from fedseal.simulation.worlds.build import build_world
from fedseal.simulation.worlds.tables import WorldTables

IMAGES = Path(__file__).parent / "images"
POPULATION = '[population]\nsource = "sklearn:digits"\nsites = 10\n'
PARTITIONS = {
    "partition-dirichlet": '[partition]\nkind = "label_dirichlet"\nalpha = 0.3\n',
    "partition-labels": '[partition]\nkind = "labels_per_site"\nlabels = 2\n',
}
# A page of the report gives these itself; an image of its own cannot ask the page. They show on light and on dark.
COLOURS = {"currentColor": "#808080", "var(--line)": "#80808055", "var(--accent)": "#2a78b8"}

if __name__ == "__main__":
    for name, partition in PARTITIONS.items():
        tables = WorldTables.model_validate(tomllib.loads(POPULATION + partition))
        world = build_world(tables, steps=1, seed=1)
        svg = heterogeneity_figure(heterogeneity(world.sites, world.classes, world.class_table(0)))
        for variable, colour in COLOURS.items():
            svg = svg.replace(variable, colour)
        (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")
