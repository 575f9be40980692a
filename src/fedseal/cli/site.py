"""`fedseal site`: a site's node, and what the person who looks after its store can see and end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedseal.cli import enrolling
from fedseal.cli.isolation import isolation
from fedseal.cli.services import LogOption
from fedseal.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from fedseal.privacy.runs import RunRecord
    from fedseal.privacy.store import SiteStore
    from fedseal.privacy.transaction import Transaction

site = typer.Typer(
    help="Enrol a site, run its node, and look after its store: list its runs, close one, take out its own model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
site.command()(isolation)

site.command("init")(enrolling.init_site)
site.command("join")(enrolling.join)
site.command("rotate")(enrolling.rotate_site)

Store = Annotated[Path, typer.Argument(help="The site's store, the `fedseal-store` of its node.")]
# Sixteen bytes, as `fedseal run` and `fedseal site runs` show them.
DIGITS = 32


@site.command()
def run(
    config: Annotated[Path, typer.Option("--config", help="The node's file; see docs/deploy.md.")],
    log_format: LogOption = None,
) -> None:
    """Run this site's resident node until it is stopped. It runs only the code that its file names."""
    from fedseal.cli.resident import run_node

    run_node(config, log_format)


@site.command()
def code(study: Annotated[Path, typer.Argument(help="The folder of a study's code.")]) -> None:
    """Print the digest of a study's code: what a node's file names as approved, once somebody has read it."""
    from fedseal.compliance.data.code import code_digest

    print(f"sha256:{code_digest(study).hex()}")


@site.command()
def runs(store: Store) -> None:
    """List the runs that this site has answered for, and what each still has reserved."""
    with opened(store) as (site_store, transaction):
        transaction.verify_ledgers()
        records, reserved = transaction.runs(), _reserved(transaction)
    console = Console(highlight=False, soft_wrap=True)
    console.print(whose(site_store))
    if not records:
        console.print("It has answered for no run.")
        return
    console.print(_table(records, reserved))


@site.command()
def close_run(
    store: Store, run: Annotated[str, typer.Argument(help="The run, as `fedseal site runs` shows it.")]
) -> None:
    """End a run at this site: give back what it has reserved, and never answer for it again.

    For a run whose server is gone or has failed. What was charged stays charged, and a closed run never reopens.
    """
    number = number_of(run)
    with opened(store) as (site_store, transaction):
        transaction.verify_ledgers()
        found = next((record for record in transaction.runs() if record.run == number), None)
        if found is None:
            raise ConfigError(
                "this site has answered for no run of that number",
                next_step=f"See which there are: fedseal site runs {store}",
            )
        reserved = _reserved(transaction).get(number, [])
        transaction.close_run(number)
    console = Console(highlight=False, soft_wrap=True)
    console.print(whose(site_store))
    if found.closed:
        console.print(f"Run {number.hex()} was closed already; nothing has changed.")
        return
    console.print(f"Run {number.hex()} is closed. Given back: {'; '.join(reserved) or 'nothing'}.")
    console.print(
        "What it was charged stays charged. It never reopens: a round that is under way goes on without this site or "
        "fails, and to go on training the coordinator starts a new run."
    )


@site.command()
def own_model(
    store: Store,
    run: Annotated[str, typer.Argument(help="The run, as `fedseal site runs` shows it.")],
    out: Annotated[Path, typer.Argument(help="A new safetensors file.")],
) -> None:
    """Write what this site has of its own of a run's model: Ditto's or a fine-tuned one, or the layers that stay here.

    It was trained on this site's persons without noise, and has not left the site.
    """
    from fedseal.privacy.transaction import PERSONAL_MODEL

    number = number_of(run)
    if out.exists():
        raise ConfigError(f"{out} exists", next_step="Name a new file.")
    with opened(store, reading=True) as (site_store, transaction):
        model = transaction.kept(number, PERSONAL_MODEL)
    if model is None:
        raise ConfigError(
            "this site keeps nothing of its own of a run of that number",
            next_step="Sites do with the strategies ditto, fedrep and fedbn, and where they fine-tune.",
        )
    out.write_bytes(model)
    console = Console(highlight=False, soft_wrap=True)
    console.print(whose(site_store))
    console.print(
        f"Its own part of run {number.hex()} is in {out}. It says something of this site's persons: keep it here."
    )


