"""A federation of resident nodes on this machine: keys, stores, certificates, and the files of a server and its sites.

It knows a roster and no epochs: who is let in, and by which certificate the server is known, is in the files, where a
trial can change it. `bundled` makes one as `fedseal federation admit` does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedseal.compliance.data.code import code_digest
from fedseal.privacy.planning import RunPlans
from fedseal.simulation.deployed.certificates import LOOPBACK, make_node_key, make_server_certificate
from fedseal.simulation.deployed.enrolment import Enrolled, enrol_for_real
from fedseal.study import Study


@dataclass(frozen=True, slots=True)
class Residence:
    """The files: one for the server, one for every site's node by its name; and what was enrolled."""

    server: Path
    nodes: Mapping[str, Path]
    enrolled: Enrolled


def settle(
    folder: Path, study: Study, plans: RunPlans, persons: Mapping[str, int], data: Mapping[str, Path], port: int
) -> Residence:
    """Make everything that a federation of resident nodes needs, in a new folder.

    Args:
        folder: a new folder.
        study: whose code is approved, and whose contract the sites' policies allow.
        plans: of the contract.
        persons: training persons by site.
        data: each site's folder of data.
        port: where the server will listen, on the loopback address.
    """
    enrolled = enrol_for_real(folder / "federation", study.contract, plans, persons)
    tls = folder / "tls"
    tls.mkdir(mode=0o700)
    certificate = make_server_certificate(tls)
    keys = {name: make_node_key(tls, name) for name in persons}
    server = folder / "server.toml"
    listen = {"host": LOOPBACK, "port": port, "certificate": certificate.certificate, "key": certificate.key}
    coordination = {"store": enrolled.server_store, "runs": folder / "runs"}
    nodes = {name: key.public for name, key in keys.items()}
    server.write_text(toml({"listen": listen, "server": coordination, "nodes": nodes}), encoding="utf-8")
    digest = f"sha256:{code_digest(study.folder).hex()}"
    files = {}
    for name, key in keys.items():
        files[name] = folder / f"{name}.toml"
        tables: dict[str, dict[str, object]] = {
            "server": {"address": f"{LOOPBACK}:{port}", "authority": certificate.authority},
            "site": {"store": enrolled.site_stores[name], "data": data[name], "key": key.private},
            "study": {"folder": study.folder.resolve(), "digest": digest},
        }
        files[name].write_text(toml(tables), encoding="utf-8")
    return Residence(server, files, enrolled)


def toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """Tables of strings, paths and integers as TOML writes them."""
    parts = []
    for name, table in tables.items():
        rows = [
            f"{json.dumps(key)} = {value if isinstance(value, int) else json.dumps(str(value), ensure_ascii=False)}"
            for key, value in table.items()
        ]
        parts.append("\n".join([f"[{name}]", *rows]))
    return "\n\n".join(parts) + "\n"
