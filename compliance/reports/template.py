"""What a report asks for: items of a rule or sections of a card, and for each the entries of a log that answer it.

The rules' items are data (`annex_iv.toml`, `model_card.toml`): rules change, and a change of one is no change of code.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from fedseal.config import Frozen, parse_toml, validate

HERE = Path(__file__).parent
ANNEX_IV, MODEL_CARD = HERE / "annex_iv.toml", HERE / "model_card.toml"
Scope = Literal["model", "ancestors", "runs", "data", "labels", "code", "log"]


class Fact(Frozen):
    """One thing to state, from one of three sources.

    ``event``: entries of a type, named without its version. ``fields`` are of their bodies (``@org``, ``@actor`` and
    ``@time`` of the entry itself; ``limit:at least`` puts words before one), ``scope`` says which entries. ``none``:
    what to say where there is no such entry and that is no gap. ``derive``: computed from entries. ``document``: the
    key of a document that the operator names.
    """

    label: str
    event: str = ""
    fields: tuple[str, ...] = ()
    scope: Scope = "log"
    by_org: bool = False
    derive: str = ""
    document: str = ""
    none: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [bool(self.event), bool(self.derive), bool(self.document)].count(True) != 1:
            raise ValueError("a fact has one of event, derive and document")
        if bool(self.event) != bool(self.fields):
            raise ValueError("a fact of an event names its fields")
        return self


class Item(Frozen):
    """One item of a rule. ``asks``: what it demands, in our own words."""

    number: str
    title: str
    asks: str = ""
    mandatory: bool = True
    fact: tuple[Fact, ...]


class Template(Frozen):
    """A report's items. ``status`` tells the reader how far to trust the mapping itself."""

    version: Literal[1]
    name: str
    title: str
    source: str
    status: str
    item: tuple[Item, ...]


def read_template(path: Path) -> Template:
    """The template in a file; ConfigError if it is none."""
    text = path.read_text(encoding="utf-8")
    return validate(Template, parse_toml(text, path.name), text=text, source=path.name)
