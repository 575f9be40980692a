"""A malicious server against sites with a ledger and a store that outlives restarts: replays, budgets, tasks."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from adversary.attack import Attack, Fault, Level
from adversary.attacks_stores import ALL, BY_SERVER, SESSION, charges, header
from adversary.removal import Check
from adversary.stores import Stores, at_stores
from flwr.app import Array, ArrayRecord
from support.flower import PRIVATE, default_task, numpy_of
from support.keys import SERVER

from fedseal.errors import BudgetExceeded
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.releases import VALUES
from fedseal.privacy.runs import (
    CloseRun,
    sign_control,
)
from fedseal.privacy.secagg.messages import MaskRequest
from fedseal.privacy.secagg.sharing import deliveries
from fedseal.wire import encode

# Replays


def after_the_end(s: Stores) -> bool:
    s.whole_round()
    for site in ALL:
        s.ask(site, encode(sign_control(CloseRun(s.header.run), SERVER)))
    s.again(header(release_seq=2)(s.federation))
    s.whole_round()
    return s.has_sum_over(ALL)


def uncharged_repetition(s: Stores) -> bool:
    """An old header again: it was charged already, so the second vector would be free."""
    first, vectors = s.header, []
    for current in (first, header(PRIVATE, release_seq=2)(s.federation), first):
        s.again(current)
        s.whole_round()
        vectors.append(s.told[1].vector)
    distinct = {v.tobytes() for v in vectors if v is not None}
    return len(distinct) == 3 and len(charges(s, 1)) == 2


def masked_twice(s: Stores) -> bool:
    """A vector among four, and another one among three, for one charge."""
    s.advertise()
    s.share()
    found = []
    for named in ((1, 2, 3, 4), (1, 2, 3)):
        mine = tuple(next(d for d in deliveries(s.dealt[v]) if d.entry.receiver == 1) for v in named if v != 1)
        found.append(s.ask(1, MaskRequest(s.digest, named, mine)).vector)
    return not np.array_equal(*found) and len(charges(s, 1)) == 1


def overtaken(s: Stores) -> bool:
    """While site 1 works for the first attempt, the second one is opened."""
    s.advertise()
    s.share()
    first, second = s.header, header(attempt=1)(s.federation)

    def interrupt() -> None:
        s.while_training = lambda: None
        kept = s.task, s._before
        s.again(second)
        s.advertise()
        s.use(first)
        s.task = kept[0]

    told, dealt = s.told, s.dealt
    s.while_training = interrupt
    mine = tuple(next(d for d in deliveries(dealt[v]) if d.entry.receiver == 1) for v in (2, 3))
    vector = s.ask(1, MaskRequest(s.digest, ALL, mine)).vector
    with s.federation.site(1).transaction() as transaction:
        record = transaction.run(first.run)
    return vector is not None and told[1].session != b"" and record.attempt == 1


def put_back(rounds_before: int) -> Callable[[Stores], bool]:
    """Site 2's store is put back to what it was before some rounds; then it trains once more."""

    def script(s: Stores) -> bool:
        path = s.federation.sites[2]
        backup = path.read_bytes()
        for number in range(1, rounds_before + 1):
            s.again(header(PRIVATE, release_seq=number)(s.federation))
            s.whole_round()
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        path.write_bytes(backup)
        s.again(header(PRIVATE, release_seq=rounds_before + 1)(s.federation))
        s.whole_round()
        trained = sum(site == 2 for site, _ in s.ran)
        return trained == rounds_before + 1 and len(charges(s, 2)) == 1

    return script


# The budget


def beyond_the_budget(s: Stores) -> bool:
    s.whole_round()
    last = charges(s, 1)[-1]
    with s.federation.site(1).transaction() as transaction:
        return bool(last.charged + last.reserved > transaction.terms("train").budget)


# The task


def another_model(s: Stores) -> bool:
    """Only site 1 is sent the model; the others are sent zeros, of which nothing can be learned."""
    zeros = {n: Array(np.zeros_like(a)) for n, a in numpy_of(default_task()["arrays"]).items()}
    other: Mapping[str, Any] = {**default_task(), "arrays": ArrayRecord(zeros)}
    s.task = lambda site: default_task() if site == 1 else other
    s.whole_round()
    return s.is_sum(s.sum_over(ALL), (1,))


