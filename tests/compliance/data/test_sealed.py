"""Sealed fields: what is committed can be shown while its key exists, and after shredding nothing opens, matches or
betrays it.
"""

import hashlib
import hmac
import math
import random
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, select
from support.datasets import sites
from support.flower import Federation

from fedseal.compliance.data.erasure import new_epoch, overwrite
from fedseal.compliance.data.keys import DataKeys
from fedseal.compliance.data.registry import keys_of, prepare
from fedseal.compliance.data.sealed import (
    Json,
    canonical_json,
    commitments_of,
    seal,
    shred,
    unseal,
    verify_commitment,
)
from fedseal.compliance.data.tables import SCOPES, SEALED, SECRETS
from fedseal.errors import ConfigError, LocalError

ONE, OTHER = b"1" * 32, b"2" * 32
BLOOD = ["0+", "0-", "A+", "A-", "B+", "B-", "AB+", "AB-"]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return sites(tmp_path)


@contextmanager
def opened(federation: Federation) -> Iterator[tuple[Connection, DataKeys]]:
    with federation.site(1).transaction() as transaction:
        prepare(transaction.connection)
        yield transaction.connection, keys_of(transaction.connection)


def test_what_is_sealed_can_be_read_and_shown(federation: Federation) -> None:
    facts: Mapping[str, Json] = {"z": 1, "a": ["Zoë", None, True], "b": {"c": -5}}
    with opened(federation) as (connection, keys):
        one = seal(connection, keys, ONE, facts)
        again = seal(connection, keys, ONE, facts)
        assert unseal(connection, keys, one.number) == facts
    assert one.commitment != again.commitment
    # RFC 8785, by hand: keys sorted, no spaces, text as it is.
    text = '{"a":["Zoë",null,true],"b":{"c":-5},"z":1}'.encode()
    assert canonical_json(facts) == text
    key = b"k" * 32
    assert verify_commitment(hmac.new(key, text, hashlib.sha256).digest(), key, text)
    assert not verify_commitment(hmac.new(key, text, hashlib.sha256).digest(), key, text + b" ")


@pytest.mark.parametrize("private", [{"a": 1.0}, {"a": b"x"}, {"ä": 1}, {"a": 1 << 53}, {"a": [{"b": 0.5}]}])
def test_what_has_no_canonical_form_is_refused(federation: Federation, private: Any) -> None:
    with opened(federation) as (connection, keys), pytest.raises(LocalError, match="private fact"):
        seal(connection, keys, ONE, private)


def test_a_record_that_was_moved_or_changed_does_not_open(federation: Federation) -> None:
    with opened(federation) as (connection, keys):
        number = seal(connection, keys, ONE, {"a": 1}).number
        seal(connection, keys, OTHER, {"a": 2})
        for column, value in (("scope", OTHER), ("commitment", bytes(32)), ("ciphertext", bytes(60))):
            before = connection.execute(select(SEALED.c[column]).where(SEALED.c.number == number)).scalar_one()
            connection.execute(SEALED.update().where(SEALED.c.number == number).values({column: value}))
            with pytest.raises(LocalError, match="changed from outside"):
                unseal(connection, keys, number)
            connection.execute(SEALED.update().where(SEALED.c.number == number).values({column: before}))
        assert unseal(connection, keys, number) == {"a": 1}


def test_shredding_takes_one_scope_and_leaves_the_others(federation: Federation) -> None:
    with opened(federation) as (connection, keys):
        gone = [seal(connection, keys, ONE, {"n": n}) for n in range(3)]
        stays = seal(connection, keys, OTHER, {"n": 9})
        assert shred(connection, ONE) == tuple(s.commitment for s in gone)
        assert shred(connection, ONE) == ()
        assert commitments_of(connection, ONE) == ()
        for sealed in gone:
            with pytest.raises(ConfigError, match="was erased"):
                unseal(connection, keys, sealed.number)
        assert unseal(connection, keys, stays.number) == {"n": 9}
        # A number never names another record.
        assert seal(connection, keys, ONE, {"n": 10}).number > stays.number


