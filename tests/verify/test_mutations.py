"""Every kind of tampering is found by one check, and goes unseen when that check is removed.

Each attacker is as strong as he can be: he rewrites tiles and signs again wherever he has the keys, and where it makes
the point the log and its witnesses collude. So what finds him is the check under test and no other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import exported
from support.exported import LOG, SITES, STRANGER, Book

from fedseal_verify import audit, canonical, events, note, tiles
from fedseal_verify.audit import Depth, Earlier
from fedseal_verify.policy import parse_policy
from fedseal_verify.report import Check, Report

SIZE = 270
Removed = tuple[Any, str, Callable[..., Any]]


@dataclass(frozen=True)
class Tampering:
    """An attacker's export, the check and exit code that answer it, and how to remove that check."""

    name: str
    write: Callable[[Path], Path]
    check: Check
    exit: int
    removed: tuple[Removed, ...]


def nothing(*_: Any) -> None:
    return None


def yes(*_: Any) -> bool:
    return True


AUTHOR = ((audit, "check_author", nothing),)
SIGNATURE = ((events, "signature_holds", yes),)
CHAIN = ((events, "_gap", nothing),)
CANONICAL = ((canonical, "is_canonical", yes),)
TILES = ((audit, "compare_tile", nothing),)


def kept() -> Earlier:
    """The checkpoint that a site kept when the log had 200 entries."""
    root = exported.root(exported.leaf_hashes(exported.book(SIZE).leaves[:200]))
    return Earlier("kept.note", note.parse_checkpoint(exported.note(200, root).encode()))


def verify(directory: Path) -> Report:
    policy = parse_policy(exported.policy().encode())
    return audit.verify_log(directory, policy, [kept()], Depth())


def rewritten(change: Callable[[Book], object], first: int = SIZE) -> Callable[[Path], Path]:
    """A log that went on after ``first`` honest events with whatever ``change`` adds, signed by all who sign."""

    def write(directory: Path) -> Path:
        book = exported.book(first)
        change(book)
        return exported.write_export(directory, book.leaves)

    return write


def changed(change: Callable[[list[bytes]], None]) -> Callable[[Path], Path]:
    """A log whose honest leaves were changed in place, signed again by the log and its witnesses."""

    def write(directory: Path) -> Path:
        leaves = exported.book(SIZE).leaves
        change(leaves)
        return exported.write_export(directory, leaves)

    return write


