"""How long is a bad model in production once somebody says `fedseal model rollback`? Python's start included.

A log of a simulated federation with so many entries, two bundles of so many bytes that were promoted one after the
other, and the command in a process of its own, by turns with `fedseal version`, which only starts. Every second turn
goes to the newer bundle by name, so that there is always something to go back from.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import safetensors.numpy

from fedseal.compliance.events.bodies import Aggregated
from fedseal.compliance.events.fields import Alias, ReleaseName
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.registry.bundle import Bundle, BundleStore, InputSchema, Recipe, make_bundle, tensors_of
from fedseal.compliance.registry.promotion import Origin, Registry
from fedseal.compliance.registry.rules import AliasRules, RegistryRules
from fedseal.server.store import ServerStore
from fedseal.simulation.witnessing import witness_all

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.flower import make_federation

RULES = RegistryRules(version=1, production=AliasRules())
FEDSEAL = "from fedseal.cli.main import main; main()"


def bundle(seed: int, size: int) -> Bundle:
    """A bundle whose model has about so many bytes."""
    values = np.random.default_rng(seed).normal(size=max(1, size // 4)).astype(np.float32)
    model = safetensors.numpy.save({"weight": values})
    return make_bundle(model, Recipe(study="bench", task="task:Task"), InputSchema(tensors=tensors_of(model)))


def prepare(folder: Path, entries: int, size: int) -> tuple[Path, list[str]]:
    """A server's store with such a log, and the two bundles' digests, the newer last."""
    federation = make_federation(folder, 3)
    store = ServerStore.open(federation.server)
    identity = store.identity
    journal = FederationJournal(store.engine, identity.key, identity.roster, faulty=0, now=lambda: datetime.now(UTC))
    registry = Registry(journal, store.engine, BundleStore(folder / "bundles"))
    digest = "sha256:" + 64 * "1"
    filler = Aggregated(
        release=ReleaseName.UPDATE,
        round=1,
        sequence=1,
        attempt=0,
        header=digest,
        sites=(1, 2, 3),
        threshold=2,
        colluders=0,
        aggregate=digest,
        model_in=digest,
    )
    for start in range(0, entries, 1000):
        journal.commit([Fact(filler, 16 * b"r")] * min(1000, entries - start))
    made = [bundle(seed, size) for seed in (1, 2)]
    for one in made:
        registry.register(one, Origin(None, 1, None))
        witness_all(journal, federation.sites.values())
        registry.promote(registry.find(one.digest, registry.state()), Alias.PRODUCTION, RULES)
    return federation.server, [one.digest for one in made]


def seconds(*arguments: str) -> float:
    """Wall seconds of a command."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", FEDSEAL, *arguments], check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=100_000_000)
    parser.add_argument("--turns", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store, (older, newer) = prepare(Path(name), options.entries, options.bytes)
        command = ("model", "rollback", "--alias", "production", "--reason", "drift", "--log", str(store))
        rollbacks, starts = [], []
        for turn in range(options.turns):
            rollbacks.append(seconds(*command, "--to", newer if turn % 2 else older))
            starts.append(seconds("version"))
    found = {
        "entries": options.entries,
        "bytes": options.bytes,
        "rollback_seconds_median": statistics.median(rollbacks),
        "rollback_seconds_worst": max(rollbacks),
        "times_a_start_median": statistics.median(r / s for r, s in zip(rollbacks, starts, strict=True)),
    }
    print(json.dumps(found, indent=2))
    if max(rollbacks) >= 10:
        sys.exit("a rollback took 10 seconds or more")


if __name__ == "__main__":
    main()
