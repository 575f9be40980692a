"""Data and code of a simulated federation on record, as at real sites: what a run's log says of them is checkable."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from fedseal.client.datasets.register import register
from fedseal.client.datasets.template import contract_of
from fedseal.client.task import SiteData
from fedseal.compliance.data.code import code_digest
from fedseal.compliance.data.contract import Dataset, SourceRules
from fedseal.compliance.data.facts import LegalBasis, Purpose, SourceSystem
from fedseal.errors import DataError
from fedseal.privacy.store import SiteStore
from fedseal.study import Contract

# Nobody keeps a simulation's copies of tables longer than its run.
KEPT = timedelta(days=1)


def register_site(store: Path, data: Path, study: Path, contract: Contract) -> bool:
    """Register a simulated site's table as the version it trains on; False where the study has no ids of persons.

    A table that is its file's and no more is left alone: whoever has no column of persons cannot say who is in it. The
    legal facts are stand-ins, as everything about a simulation: its log says that it is one.
    """
    person = contract.simulation.person
    table = SiteData("", data).table()
    if person is None or person not in table.columns or not _usable(table[person]):
        return False
    today = datetime.now(UTC).date()
    dataset = Dataset(
        name="simulated",
        subject=person,
        purpose=Purpose.RESEARCH,
        legal_basis=(LegalBasis.PUBLIC_TASK,),
        retention_until=today + KEPT,
        shared_schema=True,
        source=SourceRules(system=SourceSystem.OTHER, extracted_at=today),
    )
    try:
        register(
            SiteStore.open(store),
            data,
            contract_of(table, dataset),
            preprocessing=code_digest(study),
            as_of=today,
        )
    except DataError:
        # A table that a contract cannot describe, such as one of mixed types, trains as it would unregistered.
        return False
    return True


def _usable(column: "pd.Series[Any]") -> bool:
    """Whether a column can name subjects: whole numbers or texts, for every row."""
    kind = pd.api.types.infer_dtype(column, skipna=False)
    return not column.isna().any() and kind in ("integer", "string")
