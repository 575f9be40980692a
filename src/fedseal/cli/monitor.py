"""`fedseal monitor`: watch a model's world for drift, under privacy."""

from typing import Annotated

import typer

from fedseal.cli.monitor_log import check, replay

monitor = typer.Typer(
    help="Watch for drift under privacy: plan what a monitor will see, check a policy, make its decisions again.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@monitor.command()
def plan(
    sites: Annotated[int, typer.Option(min=3, max=100_000, help="How many sites take part in a window.")] = 10,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a window, all sites together.")] = 1000,
    reference_rows: Annotated[int, typer.Option(min=1, help="Rows of the reference, all sites together.")] = 10_000,
    epsilon: Annotated[float, typer.Option(min=0.01, max=64, help="What a window's release costs.")] = 0.5,
    features: Annotated[int, typer.Option(min=1, max=10_000, help="How many features are watched.")] = 13,
    bins: Annotated[int, typer.Option(min=3, max=256, help="Bins of a histogram.")] = 10,
    shift: Annotated[
        str, typer.Option(help="What is to be seen: mean:0.12, scale:1.1, tail:0.02 or rate:0.2+0.08.")
    ] = "mean:0.12",
    power: Annotated[float, typer.Option(min=0.05, max=0.999, help="How surely one window is to show it.")] = 0.8,
    windows: Annotated[float, typer.Option(min=1, max=100_000, help="Windows a year.")] = 52,
    false_alarms: Annotated[float, typer.Option(min=0.001, help="False alarms a year, at most.")] = 1.0,
    false_warnings: Annotated[float, typer.Option(min=0.001, help="Windows a year with a false warning.")] = 1.0,
    colluders: Annotated[int, typer.Option(min=0, help="Sites that may work with a malicious server.")] = 1,
    weights_part: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of epsilon that pays for the weights; 0 takes them as planned.")
    ] = 0.15,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers, and nothing else, as JSON.")] = False,
) -> None:
    """Say what a monitor will see before it is switched on: power, the smallest shift, false alarms a year."""
    from fedseal.cli.monitor_plan import Asked, parse_shift, run_plan
    from fedseal.privacy.inference.drift.multiplicity import spend

    asked = Asked(
        sites=sites,
        rows=rows,
        reference_rows=reference_rows,
        epsilon=epsilon,
        features=features,
        bins=bins,
        shift=parse_shift(shift),
        power=power,
        windows=windows,
        levels=spend(windows, false_alarms, false_warnings),
        colluders=colluders,
        weights_part=weights_part,
    )
    run_plan(asked, as_json=as_json)


monitor.command()(check)
monitor.command()(replay)
