"""`fedseal report`: documents about a model whose every fact is an entry of a log."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedseal.errors import ConfigError, ExitCode, PeerError

if TYPE_CHECKING:
    from fedseal.compliance.reports.template import Template

report = typer.Typer(
    help="Write a model's documents from the log alone: every fact with its entries, every gap in red.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Model = Annotated[str, typer.Argument(help="The model's SHA-256, how it begins, or its file.")]
Where = Annotated[
    str, typer.Option("--log", help="A run's folder, a store, an exported log's folder, or a PostgreSQL URL.")
]
Out = Annotated[Path, typer.Option("-o", "--out", help="The page; JSON if its name ends so.")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Whose signatures count. The copy's own word if not.")
]
DocumentsFile = Annotated[
    Path | None, typer.Option("--documents", help="TOML with digests of documents that are not in the log.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output and nothing else there.")]


@report.command()
def model_card(
    model: Model,
    log: Where,
    out: Out,
    documents: DocumentsFile = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """A model card. Ends with 10 if something is NOT RECORDED that a card has to say."""
    from fedseal.compliance.reports.template import MODEL_CARD, read_template

    _write(read_template(MODEL_CARD), model, log, out, documents, policy, as_json=as_json)


@report.command()
def annex_iv(
    model: Model,
    log: Where,
    out: Out,
    documents: DocumentsFile = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Technical documentation after the AI Act's Annex IV. Ends with 10 if a mandatory item is NOT RECORDED."""
    from fedseal.compliance.reports.template import ANNEX_IV, read_template

    _write(read_template(ANNEX_IV), model, log, out, documents, policy, as_json=as_json)


def _write(
    template: "Template",
    model: str,
    log: str,
    out: Path,
    documents: Path | None,
    policy: Path | None,
    *,
    as_json: bool,
) -> None:
    try:
        from fedseal.compliance.reports import page
    except ImportError:
        raise ConfigError("reports need Jinja", next_step="Install it: pip install 'fedseal[reports]'.") from None
    from fedseal.cli.audit import opened
    from fedseal.compliance.audit.whole import verify_copy
    from fedseal.compliance.reports.documents import Documents, read_documents
    from fedseal.compliance.reports.history import read_history
    from fedseal.compliance.reports.report import State, document_keys, make_report

    named = Documents() if documents is None else read_documents(documents, document_keys(template))
    with opened(log, policy) as copy:
        verdict = verify_copy(copy)
        if verdict.findings or verdict.rolled_back:
            raise PeerError(
                "this log does not hold: no report is made from it",
                peer=verdict.origin,
                next_step=f"See what is wrong: fedseal audit verify --log {log}",
            )
        own_word = copy.own_word
        history = read_history(copy.leaves(), _digest(model))
    made = make_report(template, history, named)
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    found = json.dumps(page.as_json(made, verdict, made=now, own_word=own_word), indent=2, ensure_ascii=False)
    text = found if out.suffix == ".json" else page.render(made, verdict, made=now, own_word=own_word)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from None
    if as_json:
        print(found)
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.print(
        f"{out}: {made.percent} % of the facts asked for are not missing; "
        f"{made.count(State.MISSING)} are NOT RECORDED.",
        markup=False,
    )
    if not made.complete:
        raise typer.Exit(int(ExitCode.INCOMPLETE))


def _digest(model: str) -> str:
    """The digest that is meant: of a file, if it is one."""
    path = Path(model)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else model
