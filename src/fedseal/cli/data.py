"""`fedseal data`: what a site says of its data, and whether the data still is that."""

import dataclasses
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedseal.cli.on_record import put_on_record
from fedseal.cli.site import opened, whose
from fedseal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fedseal.compliance.data.contract import DataContract
    from fedseal.compliance.data.registry import DatasetVersion

data = typer.Typer(
    help="Register the versions of a site's data, and see whether a folder still holds one.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Folder = Annotated[Path, typer.Argument(help="The site's data folder, the `fedseal-data` of its node.")]
Store = Annotated[Path, typer.Option("--store", help="The site's store, the `fedseal-store` of its node.")]
ContractFile = Annotated[Path, typer.Option("--contract", help="The data contract, made by `fedseal data init`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output and nothing else there.")]
Number = Annotated[int, typer.Argument(help="The version, as `fedseal data list` numbers it.")]


@data.command()
def init(
    folder: Folder,
    subject: Annotated[str, typer.Option(help="The column with the ids of subjects.")],
    contract: ContractFile = Path("data.toml"),
) -> None:
    """Write a data contract to start from: the table's columns and types, and the facts to be filled in.

    No value of the table is written. It is not valid until the facts are filled in.
    """
    from fedseal.client.datasets.template import template

    text = template(folder, subject)
    try:
        with contract.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{contract} exists already", next_step="Give another name as --contract.") from None
    except OSError as error:
        raise ConfigError(f"{contract} cannot be written ({type(error).__name__})") from None
    _say(f"Made {contract}. Fill in what is marked, then: fedseal data register {folder} --contract {contract} ...")


@data.command()
def register(
    folder: Folder,
    store: Store,
    study: Annotated[Path, typer.Option(help="The study's folder: the digest of the code that reads the data.")],
    contract: ContractFile = Path("data.toml"),
    as_json: AsJson = False,
) -> None:
    """Register what a folder holds as the next version of its dataset. From then on the site checks before every
    round that its data is that version.
    """
    from fedseal.client.datasets.register import register as register_folder
    from fedseal.compliance.data.code import code_digest

    with opened(store) as (site_store, _):
        pass
    rules, preprocessing = _contract(contract), code_digest(study)
    done = register_folder(site_store, folder, rules, preprocessing=preprocessing, as_of=_today())
    with opened(store) as (site_store, transaction):
        put_on_record(site_store, transaction)
    if as_json:
        _json({**_row(done.version), "new": done.new})
        return
    _say(whose(site_store))
    found = done.version
    what = "registered" if done.new else "registered already; its files were looked at again"
    _say(f"Version {found.number} of dataset {found.facts.name!r}: {what}.")
    _say(f"{found.facts.subjects:,} subjects in {found.facts.rows:,} rows, content root {found.facts.content_root}")
    _say("From now on this site computes on this version only, and stops when a file of it changes.")


@data.command(name="list")
def list_versions(store: Store, as_json: AsJson = False) -> None:
    """List the registered versions."""
    from fedseal.compliance.data.registry import in_use, versions

    with opened(store, reading=True) as (site_store, transaction):
        connection = transaction.connection
        found = versions(connection) if in_use(connection) else []
    if as_json:
        _json([_row(v) for v in found])
        return
    _say(whose(site_store))
    if not found:
        _say("It has registered no data.")
        return
    table = Table()
    for title in ("version", "dataset", "state", "subjects", "rows", "population", "dsv_id"):
        table.add_column(title, justify="right" if title in ("version", "subjects", "rows") else "left")
    for v in found:
        facts = v.facts
        counts = (f"{facts.subjects:,}", f"{facts.rows:,}")
        table.add_row(str(v.number), facts.name, v.status.value, *counts, facts.population, facts.dsv_id[:16])
    Console(highlight=False).print(table)


@data.command()
def show(number: Number, store: Store, as_json: AsJson = False) -> None:
    """Show all facts of a version, what of them the federation's log gets, and its quality report."""
    from fedseal.compliance.data.facts import shared
    from fedseal.compliance.data.registry import keys_of, report_of, version

    with opened(store, reading=True) as (_, transaction):
        connection = transaction.connection
        _used(connection)
        found, report = version(connection, number), report_of(connection, number)
        public = shared(found.facts, keys_of(connection))
    shown = {
        **_row(found),
        "shared": dataclasses.asdict(public),
        "quality": report.model_dump(mode="json"),
    }
    if as_json:
        _json(shown)
        return
    Console(highlight=False, soft_wrap=True).print_json(json.dumps(shown, default=str))


@data.command()
def diff(
    old: Annotated[int, typer.Argument(help="The earlier version.")],
    new: Annotated[int, typer.Argument(help="The later version.")],
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Compare two versions: how many subjects came, went or changed, and which facts differ. Names nobody."""
    from fedseal.compliance.data.registry import compare

    with opened(store, reading=True) as (_, transaction):
        _used(transaction.connection)
        found = compare(transaction.connection, old, new)
    if as_json:
        _json(dataclasses.asdict(found))
        return
    _say(f"Version {old} to version {new}")
    if found.changed is None:
        _say(f"subjects: {found.added:,} added, {found.removed:,} removed; rows were digested under another secret")
    else:
        _say(f"subjects: {found.added:,} added, {found.removed:,} removed, {found.changed:,} changed")
    _say(f"facts that differ: {', '.join(found.facts) or 'none'}")


@data.command()
def check(
    folder: Folder,
    store: Store,
    contract: Annotated[
        Path | None, typer.Option("--contract", help="Read the table too, and count what breaks this contract.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a folder still holds its registered version, as the site does before every round."""
    from fedseal.client.datasets.recheck import check_registered

    report = None
    if contract is not None:
        report = _quality(folder, _contract(contract))
    with opened(store) as (_, transaction):
        found = check_registered(transaction, folder)
    if found is None:
        raise ConfigError("this site has registered no data", next_step="Register it: fedseal data register ...")
    if as_json:
        _json({**_row(found), "quality": None if report is None else report})
    else:
        _say(f"{folder} holds version {found.number} of dataset {found.facts.name!r}.")
        for failure in [] if report is None else report["failures"]:
            where = f"column {failure['column']!r}: " if failure["column"] else ""
            rows = "" if failure["rows"] is None else f", {failure['rows']:,} rows"
            _say(f"{where}{failure['rule']}{rows}")
    if report is not None and report["failures"]:
        raise DataError("the data breaks this contract", next_step="Correct the table, or the contract.")


def _quality(folder: Path, rules: "DataContract") -> dict[str, Any]:
    from fedseal.client.datasets.checks import quality_report
    from fedseal.client.datasets.encoding import subjects_of
    from fedseal.client.datasets.table import read_typed

    table = read_typed(folder, rules)
    report = quality_report(table, subjects_of(table, rules.schema_of_rows), rules, _today())
    return report.model_dump(mode="json")


def _contract(path: Path) -> "DataContract":
    from fedseal.compliance.data.contract import DataContract
    from fedseal.config import read_toml, validate

    table, text = read_toml(path)
    return validate(DataContract, table, text=text, source=str(path))


def _used(connection: Any) -> None:
    from fedseal.compliance.data.registry import in_use

    if not in_use(connection):
        raise ConfigError("this site has registered no data", next_step="Register it: fedseal data register ...")


def _row(found: "DatasetVersion") -> dict[str, Any]:
    return {"version": found.number, "state": found.status.value, "facts": dataclasses.asdict(found.facts)}


def _json(shown: object) -> None:
    typer.echo(json.dumps(shown, indent=2, sort_keys=True, default=str))


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def _today() -> date:
    return datetime.now(UTC).date()
