"""A site's side of enrolment: its keys, its request, and the epochs that it joins.

next/signing.key, next/node.key   keys that were asked for and are not in an epoch yet; mode 0600
NAME.request                      what is handed to the federation's root
site.toml                         what `fedseal site run` reads
data.toml                         the data contract, where there is one
site.sqlite                       the site's store, with its signing key; mode 0600
node.key                          by which the node signs itself in; mode 0600
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

from fedseal.client.site_config import AUTHORITY
from fedseal.client.site_toml import site_toml
from fedseal.compliance.data.code import code_digest
from fedseal.compliance.data.contract import DataContract
from fedseal.compliance.default_policy import default_policy
from fedseal.compliance.enrolment.files import (
    load_node_key,
    load_signing_key,
    new_signing_key,
    own_folder,
    read_request,
    replace_file,
    save_signing_key,
    write_request,
    write_secret,
)
from fedseal.config import read_toml, validate
from fedseal.errors import ConfigError
from fedseal.privacy.ledger import Terms
from fedseal.privacy.membership.documents import Epoch, KeyKind, Reason, moves
from fedseal.privacy.membership.requests import Applicant, SiteKeys, ask_as_site, check_name, open_request
from fedseal.privacy.membership.standing import SITE_MOVES, check_certificate, standing
from fedseal.privacy.membership.tls import (
    as_pem,
    new_private_key,
    openssh_line,
    private_openssh,
)
from fedseal.privacy.planning import ledger_terms, plan_run
from fedseal.privacy.randomness import SystemRandomness
from fedseal.privacy.roster import public_persons
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.shared_planning import Extent
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.study import Study, load_study
from fedseal.study_code import load_task

NEXT, SIGNING_KEY, NODE_KEY = "next", "signing.key", "node.key"
STORE, CONFIG, CONTRACT = "site.sqlite", "site.toml", "data.toml"


@dataclass(frozen=True, slots=True)
class SiteDraft:
    """What the person at the site decides. ``persons`` is public; it is rounded before anyone gets it.

    ``contract`` is a data contract to register with; the study's ``data.toml``, where it has one, if None.
    """

    name: str
    federation: str
    organisation: str
    persons: int
    data: Path
    study: Path
    contract: Path | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """What came of a bundle: whether the epoch is a new one here, whether a running node has to be started anew, the
    site's file, and whether this is its first epoch.
    """

    changed: bool
    restart: bool
    config: Path
    first: bool


def init_site(folder: Path, draft: SiteDraft, now: datetime) -> Path:
    """Make a site's keys and its file in a new or empty folder, and its request.

    Raises:
        ConfigError: a name cannot be one, the study, the data or the data contract is not there, or the folder holds
            something.
    """
    check_name("site", draft.name)
    check_name("federation", draft.federation)
    study, code = load_study(draft.study), code_digest(draft.study)
    if draft.persons < 1:
        raise ConfigError("--persons is how many persons this site trains on: at least one")
    if not draft.data.is_dir():
        raise ConfigError(f"{draft.data} is no folder", next_step="Name the folder of this site's data with --data.")
    contract = draft.contract or (draft.study / CONTRACT if (draft.study / CONTRACT).is_file() else None)
    if contract is not None:
        table, text = read_toml(contract)
        validate(DataContract, table, text=text, source=str(contract))
    own_folder(folder, "the site")
    if contract is not None:
        shutil.copyfile(contract, folder / CONTRACT)
    text = site_toml(STORE, draft.data, NODE_KEY, draft.study, code, default_policy(study.contract))
    replace_file(folder / CONFIG, text.encode("utf-8"))
    who = Applicant(draft.federation, draft.name, draft.organisation, public_persons(draft.persons))
    return _ask(folder, who, now, None)


def rotate_site(folder: Path, now: datetime) -> Path:
    """Make new keys for a site that has joined, and the request to go on with them.

    Raises:
        ConfigError: there is no such site, or it has asked already.
    """
    identity = SiteStore.open(folder / STORE).identity
    entry = identity.roster.entry(identity.number)
    if (folder / NEXT).exists() or entry is None:
        raise ConfigError(
            f"{folder / NEXT} holds keys that were asked for and are not in an epoch yet",
            next_step=f"Hand {identity.name}.request to the federation's root, or delete {folder / NEXT} to ask anew.",
        )
    who = Applicant(identity.roster.federation, identity.name, entry.organisation, entry.persons)
    return _ask(folder, who, now, identity.key)


def _ask(folder: Path, who: Applicant, now: datetime, before: SigningKey | None) -> Path:
    keys = SiteKeys(new_signing_key(), new_private_key())
    (folder / NEXT).mkdir(mode=0o700)
    save_signing_key(folder / NEXT / SIGNING_KEY, keys.signing)
    write_secret(folder / NEXT / NODE_KEY, private_openssh(keys.node))
    path = folder / f"{who.name}.request"
    write_request(path, ask_as_site(who, keys, int(now.timestamp()), before))
    return path


def join(folder: Path, epoch: Epoch, now: datetime, terms: tuple[Terms, ...] | None = None) -> Joined:
    """Make the site's store from its first epoch, or move it to a later one.

    What was interrupted is completed by the same command once more.

    Args:
        folder: where `init_site` made the keys.
        epoch: whose fingerprint somebody has compared.
        now: in UTC.
        terms: of the ledgers that are opened with the first epoch; what the study promises if None.

    Raises:
        ConfigError: the epoch does not hold now, is not this site's, is older, or of another federation. Nothing has
            changed.
    """
    waiting = _waiting(folder)
    member = epoch.membership
    check_certificate(epoch, now)
    standing(epoch, now, moves=SITE_MOVES)
    if not (folder / STORE).exists():
        if waiting is None:
            raise ConfigError(
                f"{folder} is no site's folder", next_step="Name it with --folder, or make one: fedseal site init"
            )
        return _join_first(folder, epoch, waiting, terms)
    store = SiteStore.open(folder / STORE)
    before = store.identity.epoch
    if before is not None:
        # First: that it is older, or of another federation, is what is wrong with it.
        moves(before, epoch)
    entry = epoch.roster.entry(store.identity.number)
    if entry is None or entry.name != store.identity.name:
        raise _gone(epoch, store.identity.number, store.identity.name)
    asked = waiting is not None and entry.signing_key == waiting.signing.public
    new_node = _node_key(folder, epoch, store.identity.number, waiting)
    changed = store.adopt(epoch, waiting.signing if waiting is not None and asked else None)
    if new_node and waiting is not None:
        replace_file(folder / NODE_KEY, private_openssh(waiting.node), mode=0o600)
    replace_file(folder / AUTHORITY, as_pem(epoch.bundle.authority))
    if asked:
        shutil.rmtree(folder / NEXT)
    moved = before is None or (before.membership.address, before.membership.authority) != (
        member.address,
        member.authority,
    )
    return Joined(changed, new_node or moved, folder / CONFIG, first=False)


def _join_first(folder: Path, epoch: Epoch, waiting: SiteKeys, terms: tuple[Terms, ...] | None) -> Joined:
    asked = _asked_federation(folder)
    if asked is not None and asked != epoch.roster.federation:
        raise ConfigError(
            f"the bundle is of federation {epoch.roster.federation!r}, and this site has asked {asked!r}",
            next_step="Give a bundle of that federation.",
        )
    entry = next((e for e in epoch.roster.sites if e.signing_key == waiting.signing.public), None)
    if entry is None:
        raise ConfigError(
            f"epoch {epoch.number} lists no site with the key {folder / NEXT / SIGNING_KEY}",
            next_step="Hand this site's request to the federation's root, and join the bundle that comes of it.",
        )
    _node_key(folder, epoch, entry.site, waiting)
    study = _study(folder)
    terms = terms or site_terms(study, len(epoch.roster.sites))
    pinned, policy = epoch.roster.digest(), default_policy(study.contract)
    # Before the store: without them the store stands in the way of a second try.
    replace_file(folder / AUTHORITY, as_pem(epoch.bundle.authority))
    replace_file(folder / NODE_KEY, private_openssh(waiting.node), mode=0o600)
    enrolment = Enrolment(entry.site, waiting.signing, epoch.signed, pinned, policy, terms, bundle=epoch.bundle)
    SiteStore.create(folder / STORE, enrolment)
    shutil.rmtree(folder / NEXT)
    return Joined(changed=True, restart=False, config=folder / CONFIG, first=True)


def first_terms(folder: Path, epoch: Epoch, epsilon: float | None) -> tuple[Terms, ...]:
    """The terms of a site's ledgers: what its study promises, or with ``epsilon`` that much for everything that will
    ever be computed on its training persons.
    """
    return site_terms(_study(folder), len(epoch.roster.sites), epsilon)


def site_terms(study: Study, sites: int, epsilon: float | None = None) -> tuple[Terms, ...]:
    """One ledger a population, with what the study promises; where its plan has shared noise, for so many sites."""
    contract, extent = study.contract, None
    if contract.privacy.plan in ("distributed", "client"):
        # They load torch, which nobody else here needs.
        from fedseal.client.first_model import first_arrays
        from fedseal.client.task import Task
        from fedseal.client.trainer import trainable

        task = cast(Task, load_task(contract.task, study.folder))
        # Of the model only its size counts here.
        stream = SystemRandomness().stream("size")
        arrays = first_arrays(task, contract.training, lambda _: trainable(task.model()), stream)
        extent = Extent(sum(array.size for array in arrays.values()), sites)
    plans = plan_run(contract, extent)
    if epsilon is not None:
        contract = contract.model_copy(update={"privacy": contract.privacy.model_copy(update={"epsilon": epsilon})})
    return ledger_terms(contract, plans)


def _study(folder: Path) -> Study:
    table, _ = read_toml(folder / CONFIG)
    part = table.get("study")
    if not isinstance(part, dict) or not isinstance(part.get("folder"), str):
        raise ConfigError(f"{folder / CONFIG} names no study")
    return load_study(folder / part["folder"])


def _asked_federation(folder: Path) -> str | None:
    found = sorted(folder.glob("*.request"))
    return open_request(read_request(found[0]), str(found[0])).federation if len(found) == 1 else None


def _waiting(folder: Path) -> SiteKeys | None:
    if not (folder / NEXT).is_dir():
        return None
    return SiteKeys(load_signing_key(folder / NEXT / SIGNING_KEY), load_node_key(folder / NEXT / NODE_KEY))


def _node_key(folder: Path, epoch: Epoch, number: int, waiting: SiteKeys | None) -> bool:
    """Whether an epoch has the waiting node key for this site; ConfigError if it has neither that nor the present."""
    wanted = epoch.membership.node_key(number)
    if waiting is not None and openssh_line(waiting.node.public_key()) == wanted:
        return True
    held = folder / NODE_KEY
    if held.exists() and openssh_line(load_node_key(held).public_key()) == wanted:
        return False
    shown = held if held.exists() else folder / NEXT / NODE_KEY
    raise ConfigError(
        f"epoch {epoch.number} has another node key for this site than {shown}",
        next_step="Hand this site's request to the federation's root, and join the bundle that comes of it.",
    )


def _gone(epoch: Epoch, number: int, name: str) -> ConfigError:
    """What to say to a site that is no longer in the federation."""
    found = [f for f in epoch.membership.former if f.site == number and f.kind == KeyKind.SIGNING]
    why = Reason(found[-1].reason).label if found else "not a member"
    return ConfigError(
        f"site {name!r} is not in epoch {epoch.number} of the federation ({why})",
        next_step="Its store and ledger stay as they are. To take part again, ask the federation's root.",
    )
