"""Every message class of the privacy layer, and hypothesis strategies for them, both found by looking."""

import importlib
import pkgutil
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any

import hypothesis.strategies as st

import fedseal.privacy
from fedseal.privacy.counts import Axis, Source, Table, Tables
from fedseal.privacy.membership.documents import FormerKey, KeyKind, Membership, NodeEntry, Reason
from fedseal.privacy.plan import AdaptiveSkellam, LocalGaussian, NoPrivacy, SharedGeometric, SharedSkellam
from fedseal.privacy.quantize import Layout, Segment
from fedseal.privacy.roster import Roster, RosterEntry
from fedseal.privacy.secagg.header import AES_256_CTR, COMPLETE_GRAPH, PROTOCOL, Header
from fedseal.privacy.secagg.messages import (
    Advertisement,
    ConsistencyRequest,
    Delivery,
    MaskRequest,
    Member,
    NeighbourRequest,
    Opening,
    Openings,
    Refusal,
    RefusalCode,
    ShareEntry,
    ShareReply,
    ShareRequest,
    Signed,
    UnmaskRequest,
)
from fedseal.privacy.secagg.parameters import threshold
from fedseal.privacy.watch import Stratum, Watch, Weights
from fedseal.wire import U32, U64, Blob, Bytes32, Double, Fixed, Flag, Str, Text, Uint

Strategy = st.SearchStrategy[Any]


def message_classes() -> list[type[Any]]:
    """The dataclasses with a tag of their own, in all modules below `fedseal.privacy`, by tag."""
    found: set[type[Any]] = set()
    for info in pkgutil.walk_packages(fedseal.privacy.__path__, "fedseal.privacy."):
        module = importlib.import_module(info.name)
        found |= {c for c in vars(module).values() if isinstance(c, type) and is_dataclass(c) and "TAG" in vars(c)}
    return sorted(found, key=lambda c: (c.TAG, c.__qualname__))


def messages(kind: Any) -> Strategy:
    """Values of a type that stands in an annotation."""
    if typing.get_origin(kind) is Annotated:
        return _annotated(*typing.get_args(kind)[:2])
    if typing.get_origin(kind) is tuple:
        return st.lists(messages(typing.get_args(kind)[0]), max_size=3).map(tuple)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return st.none() | messages(next(a for a in typing.get_args(kind) if a is not type(None)))
    if kind in SPECIAL:
        return SPECIAL[kind]()
    return st.builds(kind, **(_by_annotation(kind) | FIELDS.get(kind, dict)()))