def edited_file(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    """An honest export with one file edited."""

    def write(directory: Path) -> Path:
        exported.write_export(directory, exported.book(SIZE).leaves)
        path = directory / name
        path.write_bytes(edit(path.read_bytes()))
        return directory

    return write


def edit_last(leaves: list[bytes]) -> None:
    """No later event of its author holds its digest: only the signature is in the way."""
    leaves[-1] = leaves[-1].replace("Größe ok".encode(), "Größe OK".encode())


def swap(leaves: list[bytes]) -> None:
    leaves[250], leaves[254] = leaves[254], leaves[250]


def cut_events(leaves: list[bytes]) -> None:
    del leaves[220]


def insert_copy(leaves: list[bytes]) -> None:
    leaves.insert(240, leaves[204])


def insert_strange(book: Book) -> None:
    book.add(STRANGER)


def key_swapped_author(book: Book) -> None:
    """The log writes an event in a site's name with its own key."""
    seq, prev = book.heads[SITES[0].event_id]
    unsigned = exported.event(SITES[0], seq, prev)
    book.append(SITES[0], exported.jcs(exported.sign(LOG, unsigned, SITES[0].event_id)), seq)


def wrong_seq(book: Book) -> None:
    seq, prev = book.heads[SITES[0].event_id]
    book.append(SITES[0], exported.jcs(exported.sign(SITES[0], exported.event(SITES[0], seq + 1, prev))), seq)


def wrong_prev(book: Book) -> None:
    seq, _ = book.heads[SITES[0].event_id]
    other = "sha256:" + "1" * 64
    book.append(SITES[0], exported.jcs(exported.sign(SITES[0], exported.event(SITES[0], seq, other))), seq)


def spaced(book: Book) -> None:
    leaf = book.leaves[-1]
    book.leaves[-1] = leaf.replace(b'{"actor":', b'{"actor": ', 1)


def doubled(book: Book) -> None:
    leaf = book.leaves[-1]
    book.leaves[-1] = leaf.replace(b'"org":', b'"org":"another","org":', 1)


def adding(body: dict[str, object]) -> Callable[[Path], Path]:
    """A site adds an event with this body, well signed."""
    return rewritten(lambda book: book.add(SITES[0], body=body))


def history(directory: Path) -> Path:
    """Another history with the same authors: everything in it is properly signed, by all."""
    book = Book()
    for index in range(SIZE):
        book.add((LOG, *SITES)[index % 4], body={"round": index})
    return exported.write_export(directory, book.leaves)


def truncated(directory: Path) -> Path:
    """The log and its witnesses sign a shorter log than they did before."""
    return exported.write_export(directory, exported.book(150).leaves)


def put_back(directory: Path) -> Path:
    """An outsider puts an older genuine checkpoint back, and its tiles, and forgets the newer entries."""
    leaves = exported.book(SIZE).leaves
    exported.write_export(directory, leaves)
    return exported.write_export(directory, leaves[:260])


def unsigned_edit(directory: Path) -> Path:
    """A site rewrites its last event in its mirror: it cannot sign the new root."""
    leaves = exported.book(SIZE).leaves
    at = max(index for index in range(SIZE) if index % 4 == 1)
    seq, prev = at // 4, "sha256:" + exported.sha256(leaves[at - 4]).hex()
    checkpoint = exported.note(SIZE, exported.root(exported.leaf_hashes(leaves)))
    leaves[at] = exported.jcs(exported.sign(SITES[0], exported.event(SITES[0], seq, prev, body={"round": 0})))
    return exported.write_export(directory, leaves, checkpoint)


def other_log_key(directory: Path) -> Path:
    """Somebody else signs in the log's name; the witnesses are careless and cosign."""
    leaves = exported.book(SIZE).leaves
    root = exported.root(exported.leaf_hashes(leaves))
    checkpoint = exported.note(SIZE, root, log=exported.Party(LOG.name, 99))
    return exported.write_export(directory, leaves, checkpoint)


def own_key_id(directory: Path) -> Path:
    """The same, with the key id of the log's true key on the line."""
    leaves = exported.book(SIZE).leaves
    root = exported.root(exported.leaf_hashes(leaves))
    text = f"{LOG.name}\n{SIZE}\n{exported.b64(root)}\n"
    line = f"— {LOG.name} {exported.b64(LOG.key_id(1) + STRANGER.key.sign(text.encode()))}"
    lines = [line, *(exported.cosignature(text, each) for each in SITES)]
    return exported.write_export(directory, leaves, text + "\n" + "\n".join(lines) + "\n")


def cosigned_by(*lines: Callable[[str], str]) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        leaves = exported.book(SIZE).leaves
        root = exported.root(exported.leaf_hashes(leaves))
        checkpoint = exported.note(SIZE, root, cosigners=())
        text = checkpoint.split("\n\n")[0] + "\n"
        return exported.write_export(directory, leaves, checkpoint + "".join(line(text) + "\n" for line in lines))

    return write


def swapped_tiles(directory: Path) -> Path:
    exported.write_export(directory, exported.book(600).leaves)
    one, two = directory / "tile/0/000", directory / "tile/0/001"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    return directory


def lenient(data: bytes, width: int) -> list[bytes]:
    """Bundles read without asking how they end."""
    leaves: list[bytes] = []
    while len(leaves) < width:
        end = 2 + int.from_bytes(data[:2], "big")
        leaves.append(data[2:end])
        data = data[end:]
    return leaves


def remote_tile(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


CASES = [
    Tampering("edit by log and witnesses", changed(edit_last), Check.AUTHOR, 1, SIGNATURE),
    Tampering("edit by a mirror", unsigned_edit, Check.ROOT, 1, ((audit, "check_root", nothing),)),
    Tampering("delete", changed(cut_events), Check.CHAIN, 1, CHAIN),
    Tampering("insert a copy", changed(insert_copy), Check.CHAIN, 1, CHAIN),
    Tampering("insert by a stranger", rewritten(insert_strange), Check.AUTHOR, 1, AUTHOR),
    Tampering("reorder", changed(swap), Check.CHAIN, 1, CHAIN),
    Tampering("wrong seq", rewritten(wrong_seq), Check.CHAIN, 1, CHAIN),
    Tampering("wrong prev", rewritten(wrong_prev), Check.CHAIN, 1, CHAIN),
    Tampering("rewrite all history", history, Check.HISTORY, 1, ((audit, "check_history", nothing),)),
    Tampering("truncate and sign", truncated, Check.HISTORY, 4, ((audit, "check_not_behind", nothing),)),
    Tampering("put an old checkpoint back", put_back, Check.HISTORY, 4, ((tiles, "entries_beyond", nothing),)),
    Tampering("another log key", other_log_key, Check.LOG_SIGNATURE, 1, ((note, "log_signature_holds", yes),)),
    Tampering("another log key, its id", own_key_id, Check.LOG_SIGNATURE, 1, ((note, "log_signature_holds", yes),)),
    Tampering("another author key", rewritten(key_swapped_author), Check.AUTHOR, 1, SIGNATURE),
    Tampering(
        "forged cosignature",
        cosigned_by(
            lambda text: exported.cosignature(text, SITES[0]), lambda t: exported.cosignature(t, SITES[1], True)
        ),
        Check.COSIGNATURE,
        1,
        ((note, "cosignature_holds", yes),),
    ),
    Tampering(
        "one witness twice",
        cosigned_by(*[lambda text: exported.cosignature(text, SITES[0])] * 2),
        Check.QUORUM,
        3,
        ((audit, "quorum_holds", yes),),
    ),
    Tampering(
        "a stranger as witness",
        cosigned_by(lambda t: exported.cosignature(t, SITES[0]), lambda t: exported.cosignature(t, STRANGER)),
        Check.QUORUM,
        3,
        ((audit, "quorum_holds", yes),),
    ),
    Tampering("swapped tiles", swapped_tiles, Check.TILES, 1, (*TILES, (audit, "check_history", nothing))),
    Tampering("tile of level 0", edited_file("tile/0/000", remote_tile), Check.TILES, 1, TILES),
    Tampering("tile of level 1", edited_file("tile/1/000.p/1", lambda _: bytes(32)), Check.TILES, 1, TILES),
    Tampering("cut tile", edited_file("tile/0/001.p/14", lambda data: data[:-1]), Check.TILES, 1, TILES),
    Tampering(
        "entry beyond the bundle's width",
        edited_file("tile/entries/000", lambda data: data + b"\x00\x02{}"),
        Check.ENTRIES,
        1,
        ((tiles, "split_bundle", lenient),),
    ),
    Tampering(
        "bytes after the last entry",
        edited_file("tile/entries/001.p/14", lambda data: data + b"\x00"),
        Check.ENTRIES,
        1,
        ((tiles, "split_bundle", lenient),),
    ),
    Tampering("spaces in a leaf", rewritten(spaced), Check.FORM, 1, CANONICAL),
    Tampering("a key twice", rewritten(doubled), Check.FORM, 1, CANONICAL),
    Tampering("a float", adding({"share": 0.5}), Check.FORM, 1, ((canonical, "_no_float", float), *CANONICAL)),
    Tampering("a large integer", adding({"count": 1 << 53}), Check.FORM, 1, ((canonical, "check_values", nothing),)),
    Tampering("not NFC", adding({"text": "Gro\u0308ße"}), Check.FORM, 1, ((canonical, "check_values", nothing),)),
    Tampering("a capital key", adding({"Round": 1}), Check.FORM, 1, ((canonical, "check_values", nothing),)),
]


def test_an_honest_log_passes(tmp_path: Path) -> None:
    report = verify(exported.write_export(tmp_path, exported.book(SIZE).leaves))
    assert (report.exit, report.findings, report.skipped) == (0, [], [])
    assert set(report.checked) == set(Check) - {Check.CHECKPOINT, Check.INCLUSION, Check.FRESH}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_found_by_one_check_and_by_no_other(
    case: Tampering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = case.write(tmp_path)
    report = verify(directory)
    assert report.exit == case.exit
    assert case.check in {each.check for each in report.findings}
    for module, name, replacement in case.removed:
        monkeypatch.setattr(module, name, replacement)
    blind = verify(directory)
    assert (blind.exit, blind.findings) == (0, [])


WEAK: list[tuple[str, Callable[[Path], Path], set[Check]]] = [
    (
        "one byte of an entry",
        edited_file("tile/entries/000", lambda data: data.replace(b"ok", b"OK", 1)),
        {Check.TILES, Check.ROOT, Check.AUTHOR, Check.CHAIN, Check.HISTORY},
    ),
    ("cut bundle", edited_file("tile/entries/000", lambda data: data[:-1]), {Check.ENTRIES}),
    ("empty bundle", edited_file("tile/entries/001.p/14", lambda _: b""), {Check.ENTRIES}),
    ("empty checkpoint", edited_file("checkpoint", lambda _: b""), {Check.CHECKPOINT}),
    ("larger size", edited_file("checkpoint", lambda data: data.replace(b"\n270\n", b"\n999\n")), {Check.ENTRIES}),
]


@pytest.mark.parametrize(("write", "checks"), [case[1:] for case in WEAK], ids=[case[0] for case in WEAK])
def test_a_clumsy_attacker_is_found_by_several(
    write: Callable[[Path], Path], checks: set[Check], tmp_path: Path
) -> None:
    report = verify(write(tmp_path))
    assert report.exit == 1
    assert checks <= {each.check for each in report.findings}


def test_messages_say_which_entry_and_whose_signature(tmp_path: Path) -> None:
    report = verify(changed(edit_last)(tmp_path))
    (finding,) = report.findings
    assert finding.where == f"entry {SIZE - 1}"
    assert "signature of site-a (key " + SITES[0].event_id in finding.message


def test_a_broken_chain_is_reported_once(tmp_path: Path) -> None:
    report = verify(changed(cut_events)(tmp_path))
    chain = [each for each in report.findings if each.check == Check.CHAIN]
    assert len(chain) == 1
    assert "of log fedseal.example/coord" in chain[0].where
