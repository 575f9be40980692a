"""`fedseal audit`: what somebody who trusts nobody can check about a log, and what its keepers do to keep it whole."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedseal.cli.audit_upkeep import evidence, recover, review, settle
from fedseal.errors import ConfigError, DataError, OperatorError

if TYPE_CHECKING:
    from fedseal.compliance.audit.source import LogCopy
    from fedseal.compliance.audit.verify import Verdict
    from fedseal.compliance.log.quorum import Policy

audit = typer.Typer(
    help="Check a log, prove what stands in it, compare it with a site's own. Ends with 0: all holds; 1: tampered; "
    "3: a quorum is missing; 4: rolled back; 2: input that decides nothing.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

# Not Path: a URL would lose one of its slashes.
Where = Annotated[
    str, typer.Option("--log", help="A run's folder, a store, an exported log's folder, or a PostgreSQL URL.")
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Whose signatures count. The copy's own word if not.")
]
Own = Annotated[bool, typer.Option("--own", help="Of a site's store the site's own log, not its mirror.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output and nothing else there.")]


@audit.command()
def verify(
    log: Where,
    policy: PolicyFile = None,
    against: Annotated[list[Path] | None, typer.Option(help="A checkpoint that was kept from before.")] = None,
    own: Own = False,
    offline: Annotated[bool, typer.Option(help="Refuse what would need the network.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hash every entry, and check every signature, chain and form, the checkpoint and its quorum."""
    from fedseal.compliance.audit.whole import verify_copy

    with deciding(), opened(log, policy, own=own, offline=offline) as copy:
        earlier = [_text(path) for path in against or ()]
        verdict = verify_copy(copy, earlier)
        remarks = _remarks(copy, verdict, compared=bool(earlier))
    _end(verdict, remarks, as_json=as_json)


@audit.command()
def prove(
    entry: Annotated[str, typer.Argument(help="Its index, its digest, or its hash in the tree.")],
    log: Where,
    out: Annotated[Path, typer.Option("-o", "--out", help="The proof's file; the entry is written beside it.")],
    policy: PolicyFile = None,
    own: Own = False,
) -> None:
    """Write a proof that an entry stands in the log, for somebody who has neither the log nor fedseal."""
    from fedseal.compliance.audit.evidence import index_of, proof_of

    beside = out.with_suffix(".json")
    if beside == out:
        raise OperatorError("the proof would overwrite its entry", next_step="Call it something like x.tlog-proof.")
    with deciding(), opened(log, policy, own=own) as copy:
        index = index_of(copy, entry)
        proof = proof_of(copy, index)
        beside.write_bytes(copy.log.leaf(index))
        out.write_text(str(proof), encoding="utf-8")
    _say(f"Proof of entry {index}: {out}\nThe entry:          {beside}")
    _say(f"Check it anywhere:  fedseal-verify proof {out} --leaf {beside} --policy POLICY")


@audit.command()
def check(
    proof: Annotated[Path, typer.Argument(help="A file .tlog-proof.")],
    leaf: Annotated[Path, typer.Option(help="The entry, byte for byte.")],
    policy: Annotated[Path, typer.Option(help="Whose signatures count.")],
    as_json: AsJson = False,
) -> None:
    """Check a proof: the entry stands in a log whose checkpoint a quorum has cosigned."""
    from fedseal.compliance.audit.evidence import check_entry
    from fedseal.compliance.audit.source import read_policy

    with deciding():
        # An editor's last newline is no part of an entry: canonical JSON never ends with one.
        verdict = check_entry(_bytes(proof), _bytes(leaf).removesuffix(b"\n"), read_policy(policy))
    _end(verdict, [], as_json=as_json)


