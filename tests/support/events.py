"""Bodies of events made from their forms: every field filled with what its own type allows."""

import types
import typing
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from hypothesis import strategies as st
from pydantic import StringConstraints
from pydantic.fields import FieldInfo

from fedseal.compliance.events.bodies import PlanFacts
from fedseal.compliance.events.leaf import TIME_FORMAT
from fedseal.compliance.events.plans import plan_facts
from fedseal.config import Frozen
from fedseal.privacy.plan import NoPrivacy

START = datetime(2026, 1, 1, tzinfo=UTC)


def times() -> st.SearchStrategy[str]:
    """Times as events have them."""
    return st.integers(0, 10**13).map(lambda n: (START + timedelta(microseconds=n)).strftime(TIME_FORMAT))


def bodies(form: type[Frozen]) -> st.SearchStrategy[Frozen]:
    """Bodies of a form."""
    if form is PlanFacts:
        return st.builds(lambda n: plan_facts(NoPrivacy(releases=n, retries=0)), st.integers(1, 1000))
    hints = typing.get_type_hints(form, include_extras=True)
    parts = {name: _values(hints[name], field) for name, field in form.model_fields.items()}
    return st.fixed_dictionaries(parts).map(form.model_validate)


def _values(hint: Any, field: FieldInfo | None = None) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        pattern = next((a.pattern for a in arguments[1:] if isinstance(a, StringConstraints)), None)
        return _values(arguments[0]) if pattern is None else st.from_regex(str(pattern), fullmatch=True, alphabet=ASCII)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([_values(a) for a in arguments])
    if hint is type(None):
        return st.none()
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(0, 2**53 - 1)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    if isinstance(hint, type) and issubclass(hint, Frozen):
        return bodies(hint)
    raise TypeError(f"no values for {hint}: give the field a closed type")


ASCII = st.characters(min_codepoint=32, max_codepoint=126)