def another_function(s: Stores) -> bool:
    """The header is for training; the request for its vector calls the app's query function."""
    s.advertise()
    s.share()
    s.kind = "query"
    s.mask()
    s.kind = "train"
    s.confirm(lambda _: ALL)
    s.unmask(lambda _: ALL)
    read = s.read(VALUES, s.sum_over(ALL))
    return bool(np.allclose(read, sum(ALL), atol=1e-4))


KEEP_REPLY = (
    "transaction.put_reply(session, int(stage), StoredReply(request_digest(raw), answer.control, answer.vector))"
)
EXPENSIVE = LocalGaussian(clip_norm=1.0, noise_multiplier=0.5, sample_rate=1.0, steps=5, releases=3, retries=0)

ATTACKS = (
    Attack(
        "A further round of a run that is closed",
        "a sum after the end",
        Level.STORE,
        Check("privacy.runs.admit", "record.closed"),
        at_stores(after_the_end, header()),
        BY_SERVER,
        "a run that is closed",
    ),
    Attack(
        "An old header again, after a newer one",
        "a third noisy vector for two charges",
        Level.STORE,
        Check("privacy.runs.admit", "(header.release_seq, header.attempt) <= (record.release_seq, record.attempt)"),
        at_stores(uncharged_repetition, header(PRIVATE)),
        BY_SERVER,
        "at or behind",
    ),
    Attack(
        "After a restart, another answer is asked for: a vector among other sites",
        "two vectors under different masks for one charge",
        Level.STORE,
        Check(SESSION + "_keep", KEEP_REPLY, f"stage is Stage.MASK or {KEEP_REPLY}"),
        at_stores(masked_twice, header(), sites=4),
        BY_SERVER,
        "which was answered already",
        (
            Check(
                SESSION + "_keep",
                "transaction.put_state(session, header.run, step.state)",
                "stage is Stage.MASK or transaction.put_state(session, header.run, step.state)",
            ),
        ),
    ),
    Attack(
        "A new attempt is opened while a site still works for the old one",
        "a vector for the old attempt too",
        Level.STORE,
        Check(SESSION + "_overtaken", "transaction.state(session) != before"),
        at_stores(overtaken, header()),
        BY_SERVER,
        "overtaken by a newer one",
    ),
    Attack(
        "A site's store is put back to what it was two rounds ago",
        "three noisy vectors, of which its ledger knows one",
        Level.STORE,
        Check(
            "privacy.secagg.checks.check_keys",
            "keys[message.site].ledger_counter < known_counters.get(message.site, 0)",
        ),
        at_stores(put_back(2), header(PRIVATE)),
        Fault("site 1", peer="server", blamed=2),
        "went back",
    ),
    Attack(
        "A site's store is put back to what it was before the last round",
        "two noisy vectors, of which its ledger knows one",
        Level.STORE,
        Check("client.requests.proven_counters", "advertised[c.site] + 1", "advertised[c.site]"),
        at_stores(put_back(1), header(PRIVATE)),
        Fault("site 1", peer="server", blamed=2),
        "went back",
    ),
    Attack(
        "A plan that costs more than the budget",
        "vectors worth more than the owner's budget",
        Level.STORE,
        Check("privacy.ledger.Ledger.reserve", "amount > self.available"),
        at_stores(beyond_the_budget, header(EXPENSIVE), epsilon=2.0),
        Fault("site 1", BudgetExceeded.__name__),
        "of the budget of population",
    ),
    Attack(
        "Different models to different sites: the others get one that nothing can be learned from",
        "the vector of site 1",
        Level.STORE,
        Check("client.requests.task_in", "input_digest(digest, seen) == header.input_digest", "True"),
        at_stores(another_model, header()),
        Fault("site 2", peer="server"),
        "not the one in the signed header",
    ),
    Attack(
        "The request for a vector calls another function of the app",
        "what that function returns",
        Level.STORE,
        Check("client.requests.kind_of", "kind.message.value != message.metadata.message_type"),
        at_stores(another_function, header()),
        BY_SERVER,
        "in the wrong kind of message",
    ),
)
