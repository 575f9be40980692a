"""`fedseal site ledger`, `log`, `status`, `check` and `approve-code`: what a site's operator looks at and signs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedseal.cli.person import PassphraseFile, key_in
from fedseal.cli.site import opened, site, whose
from fedseal.cli.site_outbox import outbox
from fedseal.cli.site_store import AsJson, Config, Store, store_path
from fedseal.errors import ExitCode

if TYPE_CHECKING:
    from fedseal.cli.site_figures import Period
    from fedseal.compliance.events.leaf import Event

__all__ = ["site"]

site.add_typer(outbox, name="outbox")


@site.command()
def check(
    config: Annotated[Path, typer.Option("--config", help="The site's file.")],
    offline: Annotated[bool, typer.Option("--offline", help="Do not try to reach the server.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything that a round needs, with the fix beside whatever is wrong. Ends with 1 if anything is."""
    from fedseal.cli.site_check import look

    found = look(config, online=not offline)
    if as_json:
        print(json.dumps([{"check": f.what, "ok": f.ok, "found": f.found, "fix": f.fix} for f in found], indent=2))
    else:
        table = Table(show_lines=True)
        for name in ("", "check", "found", "what to do"):
            table.add_column(name, overflow="fold")
        for f in found:
            table.add_row("[green]ok[/]" if f.ok else "[red]NO[/]", f.what, _plain(f.found), _plain(f.fix))
        Console(highlight=False).print(table)
    if not all(f.ok for f in found):
        raise typer.Exit(int(ExitCode.GATE))


@site.command()
def ledger(config: Config = None, store: Store = None, as_json: AsJson = False) -> None:
    """Show each population's budget: promised, charged, reserved and left, in the period of the policy, and by run."""
    from fedseal.cli.site_figures import balances

    with opened(store_path(config, store), reading=True) as (site_store, transaction):
        transaction.verify_ledgers()
        found = balances(site_store, transaction)
    if as_json:
        print(json.dumps([b.numbers() for b in found], indent=2, allow_nan=False))
        return
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)
    console.print(whose(site_store), markup=False)
    for b in found:
        console.print(
            f"Population {b.population}: epsilon {b.epsilon:g} at delta {b.delta:g} was promised to every person. "
            f"Enforced so far: {b.enforced:.3f}. Charged {b.charged:.1%} of the budget, reserved {b.reserved:.1%}, "
            f"left {b.left:.1%}.",
            markup=False,
        )
        if b.without_privacy:
            console.print(f"{b.without_privacy} releases without privacy, which no budget covers.")
        if b.period is not None:
            console.print(_period(b.period))
        if b.runs:
            table = Table()
            for name in ("run", "charges", "of the budget", "still reserved"):
                table.add_column(name, no_wrap=name == "run")
            for r in b.runs:
                table.add_row(r.run, str(r.charges), f"{r.charged:.2%}", f"{r.reserved:.2%}")
            console.print(table)


@site.command()
def log(
    config: Config = None,
    store: Store = None,
    last: Annotated[int, typer.Option("--last", min=1, help="So many entries, the newest.")] = 20,
    refusals: Annotated[bool, typer.Option("--refusals", help="Only what this site has refused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the newest entries of the site's own log, with their index. `fedseal audit show --own` prints one whole."""
    from fedseal.cli.site_figures import own_entries
    from fedseal.compliance.events.bodies import RunRefused
    from fedseal.compliance.events.registry import type_of_form

    kind = type_of_form(RunRefused).name if refusals else None
    with opened(store_path(config, store)) as (site_store, transaction):
        found = own_entries(site_store, transaction, last, kind)
    if as_json:
        whole = [{"index": i, **json.loads(leaf)} for i, leaf, _ in found]
        print(json.dumps(whole, indent=2))
        return
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)
    console.print(whose(site_store), markup=False)
    for index, _, event in found:
        run = f" run {event.run[:8]}" if event.run else ""
        console.print(f"{index:>6}  {event.time[:19]}Z  {event.kind.name:<22}{run}  {_said(event)}", markup=False)
    if not found:
        console.print("Nothing was refused." if refusals else "The log is empty.")


@site.command()
def status(config: Config = None, store: Store = None, as_json: AsJson = False) -> None:
    """Show whether the node runs, its last round and last error, what is left of the budgets, and what waits."""
    from fedseal.cli.site_figures import standing_of

    path = store_path(config, store)
    with opened(path) as (site_store, transaction):
        found = standing_of(path, site_store, transaction)
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(whose(site_store), markup=False)
    for name, value in found.items():
        console.print(f"{name.replace('_', ' '):<16} {_words(value)}", markup=False)


@site.command()
def approve_code(
    study: Annotated[Path, typer.Argument(help="The study's folder, once its code has been read.")],
    key: Annotated[Path, typer.Option("--key", help="A person's key; see `fedseal person key`.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign a study's code as read and approved, beside its folder. It counts where a site's policy lists the key."""
    from fedseal.compliance.data.code import code_digest
    from fedseal.compliance.site_rules.approval import approve

    code = f"sha256:{code_digest(study).hex()}"
    signer = key_in(key, passphrase_file)
    path = approve(study, code, signer)
    print(f"{code}\nsigned by {signer.public.hex()}\nin {path}")


def _period(period: "Period") -> str:
    return (
        f"In the last {period.days} days: {period.spent:.1%} of what the policy allows "
        f"(epsilon {period.epsilon:g}), {period.charges} charges."
    )


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _said(event: "Event") -> str:
    """The body in one line."""
    parts = {k: v for k, v in event.body.model_dump(mode="json").items() if v is not None}
    return " ".join(f"{k}={_short(v)}" for k, v in parts.items())


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else f"{text[:16]}..."


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{k} {_words(v)}" for k, v in value.items()) or "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "nothing" if value is None else str(value)
