"""The command ``fedseal-verify``."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path

from fedseal_verify import __version__, audit, evidence, note, tiles
from fedseal_verify.audit import Depth, Earlier
from fedseal_verify.canonical import MAX_LEAF_BYTES
from fedseal_verify.errors import MalformedError, UnreadableError, UsageError
from fedseal_verify.note import Checkpoint
from fedseal_verify.policy import MAX_POLICY_BYTES, Policy, parse_policy
from fedseal_verify.report import Exit, Report, printable

_EPILOG = """exit codes: 0 everything that was checked holds; 1 tampered, or a fork proven; 2 usage, or input that
decides nothing; 3 quorum missing; 4 rolled back or stale"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        report = _run(options)
    except UsageError as error:
        print(f"fedseal-verify: {printable(str(error))}", file=sys.stderr)
        return Exit.USAGE
    print(report.json() if options.json else report.text())
    return report.exit


def _run(options: argparse.Namespace) -> Report:
    match options.command:
        case "log":
            return _log(options)
        case "proof":
            return _proof(options)
        case "consistency":
            directory = _directory(options.directory)
            policy, remarks = _policy(options.policy, directory)
            old, new = _checkpoint(options.old), _checkpoint(options.new)
            return _remarked(evidence.check_consistency(old, new, directory, policy), remarks)
        case _:
            directory_or_none = _directory(options.dir) if options.dir else None
            policy, remarks = _policy(options.policy, None)
            notes = _checkpoint(options.a), _checkpoint(options.b)
            return _remarked(evidence.check_fork(*notes, directory_or_none, policy), remarks)


def _log(options: argparse.Namespace) -> Report:
    directory = _directory(options.directory)
    policy, remarks = _policy(options.policy, directory)
    earlier = [Earlier(path.name, _checkpoint(path)) for path in options.against]
    for each in earlier:
        evidence.require_log_signature(each.name, each.checkpoint, policy)
    depth = Depth(not options.no_events, not options.no_signatures, options.since)
    return _remarked(audit.verify_log(directory, policy, earlier, depth), remarks)


def _proof(options: argparse.Namespace) -> Report:
    policy, remarks = _policy(options.policy, None)
    proof = _read(options.proof, evidence.MAX_PROOF_BYTES)
    # An editor's last newline is no part of a leaf: canonical JSON never ends with one.
    leaf = _read(options.leaf, MAX_LEAF_BYTES + 1).removesuffix(b"\n")
    return _remarked(evidence.check_proof(proof, leaf, policy), remarks)


def _remarked(report: Report, remarks: list[str]) -> Report:
    report.remarks += remarks
    return report


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory")
    return path


def _read(path: Path, limit: int) -> bytes:
    try:
        return tiles.read_file(path, limit)
    except UnreadableError as error:
        raise UsageError(f"{path} {error}") from None


def _checkpoint(path: Path) -> Checkpoint:
    try:
        return note.parse_checkpoint(_read(path, note.MAX_NOTE_BYTES))
    except MalformedError as error:
        raise UsageError(f"{path}: {error}") from None


def _policy(path: Path | None, export: Path | None) -> tuple[Policy, list[str]]:
    """The policy, and a remark when it comes from the export itself."""
    own = path is None and export is not None
    remarks = ["the policy is the export's own: compare its keys with those you know, or give yours with --policy"]
    source = export / "policy.txt" if own and export is not None else path
    if source is None:
        raise UsageError("give a policy with --policy")
    try:
        policy = parse_policy(_read(source, MAX_POLICY_BYTES))
    except MalformedError as error:
        raise UsageError(f"{source}: {error}") from None
    return policy, remarks if own else []


def _time(text: str) -> int:
    """Unix seconds of an ISO 8601 time with its offset from UTC."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError("a time needs its offset from UTC, such as Z")
    return int(time.timestamp())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedseal-verify", description="Check a fedseal audit log offline, without fedseal.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    log = commands.add_parser("log", help="every entry, tile and signature of an exported log", epilog=_EPILOG)
    log.add_argument("directory", type=Path, metavar="DIR", help="export in tlog-tiles layout")
    log.add_argument("--policy", type=Path, metavar="FILE", help="whom to trust (default: DIR/policy.txt)")
    log.add_argument(
        "--against", type=Path, metavar="NOTE", action="append", default=[], help="a checkpoint kept from before"
    )
    log.add_argument(
        "--since", type=_time, metavar="TIME", help="a quorum cosigned then or later, such as 2026-11-20T00:00:00Z"
    )
    log.add_argument("--no-signatures", action="store_true", help="leave out the authors' signatures (the slow part)")
    log.add_argument("--no-events", action="store_true", help="leave out all that is in the entries: tree only")

    proof = commands.add_parser("proof", help="one event is in the log", epilog=_EPILOG)
    proof.add_argument("proof", type=Path, metavar="FILE.tlog-proof")
    proof.add_argument("--leaf", type=Path, required=True, metavar="EVENT.json", help="the leaf, byte for byte")
    proof.add_argument("--policy", type=Path, required=True, metavar="FILE")

    consistency = commands.add_parser("consistency", help="one checkpoint continues another", epilog=_EPILOG)
    consistency.add_argument("old", type=Path, metavar="OLD_NOTE")
    consistency.add_argument("new", type=Path, metavar="NEW_NOTE")
    consistency.add_argument("directory", type=Path, metavar="DIR", help="export that reaches as far as NEW_NOTE")
    consistency.add_argument("--policy", type=Path, metavar="FILE", help="whom to trust (default: DIR/policy.txt)")

    fork = commands.add_parser("fork", help="a log signed two histories (exit 1: proven)", epilog=_EPILOG)
    fork.add_argument("a", type=Path, metavar="A.note")
    fork.add_argument("b", type=Path, metavar="B.note")
    fork.add_argument("--policy", type=Path, required=True, metavar="FILE")
    fork.add_argument("--dir", type=Path, metavar="DIR", help="export of the larger one, when the sizes differ")
    for each in (log, proof, consistency, fork):
        each.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