def bytes_on_disk(path: Path) -> bytes:
    """The store's file and what SQLite keeps beside it."""
    return b"".join(p.read_bytes() for p in sorted(path.parent.glob(path.name + "*")))


def test_after_shredding_no_file_holds_a_key_or_a_plaintext(federation: Federation) -> None:
    """Searched for: the texts, every data key and record key, and their wrapped and encrypted forms, also of an epoch's
    secret. While another connection holds the log open, as a running site may.
    """
    path = federation.sites[1]
    with sqlite3.connect(path) as reader:
        reader.execute("SELECT count(*) FROM meta").fetchone()
        with opened(federation) as (connection, keys):
            for n in range(200):
                # Some larger than a page, so that they overflow.
                padding = "planted-canary " * (600 if n % 10 == 0 else 1)
                seal(connection, keys, ONE if n % 2 else OTHER, {"text": f"{padding}{n}"})
        secret, kept = traces(federation)
        with opened(federation) as (connection, _):
            shred(connection, ONE)
            new_epoch(connection)
        before = bytes_on_disk(path)
        # The twin: without the last step some of it still stands there, so the search can find it.
        assert any(trace in before for trace in secret)
        overwrite(path)
        after = bytes_on_disk(path)
        assert not [trace for trace in secret if trace in after]
        assert all(trace in after for trace in kept)
        assert b"planted-canary" not in before
    with opened(federation) as (connection, keys):
        assert len(commitments_of(connection, OTHER)) == 100


def traces(federation: Federation) -> tuple[list[bytes], list[bytes]]:
    """What must be gone after shredding ONE and ending the epoch, and what must still be there."""
    with opened(federation) as (connection, keys):
        wrapped = {row.scope: row.wrapped for row in connection.execute(select(SCOPES))}
        dek = AESGCM(keys.wrap.reveal()).decrypt(wrapped[ONE][:12], wrapped[ONE][12:], b"fedseal/data/dek\0" + ONE)
        rows = list(connection.execute(select(SEALED)))
        epoch = connection.execute(select(SECRETS.c.value).where(SECRETS.c.name == "rows")).scalar_one()
    gone = [dek, epoch, wrapped[ONE], wrapped[ONE][12:44], b"planted-canary"]
    for row in rows:
        if row.scope == ONE:
            bound = b"fedseal/data/sealed\0" + ONE + row.commitment
            gone += [AESGCM(dek).decrypt(row.ciphertext[:12], row.ciphertext[12:], bound)[:32], row.ciphertext[12:44]]
            gone.append(row.commitment)
    return gone, [wrapped[OTHER], *(r.commitment for r in rows if r.scope == OTHER)]


# A guesser who has everything that is left


def everything_left(federation: Federation) -> list[bytes]:
    """Every 32 bytes that the store still has as a value, and every key derived from them."""
    with opened(federation) as (connection, keys):
        found = [keys.subject, keys.rows, keys.commit, keys.population, keys.split, keys.wrap]
        secrets = list(connection.execute(select(SECRETS.c.value)).scalars())
    return [k.reveal() for k in found] + secrets + [b"", bytes(32), ONE]


def sealed_groups(federation: Federation, count: int) -> tuple[list[int], list[bytes]]:
    """Blood groups of so many persons, unevenly spread, and the commitments to them, shredded."""
    groups = np.random.default_rng(7).choice(8, size=count, p=[0.35, 0.06, 0.37, 0.06, 0.09, 0.02, 0.04, 0.01])
    with opened(federation) as (connection, keys):
        commitments = [seal(connection, keys, ONE, {"blood": BLOOD[g]}).commitment for g in groups]
        assert len(shred(connection, ONE)) == count
    overwrite(federation.sites[1])
    return groups.tolist(), commitments


