"""`fedseal privacy`: commands for whoever has to judge a promise."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

privacy = typer.Typer(
    help="Judge a privacy promise: plan it, audit this build, and see what sums alone do not hide.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Seed = Annotated[int | None, typer.Option(min=0, max=2**62, help="Repeats a run; a new one if not given.")]


@privacy.command()
def audit(
    study: Annotated[
        Path | None, typer.Argument(help="The study whose plan is audited; without one a plan of ten rounds.")
    ] = None,
    plan: Annotated[
        Literal["local", "distributed"] | None, typer.Option(help="The plan; the study's, or local.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="The promise; the study's, or 3.")] = None,
    delta: Annotated[float | None, typer.Option(help="Its delta; the study's, or 1e-5.")] = None,
    canaries: Annotated[int, typer.Option(help="How many canaries get a coin.")] = 2000,
    rounds: Annotated[int | None, typer.Option(help="How many rounds; the study's, or 10.")] = None,
    seed: Seed = None,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Let the simulated sites add noise for epsilon 1000 only: it must be caught."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers, and nothing else, as JSON.")] = False,
) -> None:
    """Attack a simulated run of this build, and say whether the claimed epsilon stands."""
    from fedseal.cli.simulating import need_packages

    need_packages()
    from fedseal.cli.auditing import Claim, run_audit

    code = run_audit(
        study,
        Claim(plan=plan, epsilon=epsilon, delta=delta, rounds=rounds),
        canaries=canaries,
        seed=seed,
        self_test=self_test,
        as_json=as_json,
    )
    if code:
        raise typer.Exit(int(code))


@privacy.command()
def invert(
    trials: Annotated[int, typer.Option(min=1, max=1000, help="How often each scene is played.")] = 10,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Fixes persons, models and noise.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers, and nothing else, as JSON.")] = False,
) -> None:
    """Show what a server reads out of sums: secure aggregation alone does not hide a person."""
    from fedseal.cli.simulating import need_packages

    need_packages()
    from fedseal.cli.auditing import run_inversion

    rows = run_inversion(trials, seed, as_json=as_json)
    if as_json:
        print(json.dumps(rows, indent=2))


@privacy.command()
def plan(
    study: Annotated[Path | None, typer.Argument(help="The study to plan for.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="A site's store: what its ledger has spent and has left. It is only read.")
    ] = None,
    population: Annotated[Literal["train", "test"], typer.Option(help="With --store: whose ledger.")] = "train",
    kind: Annotated[
        Literal["local", "distributed", "client"] | None, typer.Option("--plan", help="The plan; the study's.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="The promise; turns plan local on where there is none.")] = None,
    delta: Annotated[float | None, typer.Option(help="Its delta; the study's.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How many rounds; the study's.")] = None,
    sites: Annotated[
        int | None, typer.Option(min=2, max=100_000, help="How many sites share noise; the store's, or the study's.")
    ] = None,
    values: Annotated[
        int | None, typer.Option(min=1, max=2**32 - 1, help="The model's trainable numbers; counted if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers, and nothing else, as JSON.")] = False,
) -> None:
    """Say what a study will cost, what a site's ledger has left, and with both whether the site would accept it."""
    from fedseal.cli.planning import Asked, run_plan

    asked = Asked(plan=kind, epsilon=epsilon, delta=delta, rounds=rounds, sites=sites, values=values)
    run_plan(study, store, population, asked, as_json=as_json)