@site.command()
def upgrade(store: Store) -> None:
    """Bring a store of an earlier fedseal to today's format; `fedseal site run` does so by itself.

    The store as it was is kept beside it. It has the site's key: delete it once nobody needs to go back.
    """
    from fedseal.privacy.store import SiteStore

    if not store.is_file():
        raise ConfigError(f"no site store at {store}", next_step="Give the file that `fedseal-store` names.")
    found = SiteStore.open(store)
    found.verify_ledgers()
    copies = sorted(str(path) for path in store.parent.glob(f"{store.name}.format-*"))
    console = Console(highlight=False, soft_wrap=True)
    console.print(whose(found))
    console.print("It has today's format, and its ledgers hold.")
    for copy in copies:
        console.print(f"As it was before: {copy}")


@contextmanager
def opened(path: Path, *, reading: bool = False) -> "Iterator[tuple[SiteStore, Transaction]]":
    """A store and a transaction in it; with ``reading`` one that holds up nobody and writes nothing.

    Raises:
        ConfigError: there is no site's store, another program does not let go of it, or its ledger is damaged.
    """
    from fedseal.database import free_to_use
    from fedseal.privacy.ledger import DAMAGED
    from fedseal.privacy.store import SiteStore

    if not path.is_file():
        raise ConfigError(f"no site store at {path}", next_step="Give the file that `fedseal-store` names.")
    store = SiteStore.open(path, reading=reading)
    try:
        with free_to_use(path), store.transaction() as transaction:
            yield store, transaction
    except LocalError as error:
        # Elsewhere that is a fault of our own; a file that is looked at by hand is somebody's file.
        raise ConfigError(f"{path}: {error.message}", next_step=error.next_step or DAMAGED) from None


def _reserved(transaction: "Transaction") -> dict[bytes, list[str]]:
    """What each run has set aside and not spent, in words: a share of a population's budget, or a number of attempts
    where no budget is counted.
    """
    from fedseal.privacy.chain import reservations
    from fedseal.privacy.plan import PlanKind, decode_plan

    found: dict[bytes, list[str]] = {}
    for population in transaction.populations():
        budget = transaction.terms(population).budget
        for (run, plan), left in reservations(transaction.entries(population)).items():
            if left:
                counted = decode_plan(plan).kind is not PlanKind.NONE
                amount = f"{100 * left / budget:.1f} % of the budget" if counted else f"{left} attempts without privacy"
                found.setdefault(run, []).append(f"{population}: {amount}")
    return found


def _table(records: "list[RunRecord]", reserved: dict[bytes, list[str]]) -> Table:
    table = Table()
    table.add_column("run", no_wrap=True, min_width=DIGITS)
    table.add_column("release", justify="right")
    table.add_column("attempt", justify="right")
    table.add_column("state")
    table.add_column("still reserved")
    for record in records:
        held = "\n".join(reserved.get(record.run, [])) or "nothing"
        state = "closed" if record.closed else "open"
        table.add_row(record.run.hex(), str(record.release_seq), str(record.attempt), state, held)
    return table


def whose(store: "SiteStore") -> str:
    identity = store.identity
    kind = "simulated federation" if identity.simulated else "federation"
    return f"Site {identity.name} of {kind} {identity.roster.federation}"


def number_of(run: str) -> bytes:
    """The sixteen bytes of a run that somebody has typed; ConfigError if it is none."""
    try:
        number = bytes.fromhex(run) if len(run) == DIGITS else b""
    except ValueError:
        number = b""
    if len(number) != DIGITS // 2:
        raise ConfigError(
            f"a run is named by {DIGITS} hexadecimal digits",
            next_step="Copy them from `fedseal site runs`.",
        )
    return number
