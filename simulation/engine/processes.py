"""In which processes the sites of a simulated study run: this one, a few of this machine, or Ray's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedseal.errors import ConfigError
from fedseal.simulation.engine.pool import PoolGrid
from fedseal.simulation.engine.workers import Workers
from fedseal.simulation.grid import Deliver, LocalGrid, Observer, Setting


class Served(Protocol):
    """What runs a ServerApp over some nodes."""

    def serve(self, server_app: ServerApp, *, seed: int | None = None) -> None:
        """Run it to its end."""


class MakeGrid(Protocol):
    """Makes the nodes of one run."""

    def __call__(
        self, nodes: Mapping[int, Mapping[str, Setting]], *, run_config: Mapping[str, Setting], observer: Observer
    ) -> Served:
        """With these configurations, and told of what the ServerApp announces."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Where sites run. What comes of a run does not depend on it.

    Args:
        workers: how many processes; 1 is this one, one site after the other.
        ray: whether they are Ray's, by Flower's own engine; as many as there are CPUs if ``workers`` is 1.
    """

    workers: int = 1
    ray: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError("expected at least one worker", next_step="1 runs all sites in this process.")

    @contextmanager
    def started(self, app: ClientApp, deliver: Deliver | None = None) -> Iterator[MakeGrid]:
        """Start them, before any store is opened, and end them.

        Args:
            app: what every site runs.
            deliver: as `LocalGrid` takes it. Sites then run in this process, where it sees all messages in order.

        Raises:
            ConfigError: they cannot be started.
        """
        if deliver is not None or (self.workers == 1 and not self.ray):
            yield _Here(app, deliver)
        elif self.ray:
            yield self._on_ray
        else:
            with Workers(app, self.workers) as workers:
                yield _Pooled(workers)

    def _on_ray(
        self, nodes: Mapping[int, Mapping[str, Setting]], *, run_config: Mapping[str, Setting], observer: Observer
    ) -> Served:
        from fedseal.simulation.engine.ray import RayGrid

        actors = self.workers if self.workers > 1 else None
        return RayGrid(study_app, nodes, run_config=run_config, observer=observer, actors=actors)


def study_app() -> ClientApp:
    """The ClientApp of studies, as it is in the process that asks."""
    from fedseal.client.app import app

    return app


@dataclass(frozen=True, slots=True)
class _Here:
    app: ClientApp
    deliver: Deliver | None

    def __call__(
        self, nodes: Mapping[int, Mapping[str, Setting]], *, run_config: Mapping[str, Setting], observer: Observer
    ) -> Served:
        return LocalGrid(self.app, nodes, run_config=run_config, observer=observer, deliver=self.deliver)


@dataclass(frozen=True, slots=True)
class _Pooled:
    workers: Workers

    def __call__(
        self, nodes: Mapping[int, Mapping[str, Setting]], *, run_config: Mapping[str, Setting], observer: Observer
    ) -> Served:
        # A study's app keeps its sites' persons in memory: each in one worker only.
        return PoolGrid(self.workers, nodes, run_config=run_config, observer=observer, sticky=True)
