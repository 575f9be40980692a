"""One small round on each graph, byte for byte: what a second implementation can be checked against.

`python tests/privacy/test_secagg_vectors.py` (with tests/ on the path) writes the file anew.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support.rounds import make_cohort

from fedseal.privacy.secagg.client_states import Advertised, Shared
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.parameters import PROTOCOL_RULES, GraphRules
from fedseal.privacy.secagg.server_states import Finished
from fedseal.wire import encode

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "sa1.json"
CASES = {"complete": (4, PROTOCOL_RULES), "sparse": (9, GraphRules(complete_up_to=2, sigma=1, eta=0))}


def transcript(name: str) -> dict[str, Any]:
    """The round of sites 1 to n of which 3 falls silent at MASK: secrets, and everything that was sent.

    A site's signing seed is SHA-256("site-<number>"), the server's SHA-256("server"). What a site draws are the first
    bytes of SHA-256("site-<number>" || u64 i), i counting on from 1, each draw beginning with a fresh i: mask seed,
    self seed and channel key (32 bytes each), then for the self seed and for the mask seed the coefficients 1 to
    t - 1 (48 bytes each, big-endian, modulo p), then for each holder the salts of its two shares (16 bytes each). The
    sparse round asks for sigma = 1 and eta = 0, with one dropout, so that nine sites have a ring.
    """
    n, rules = CASES[name]
    cohort = make_cohort(n, 3, dropouts=1 / n, rules=rules, silent={Stage.MASK: {3}})
    found: dict[str, Any] = {"sites": n, "values": {str(s): [int(v) for v in cohort.values[s]] for s in cohort.values}}
    found["secrets"], found["requests"], found["replies"] = {}, {}, {}

    def look(stage: Stage, site: int, request: Any) -> Any:
        found["requests"].setdefault(stage.label, {})[str(site)] = digest(encode(request))
        if site == 1:
            found.setdefault("requests_to_site_1", {})[stage.label] = encode(request).hex()
        return request

    def keep(stage: Stage, site: int, reply: Any) -> Any:
        state = cohort.states[site]
        if isinstance(state, Advertised):
            secrets = (state.mask_seed, state.self_seed, state.channel_key)
            found["secrets"][str(site)] = [s.reveal().hex() for s in secrets]
        if isinstance(state, Shared):
            found["session"] = state.session.hex()
        message = getattr(reply, "message", reply)
        found["replies"].setdefault(stage.label, {})[str(site)] = digest(encode(message))
        if site == 1:
            found.setdefault("replies_of_site_1", {})[stage.label] = encode(message).hex()
            if stage is Stage.MASK:
                found["masked_vector_of_site_1"] = [int(word) for word in reply.vector]
        return reply

    cohort.request_hook, cohort.reply_hook = look, keep
    outcome = cohort.run()
    assert isinstance(outcome, Finished)
    assert not cohort.refusals
    found["sum"] = [int(word) for word in outcome.total.vector.view("<i4")]
    found["header_hash"] = cohort.header.digest().hex()
    return found


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_a_round_is_what_it_was(name: str) -> None:
    assert json.loads(VECTORS.read_text(encoding="utf-8"))[name] == transcript(name)


@pytest.mark.parametrize("name", CASES)
def test_the_file_holds_together(name: str) -> None:
    """The parts that it shows in full are those whose hashes it lists, and payloads say what the page says."""
    found = json.loads(VECTORS.read_text(encoding="utf-8"))[name]
    for stage, raw in found["replies_of_site_1"].items():
        assert digest(bytes.fromhex(raw)) == found["replies"][stage]["1"]
    survivors = [s for s in range(1, found["sites"] + 1) if s != 3]
    assert found["sum"] == [sum(found["values"][str(s)][i] for s in survivors) for i in range(3)]


if __name__ == "__main__":
    VECTORS.write_text(
        json.dumps(
            {"source": "made by this program (tests/privacy/test_secagg_vectors.py)"}
            | {c: transcript(c) for c in CASES},
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )
