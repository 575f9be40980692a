"""`fedseal model`: a model's way into use and out of it: registered, signed, checked, promoted, rolled back."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedseal.errors import ConfigError, ExitCode

model = typer.Typer(
    help="Models and their bundles: register, sign, check, promote, roll back, suspend, export.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

AliasName = Literal["candidate", "validated", "canary", "production"]
MeaningName = Literal["authored", "reviewed", "approved", "responsible"]
ReasonName = Literal["drift", "incident", "quality", "data-withdrawn", "other"]
Which = Annotated[str, typer.Argument(help="A bundle: six or more digits of its digest or its model's, or an alias.")]
Log = Annotated[Path, typer.Option("--log", help="The server's store, or the folder of a simulated run.")]
Bundles = Annotated[Path | None, typer.Option("--bundles", help="Where bundles are kept; beside the store.")]
Database = Annotated[str | None, typer.Option("--database", help="The log's URL, where it is in PostgreSQL.")]
AliasOption = Annotated[AliasName, typer.Option("--alias", help="Where the model is to stand.")]
Reason = Annotated[ReasonName, typer.Option("--reason", help="Why.")]
Rules = Annotated[Path, typer.Option("--rules", help="What aliases ask for.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome, and nothing else, as JSON.")]
RULES = Path("registry.toml")


@model.command()
def register(
    run: Annotated[Path, typer.Argument(help="The folder of a finished simulation.")],
    log: Annotated[Path | None, typer.Option("--log", help="The server's store; the run's own if not given.")] = None,
    describe: Annotated[
        Path | None, typer.Option(help="A TOML file: what the outputs mean, thresholds, columns.")
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="The study's folder: puts the model as ONNX into the bundle, too.")
    ] = None,
    bundles: Bundles = None,
    as_json: AsJson = False,
) -> None:
    """Make the bundle of a finished run, keep it, and write it and the run's scores into the federation's log."""
    from fedseal.cli.registry import opened, say
    from fedseal.compliance.registry.bundle import short
    from fedseal.compliance.registry.description import Description, bundle_of
    from fedseal.config import read_toml, validate
    from fedseal.simulation.registration import card_facts, made, measures, normalisation, read_run

    found = read_run(run)
    said = None
    if describe is not None:
        tables, text = read_toml(describe)
        said = validate(Description, tables, text=text, source=str(describe))
    with opened(log or run, bundles) as opening:
        if not opening.store.identity.roster.simulated:
            raise ConfigError("this log is a real federation's, and the run was simulated: their scores do not mix")
        registry = opening.registry
        of_run = made(registry.entries, f"sha256:{found.result.model_sha256}")
        scaled = normalisation(opening.store, of_run.origin.run)
        card = card_facts(found.result, found.contract)
        bundle = bundle_of(found.model, found.contract, said, scaled, of_run.code, card)
        if study is not None:
            from fedseal.cli.exporting import with_graph

            bundle = with_graph(bundle, study)
        index = registry.register(bundle, of_run.origin)
        registry.evaluate(
            bundle.model_digest,
            measures(found.result),
            simulated=True,
            report=found.report,
            run=of_run.origin.run,
        )
    outcome = {"bundle": bundle.digest, "model": bundle.model_digest, "index": index}
    say(outcome, f"Registered bundle {short(bundle.digest)} in entry {index}, with its scores.", as_json=as_json)


@model.command("list")
def list_models(log: Log, bundles: Bundles = None, database: Database = None, as_json: AsJson = False) -> None:
    """List the registered bundles, and what each alias points to and pointed to."""
    from fedseal.cli.model_tables import listing, print_listing
    from fedseal.cli.registry import opened, say

    with opened(log, bundles, database) as found:
        state = found.registry.state()
    if as_json:
        say(listing(state), "", as_json=True)
    else:
        print_listing(state)


@model.command()
def show(which: Which, log: Log, bundles: Bundles = None, database: Database = None, as_json: AsJson = False) -> None:
    """Show a bundle: what it is, where it comes from, who has signed it, how good it is, and whether its files hold."""
    from fedseal.cli.model_tables import description, print_description
    from fedseal.cli.registry import opened, say

    with opened(log, bundles, database) as found:
        state = found.registry.state()
        registration = found.registry.find(which, state)
        bundle = found.registry.bundles.get(registration.bundle)
        shown = description(state, registration, bundle, found.names())
    if as_json:
        say(shown, "", as_json=True)
    else:
        print_description(shown)


@model.command()
def check(
    which: Which,
    alias: AliasOption,
    log: Log,
    rules: Rules = RULES,
    bundles: Bundles = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """See what a bundle has and lacks for an alias. What each gate found is written into the log."""
    from fedseal.cli.model_tables import checks, print_checks
    from fedseal.cli.registry import opened, say
    from fedseal.compliance.events.fields import Alias
    from fedseal.compliance.registry.rules import read_rules

    asked = read_rules(rules)
    with opened(log, bundles, database) as found:
        registration = found.registry.find(which, found.registry.state())
        checked = found.registry.check(registration, Alias(alias), asked)
    if as_json:
        say(checks(checked), "", as_json=True)
    else:
        print_checks(checked, alias)


@model.command()
def promote(
    which: Which,
    alias: AliasOption,
    log: Log,
    rules: Rules = RULES,
    bundles: Bundles = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias to a bundle, if all signatures are there and all gates are passed."""
    from fedseal.cli.model_tables import checks
    from fedseal.cli.registry import opened, say
    from fedseal.compliance.events.fields import Alias
    from fedseal.compliance.registry.bundle import short
    from fedseal.compliance.registry.rules import read_rules

    asked = read_rules(rules)
    with opened(log, bundles, database) as found:
        registration = found.registry.find(which, found.registry.state())
        checked = found.registry.promote(registration, Alias(alias), asked)
    say(checks(checked), f"{alias} is bundle {short(registration.bundle)} now.", as_json=as_json)


