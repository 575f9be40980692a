"""A lineage as PROV-JSON (W3C member submission, 24 April 2013), for programs that read provenance.

Things are entities, runs and approvals activities, sites and persons agents. Ids are this log's: whoever has the log
can look every one up. Emitted here; the tests read it back with the package ``prov``.
"""

import json
from collections.abc import Mapping
from typing import Any

from fedseal.compliance.lineage.answers import Approvals
from fedseal.compliance.lineage.graph import GraphEdge, GraphNode, LineageGraph
from fedseal.compliance.lineage.kinds import NodeKind

NAMESPACE = "urn:fedseal:lineage:"
TYPES: Mapping[str, str] = {
    "model": "Model",
    "dataset": "DatasetVersion",
    "label_set": "LabelSetVersion",
    "guideline": "GuidelineVersion",
    "code": "Code",
    "environment": "Environment",
    "config": "Contract",
    "population": "Population",
    "run": "Run",
    "site": "Site",
}
Record = dict[str, Any]


def prov_json(graph: LineageGraph, approved: Approvals) -> str:
    """A lineage, and who approved its last model, as the text of a PROV-JSON document."""
    document: dict[str, dict[str, Record]] = {"prefix": {"fs": NAMESPACE}}  # type: ignore[dict-item]
    writer = _Writer(document)
    for node in graph.nodes:
        writer.node(node)
    for edge in graph.edges:
        writer.edge(graph.nodes[edge.source], graph.nodes[edge.target], edge)
    model = _name(graph.nodes[-1])
    for signed in approved.signatures:
        activity, actor, org = f"fs:approval-{signed.idx}", f"fs:{signed.actor}", f"fs:organisation-{signed.org}"
        about = {"fs:meaning": signed.meaning, "fs:alias": signed.alias, "fs:role": signed.role}
        writer.add("activity", activity, {"prov:type": _type("Approval"), "fs:entry": _number(signed.idx), **about})
        writer.add("agent", actor, {"prov:type": _qualified("prov:Person")})
        writer.add("agent", org, {"prov:type": _qualified("prov:Organization")})
        writer.relate("used", {"prov:activity": activity, "prov:entity": model})
        writer.relate("wasAssociatedWith", {"prov:activity": activity, "prov:agent": actor})
        writer.relate("actedOnBehalfOf", {"prov:delegate": actor, "prov:responsible": org})
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


class _Writer:
    """A document that is being filled."""

    def __init__(self, document: dict[str, dict[str, Record]]) -> None:
        self._document = document
        self._count = 0

    def add(self, section: str, name: str, record: Record) -> None:
        self._document.setdefault(section, {})[name] = record

    def relate(self, section: str, record: Record) -> None:
        self._count += 1
        self.add(section, f"_:r{self._count}", record)

    def node(self, node: GraphNode) -> None:
        """An entity, an activity for a run, an agent for a site."""
        section = {NodeKind.RUN: "activity", NodeKind.SITE: "agent"}.get(NodeKind(node.kind), "entity")
        record = {"prov:type": _type(TYPES[node.kind]), "fs:id": node.digest, "fs:entry": _number(node.idx)}
        if node.note:
            record["prov:label"] = node.note
        self.add(section, _name(node), record)
        for site in node.sites:
            agent = f"fs:site-{site}"
            self.add("agent", agent, {"prov:type": _type("Site"), "fs:id": site})
            if node.kind == NodeKind.RUN:
                self.relate("wasAssociatedWith", {"prov:activity": _name(node), "prov:agent": agent})
            else:
                self.relate("wasAttributedTo", {"prov:entity": _name(node), "prov:agent": agent})

    def edge(self, source: GraphNode, target: GraphNode, edge: GraphEdge) -> None:
        """What influenced what, in PROV's words."""
        one, two = _name(source), _name(target)
        choice = {"fs:guidedAChoice": True} if edge.chosen else {}
        match NodeKind(source.kind), NodeKind(target.kind):
            case NodeKind.SITE, NodeKind.RUN:
                self.relate("wasAssociatedWith", {"prov:activity": two, "prov:agent": one})
            case NodeKind.SITE, _:
                self.relate("wasAttributedTo", {"prov:entity": two, "prov:agent": one})
            case _, NodeKind.RUN:
                self.relate("used", {"prov:activity": two, "prov:entity": one, **choice})
            case NodeKind.RUN, _:
                self.relate("wasGeneratedBy", {"prov:entity": two, "prov:activity": one, **choice})
            case _:
                self.relate("wasDerivedFrom", {"prov:generatedEntity": two, "prov:usedEntity": one, **choice})


def _name(node: GraphNode) -> str:
    """A qualified name: no colon after the prefix."""
    return f"fs:{node.kind}-{node.digest.replace(':', '-')}"


def _type(name: str) -> Record:
    return _qualified(f"fs:{name}")


def _qualified(name: str) -> Record:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


def _number(value: int) -> Record:
    return {"$": str(value), "type": "xsd:long"}
