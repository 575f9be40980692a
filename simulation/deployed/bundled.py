"""A federation of resident nodes on this machine, enrolled as people at different places would: by requests and a
bundle. For a demo, a measurement or a test.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from fedseal.client.enrolment import STORE as SITE_STORE
from fedseal.client.enrolment import SiteDraft, init_site, join
from fedseal.compliance.enrolment.files import read_bundle, read_request
from fedseal.compliance.enrolment.root import ROOT_KEY, Asked, FederationPart, Root
from fedseal.privacy.membership.requests import open_request
from fedseal.privacy.planning import RunPlans, ledger_terms
from fedseal.server.enrolment import STORE as SERVER_STORE
from fedseal.server.enrolment import adopt, init_server
from fedseal.simulation.deployed.certificates import LOOPBACK
from fedseal.simulation.deployed.enrolment import Enrolled
from fedseal.simulation.deployed.residence import Residence
from fedseal.study import Study


def settle_by_bundle(
    folder: Path, study: Study, plans: RunPlans, persons: Mapping[str, int], data: Mapping[str, Path], port: int
) -> Residence:
    """Make everything that a federation of resident nodes needs, in a new folder.

    Args:
        folder: a new folder.
        study: whose code is approved, and whose contract the sites' policies allow.
        plans: of the contract; says at which order the ledgers are opened.
        persons: training persons by site.
        data: each site's folder of data.
        port: where the server will listen, on the loopback address.
    """
    now, name = datetime.now(UTC), study.contract.name
    root = Root.create(folder / "root", FederationPart(name=name, address=f"{LOOPBACK}:{port}"), now)
    server, sites = folder / "server", {site: folder / "sites" / site for site in persons}
    requests = [init_server(server, name, now)]
    for site, place in sites.items():
        draft = SiteDraft(site, name, site, persons[site], data[site], study.folder)
        requests.append(init_site(place, draft, now))
    asked = [Asked(str(path), open_request(read_request(path), str(path))) for path in requests]
    epoch = root.seal(root.drafted(asked, now), now)
    bundle = read_bundle(root.bundle(epoch.number))
    config = adopt(server, bundle, now).config
    terms = ledger_terms(study.contract, plans)
    nodes = {site: join(place, bundle, now, terms).config for site, place in sites.items()}
    stores = {site: place / SITE_STORE for site, place in sites.items()}
    digest = epoch.roster.digest().hex()
    enrolled = Enrolled(root.folder / ROOT_KEY, root.bundle(epoch.number), digest, server / SERVER_STORE, stores)
    return Residence(config, nodes, enrolled)
