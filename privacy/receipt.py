"""The ledger's word that a release was charged, without which nothing can be masked."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Receipt:
    """Made by `Ledger.charge` only.

    ``session`` is the header's hash, ``plan`` the encoded plan that was charged, ``counter`` the ledger's entry.
    """

    session: bytes
    plan: bytes
    counter: int
