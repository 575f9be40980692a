"""What is handed from one party to another, confirmed by people: the digits are compared, or nothing happens."""

import sys
from collections.abc import Sequence

import typer
from rich.console import Console

from fedseal.errors import ConfigError
from fedseal.privacy.membership.armour import same_fingerprint

# Groups of the fingerprint that are typed where somebody is asked.
TYPED = 2


def confirm(what: str, found: str, given: Sequence[str]) -> None:
    """Go on only if somebody has compared a fingerprint.

    Args:
        what: the file or party that it is of.
        found: the fingerprint.
        given: what was read out, from the command line; empty to ask.

    Raises:
        ConfigError: it is another one, or nobody can be asked.
    """
    if given:
        if not any(same_fingerprint(one, found) for one in given):
            raise ConfigError(
                f"the fingerprint of {what} is {found}, and that was not read out; nothing has changed",
                next_step="Compare again with whoever made it, by telephone or in person. If it stays another one, do "
                "not use the file.",
            )
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            f"the fingerprint of {what} has to be compared; nothing has changed",
            next_step="Ask whoever made it to read theirs out, and give it: --fingerprint '...'",
        )
    console = Console(highlight=False, soft_wrap=True, stderr=True)
    console.print(f"{what}: ask whoever made it to read out its fingerprint, by telephone or in person.", markup=False)
    shown, rest = found.split(" ")[:-TYPED], " ".join(found.split(" ")[-TYPED:])
    # Not all is shown: who only looks compares the first digits, and says yes.
    console.print(f"  {' '.join(shown)} ..... .....", style="bold")
    if not same_fingerprint(typer.prompt("If that is how it begins, type its last two groups"), rest):
        raise ConfigError(
            f"that is not the fingerprint of {what}; nothing has changed", next_step="Compare again, or do not use it."
        )


def say(text: str) -> None:
    """Print a line as it is."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