@audit.command()
def consistency(
    old: Annotated[Path, typer.Argument(help="A checkpoint.")],
    new: Annotated[Path, typer.Argument(help="A later one.")],
    log: Where,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Whether one checkpoint continues another: the log has only grown in between."""
    from fedseal.compliance.audit.evidence import check_consistency

    with deciding(), opened(log, policy) as copy:
        verdict = check_consistency(_bytes(old), _bytes(new), copy)
    _end(verdict, [], as_json=as_json)


@audit.command()
def show(
    entry: Annotated[str, typer.Argument(help="Its index, its digest, or its hash in the tree.")],
    log: Where,
    policy: PolicyFile = None,
    own: Own = False,
) -> None:
    """Print an entry for people: what it says, who signed it, by which hash it stands in the tree."""
    from fedseal.compliance.audit.evidence import author_of, index_of
    from fedseal.compliance.events.leaf import read_event
    from fedseal.merkle import leaf_hash

    with deciding(), opened(log, policy, own=own) as copy:
        index = index_of(copy, entry)
        leaf = copy.log.leaf(index)
        said = author_of(read_event(leaf), copy.policy, copy.book)
    print(json.dumps(json.loads(leaf), indent=2, ensure_ascii=False))
    _say(f"entry      {index} of {copy.log.origin}\nleaf hash  {leaf_hash(leaf).hex()}\nsigned by  {said}", error=True)


@audit.command()
def export(
    log: Where,
    folder: Annotated[Path, typer.Argument(help="Gets checkpoint, tiles, entries and policy (c2sp.org/tlog-tiles).")],
    policy: PolicyFile = None,
    own: Own = False,
    record: Annotated[bool, typer.Option(help="Note in the log that a copy was handed out (a store's own).")] = False,
) -> None:
    """Write the log as files that other people's programs read."""
    from fedseal.cli.audit_upkeep import record_export, sign_own_checkpoint
    from fedseal.compliance.audit.parties import with_persons
    from fedseal.compliance.log.export import export as write

    with deciding():
        if own:
            sign_own_checkpoint(Path(log))
        with opened(log, policy, own=own) as copy:
            if copy.log.checkpoint() is None:
                raise ConfigError("a log without a checkpoint cannot be written out")
            size = write(copy.log, folder, with_persons(copy.policy, copy.leaves()))
            root = copy.log.root(size)
        if record:
            record_export(log, size, root, own=own)
    _say(f"{size} entries are in {folder}. Check them without fedseal: fedseal-verify log {folder}")


@audit.command()
def reconcile(
    log: Where,
    site: Annotated[Path, typer.Option(help="The site's store.")],
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare the federation's log with what a site has signed, read, run and charged. Ends with 1 if they disagree."""
    from fedseal.cli.site import opened as site_opened
    from fedseal.compliance.audit.reconcile import reconcile as compare
    from fedseal.compliance.audit.site_side import site_side
    from fedseal.compliance.audit.verify import AuditCode
    from fedseal.compliance.log.checkpoint import site_origin

    with deciding(), opened(log, policy) as copy, site_opened(site, reading=True) as (store, transaction):
        identity = store.identity
        side = site_side(transaction, identity)
        answered = copy.cosigned_by(site_origin(identity.roster.federation, identity.name))
        result = compare(copy.leaves(), side, answered=answered)
    if as_json:
        found = [{"dispute": d.dispute.name, "federation": d.federation, "own": d.own} for d in result.found]
        print(json.dumps({"site": side.org, "disagreements": found, "waiting": result.waiting}, indent=2))
    else:
        for one in result.found:
            places = [f"entry {one.federation} of the federation's log"] if one.federation is not None else []
            places += [f"entry {one.own} of the site's own"] if one.own is not None else []
            said = f"{one.dispute.name}: {one.dispute.value} ({', '.join(places) or 'no entry'})"
            _say(said, style="bold red")
        waiting = f" {result.waiting} entries of the site are on their way to the log." if result.waiting else ""
        _say(f"{side.org}: {len(side.signed)} signed entries, {len(result.found)} disagreements.{waiting}")
    if result.found:
        raise typer.Exit(int(AuditCode.TAMPERED))


audit.command()(evidence)
audit.command()(settle)
audit.command()(recover)
audit.command()(review)


@contextmanager
def deciding() -> Iterator[None]:
    """Input that decides nothing ends with 2 here: 3 and 4 are verdicts."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise OperatorError(error.message, next_step=error.next_step) from None
    except OSError as error:
        raise OperatorError(f"{error.filename} cannot be read or written: {error.strerror}") from None


@contextmanager
def opened(log: str, policy: Path | None, *, own: bool = False, offline: bool = False) -> "Iterator[LogCopy]":
    """The log that an option names."""
    from fedseal.compliance.audit.source import open_log, read_policy

    given: Policy | None = None if policy is None else read_policy(policy)
    with open_log(log, policy=given, own=own, offline=offline) as copy:
        yield copy


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _say(text: str, *, style: str = "", error: bool = False) -> None:
    Console(stderr=error, highlight=False, soft_wrap=True).print(text, style=style, markup=False)


def _remarks(copy: "LogCopy", verdict: "Verdict", *, compared: bool) -> list[str]:
    """What was not checked, and what a reader has to know of what was."""
    from fedseal.compliance.events.registry import Book

    remarks = []
    if copy.own_word:
        remarks.append("the policy is that of whoever keeps this copy: compare its keys with those you know (--policy)")
    if copy.book is Book.SITE:
        covered = max((one.size for one in copy.seen), default=0)
        remarks.append(
            f"a site's own log: its first {covered} entries are held by what the federation's log says of it"
        )
    elif copy.seen:
        remarks.append(f"this site has cosigned the first {max(one.size for one in copy.seen)} entries itself")
    if verdict.beyond:
        remarks.append(f"{verdict.beyond} entries beyond the checkpoint are only as good as whoever keeps the log")
    if not compared and copy.book is Book.FEDERATION:
        remarks.append(
            "no checkpoint from before was compared: a log that was replaced as a whole looks like any other"
        )
    return remarks


def _end(verdict: "Verdict", remarks: list[str], *, as_json: bool) -> None:
    """Print a verdict and end with its code."""
    code = verdict.code
    if as_json:
        report = {
            "origin": verdict.origin,
            "entries": verdict.size,
            "root": verdict.root.hex(),
            "cosigned": list(verdict.cosigned),
            "witnesses": verdict.witnesses,
            "final": verdict.final,
            "beyond": verdict.beyond,
            "types": dict(sorted(verdict.types.items())),
            "findings": [{"entry": f.index, "what": f.what} for f in verdict.findings],
            "more_findings": verdict.more,
            "remarks": remarks,
            "verdict": code.name,
            "exit": int(code),
        }
        print(json.dumps(report, indent=2))
    else:
        _say(f"log        {verdict.origin or 'unknown'}\nentries    {verdict.size}\nroot       {verdict.root.hex()}")
        quorum = "a quorum" if verdict.final else "no quorum"
        if verdict.witnesses:
            _say(f"cosigned   by {len(verdict.cosigned)} of {verdict.witnesses} witnesses: {quorum}")
        for finding in verdict.findings:
            place = "" if finding.index is None else f"entry {finding.index}: "
            _say(f"FOUND      {place}{finding.what}", style="bold red")
        if verdict.more:
            _say(f"           and {verdict.more} more")
        for remark in remarks:
            _say(f"remark     {remark}")
        _say(f"verdict    {code.name}")
    if code:
        raise typer.Exit(int(code))
