"""`fedseal labels`: a site's own labels, who gave them, how good they are, and which version of them is used."""

from pathlib import Path
from typing import Annotated, Literal

import typer

labels = typer.Typer(
    help="Keep a site's labels: import them, correct them, see how well annotators agree, decide and register a set.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Store = Annotated[Path, typer.Option(help="The site's store, the `fedseal-store` of its node.")]
Dataset = Annotated[str, typer.Option(help="The dataset version that the items belong to, by its id.")]
Version = Annotated[str, typer.Option(help="The guideline version, by its name.")]
Newest = Annotated[str | None, typer.Option(help="The guideline version; the newest with annotations if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Names = Annotated[bool, typer.Option("--names", help="Show annotators' names in place of pseudonyms.")]
CoefficientName = Annotated[
    Literal["krippendorff-alpha", "fleiss-kappa", "cohen-kappa", "cohen-kappa-linear", "cohen-kappa-quadratic"],
    typer.Option(help="The coefficient of agreement."),
]


@labels.command()
def guideline(
    version: Annotated[str, typer.Argument(help="The version's name.")],
    store: Store,
    document: Annotated[Path, typer.Option(help="The document that annotators follow; its digest is kept.")],
    schema: Annotated[Path, typer.Option(help="TOML file with the level of measurement and all labels.")],
    as_json: AsJson = False,
) -> None:
    """Register a guideline version: a document and what a label may be."""
    from fedseal.cli.labelling import add_guideline

    add_guideline(store, version, document, schema, as_json=as_json)


@labels.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="The file with annotations.")],
    store: Store,
    layout: Annotated[
        Literal["csv-wide", "csv-long", "label-studio", "doccano"], typer.Option("--format", help="The file's layout.")
    ],
    guideline: Version,
    dataset: Dataset,
    annotator: Annotated[str, typer.Option(help="Whose labels they are, where a doccano file does not say.")] = "",
    item_key: Annotated[str, typer.Option(help="Which entry of a task or document names the item; its id.")] = "",
    control: Annotated[str, typer.Option(help="Label Studio: which control's results count.")] = "",
    as_json: AsJson = False,
) -> None:
    """Store the annotations of a file. A refused file changes nothing; the same file again adds nothing."""
    from fedseal.cli.labelling import import_file
    from fedseal.compliance.labels.formats import Format, Source

    source = Source(file, Format(layout), annotator=annotator, item_key=item_key, control=control)
    import_file(store, source, guideline, dataset, as_json=as_json)


@labels.command()
def gold(
    file: Annotated[Path, typer.Argument(help="CSV file with the columns item and label.")],
    store: Store,
    guideline: Version,
    dataset: Dataset,
    as_json: AsJson = False,
) -> None:
    """Store labels that are known to be right, to judge annotators and sets by."""
    from fedseal.cli.labelling import add_gold

    add_gold(store, file, guideline, dataset, as_json=as_json)


@labels.command()
def correct(
    store: Store,
    dataset: Dataset,
    item: Annotated[str, typer.Option(help="The item.")],
    annotator: Annotated[str, typer.Option(help="The annotator, by name or pseudonym.")],
    reason: Annotated[
        Literal["mistake", "annotator-revised", "guideline-changed", "wrong-item", "withdrawn"],
        typer.Option(help="Why."),
    ],
    label: Annotated[str | None, typer.Option(help="The label that holds from now on.")] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="No label holds from now on.")] = False,
) -> None:
    """Put another label in the place of an annotation, or none. The old one stays on record."""
    from fedseal.cli.labelling import correct_annotation
    from fedseal.errors import ConfigError

    if (label is None) is not withdraw:
        raise ConfigError("give either --label or --withdraw")
    correct_annotation(store, dataset, item, annotator, label, reason)


@labels.command(name="list")
def list_(store: Store, as_json: AsJson = False) -> None:
    """List guideline versions, imported files and registered label sets."""
    from fedseal.cli.labelling import list_all

    list_all(store, as_json=as_json)


@labels.command()
def show(
    label_set: Annotated[str, typer.Argument(metavar="SET", help="The set, by the first digits of its id.")],
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Show what is on record of a label set, and what of it others may know."""
    from fedseal.cli.labelling import show_set

    show_set(store, label_set, as_json=as_json)


@labels.command()
def agreement(
    store: Store,
    dataset: Dataset,
    guideline: Newest = None,
    coefficient: CoefficientName = "krippendorff-alpha",
    annotator: Annotated[
        list[str] | None, typer.Option(help="Only this annotator, by name or pseudonym; may be given several times.")
    ] = None,
    names: Names = False,
    as_json: AsJson = False,
) -> None:
    """Say how well annotators agree, and each one's accuracy where gold labels are known. Stays at the site."""
    from fedseal.cli.labelling import show_agreement

    show_agreement(store, dataset, guideline, coefficient, tuple(annotator or ()), names=names, as_json=as_json)


@labels.command()
def consensus(
    store: Store,
    dataset: Dataset,
    method: Annotated[
        Literal["single", "majority", "reviewer", "dawid-skene"], typer.Option(help="How labels are decided.")
    ],
    guideline: Newest = None,
    decisions: Annotated[
        Path | None, typer.Option(help="With --method reviewer: CSV file with the columns item and label.")
    ] = None,
    reviewer: Annotated[str, typer.Option(help="With --decisions: who decided.")] = "",
    coefficient: CoefficientName = "krippendorff-alpha",
    out: Annotated[Path | None, typer.Option(help="Write the decided labels to this CSV file.")] = None,
    register: Annotated[bool, typer.Option("--register", help="Make it a version on record.")] = False,
    as_json: AsJson = False,
) -> None:
    """Decide one label an item; with --register the set becomes a version that models can be traced to."""
    from fedseal.cli.labelling import Wanted, decide_labels
    from fedseal.errors import ConfigError

    if (decisions is not None) is not bool(reviewer) or (decisions is not None and method != "reviewer"):
        raise ConfigError("--decisions and --reviewer go together, with --method reviewer")
    wanted = Wanted(dataset, guideline, method, coefficient, decisions, reviewer, out, register)
    decide_labels(store, wanted, as_json=as_json)
