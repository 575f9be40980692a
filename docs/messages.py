"""Draw the protocol's messages from their classes.

`python docs/messages.py` prints the tables that stand in docs/protocol.md.
"""

import types
import typing
from dataclasses import fields
from typing import Annotated, Any

from fedseal.privacy.quantize import Layout, Segment
from fedseal.privacy.roster import Roster, RosterEntry
from fedseal.privacy.secagg import header, messages, sharing
from fedseal.wire import Blob, Double, Fixed, Flag, Text, Uint

TOP: tuple[type[Any], ...] = (
    Roster,
    Layout,
    header.Header,
    header.AdvertiseRequest,
    messages.Signed,
    messages.Advertisement,
    messages.ShareRequest,
    messages.NeighbourRequest,
    messages.ShareHead,
    messages.ShareEntry,
    messages.ShareReply,
    messages.SealedShares,
    messages.Delivery,
    messages.MaskRequest,
    messages.Masked,
    messages.ConsistencyRequest,
    messages.Confirmation,
    messages.UnmaskRequest,
    messages.Opening,
    messages.Openings,
    messages.Refusal,
)
INNER: tuple[type[Any], ...] = (RosterEntry, Segment, header.Sparse, messages.Member)


def kind(hint: Any) -> str:
    """A field's type in the page's words."""
    if typing.get_origin(hint) is Annotated:
        match typing.get_args(hint)[1]:
            case Uint(width):
                return f"u{8 * width}"
            case Fixed(length):
                return f"b{length}"
            case Blob(limit):
                return f"blob ≤ {limit}"
            case Text(limit):
                return f"text ≤ {limit}"
            case Double():
                return "f64"
            case Flag():
                return "bool"
    if typing.get_origin(hint) is tuple:
        return f"list of {kind(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return f"optional {kind(next(a for a in typing.get_args(hint) if a is not type(None)))}"
    return str(hint.__name__)


def row(message: type[Any]) -> str:
    """One message: its tag, its name, its fields in their order."""
    hints = typing.get_type_hints(message, include_extras=True)
    listed = ", ".join(f"{f.name}: {kind(hints[f.name])}" for f in fields(message))
    return f"| {getattr(message, 'TAG', '')} | {message.__name__} | {listed} |"


def message_table() -> str:
    """All messages of the protocol, by tag; then what is written inside them."""
    rows = [row(m) for m in sorted(TOP, key=lambda m: int(m.TAG))] + [row(m) for m in INNER]
    return "\n".join(["| tag | name | fields, in this order |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(message_table())
    print(f"\nsalts have {sharing.SALT_LENGTH} bytes")
