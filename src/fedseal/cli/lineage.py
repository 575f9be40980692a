"""`fedseal lineage`: which data, labels, code and people made a model, and what something has reached."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from fedseal.compliance.lineage.questions import Questions
    from fedseal.compliance.log.reading import ReadableLog

lineage = typer.Typer(
    help="Ask a federation's log which data, labels, code and people made a model, and what something has reached.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Where = Annotated[
    str,
    typer.Option(
        "--log",
        help="A server's or a site's store, a PostgreSQL URL, an exported log's folder, or a run's folder.",
        envvar="FEDSEAL_LOG",
    ),
]
Tables = Annotated[
    str | None, typer.Option(help="Where the tables of the lineage are kept: a path or a URL; beside the log if not.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Prove = Annotated[
    Path | None, typer.Option(help="A folder that gets every entry of the answer with a proof that it is in the log.")
]
Model = Annotated[str, typer.Argument(help="A model's id or its beginning, an alias, or a file model.safetensors.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """An open log and what to do with an answer."""

    source: "ReadableLog"
    questions: "Questions"
    digest: str
    as_json: bool
    prove: Path | None

    def answer(self, found: Any, told: Iterator[Any]) -> None:
        """Print an answer, and write the proofs that were asked for."""
        from rich.console import Console

        if self.as_json:
            typer.echo(json.dumps(_plain(asdict(found)), indent=2, allow_nan=False))
        else:
            console = Console(highlight=False, soft_wrap=not Console().is_terminal)
            for one in told:
                console.print(one)
        if self.prove is not None:
            written = write_proofs(self.source, found, self.prove)
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                f"{written} entries with their proofs are in {self.prove}.", markup=False
            )


@lineage.command()
def show(model: Model, log: Where, tables: Tables = None, as_json: AsJson = False, prove: Prove = None) -> None:
    """What a model was made of: runs, data, labels, code, environment, approvals."""
    from fedseal.cli.lineage_tables import told_shown

    with _asked(log, tables, as_json, prove) as asked:
        found = asked.questions.show(named(model))
        asked.answer(found, told_shown(found))


@lineage.command()
def impact(
    cause: Annotated[
        str,
        typer.Argument(
            help="A dataset, label set, guideline, code, environment, population, site or model: its id or the "
            "beginning of it, with `dataset:` and so on before it where several begin so.",
        ),
    ],
    log: Where,
    tables: Tables = None,
    every: Annotated[bool, typer.Option("--all", help="List also the models between two rounds.")] = False,
    as_json: AsJson = False,
    prove: Prove = None,
) -> None:
    """Which models something has reached, how, what bounds it, and the newest model that is clean of it."""
    from fedseal.cli.lineage_tables import told_impact

    with _asked(log, tables, as_json, prove) as asked:
        found = asked.questions.impact(named(cause))
        asked.answer(found, told_impact(found, every=every))


@lineage.command()
def epsilon(
    site: Annotated[str, typer.Argument(help="The site's name in the roster.")],
    log: Where,
    tables: Tables = None,
    as_json: AsJson = False,
    prove: Prove = None,
) -> None:
    """What a site's populations were charged over all runs, counted again from the log by two accountants."""
    from fedseal.cli.lineage_tables import told_epsilon

    with _asked(log, tables, as_json, prove) as asked:
        found = asked.questions.epsilon(site)
        asked.answer(found, told_epsilon(found))


@lineage.command()
def approvals(model: Model, log: Where, tables: Tables = None, as_json: AsJson = False, prove: Prove = None) -> None:
    """Who signed a model and what that means, what it had to pass, where it went."""
    from fedseal.cli.lineage_tables import told_approvals

    with _asked(log, tables, as_json, prove) as asked:
        found = asked.questions.approvals(named(model))
        asked.answer(found, told_approvals(found))


@lineage.command()
def diff(
    first: Model,
    second: Model,
    log: Where,
    tables: Tables = None,
    as_json: AsJson = False,
    prove: Prove = None,
) -> None:
    """What two models were made of, side by side."""
    from fedseal.cli.lineage_tables import told_difference

    with _asked(log, tables, as_json, prove) as asked:
        found = asked.questions.diff(named(first), named(second))
        asked.answer(found, told_difference(found))


@lineage.command()
def graph(
    model: Model,
    log: Where,
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output if not given.")] = None,
    form: Annotated[Literal["svg", "prov-json"], typer.Option("--format", help="A picture, or W3C PROV.")] = "svg",
    tables: Tables = None,
) -> None:
    """A model's lineage as a picture, or as PROV-JSON for other programs."""
    from fedseal.compliance.lineage.prov import prov_json
    from fedseal.compliance.lineage.svg import draw

    with _asked(log, tables, False, None) as asked:
        name = named(model)
        found = asked.questions.graph(name)
        text = draw(found) if form == "svg" else prov_json(found, asked.questions.approvals(name))
    if out is None:
        typer.echo(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from None


@lineage.command()
def rebuild(log: Where, tables: Tables = None, as_json: AsJson = False) -> None:
    """Drop the tables of a lineage, make them from the log's first entry, and say their digest.

    The same log gives the same digest everywhere: at the server, from a site's mirror, from an export.
    """
    with _asked(log, tables, as_json, None, rebuild=True) as asked:
        made = {"entries": asked.source.size, "digest": asked.digest}
        typer.echo(json.dumps(made) if as_json else f"{made['entries']} entries, {made['digest']}")


@contextmanager
def _asked(
    log: str, tables: str | None, as_json: bool, prove: Path | None, *, rebuild: bool = False
) -> Iterator[Asked]:
    from fedseal.compliance.lineage.opening import opened

    with opened(log, tables, rebuild=rebuild) as (source, questions, digest):
        yield Asked(source, questions, digest, as_json, prove)


def named(text: str) -> str:
    """What somebody calls a thing; for a file the id that a log has for its content.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = Path(text)
    if not path.is_file():
        return text
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def write_proofs(source: "ReadableLog", answer: object, folder: Path) -> int:
    """Write ``<index>.json``, the entry, and ``<index>.tlog-proof`` for every entry an answer rests on; how many.

    Raises:
        ConfigError: no checkpoint covers one of them, or the folder cannot be written.
    """
    from fedseal.compliance.lineage.answers import indices
    from fedseal.compliance.lineage.sources import prove

    wanted = sorted(set(indices(answer)))
    proofs = [(index, source.leaves(index, index + 1)[0], str(prove(source, index))) for index in wanted]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, leaf, proof in proofs:
            (folder / f"{index}.json").write_bytes(leaf)
            (folder / f"{index}.tlog-proof").write_text(proof, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from None
    return len(proofs)


def _plain(value: Any) -> Any:
    """JSON knows no infinity: null, as of what is not bounded."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
