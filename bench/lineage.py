"""How long do the questions take on a lineage of a million edges?

    python bench/lineage.py                      # 250 runs x 200 rounds x 20 sites
    python bench/lineage.py --runs 50 --out lineage.json

The tables are filled directly, with the rows that a log of such runs gives (the sum of edges is printed): runs follow
each other in chains of five, each from the model that the one before ended with; every site registers a new version of
its data every twelve runs. Each question is asked of many things, after a pass that is not counted; the line
``CTE alone`` is the recursive query for impact by itself, without anything that is said of the models.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, func, insert, select

from fedseal.compliance.events.fields import sha256
from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind
from fedseal.compliance.lineage.questions import Questions
from fedseal.compliance.lineage.reach import REACHED, rows
from fedseal.compliance.lineage.tables import EDGES, METADATA, MODELS, NODES, ROUNDS, RUNS
from fedseal.compliance.log.database import open_database

CHAIN = 5
NEW_DATA = 12


@dataclass(slots=True)
class Filling:
    """Rows on their way into the tables."""

    connection: Connection
    count: int = 0
    entry: int = 0
    pending: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def node(self, kind: NodeKind, digest: str) -> int:
        self.count += 1
        self.entry += 1
        row = {"id": self.count, "kind": kind.value, "digest": digest, "label": "", "first_idx": self.entry}
        self.pending.setdefault("node", []).append(row)
        return self.count

    def edge(self, source: int, target: int, kind: EdgeKind) -> None:
        self.entry += 1
        row = {"src": source, "dst": target, "kind": int(kind), "idx": self.entry}
        self.pending.setdefault("edge", []).append(row)

    def row(self, name: str, **values: object) -> None:
        self.pending.setdefault(name, []).append(values)

    def flush(self) -> None:
        tables = {"node": NODES, "edge": EDGES, "round": ROUNDS, "run": RUNS, "model": MODELS}
        for name, found in self.pending.items():
            self.connection.execute(insert(tables[name]), found)
        self.pending.clear()


def fill(connection: Connection, runs: int, rounds: int, sites: int) -> list[str]:
    """A lineage; the ids of its datasets."""
    METADATA.create_all(connection)
    filling = Filling(connection)
    digests = (sha256(str(number).encode()) for number in count())
    populations = []
    for site in range(sites):
        population = filling.node(NodeKind.POPULATION, next(digests))
        filling.edge(filling.node(NodeKind.SITE, f"site-{site}"), population, EdgeKind.HOLDS)
        populations.append(population)
    names: list[str] = []
    data: list[int] = []
    last = 0
    for run in range(runs):
        if run % NEW_DATA == 0:
            newest = [next(digests) for _ in range(sites)]
            names += newest
            fresh = [filling.node(NodeKind.DATASET, name) for name in newest]
            for population, dataset in zip(populations, fresh, strict=True):
                filling.edge(population, dataset, EdgeKind.HOLDS)
            data = fresh
        name = f"{run:032x}"
        here = filling.node(NodeKind.RUN, name)
        for kind, how in ((NodeKind.CODE, EdgeKind.CODE), (NodeKind.CONFIG, EdgeKind.SETTING)):
            filling.edge(filling.node(kind, next(digests)), here, how)
        if run % CHAIN == 0:
            last = filling.node(NodeKind.MODEL, next(digests))
        filling.edge(last, here, EdgeKind.START)
        filling.row(
            "run", run=name, node=here, study="bench", model_in=last, planned=rounds, plan="none", idx=filling.entry
        )
        for number in range(1, rounds + 1):
            node = filling.node(NodeKind.ROUND, f"{name}:{number}")
            total = filling.node(NodeKind.AGGREGATE, f"{name}:{number}")
            digest = next(digests)
            model = filling.node(NodeKind.MODEL, digest)
            for dataset in data:
                filling.edge(dataset, node, EdgeKind.DATA)
            filling.edge(here, node, EdgeKind.ROUND_OF)
            filling.edge(last, node, EdgeKind.INPUT)
            filling.edge(node, total, EdgeKind.SUM)
            filling.edge(total, model, EdgeKind.RESULT)
            filling.edge(last, model, EdgeKind.PARENT)
            of = {"run": name, "sequence": number, "attempt": 0, "release": "update", "round": number, "node": node}
            filling.row(
                "round", **of, aggregate=total, model_in=last, model_out=model, superseded=False, idx=filling.entry
            )
            last = model
        filling.row("model", idx=filling.entry, model=digest, kind="global", round=rounds, run=name, bundle=None)
        filling.flush()
    return names


def timed(question: Callable[[str], object], of: list[str]) -> dict[str, float]:
    """Milliseconds of a question asked of each of these, after one pass over the first: by the clock, and of this
    process alone, which is what counts on a machine that does other work.
    """
    question(of[0])
    wall, used = [], []
    for name in of:
        start, begun = time.perf_counter(), time.process_time()
        question(name)
        used.append(1000 * (time.process_time() - begun))
        wall.append(1000 * (time.perf_counter() - start))
    found: dict[str, float] = {"n": len(of)}
    for label, times in (("wall", sorted(wall)), ("cpu", sorted(used))):
        found[f"{label} p50"] = round(statistics.median(times), 2)
        found[f"{label} p99"] = round(times[min(len(times) - 1, int(0.99 * len(times)))], 2)
    return found


def measure(runs: int, rounds: int, sites: int, tries: int) -> dict[str, object]:
    """Fill a file, ask."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lineage.sqlite"
        engine = open_database(path)
        with engine.begin() as connection:
            names = fill(connection, runs, rounds, sites)
        rng = random.Random(0)  # noqa: S311
        with engine.begin() as connection:
            edges = connection.execute(select(func.count()).select_from(EDGES)).scalar_one()
            models = list(
                connection.execute(select(NODES.c.digest).where(NODES.c.kind == NodeKind.MODEL.value)).scalars()
            )
            asked = Questions(connection)
            numbers = {row.digest: row.id for row in connection.execute(select(NODES.c.digest, NODES.c.id))}
            # A dataset's round: what a site did once, in the middle of a run.
            late = rng.sample(models, tries)
            data = [rng.choice(names) for _ in range(max(tries // 4, 1))]
            alone = select(func.count()).select_from(REACHED)
            hit = [len(asked.impact(name, bounded=False).models) for name in late[:20]]
            answers = {
                "impact of a model, CTE alone": timed(lambda name: rows(connection, alone, numbers[name]), late),
                "impact of a model": timed(lambda name: asked.impact(name, bounded=False), late),
                "impact of a dataset, CTE alone": timed(lambda name: rows(connection, alone, numbers[name]), data),
                "impact of a dataset": timed(lambda name: asked.impact(name, bounded=False), data),
                "show a model": timed(asked.show, late[: max(tries // 4, 1)]),
            }
            reached = {
                "by a model, mean of 20": statistics.mean(hit),
                "by a dataset": len(asked.impact(data[0], bounded=False).models),
            }
        engine.dispose()
        return {
            "edges": edges,
            "nodes": len(numbers),
            "megabytes": path.stat().st_size / 1e6,
            "models reached": reached,
            "milliseconds": answers,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options.runs, options.rounds, options.sites, options.tries)
    text = json.dumps(found, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
