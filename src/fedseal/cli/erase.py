"""`fedseal erase`: a request under Article 17 of the GDPR at a site: where a subject is, what is destroyed, and the
proof that the next version is without them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fedseal.cli.on_record import put_on_record
from fedseal.cli.site import opened
from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from fedseal.compliance.data.erasure import ErasurePlan

erase = typer.Typer(
    help="Erase subjects from what a site keeps, and prove that they are gone.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Store = Annotated[Path, typer.Option("--store", help="The site's store.")]
Subjects = Annotated[Path, typer.Option("--subject-file", help="Ids of subjects, one a line, as the table has them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output and nothing else there.")]
# An id on the command line would stay in the shell's history; so would a reason in free text in a log.


@erase.command()
def plan(store: Store, subject_file: Subjects, as_json: AsJson = False) -> None:
    """Say in which versions the subjects are and what erasing would destroy. Changes nothing."""
    from fedseal.compliance.data.erasure import plan as make_plan

    subjects = _subjects(subject_file)
    with opened(store, reading=True) as (_, transaction):
        planned = make_plan(transaction.connection, subjects)
    if as_json:
        _json(_shown(planned))
        return
    _print_plan(planned)
    _say(f"Nothing has changed. To erase: fedseal erase execute --store {store} --subject-file ... --reason ...")


@erase.command()
def execute(
    store: Store,
    subject_file: Subjects,
    reason: Annotated[str, typer.Option(help="The ground, as 17-1-a to 17-1-f.")],
    as_json: AsJson = False,
) -> None:
    """Shred the subjects' sealed fields and their keys, and withdraw the versions in use that hold them.

    The rows themselves are in the site's own files: take them out, and register the next version.
    """
    from fedseal.compliance.data.erasure import execute as carry_out
    from fedseal.compliance.data.erasure import overwrite
    from fedseal.compliance.data.erasure import plan as make_plan
    from fedseal.compliance.data.occurrences import ErasureReason
    from fedseal.compliance.events.subjects import RequestReceived

    if reason not in set(ErasureReason):
        raise ConfigError(f"--reason has to be one of {', '.join(ErasureReason)}", next_step="GDPR, Article 17(1).")
    subjects = _subjects(subject_file)
    with opened(store) as (site_store, transaction):
        planned = make_plan(transaction.connection, subjects)
        carry_out(transaction.connection, planned, ErasureReason(reason), datetime.now(UTC).date())
        request = put_on_record(site_store, transaction).last_said(RequestReceived)
    overwrite(store)
    if as_json:
        _json({**_shown(planned), "request": None if request is None else request.request})
        return
    _print_plan(planned)
    if request is not None:
        _say(f"In the log this is request {request.request}. When it is decided what becomes of the models that the")
        _say("data has reached (`fedseal lineage impact`), close it: fedseal erase close ... --outcome ...")
    _say("Done: the store's file was written anew without them. Backups of it are not reached: let them expire.")
    if planned.withdrawn:
        _say("Take the subjects' rows out of the data folder and register the next version: fedseal data register ...")


@erase.command()
def close(
    request: Annotated[str, typer.Argument(help="The request, as `fedseal erase execute` named it.")],
    store: Store,
    outcome: Annotated[str, typer.Option(help="What becomes of the models: retrain, keep-with-argument, ...")],
) -> None:
    """Put on record how a request was answered. The federation's log gets it with the site's next answer."""
    from fedseal.compliance.events.fields import RequestOutcome
    from fedseal.compliance.events.subjects import RequestClosed

    if outcome not in set(RequestOutcome):
        raise ConfigError(f"--outcome has to be one of {', '.join(RequestOutcome)}")
    with opened(store) as (site_store, transaction):
        journal = put_on_record(site_store, transaction)
        if not journal.has_received(request):
            raise ConfigError(
                "this site has no such request, or it is closed", next_step="`fedseal erase execute` names it."
            )
        journal.share(RequestClosed(request=request, outcome=RequestOutcome(outcome)))
    _say(f"Closed: {outcome}.")


@erase.command()
def prove(
    number: Annotated[int, typer.Argument(help="The version, as `fedseal data list` numbers it.")],
    store: Store,
    subject_file: Subjects,
    out: Annotated[Path, typer.Option(help="The file for the proofs.")],
) -> None:
    """Prove for each subject that it is, or is not, in a version. The proofs name nobody."""
    from fedseal.compliance.data.content import NonMembership, subject_tag
    from fedseal.compliance.data.erasure import prove as make_proof
    from fedseal.compliance.data.registry import keys_of, version
    from fedseal.wire import encode

    subjects = _subjects(subject_file)
    with opened(store, reading=True) as (_, transaction):
        connection = transaction.connection
        _used(connection)
        key, root = keys_of(connection).subject, version(connection, number).facts.content_root
        proofs = [make_proof(connection, number, subject_tag(key, subject)) for subject in subjects]
    absent = sum(isinstance(proof, NonMembership) for proof in proofs)
    shown = {"version": 1, "content_root": root, "proofs": [encode(proof).hex() for proof in proofs]}
    try:
        out.write_text(json.dumps(shown, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({type(error).__name__})") from None
    _say(f"Version {number}, content root {root}")
    _say(f"{absent} of {len(proofs)} subjects are not in it; {len(proofs) - absent} are. Proofs: {out}")


@erase.command()
def verify(
    proofs: Annotated[Path, typer.Argument(help="A file of `fedseal erase prove`.")],
    store: Store,
    subject_file: Subjects,
    root: Annotated[str, typer.Option(help="The content root, from where the auditor trusts it: the site's log.")],
) -> None:
    """Check proofs against a content root, with the site's key for its subjects' tags and nothing else of its store.

    Ends with code 4 unless every proof holds.
    """
    from fedseal.compliance.data.content import NonMembership, subject_tag
    from fedseal.compliance.data.erasure import verified
    from fedseal.compliance.data.registry import keys_of
    from fedseal.errors import DataError

    subjects, found = _subjects(subject_file), _read_proofs(proofs)
    with opened(store, reading=True) as (_, transaction):
        _used(transaction.connection)
        key = keys_of(transaction.connection).subject
    with _hexadecimal("--root"):
        trusted = bytes.fromhex(root)
    if len(found) != len(subjects):
        raise DataError(f"{len(found)} proofs for {len(subjects)} subjects")
    wrong = [
        i
        for i, (p, s) in enumerate(zip(found, subjects, strict=True), start=1)
        if not verified(p, trusted, subject_tag(key, s))
    ]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(found)} proofs do not hold: those of line {', '.join(map(str, wrong[:10]))}",
            next_step="Proofs belong to the subject file and the version they were made for.",
        )
    absent = sum(isinstance(p, NonMembership) for p in found)
    _say(f"All {len(found)} proofs hold: {absent} subjects are not in this dataset, {len(found) - absent} are.")


def _read_proofs(path: Path) -> list[Any]:
    from fedseal.compliance.data.content import Membership, NonMembership
    from fedseal.wire import DecodeError, decode

    kinds: tuple[type[Membership | NonMembership], ...] = (Membership, NonMembership)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return [decode(bytes.fromhex(proof), *kinds) for proof in table["proofs"]]
    except (OSError, ValueError, TypeError, LookupError, DecodeError):
        raise ConfigError(f"{path} is no file of proofs", next_step="Make one: fedseal erase prove ...") from None


@contextmanager
def _hexadecimal(option: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise ConfigError(f"{option} is not in hexadecimal digits") from None


def _subjects(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read as text") from None
    return [line for line in lines if line]


def _used(connection: Any) -> None:
    from fedseal.compliance.data.registry import in_use

    if not in_use(connection):
        raise ConfigError("this site has registered no data", next_step="See fedseal data register.")


def _shown(planned: "ErasurePlan") -> dict[str, Any]:
    return {
        "subjects": len(planned.tags),
        "unknown": planned.unknown,
        "sealed_records": planned.sealed,
        "versions": [
            {
                "version": f.version.number,
                "dataset": f.version.facts.name,
                "dsv_id": f.version.facts.dsv_id,
                "state_before": f.version.status.value,
                "subjects": f.subjects,
            }
            for f in planned.found
        ],
    }


def _print_plan(planned: "ErasurePlan") -> None:
    _say(f"{len(planned.tags)} subjects, {planned.unknown} of them unknown here; {planned.sealed} sealed records.")
    for found in planned.found:
        known = found.version
        fate = "withdrawn" if known in planned.withdrawn else f"stays {known.status.value}"
        _say(f"version {known.number} of {known.facts.name!r}: {found.subjects} of them; {fate}; {known.facts.dsv_id}")
    if planned.found:
        _say("Models trained on these versions learned from them: the federation's log says which, by dsv_id.")


def _json(shown: object) -> None:
    typer.echo(json.dumps(shown, indent=2, sort_keys=True))


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
