"""`fedseal site isolation`: what holds is tried, and what is required and does not hold fails."""

import pytest
from rich.console import Console
from support.strangers import landlocked
from typer.testing import CliRunner

from fedseal.cli import isolation
from fedseal.cli.site import site
from fedseal.client.isolation.messages import Hold
from fedseal.client.isolation.settings import Barrier
from fedseal.errors import ConfigError


@pytest.mark.skipif(not landlocked(), reason="needs a Linux with namespaces, Landlock and seccomp")
def test_it_prints_what_holds_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "Console", lambda **options: Console(width=200, **options))
    done = CliRunner().invoke(site, ["isolation"])
    assert done.exit_code == 0, done.output
    for barrier in Barrier:
        assert barrier.value in done.output
    assert "Landlock" in done.output
    assert "does not hold" not in done.output


def test_what_is_required_and_does_not_hold_is_an_error_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere:
        """A process on a system that has none of it."""

        holds = tuple(Hold(barrier.value, "", "only Linux has it") for barrier in Barrier)

        def __init__(self, *given: object) -> None:
            pass

        def end(self) -> None:
            pass

    monkeypatch.setattr("fedseal.client.isolation.process.StudyProcess", Nowhere)
    done = CliRunner().invoke(site, ["isolation"])
    assert isinstance(done.exception, ConfigError)
    assert "network: only Linux has it" in done.exception.message
    assert "does not hold" in done.output or "does not" in done.output