@model.command()
def rollback(
    alias: AliasOption,
    reason: Reason,
    log: Log,
    to: Annotated[str | None, typer.Option(help="A bundle that the alias pointed to; the one before if none.")] = None,
    bundles: Bundles = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias to its earlier bundle again: model, recipe and schema together. Asks for no signature."""
    from fedseal.cli.registry import opened, say
    from fedseal.compliance.events.fields import Alias, RollbackReason
    from fedseal.compliance.registry.bundle import short

    with opened(log, bundles, database) as found:
        binding = found.registry.rollback(Alias(alias), RollbackReason(reason), to)
    outcome = {"alias": alias, "bundle": binding.bundle, "model": binding.model, "index": binding.index}
    say(outcome, f"{alias} is bundle {short(binding.bundle)} again: entry {binding.index}.", as_json=as_json)


@model.command()
def suspend(
    which: Which, reason: Reason, log: Log, bundles: Bundles = None, database: Database = None, as_json: AsJson = False
) -> None:
    """Say that a model may not be used for now. An alias that points to it gives nothing out until it is moved."""
    _end("suspend", which, reason, log, bundles, database, as_json=as_json)


@model.command()
def retire(
    which: Which, reason: Reason, log: Log, bundles: Bundles = None, database: Database = None, as_json: AsJson = False
) -> None:
    """Say that a model is never used again. That cannot be undone."""
    _end("retire", which, reason, log, bundles, database, as_json=as_json)


@model.command()
def witness(log: Log, as_json: AsJson = False) -> None:
    """Show the log of a simulated federation to its sites, who cosign it. Real sites do that with a run's messages."""
    from fedseal.cli.registry import opened, say
    from fedseal.simulation.witnessing import witness_all

    with opened(log) as found:
        folder = found.path.parent.parent
        names = [site.name for site in found.store.identity.roster.sites]
        size = witness_all(found.journal, [folder / f"{name}.sqlite" for name in names])
    say({"final_size": size}, f"A quorum of the sites has cosigned {size} entries.", as_json=as_json)


@model.command()
def recheck(
    log: Log,
    rules: Annotated[
        list[Path] | None, typer.Option("--rules", help="What aliases ask for; earlier versions too, one option each.")
    ] = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Make every promotion of a log again, from the entries before it. Ends with code 9 if one does not hold."""
    from fedseal.cli.registry import opened, say
    from fedseal.compliance.registry.bundle import short
    from fedseal.compliance.registry.recheck import recheck as made_again
    from fedseal.compliance.registry.rules import read_rules

    asked = [read_rules(path) for path in rules or [RULES]]
    with opened(log, None, database) as found:
        promotions = made_again(found.registry.entries, found.registry.parties, found.journal.policy, asked)
    outcome = [
        {"index": p.index, "alias": p.alias.value, "bundle": p.bundle, "problems": list(p.problems)} for p in promotions
    ]
    lines = [
        f"Entry {p.index}, {p.alias.value} to {short(p.bundle or '')}: {'; '.join(p.problems) or 'holds'}."
        for p in promotions
    ]
    say({"promotions": outcome}, "\n".join(lines) or "Nothing was promoted.", as_json=as_json)
    if any(p.problems for p in promotions):
        raise typer.Exit(int(ExitCode.FALSIFIED))


@model.command()
def export(
    which: Which,
    to: Annotated[Literal["mlflow", "onnx"], typer.Option("--to", help="For which program.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    log: Log,
    study: Annotated[
        Path | None, typer.Option(help="For onnx: the study's folder, whose code makes the model.")
    ] = None,
    bundles: Bundles = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Write a copy of a bundle for another program, with tags that say where in the log the model stands."""
    from fedseal.cli.registry import opened, say
    from fedseal.compliance.registry.mlflow import write_mlflow

    with opened(log, bundles, database) as found:
        registration = found.registry.find(which, found.registry.state())
        bundle = found.registry.bundles.get(registration.bundle)
        tags = found.registry.tags(registration)
    if to == "mlflow":
        write_mlflow(bundle, tags, datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"), folder)
    else:
        from fedseal.cli.exporting import write_onnx

        write_onnx(bundle, tags, study, folder)
    say({"folder": str(folder), "tags": tags.named()}, f"Wrote {folder}.", as_json=as_json)


def _end(
    how: str, which: str, reason: str, log: Path, bundles: Path | None, database: str | None, *, as_json: bool
) -> None:
    """Suspend or retire."""
    from fedseal.cli.registry import opened, say
    from fedseal.compliance.events.fields import RollbackReason
    from fedseal.compliance.registry.bundle import short

    with opened(log, bundles, database) as found:
        registry, state = found.registry, found.registry.state()
        registration = registry.find(which, state)
        act = registry.suspend if how == "suspend" else registry.retire
        index = act(registration, RollbackReason(reason))
        pointing = [a.value for a, b in state.aliases.items() if b.model == registration.model]
    text = f"Model {short(registration.model)} is {how.rstrip('e')}ed: entry {index}."
    if pointing:
        text += f" {', '.join(pointing)} still points to it and gives nothing out: roll back, or promote another one."
    say({"index": index, "model": registration.model, "aliases": pointing}, text, as_json=as_json)