def matched(commitments: list[bytes], keys: list[bytes]) -> int:
    """How many commitments equal that of a possible value under any key, or its bare hash."""
    texts = [canonical_json({"blood": group}) for group in BLOOD]
    guesses = {hmac.digest(key, text, "sha256") for key in keys for text in texts}
    guesses |= {hashlib.sha256(key + text).digest() for key in keys for text in texts}
    return sum(commitment in guesses for commitment in commitments)


def learned(commitments: list[bytes], groups: list[int]) -> tuple[int, int, int]:
    """A naive Bayes classifier over the bits and the exact bytes of commitments, trained on one half: how many of the
    other half it gets right, how many the most frequent group alone, and of how many.
    """
    bits = np.unpackbits(np.frombuffer(b"".join(commitments), np.uint8).reshape(len(groups), -1), axis=1)
    half, labels = len(groups) // 2, np.array(groups)
    seen = dict(zip(commitments[:half], groups[:half], strict=True))
    prior = np.bincount(labels[:half], minlength=8) + 1
    ones = np.array([bits[:half][labels[:half] == g].sum(axis=0) + 1.0 for g in range(8)])
    share = ones / (np.bincount(labels[:half], minlength=8)[:, None] + 2)
    score = np.log(prior) + bits[half:] @ np.log(share).T + (1 - bits[half:]) @ np.log(1 - share).T
    guesses = [seen.get(c, int(g)) for c, g in zip(commitments[half:], score.argmax(axis=1), strict=True)]
    right = int((np.array(guesses) == labels[half:]).sum())
    return right, int((labels[half:] == prior.argmax()).sum()), len(groups) - half


def test_a_guesser_who_knows_all_that_is_left_gains_nothing(federation: Federation) -> None:
    groups, commitments = sealed_groups(federation, 2000)
    assert matched(commitments, everything_left(federation)) == 0
    right, by_prior, of = learned(commitments, groups)
    # No better than the prior, by three deviations of a difference of two such counts at most.
    assert right - by_prior <= 3 * math.sqrt(of * 0.5)


def test_the_same_guesser_opens_bare_hashes_and_commitments_under_one_key(federation: Federation) -> None:
    """The twins that show that the guesser can guess."""
    groups, _ = sealed_groups(federation, 400)
    texts = [canonical_json({"blood": BLOOD[g]}) for g in groups]
    bare = [hashlib.sha256(text).digest() for text in texts]
    assert matched(bare, [b""]) == 400
    one_key = [hmac.digest(b"one and the same key", text, "sha256") for text in texts]
    assert matched(one_key, [b""]) == 0
    right, by_prior, of = learned(one_key, groups)
    assert right == of
    assert by_prior < of / 2


def test_nothing_is_left_after_any_history(tmp_path: Path) -> None:
    """Pages that were filled, split and emptied in any order: without VACUUM, one value in a thousand stays behind."""
    draw, scopes = random.Random(4), [bytes((i,)) * 32 for i in range(12)]
    federation = sites(tmp_path)
    for turn in range(8):
        with opened(federation) as (connection, keys):
            for _ in range(30):
                seal(connection, keys, draw.choice(scopes), {"t": "x" * draw.choice([5, 50, 500, 1500, 5000])})
            if turn % 3 == 2:
                shred(connection, draw.choice(scopes[6:]))
    with opened(federation) as (connection, _):
        rows = [(r.scope, r.ciphertext[12:44], r.commitment) for r in connection.execute(select(SEALED))]
        for scope in scopes[:6]:
            shred(connection, scope)
    overwrite(federation.sites[1])
    data = bytes_on_disk(federation.sites[1])
    gone = [value for scope, *values in rows if scope in scopes[:6] for value in values]
    assert len(gone) > 100
    assert not [value for value in gone if value in data]
    assert all(r[2] in data for r in rows if r[0] in scopes[6:])
