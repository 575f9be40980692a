"""Faults in the training of a study: what `simulation.training.train` takes as its ``deliver``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedseal.client.app import Warm
from fedseal.client.task import SiteData
from fedseal.errors import ConfigError
from fedseal.simulation.faults.attacks import flipped_labels
from fedseal.simulation.faults.delivery import AppFunction, FaultyDelivery, Patience, RealSite
from fedseal.simulation.faults.tables import Fault
from fedseal.simulation.federation import FIRST_NODE


def study_delivery(
    faults: Sequence[Fault],
    data: Mapping[str, Path],
    folder: Path,
    seed: int,
    *,
    label: str | None = None,
    patience: Patience | None = None,
) -> FaultyDelivery:
    """How messages are delivered in a training under faults.

    Args:
        faults: the scenario's.
        data: the sites' data folders by name, in the order of the roster (`training.Material.data`).
        folder: of the federation's stores, as `training.train` is given it, which makes it; flipped data goes beside.
        seed: the scenario's.
        label: the column of the labels, for the attack "label_flip".
        patience: how long the server waits.

    Raises:
        ConfigError: a fault names an unknown site, or labels are to be flipped and ``label`` is no column.
    """
    flipping = any(fault.attack == "label_flip" for fault in faults)
    flipped = _flipped(data, folder.with_name(f"{folder.name}-flipped"), label) if flipping else {}
    sites = [
        RealSite(name, FIRST_NODE + i, folder / f"{name}.sqlite", flipped.get(name)) for i, name in enumerate(data)
    ]
    return FaultyDelivery(
        faults, sites, seed, backups=folder / "backups", ordinary=_study_functions(), patience=patience
    )


def _study_functions() -> AppFunction:
    """What `client.app` does behind its seal, with a memory of its own."""
    warm = Warm()

    def answer(message: Any, context: Any) -> Any:
        return (warm.evaluate if message.metadata.message_type == "evaluate" else warm.train)(message, context)

    return answer


def _flipped(data: Mapping[str, Path], folder: Path, label: str | None) -> dict[str, Path]:
    """Data folders like those given, with all sites' classes turned round in the column of labels."""
    tables = {name: SiteData(name, path).table() for name, path in data.items()}
    if label is None or any(label not in table for table in tables.values()):
        raise ConfigError("label_flip needs the name of the column of labels")
    classes = np.unique(np.concatenate([table[label].to_numpy() for table in tables.values()]))
    found = {}
    for name, table in tables.items():
        found[name] = folder / name
        found[name].mkdir(parents=True, exist_ok=True)
        turned = table.assign(**{label: flipped_labels(table[label].to_numpy(), classes)})
        source = SiteData(name, data[name]).path()
        if source.suffix == ".parquet":
            turned.to_parquet(found[name] / source.name)
        else:
            turned.to_csv(found[name] / source.name, index=False)
    return found
