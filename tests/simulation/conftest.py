"""Finished simulations that several files look at; made once, changed by nobody."""

import pytest
from support.studies import tiny

from fedseal.simulation.population import Population
from fedseal.simulation.simulate import Finished, Options, simulate
from fedseal.simulation.training import RoundView
from fedseal.study import Contract


class Quiet:
    """A progress that nobody looks at."""

    def begin(self, contract: Contract, population: Population, run: str) -> None: ...

    def phase(self, title: str) -> None: ...

    def round(self, view: RoundView) -> None: ...


@pytest.fixture(scope="session")
def progress() -> Quiet:
    """Says nothing."""
    return Quiet()


@pytest.fixture(scope="session")
def private_run(tmp_path_factory: pytest.TempPathFactory, progress: Quiet) -> Finished:
    """The tiny study as it is, with its baselines and one more promise."""
    out = tmp_path_factory.mktemp("private")
    return simulate(tiny(), Options(other_epsilons=(2.0,)), out, progress)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory, progress: Quiet) -> Finished:
    """The tiny study without privacy, and nothing compared."""
    out = tmp_path_factory.mktemp("plain")
    return simulate(tiny(privacy={"plan": "none"}), Options(baselines=False), out, progress)
