"""How long an audit and a report take on the log of a large federation: 20 sites, 100 rounds.

Prints seconds, and as a ratio what a bare pass over the same entries costs (SHA-256 of each leaf and one Ed25519
verification of each signature), in the same process. Run: python bench/audit_report.py
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import recorded
from support.keys import key

from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.events import bodies
from fedseal.compliance.events.fields import ReleaseName
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.log.checkpoint import Cosigner, log_key, site_origin
from fedseal.compliance.log.quorum import federation_policy
from fedseal.compliance.reports import page
from fedseal.compliance.reports.documents import Documents
from fedseal.compliance.reports.history import read_history
from fedseal.compliance.reports.report import make_report
from fedseal.compliance.reports.template import ANNEX_IV, read_template
from fedseal.merkle import leaf_hash
from fedseal.privacy.secagg.keys import SigningKey

SITES, ROUNDS = 20, 100


def main() -> None:
    """Build the log, then time each part once."""
    recorded.SITES = tuple(range(1, SITES + 1))
    recorded.COSIGNERS = [Cosigner(site_origin("test", f"site-{n}"), key(f"site-{n}")) for n in recorded.SITES]
    recorded.POLICY = federation_policy(
        log_key(recorded.ORIGIN, recorded.SERVER.public), [c.vkey for c in recorded.COSIGNERS], 0
    )
    log = recorded.whole()
    for number in range(3, ROUNDS):
        _round(log, number)
    with tempfile.TemporaryDirectory() as folder:
        place = recorded.exported(log.leaves, Path(folder), SITES)
        start = time.perf_counter()
        with open_log(place) as copy:
            verdict = verify_copy(copy)
            audited = time.perf_counter()
            history = read_history(copy.leaves(), recorded.LAST)
            report = make_report(read_template(ANNEX_IV), history, Documents())
            text = page.render(report, verdict, made="now")
        done = time.perf_counter()
    bare = _bare(log.leaves, key("site-1"))
    print(f"{len(log.leaves)} entries, verdict {verdict.code.name}")
    print(f"audit verify  {audited - start:6.2f} s   {(audited - start) / bare:5.1f} x the bare pass ({bare:.2f} s)")
    print(f"report        {done - audited:6.2f} s   page of {len(text) / 1000:.0f} kB, {len(report.entries)} entries")
    print(f"both          {done - start:6.2f} s")


def _round(log: recorded.Chain, number: int) -> None:
    for n in recorded.SITES:
        charged = bodies.Charged(
            release=ReleaseName.UPDATE,
            sequence=number,
            attempt=0,
            population=recorded.secret(f"persons {n}"),
            plan=plan_facts(recorded.PLAN),
            delta="0.00001",
            alpha="3",
        )
        contributed = bodies.Contributed(
            release=ReleaseName.UPDATE,
            round=number,
            sequence=number,
            attempt=0,
            header=recorded.digest(f"header {number}"),
            update=recorded.digest(f"masked {number} {n}"),
            dataset=recorded.secret(f"data {n}"),
            label_set=recorded.secret(f"labels {n}"),
            code=recorded.digest("code"),
            anchor=bodies.Anchor(size=number, root=recorded.digest(f"root {n}")),
        )
        recorded.by_site(log, n, charged, recorded.RUNS[1])
        recorded.by_site(log, n, contributed, recorded.RUNS[1])


def _bare(leaves: list[bytes], signer: SigningKey) -> float:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    message = leaves[-1]
    public, signature = Ed25519PublicKey.from_public_bytes(signer.public), signer.sign(message)
    read_event(message)
    start = time.perf_counter()
    for leaf in leaves:
        leaf_hash(leaf)
        public.verify(signature, message)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
