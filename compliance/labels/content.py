"""Names that mean nothing to others, and the digest that names a label set. Pure.

Everything guessable is under a key of the site: who an annotator is, which items there are, what a label set holds. So
the same data give the same names at one site, and nobody without the key can try whether a person or a label is in.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedseal import merkle
from fedseal.compliance.labels.scale import canonical
from fedseal.privacy.secret import Secret


@dataclass(frozen=True, slots=True)
class LabelKeys:
    """Keys for one purpose each, all from one secret of the site."""

    secret: Secret

    def _mac(self, purpose: str, message: str) -> bytes:
        key = hmac.digest(self.secret.reveal(), f"fedseal/labels/{purpose}/1".encode(), "sha256")
        return hmac.digest(key, message.encode(), "sha256")

    def pseudonym(self, name: str) -> str:
        """``act_`` and 128 bits in hexadecimal: an annotator, wherever no name may stand."""
        return "act_" + self._mac("annotator", name)[:16].hex()

    def item(self, item: str) -> bytes:
        """32 bytes that stand for an item in a leaf."""
        return self._mac("item", item)

    def file(self, digest: bytes) -> str:
        """What an imported file is known by: equal for equal files."""
        return "hmac:" + self._mac("file", digest.hex()).hex()

    def commitment(self, label_set: str) -> str:
        """What others may know a label set by: it says nothing, and the site can show what it stands for."""
        return "hmac:" + self._mac("commitment", label_set).hex()


@dataclass(frozen=True, slots=True)
class ItemLabels:
    """What a label set says of one item.

    ``label`` is None where it is undecided; ``given`` are the annotations behind it as (annotator's pseudonym, label).
    """

    item: str
    label: str | None
    given: tuple[tuple[str, str], ...]


def content_root(keys: LabelKeys, items: Iterable[ItemLabels]) -> bytes:
    """The Merkle root over sorted leaves, one an item: HMAC(site key, item) || SHA-256(label and annotations).

    Two neighbouring leaves so also prove that an item is *not* in the set.
    """
    leaves = sorted(_leaf(keys, item) for item in items)
    return merkle.root([merkle.leaf_hash(leaf) for leaf in leaves])


def _leaf(keys: LabelKeys, item: ItemLabels) -> bytes:
    labels = canonical({"given": sorted(item.given), "label": item.label})
    return keys.item(item.item) + hashlib.sha256(labels.encode()).digest()


def label_set_id(dataset: str, guideline: str, schema: str, adjudication: str, root: bytes) -> str:
    """``sha256:`` over what a label set is: whose labels, under which guideline and schema, decided how, and which.

    The same data give the same id. It is for the site: to others the site shows a commitment to it.
    """
    parts: Sequence[str] = (dataset, guideline, schema, adjudication, root.hex())
    return "sha256:" + hashlib.sha256(b"fedseal/label-set/1\x00" + canonical(parts).encode()).hexdigest()
