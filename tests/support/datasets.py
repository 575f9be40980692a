"""Small tables with a contract, and a site's store to register them in."""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from support.flower import Federation, make_federation

from fedseal.client.datasets.register import Registration, register
from fedseal.compliance.data.contract import DataContract
from fedseal.compliance.data.keys import data_keys
from fedseal.privacy.secret import Secret

TODAY = date(2026, 3, 1)
CODE = bytes(range(32))
KEYS = data_keys(Secret(b"s" * 32), Secret(b"e" * 32))

CONTRACT: dict[str, Any] = {
    "dataset": {
        "name": "heart",
        "subject": "person",
        "purpose": "research",
        "legal_basis": ["6-1-e", "9-2-j"],
        "special_categories": ["health"],
        "retention_until": date(2036, 1, 1),
        "source": {"system": "registry", "extracted_at": date(2026, 1, 31), "query": "select * from planted_canary"},
    },
    "columns": {
        "person": {"type": "text"},
        "age": {"type": "integer", "low": 0, "high": 120, "nullable": True},
        "pressure": {"type": "real"},
        "sex": {"type": "text", "allowed": ["f", "m"]},
        "ill": {"type": "boolean"},
        "seen": {"type": "date"},
        "at": {"type": "timestamp", "nullable": True},
    },
}


def contract(**changes: dict[str, Any]) -> DataContract:
    """The contract with parts of it changed: ``contract(dataset={"population": "test"})``."""
    tables = {**CONTRACT, **{k: {**CONTRACT.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}}
    return DataContract.model_validate(tables)


def people() -> pd.DataFrame:
    """Four persons in five rows, one of them with an id that looks like a number."""
    moments = ["2026-01-02T03:04:05.000006", None, "2025-01-01", "1950-06-01", "2026-01-01"]
    return pd.DataFrame(
        {
            "person": ["007", "b", "b", "Zoë", "d"],
            "age": pd.array([44, None, 61, 7, 90], dtype="Int64"),
            "pressure": [0.1 + 0.2, -0.0, 1e-300, 120.0, 1 / 3],
            "sex": ["f", "m", "m", "f", "m"],
            "ill": [True, False, True, True, False],
            "seen": pd.to_datetime(["2026-01-02", "1899-12-31", "2026-02-28", "2024-02-29", "2025-07-01"]),
            "at": pd.to_datetime(pd.Series(moments), format="ISO8601"),
        }
    )


def write(table: pd.DataFrame, folder: Path, form: str = "csv") -> Path:
    """The table as the only file of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    path = folder / f"persons.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
    return path


def sites(folder: Path, count: int = 1, **options: Any) -> Federation:
    """Stores to register data in."""
    return make_federation(folder, max(count, 2), **options)


def registered(federation: Federation, folder: Path, rules: DataContract | None = None, site: int = 1) -> Registration:
    """Register a folder at a site."""
    found = contract() if rules is None else rules
    return register(federation.site(site), folder, found, preprocessing=CODE, as_of=TODAY)