def _annotated(base: Any, spec: Any) -> Strategy:
    match spec:
        case Uint(width):
            return st.integers(0, (1 << 8 * width) - 1)
        case Fixed(length):
            return st.binary(min_size=length, max_size=length).map(base)
        case Blob(limit):
            return st.binary(max_size=min(limit, 24)).map(base)
        case Text(limit):
            return st.text(max_size=min(limit // 4, 8))
        case Double():
            return st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
        case Flag():
            return st.booleans()
    raise AssertionError(f"no strategy for {spec!r}")


def _by_annotation(kind: Any) -> dict[str, Strategy]:
    hints = typing.get_type_hints(kind, include_extras=True)
    special = FIELDS.get(kind, dict)()
    return {f.name: messages(hints[f.name]) for f in fields(kind) if f.name not in special}


def increasing(items: Strategy, number: Callable[[Any], int] = lambda item: int(item)) -> Strategy:
    """Tuples whose numbers strictly increase."""
    return st.lists(items, max_size=3, unique_by=number).map(lambda found: tuple(sorted(found, key=number)))


# Fields whose values their class narrows down further than their type does.
FIELDS: dict[Any, Callable[[], dict[str, Strategy]]] = {
    Signed: lambda: {"stage": st.integers(0, 4)},
    Advertisement: lambda: {"ledger_counter": st.integers(0, (1 << 62) - 1)},
    Opening: lambda: {"kind": st.integers(0, 1)},
    Refusal: lambda: {"code": st.sampled_from([int(code) for code in RefusalCode])},
    ShareRequest: lambda: {"advertisements": increasing(messages(Signed), lambda a: int(a.site))},
    NeighbourRequest: lambda: {
        "members": increasing(messages(U32)),
        "neighbourhood": increasing(messages(Member), lambda m: int(m.advertisement.site)),
    },
    ShareReply: lambda: {"entries": increasing(messages(ShareEntry), lambda e: int(e.receiver))},
    MaskRequest: lambda: {
        "contributors": increasing(messages(U32)),
        "deliveries": increasing(messages(Delivery), lambda d: int(d.head.site)),
    },
    ConsistencyRequest: lambda: {"survivors": increasing(messages(U32))},
    UnmaskRequest: lambda: {
        "survivors": increasing(messages(U32)),
        "confirmations": increasing(messages(Signed), lambda c: int(c.site)),
    },
    Openings: lambda: {"openings": increasing(messages(Opening), lambda o: int(o.dealer))},
    Roster: lambda: {"sites": _entries()},
    NoPrivacy: lambda: {"releases": st.integers(1, (1 << 32) - 1)},
    AdaptiveSkellam: lambda: {
        "count_units": st.integers(1, 16).map(lambda half: 2 * half),
        "lowest": st.just(1e-6),
        "highest": st.just(1e6),
        "quantile": st.floats(0.01, 0.99),
        "rate": st.floats(0.01, 1.0),
    },
    LocalGaussian: lambda: {
        "clip_norm": st.floats(1e-6, 1e6),
        "noise_multiplier": st.floats(1e-3, 2.0**21),
        "sample_rate": st.floats(1e-6, 1.0),
        "steps": st.integers(1, (1 << 32) - 1),
        "releases": st.integers(1, (1 << 32) - 1),
    },
    SharedSkellam: lambda: {
        "unit": st.integers(0, 1),
        "clip_norm": st.floats(1e-6, 1e6),
        "resolution": st.integers(16, 1 << 44),
        "length": st.integers(1, (1 << 32) - 1),
        "variance": st.integers(1 << 10, 1 << 50),
        "releases": st.integers(1, (1 << 32) - 1),
    },
    SharedGeometric: lambda: {
        "epsilon": st.floats(1.0, 64.0),
        "cells": st.integers(1, 1000),
        "length": st.integers(1000, (1 << 32) - 1),
        "releases": st.integers(1, (1 << 32) - 1),
    },
}


def _entries() -> Strategy:
    distinct = (lambda e: e.site, lambda e: e.name, lambda e: e.signing_key)
    return st.lists(messages(RosterEntry), max_size=3, unique_by=distinct).map(
        lambda found: tuple(sorted(found, key=lambda e: int(e.site)))
    )


@st.composite
def _segments(draw: st.DrawFn) -> Segment:
    bounds = sorted(draw(st.lists(st.integers(-1000, 1000), min_size=2, max_size=2, unique=True)))
    return Segment(
        name=draw(st.text(min_size=1, max_size=8)),
        length=draw(st.integers(1, (1 << 32) - 1)),
        low=float(bounds[0]),
        high=float(bounds[1]),
        # At least one level: the larger bound is at least 1.
        scale=draw(st.floats(1.0, 1e3)),
        weighted=draw(st.booleans()),
    )


def _layouts() -> Strategy:
    segments = st.lists(_segments(), min_size=1, max_size=3, unique_by=lambda s: s.name).map(tuple)
    return st.builds(Layout, st.sampled_from([32, 64]), st.integers(0, 1), segments)


@st.composite
def _headers(draw: st.DrawFn) -> Header:
    cohort = draw(st.lists(messages(U32), min_size=2, max_size=6, unique=True).map(sorted))
    colluders = draw(st.integers(0, len(cohort) - 2))
    fixed: dict[str, Any] = {
        "protocol": PROTOCOL,
        "cohort": tuple(cohort),
        "colluders": colluders,
        "threshold": threshold(len(cohort), colluders),
        "mask_generator": AES_256_CTR,
        "graph": COMPLETE_GRAPH,
        "sparse": None,
        "release_seq": draw(st.integers(0, (1 << 63) - 1)),
    }
    free = {name: draw(values) for name, values in _by_annotation(Header).items() if name not in fixed}
    return Header(**free, **fixed)


@st.composite
def _axes(draw: st.DrawFn) -> Axis:
    source = draw(st.sampled_from(Source))
    edges = sorted(draw(st.lists(st.integers(-1000, 1000), min_size=2, max_size=5, unique=True)))
    name = draw(st.text(min_size=1, max_size=8)) if source is Source.COLUMN else ""
    number = draw(st.integers(0, 9)) if source is Source.FEATURE else 0
    return Axis(int(source), tuple(e / 4 for e in edges), draw(st.booleans()), number, name)


def _tables() -> Strategy:
    axes = st.lists(_axes(), min_size=1, max_size=3).map(lambda found: Table(tuple(found)))
    return st.lists(axes, min_size=1, max_size=3).map(lambda found: Tables(tuple(found)))


@st.composite
def _watches(draw: st.DrawFn) -> Watch:
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3, unique=True))
    strata = []
    for name in names:
        axes = draw(st.lists(_axes(), min_size=1, max_size=2))
        of_persons = (Source.FEATURE, Source.COLUMN)
        whole = tuple(replace(axis, outside=axis.outside or axis.source in of_persons) for axis in axes)
        strata.append(Stratum(name, Table(whole), draw(st.booleans())))
    epsilon = draw(st.sampled_from((0.0, 0.5, 1.0, 3.0)))
    tables = draw(_tables()).tables if draw(st.booleans()) else ()
    share, weights = draw(st.integers(1, 64)), int(draw(st.sampled_from(Weights)))
    return Watch(tuple(strata), tables, share, weights, draw(st.integers(0, 2**32 - 1)), epsilon)


