"""Write the published JSON Schemas from the models that check the files. A test keeps docs/schemas up to date."""

import json
from pathlib import Path

from pydantic import BaseModel

from fedseal.client.site_config import NodeConfig
from fedseal.compliance.data.contract import DataContract
from fedseal.compliance.enrolment.root import FederationFile
from fedseal.compliance.events.leaf import Envelope
from fedseal.compliance.events.registry import EVENTS
from fedseal.compliance.labels.scale import LabelSchema
from fedseal.compliance.policy import SitePolicy
from fedseal.compliance.registry.bundle import InputSchema, Manifest, Recipe
from fedseal.compliance.registry.description import Description
from fedseal.compliance.registry.rules import RegistryRules
from fedseal.server.archive import Archive
from fedseal.server.monitoring.policy import MonitorFile
from fedseal.server.server_config import ServerConfig
from fedseal.simulation.result import Result
from fedseal.simulation.scenario.compared import Comparison
from fedseal.simulation.scenario.golden import Recorded
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.outcome import ScenarioResult
from fedseal.study import Contract

SCHEMAS: dict[str, type[BaseModel]] = {
    "result-1": Result,
    "scenario-1": Scenario,
    "scenario-result-1": ScenarioResult,
    "scenario-comparison-1": Comparison,
    "scenario-golden-1": Recorded,
    "study-1": Contract,
    "site-policy-2": SitePolicy,
    "site-node-1": NodeConfig,
    "coordination-server-1": ServerConfig,
    "server-backup-1": Archive,
    "federation-1": FederationFile,
    "registry-1": RegistryRules,
    "monitor-1": MonitorFile,
    "model-description-1": Description,
    "bundle-manifest-1": Manifest,
    "bundle-recipe-1": Recipe,
    "bundle-schema-1": InputSchema,
    "label-schema-1": LabelSchema,
    # The leaf of an event, and the body of every type: events/log.genesis-1.json is that of log.genesis/v1.
    "events/leaf-1": Envelope,
    **{f"events/{name.replace('/v', '-')}": kind.body for name, kind in EVENTS.items()},
    "data-contract-1": DataContract,
}


def schema_text(model: type[BaseModel]) -> str:
    """The schema as it stands in the file."""
    return json.dumps(model.model_json_schema(by_alias=True), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for name, model in SCHEMAS.items():
        (Path(__file__).parent / "schemas" / f"{name}.json").write_text(schema_text(model), encoding="utf-8")
