"""What `fedseal model` prints: as values for JSON, and as tables."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fedseal.compliance.registry.bundle import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedseal.compliance.registry.aliases import Binding, Registration, State
    from fedseal.compliance.registry.bundle import Bundle
    from fedseal.compliance.registry.promotion import Checked


def listing(state: "State") -> dict[str, Any]:
    """All bundles and aliases."""
    return {
        "models": [_registered(state, r) for r in state.registered.values()],
        "aliases": {alias.value: _binding(b) for alias, b in state.aliases.items()},
        "held": {alias.value: [_binding(b) for b in held] for alias, held in state.held.items()},
        "refused": [{"index": r.index, "type": r.type, "reason": r.reason} for r in state.refused],
    }


def print_listing(state: "State") -> None:
    """All bundles and aliases, as tables."""
    console = Console(highlight=False)
    if not state.registered:
        console.print("No bundle is registered.")
    else:
        table = Table("bundle", "model", "run", "round", "state", "aliases")
        for r in state.registered.values():
            names = ", ".join(a.value for a, b in state.aliases.items() if b.bundle == r.bundle)
            run = (r.run or "")[:12]
            table.add_row(short(r.bundle), short(r.model), run, str(r.body.round), state.status(r.model).value, names)
        console.print(table)
    for alias, held in state.held.items():
        console.print(f"{alias.value}: " + " → ".join(f"{short(b.bundle)} (entry {b.index})" for b in held))
    for entry in state.refused:
        console.print(f"Entry {entry.index}, {entry.type}, counts for nothing: {entry.reason}.", style="yellow")


def description(
    state: "State", registration: "Registration", bundle: "Bundle", names: "Mapping[str, str]"
) -> dict[str, Any]:
    """All about one bundle."""
    approvals = [a for a in state.approvals if a.bundle == registration.bundle]
    evaluations = [e for e in state.evaluations if e.body.model == registration.model]
    return {
        **_registered(state, registration),
        "parent": registration.body.parent,
        "recipe": bundle.recipe.model_dump(mode="json"),
        "schema": bundle.schema.model_dump(mode="json"),
        "files": [entry.model_dump(mode="json") for entry in bundle.manifest.files],
        "approvals": [
            {
                "index": a.index,
                "person": a.actor,
                "name": names.get(a.actor),
                "organisation": a.org,
                "role": a.role.value,
                "meaning": a.meaning.value,
                "alias": a.alias.value,
                "time": a.time,
            }
            for a in approvals
        ],
        "measures": [
            {"index": e.index, "simulated": e.body.simulated, **m.model_dump(mode="json")}
            for e in evaluations
            for m in e.body.measures
        ],
    }


def print_description(shown: dict[str, Any]) -> None:
    """All about one bundle, in words."""
    console = Console(highlight=False, soft_wrap=True)
    for title in ("bundle", "model", "run", "round", "state", "index"):
        console.print(f"{title:<8} {shown[title]}", markup=False)
    recipe = shown["recipe"]
    console.print(f"{'recipe':<8} {recipe['task']} of study {recipe['study']}, output {recipe['output']['kind']}")
    console.print("All files hold.")
    table = Table("entry", "signed by", "role", "meaning", "for")
    for a in shown["approvals"]:
        table.add_row(str(a["index"]), a["name"] or a["person"], a["role"], a["meaning"], a["alias"])
    if shown["approvals"]:
        console.print(table)
    measures = Table("entry", "measure", "value", "margin", "from")
    for m in shown["measures"]:
        source = "simulation" if m["simulated"] else "federation"
        measures.add_row(str(m["index"]), m["name"], m["value"], m["margin"], source)
    if shown["measures"]:
        console.print(measures)


def checks(checked: "Checked") -> dict[str, Any]:
    """What a bundle has and lacks for an alias."""
    return {
        "bundle": checked.registration.bundle,
        "model": checked.registration.model,
        "approvals": [a.index for a in checked.counted.approvals],
        "gates": [
            {
                "index": index,
                "gate": f.kind.value,
                "name": f.name,
                "limit": f.limit,
                "found": f.found,
                "passed": f.passed,
            }
            for index, f in zip(checked.gates, checked.found, strict=True)
        ],
        "final_size": checked.final_size,
        "reasons": list(checked.reasons),
    }


def print_checks(checked: "Checked", alias: str) -> None:
    """What a bundle has and lacks for an alias, as a table."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("gate", "of", "limit", "found", "passed")
    for f in checked.found:
        table.add_row(f.kind.value, f.name or "", f.limit or "", f.found or "", "yes" if f.passed else "no")
    console.print(table)
    console.print(f"{len(checked.counted.approvals)} signatures count.")
    for reason in checked.reasons:
        console.print(f"Missing: {reason}.", markup=False)
    if not checked.reasons:
        console.print(f"Nothing stands in the way of {alias}.")


def _registered(state: "State", r: "Registration") -> dict[str, Any]:
    return {
        "bundle": r.bundle,
        "model": r.model,
        "run": r.run,
        "round": r.body.round,
        "kind": r.body.kind.value,
        "state": state.status(r.model).value,
        "index": r.index,
        "aliases": [alias.value for alias, b in state.aliases.items() if b.bundle == r.bundle],
    }


def _binding(b: "Binding") -> dict[str, Any]:
    return {"bundle": b.bundle, "model": b.model, "index": b.index}