@st.composite
def _former_keys(draw: st.DrawFn) -> FormerKey:
    kind = draw(st.sampled_from(KeyKind))
    size = {"min_size": 32, "max_size": 32} if kind is KeyKind.SIGNING else {"min_size": 0, "max_size": 24}
    site, epoch, retired = draw(messages(U32)), draw(messages(U32)), draw(messages(U64))
    reason = int(draw(st.sampled_from(Reason)))
    return FormerKey(int(kind), site, draw(messages(Str)), draw(st.binary(**size)), epoch, reason, retired)


@st.composite
def _memberships(draw: st.DrawFn) -> Membership:
    previous = draw(messages(tuple[Bytes32, ...]))
    distinct = (lambda n: n.site, lambda n: n.key)
    nodes = draw(st.lists(messages(NodeEntry), max_size=3, unique_by=distinct))
    keys = {node.key.encode("utf-8") for node in nodes}
    former = [f for f in draw(st.lists(_former_keys(), max_size=3)) if f.public not in keys]
    times = draw(st.lists(messages(U64), min_size=2, max_size=2, unique=True).map(sorted))
    fixed: dict[str, Any] = {
        "epoch": len(previous) + 1,
        "previous": previous,
        "valid_from": times[0],
        "valid_until": times[1],
        "nodes": tuple(sorted(nodes, key=lambda n: int(n.site))),
        "former": tuple(former),
    }
    free = {name: draw(values) for name, values in _by_annotation(Membership).items() if name not in fixed}
    return Membership(**free, **fixed)


SPECIAL: dict[Any, Callable[[], Strategy]] = {
    FormerKey: _former_keys,
    Membership: _memberships,
    Segment: _segments,
    Layout: _layouts,
    Header: _headers,
    Tables: _tables,
    Watch: _watches,
}
