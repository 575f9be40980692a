"""Makes the transcripts under tests/vectors/sa1/ with the second implementation; `python tests/reference/make.py`.

tests/vectors/sa1/README.md says what the files hold. Nothing here is protocol: which rounds there are, what sites draw,
and how what was sent is written down.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reference import sa1
from reference.cases import CASES, Case
from reference.wire import encode, make, u32

FOLDER = Path(__file__).resolve().parents[1] / "vectors" / "sa1"
# Up to so many sites every message has its whole digest; above, the first 64 bits and one digest of all digests.
SHORT = 20


def expand(case: Case, purpose: str, site: int, length: int) -> bytes:
    """The first bytes of SHAKE-256(purpose 00 name 00 u32(site)): all that is random in a transcript."""
    seed = purpose.encode() + b"\0" + case.name.encode() + b"\0" + u32(site)
    return hashlib.shake_256(seed).digest(length)


def drawing(case: Case, site: int) -> Callable[[int], bytes]:
    """What a site draws: successive bytes of its stream, whatever the sizes it asks for."""
    position, stream = 0, b""

    def draw(length: int) -> bytes:
        nonlocal position, stream
        if position + length > len(stream):
            stream = expand(case, "draws", site, 2 * (position + length) + 4096)
        position += length
        return stream[position - length : position]

    return draw


def signing_key(case: Case, site: int) -> bytes:
    """The Ed25519 seed of a site; of the server for 0."""
    return expand(case, "signing key", site, 32)


def public_key(case: Case, site: int) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(signing_key(case, site)).public_key().public_bytes_raw()


def roster(case: Case) -> Any:
    """Message 1."""
    sites = [make("RosterEntry", s, f"site-{s}", "org", public_key(case, s), 100) for s in case.cohort]
    return make("Roster", "transcripts", 1, True, expand(case, "root key", 0, 32), public_key(case, 0), sites)


def header(case: Case) -> Any:
    """Message 10."""
    n, m = len(case.cohort), case.colluders
    layout = make("Layout", case.ring_bits, case.rounding, [make("Segment", *s) for s in case.segments])
    sparse = None if case.dropouts is None else make("Sparse", case.dropouts, 80, 20)
    minimum = (case.site_minimum, case.noise_minimum)
    agreed = [expand(case, what, 0, size) for what, size in (("shapes", 32), ("plan", 24), ("input", 32))]
    first = ("fedseal/sa1", "transcripts", sa1.sha(encode(roster(case))), expand(case, "run", 0, 16))
    numbers = (n, 2 * n, n % 3, "update", list(case.cohort), (n + m) // 2 + 1, m, *minimum, 1, int(sparse is not None))
    return make("Header", *first, *numbers, layout, *agreed, sparse)


def values(case: Case) -> dict[int, list[int]]:
    """What each site puts in: whole numbers that a site may send, as large as `high` allows."""
    found: dict[int, list[int]] = {}
    for site in case.cohort:
        stream, found[site] = expand(case, "values", site, 8 * sum(s[1] for s in case.segments)), []
        for _, length, low, high, scale, *_ in case.segments:
            bottom, top = int(low * scale), int(high * scale)
            for _ in range(length):
                word, stream = int.from_bytes(stream[:8], "big"), stream[8:]
                found[site].append(bottom + word % (top - bottom + 1))
    return found


@dataclass
class Transcript:
    """What was sent: by stage, by site."""

    requests: list[dict[int, bytes]] = field(default_factory=lambda: [{} for _ in sa1.STAGES])
    replies: list[dict[int, bytes]] = field(default_factory=lambda: [{} for _ in sa1.STAGES])
    vectors: dict[int, list[int]] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)


def play(case: Case) -> Transcript:
    """The round, by the second implementation on both sides."""
    keys = {0: public_key(case, 0)} | {s.site: s.signing_key for s in roster(case).sites}
    server, found, mine = sa1.Server(header(case), signing_key(case, 0), keys), Transcript(), values(case)
    sites = {s: sa1.Site(s, signing_key(case, s), drawing(case, s), keys) for s in case.cohort}
    try:
        for stage, label in enumerate(sa1.STAGES):
            for s in server.asked:
                request, site = server.request(stage, s), sites[s]
                found.requests[stage][s] = request
                if case.is_silent(label, s):
                    continue
                if stage == 2:
                    reply, found.vectors[s] = site.mask(request, mine[s])
                else:
                    reply = (site.advertise, site.share, site.confirm, site.confirm, site.unmask)[stage](request)
                found.replies[stage][s] = reply
                if s not in case.lost.get(label, ()):
                    server.receive(stage, s, reply, found.vectors.get(s, ()))
            server.close(stage)
    except sa1.EndedError as end:
        found.result["ended"] = {"stage": end.args[0], "left": end.args[1]}
    else:
        found.result |= {"survivors": server.survivors, "sum": server.total()}
    if hasattr(server, "graph"):
        graph = {"session": server.graph.sid.hex(), "degree": server.graph.k, "threshold": server.graph.t}
        found.result["graph"] = graph | ({"ring": server.graph.ring} if server.graph.ring else {})
    return found


def written(messages: Mapping[int, bytes]) -> dict[str, str]:
    """One stage of one direction as it stands in a file."""
    digests = {s: hashlib.sha256(messages[s]) for s in sorted(messages)}
    if len(digests) <= SHORT:
        return {str(s): d.hexdigest() for s, d in digests.items()}
    everything = hashlib.sha256(b"".join(d.digest() for d in digests.values())).hexdigest()
    return {"all": everything} | {str(s): d.hexdigest()[:16] for s, d in digests.items()}


def plain(value: Any) -> Any:
    """A message as JSON: structures by the names of their fields, bytes in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "_asdict"):
        return {name: plain(v) for name, v in value._asdict().items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def record(case: Case, found: Transcript) -> dict[str, Any]:
    """A transcript as it stands in its file."""
    shown = [s for s in case.cohort if s in case.shown]
    head = header(case)
    out: dict[str, Any] = {"format": 1, "name": case.name, "about": case.about, "silent": case.listed(case.silent)}
    out |= {"lost": case.listed(case.lost), "header": plain(head), "header_hash": sa1.sha(encode(head)).hex()}
    out["values"] = {str(s): v for s, v in values(case).items()}
    for stage, label in enumerate(sa1.STAGES):
        out[f"requests at {label}"] = written(found.requests[stage])
        out[f"replies at {label}"] = written(found.replies[stage])
    if len(shown) == len(case.cohort):
        out["roster"] = encode(roster(case)).hex()
    for s in shown:
        draw = drawing(case, s)
        out[f"first draws of site {s}"] = {what: draw(32).hex() for what in ("mask seed", "self seed", "channel key")}
    for stage, label in enumerate(sa1.STAGES):
        for s in shown:
            sent = {"request": found.requests[stage].get(s), "reply": found.replies[stage].get(s)}
            if any(sent.values()):
                out[f"{label}, site {s}"] = {k: v.hex() for k, v in sent.items() if v}
    out["masked vectors"] = {str(s): found.vectors[s] for s in shown if s in found.vectors}
    return out | found.result


def dump(content: Mapping[str, Any]) -> str:
    """JSON with one line for each key."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for one in CASES:
        if not wanted or one.name in wanted:
            (FOLDER / f"{one.name}.json").write_text(dump(record(one, play(one))), encoding="utf-8")
            print(one.name)
