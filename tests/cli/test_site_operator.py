"""`fedseal site check`, `ledger`, `log`, `status`, `outbox` and `approve-code`: what an operator sees and says."""

import http.server
import json
import re
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.commands import Run, told
from support.flower import PRIVATE, Nodes, Script, flower_task, header_for, make_federation, ordinary_app
from support.keys import key
from support.residents import write_contract

from fedseal.client.running import alone
from fedseal.compliance.data.code import code_digest
from fedseal.compliance.events.bodies import OutboxDecided, PolicySet
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.policy import policy_text, read_policy
from fedseal.compliance.registry.approvals import save_key
from fedseal.compliance.site_rules.adopt import adopt_policy
from fedseal.config import Frozen
from fedseal.errors import ExitCode
from fedseal.privacy.planning import plan_run
from fedseal.privacy.secagg.messages import RefusalCode
from fedseal.privacy.store import SiteStore
from fedseal.simulation.deployed.certificates import ServerCertificate, make_server_certificate
from fedseal.simulation.deployed.demo import demo_contract
from fedseal.simulation.deployed.residence import settle
from fedseal.study import load_study

DEMO = Path(__file__).resolve().parents[2] / "examples" / "breast-cancer"
RUN = b"r" * 16
PERSON = "act_" + "0" * 32
POLICY = """
version = 2
[cohort]
minimum = 2
[releases]
update = ["none", "local"]
[periods.train]
epsilon = 5
days = 30
[outbox]
otherwise = "hold"
[[outbox.rule]]
releases = ["moments"]
plans = ["local"]
smallest_cohort = 2
then = "send"
"""


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Three sites after a private round; since then the first holds back what is asked of it."""
    federation = make_federation(tmp_path, 3)
    running = Nodes(federation, ordinary_app(Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True)))
    running.run(header_for(federation, PRIVATE, run=RUN))
    adopt_policy(federation.site(1), read_policy(POLICY), datetime.now(UTC))
    assert running.refusal(1, running.opening(header_for(federation, PRIVATE, run=RUN, release_seq=2))) is (
        RefusalCode.WAITING
    )
    return running


def own_bodies(store: SiteStore, form: type[Frozen]) -> list[Frozen]:
    """What stands in a site's own log of a form."""
    with store.transaction() as transaction:
        own = SiteJournal(transaction.connection, store.identity, datetime.now(UTC)).own
        bodies = [read_event(own.leaf(index)).body for index in range(own.size)]
    return [body for body in bodies if isinstance(body, form)]


# The store


def test_ledgers_are_shown_by_population_run_and_period(fedseal: Run, nodes: Nodes) -> None:
    store = nodes.federation.sites[1]
    done = fedseal("site", "ledger", "--store", store)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "Population train: epsilon 10 at delta 1e-05 was promised" in done.stdout
    assert RUN.hex() in done.stdout
    assert "In the last 30 days" in done.stdout
    found = {b["population"]: b for b in json.loads(fedseal("site", "ledger", "--store", store, "--json").stdout)}
    assert set(found) == {"train", "test", "monitor"}
    train = found["train"]
    assert [r["charges"] for r in train["runs"]] == [1]
    assert train["charged"] + train["reserved"] + train["left"] == pytest.approx(1)
    assert (train["period"]["charges"], found["test"]["period"]) == (1, None)


def test_the_own_log_is_shown_with_what_was_refused(fedseal: Run, nodes: Nodes) -> None:
    store = nodes.federation.sites[1]
    done = fedseal("site", "log", "--store", store, "--last", "5")
    assert len([line for line in done.stdout.splitlines() if "Z  " in line]) == 5
    (line,) = [
        line for line in fedseal("site", "log", "--store", store, "--refusals").stdout.splitlines() if "Z  " in line
    ]
    assert "run.refused/v1" in line
    assert "rule=waiting" in line
    (whole,) = json.loads(fedseal("site", "log", "--store", store, "--refusals", "--json").stdout)
    assert whole["body"]["rule"] == "waiting"
    assert "Nothing was refused" in fedseal("site", "log", "--store", nodes.federation.sites[2], "--refusals").stdout


def test_status_says_whether_it_runs_and_what_waits(fedseal: Run, nodes: Nodes) -> None:
    store = nodes.federation.sites[1]
    found = json.loads(fedseal("site", "status", "--store", store, "--json").stdout)
    assert (found["running"], found["waiting"], found["stopped"]) == (False, 1, False)
    assert found["last_round"].endswith(f"update of round 1 of run {RUN.hex()}")
    assert "waiting" in found["last_error"]
    with alone(store):
        assert "running          yes" in fedseal("site", "status", "--store", store).stdout
    assert "running          no" in fedseal("site", "status", "--store", store).stdout


def test_a_release_is_looked_at_approved_and_answered(fedseal: Run, nodes: Nodes) -> None:
    federation = nodes.federation
    store = ("--store", str(federation.sites[1]))
    done = fedseal("site", "outbox", "list", *store)
    assert "update" in done.stdout
    assert "local" in done.stdout
    (asked,) = json.loads(fedseal("site", "outbox", "list", *store, "--json").stdout)["releases"]
    assert (asked["run"], asked["round"], asked["cohort"], asked["decision"]) == (RUN.hex(), 1, [1, 2, 3], None)
    done = fedseal("site", "outbox", "approve", str(asked["number"]), "--by", PERSON, *store)
    assert (done.returncode, "is approved" in done.stdout) == (ExitCode.OK, True), done.stderr
    assert "Nothing waits" in fedseal("site", "outbox", "list", *store).stdout
    (decided,) = json.loads(fedseal("site", "outbox", "list", "--all", *store, "--json").stdout)["releases"]
    assert (decided["decision"], decided["by"]) == ("approved", PERSON)
    (event,) = own_bodies(federation.site(1), OutboxDecided)
    assert event.model_dump(mode="json") | {"request": ""} == {
        "decision": "approved",
        "scope": "release",
        "request": "",
        "by": PERSON,
    }
    nodes.run(header_for(federation, PRIVATE, run=RUN, release_seq=3))
    assert federation.charges(1) == 2


def test_a_run_is_denied_as_a_whole(fedseal: Run, nodes: Nodes) -> None:
    store = ("--store", str(nodes.federation.sites[1]))
    assert fedseal("site", "outbox", "deny", "--run", RUN.hex(), *store).returncode == ExitCode.OK
    assert f"Run {RUN.hex()} is denied as a whole" in fedseal("site", "outbox", "list", *store).stdout
    later = header_for(nodes.federation, PRIVATE, run=RUN, release_seq=4, fl_round=2)
    assert nodes.refusal(1, nodes.opening(later)) is RefusalCode.POLICY


def test_what_waits_is_decided_by_rules(fedseal: Run, nodes: Nodes) -> None:
    federation = nodes.federation
    store = ("--store", str(federation.sites[1]))
    done = fedseal("site", "outbox", "rules", "--apply", *store)
    assert "1. moments under plan local of at least 2 sites: send" in done.stdout
    assert "Otherwise: hold" in done.stdout
    assert "Release" not in done.stdout
    adopt_policy(federation.site(1), read_policy(POLICY.replace('"moments"', '"update"')), datetime.now(UTC))
    assert "Release 1 is approved." in fedseal("site", "outbox", "rules", "--apply", *store).stdout
    assert len(own_bodies(federation.site(1), PolicySet)) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("approve",), "one release or one run"),
        (("approve", "1", "--run", RUN.hex()), "one release or one run"),
        (("approve", "99"), "no release of that number"),
        (("deny", "--run", "xyz"), "32 hexadecimal digits"),
        (("approve", "1", "--by", "Jane Roe"), "a pseudonym is act_"),
    ],
)
def test_what_cannot_be_decided_is_named(fedseal: Run, nodes: Nodes, arguments: tuple[str, ...], says: str) -> None:
    told(fedseal("site", "outbox", *arguments, "--store", nodes.federation.sites[1]), ExitCode.CONFIG, says)


def test_a_store_or_a_file_is_named(fedseal: Run, tmp_path: Path) -> None:
    for command in ("ledger", "log", "status"):
        told(fedseal("site", command), ExitCode.CONFIG, "name the site's file or its store")
    told(fedseal("site", "status", "--store", tmp_path / "absent"), ExitCode.CONFIG, "no site store at")


# The file


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a federation of resident nodes needs."""
    folder = tmp_path_factory.mktemp("settled")
    (folder / "study").mkdir()
    for name in ("pyproject.toml", "task.py"):
        (folder / "study" / name).write_bytes((DEMO / name).read_bytes())
    contract = demo_contract(load_study(folder / "study").contract, "local")
    write_contract(folder / "study" / "pyproject.toml", contract)
    persons = {"a": 100, "b": 100, "c": 100}
    data = {name: folder / "data" / name for name in persons}
    for place in data.values():
        place.mkdir(parents=True)
    settle(folder / "made", load_study(folder / "study"), plan_run(contract), persons, data, 9)
    return folder


@pytest.fixture
def site(settled: Path, tmp_path: Path) -> Path:
    """A site's file, whose paths are of a copy that a test may break."""
    shutil.copytree(settled, tmp_path / "site")
    file = tmp_path / "site" / "made" / "a.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(str(settled), str(tmp_path / "site")), encoding="utf-8")
    return file


def found_by(fedseal: Run, site: Path, *options: str) -> dict[str, tuple[bool, str, str]]:
    """What each check found."""
    done = fedseal("site", "check", "--config", site, "--json", *(options or ("--offline",)))
    rows = {f["check"]: (f["ok"], f["found"], f["fix"]) for f in json.loads(done.stdout)}
    assert done.returncode == (ExitCode.OK if all(ok for ok, _, _ in rows.values()) else ExitCode.GATE)
    return rows


def test_a_site_that_is_ready_is_green(fedseal: Run, site: Path) -> None:
    found = found_by(fedseal, site)
    assert {what for what, (ok, _, _) in found.items() if not ok} == set()
    assert {
        "file",
        "ledgers",
        "node's key",
        "authority",
        "code",
        "data",
        "release update",
        "budget of train",
        "disk",
    } <= (set(found))
    table = fedseal("site", "check", "--config", site, "--offline").stdout
    assert "ok" in table
    assert "NO" not in table


@pytest.mark.parametrize(
    ("policy", "check", "fix"),
    [
        ("[policy.cohort]\nminimum = 4\n", "cohort", "lower cohort.minimum"),
        ("[policy.cohort]\nthreshold = 4\n", "cohort", "lower cohort.threshold"),
        ("[policy.releases]\nupdate = []\n", "release update", "releases.update"),
        ("[policy.ranges]\nupdate = 0.001\n", "release update", "ranges.update"),
        ('[policy.study]\npurposes = ["research"]\n', "purpose, strategy, code", "State an allowed one"),
        ('[policy.data]\ndatasets = ["cohort"]\n', "data and labels allowed", "fedseal data"),
        ("[policy.periods.train]\nepsilon = 0.01\ndays = 30\n", "period of train", "periods.train"),
        ('[policy.outbox]\notherwise = "deny"\n', "outbox of update", "Change outbox"),
    ],
)
def test_what_the_policy_does_not_let_the_study_do_is_red_with_its_fix(
    fedseal: Run, site: Path, policy: str, check: str, fix: str
) -> None:
    base = "" if "cohort" in policy and "releases" not in policy else "[policy.cohort]\nminimum = 2\n"
    text = base + policy if "[policy.cohort]" not in policy else policy
    site.write_text(site.read_text(encoding="utf-8") + "\n" + text, encoding="utf-8")
    ok, _, advice = found_by(fedseal, site)[check]
    assert (ok, fix in advice) == (False, True), advice


def test_what_is_broken_is_red_with_its_fix(fedseal: Run, site: Path) -> None:
    home = site.parent.parent
    store = next(home.glob("made/federation/sites/a/site.sqlite"))
    store.chmod(0o644)
    (home / "study" / "task.py").open("a", encoding="utf-8").write("\n")
    (home / "data" / "a").rmdir()
    for private in home.glob("made/tls/a*"):
        private.chmod(0o644)
    found = found_by(fedseal, site)
    red = {what: fix for what, (ok, _, fix) in found.items() if not ok}
    assert f"chmod 600 {store}" in red["store's mode"]
    assert "approve it: sha256:" in red["code"]
    assert "site.data" in red["data"]
    assert "chmod 600" in red["node's key"]


def test_a_file_or_a_store_that_is_none_is_red_alone(fedseal: Run, site: Path) -> None:
    next(site.parent.glob("federation/sites/a/site.sqlite")).unlink()
    found = found_by(fedseal, site)
    assert {what for what, (ok, _, _) in found.items() if not ok} == {"store"}
    site.write_text("[server]\n", encoding="utf-8")
    assert list(found_by(fedseal, site)) == ["file"]
    assert list(found_by(fedseal, site.with_name("absent.toml"))) == ["file"]


class Quiet(http.server.BaseHTTPRequestHandler):
    """Answers everything with 404."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def answering(certificate: ServerCertificate) -> Iterator[int]:
    """A server with a certificate; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_server_is_asked_by_a_certificate_that_the_site_trusts(fedseal: Run, site: Path, tmp_path: Path) -> None:
    ok, _, fix = found_by(fedseal, site, "--json")["server"]
    assert (ok, "whether the server runs" in fix) == (False, True)
    made = {}
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
        made[name] = make_server_certificate(tmp_path / name)
    text = site.read_text(encoding="utf-8")
    with answering(made["ours"]) as port:
        text = text.replace("127.0.0.1:9", f"127.0.0.1:{port}")
        for name, trusted in (("ours", True), ("other", False)):
            authority = f"authority = {json.dumps(str(made[name].authority))}"
            site.write_text(re.sub(r'(?m)^"?authority"? = .*$', authority, text), encoding="utf-8")
            found = found_by(fedseal, site, "--json")
            assert found["server"][0] is trusted, found["server"]
            if trusted:
                assert found["clock"][0]
            else:
                assert "not the authority's" in found["server"][2]


# Code


def test_code_is_signed_beside_its_folder(fedseal: Run, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    (study / "task.py").write_text("x = 1\n", encoding="utf-8")
    save_key(key("reviewer"), tmp_path / "reviewer.key", None)
    done = fedseal("site", "approve-code", study, "--key", tmp_path / "reviewer.key")
    assert done.returncode == ExitCode.OK, done.stderr
    assert f"sha256:{code_digest(study).hex()}\nsigned by {key('reviewer').public.hex()}" in done.stdout
    (line,) = (tmp_path / "study.approvals").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["key"] == key("reviewer").public.hex()


def test_a_policy_in_the_sites_file_becomes_the_stores(site: Path) -> None:
    """What `fedseal site run` does before it serves."""
    store = SiteStore.open(next(site.parent.glob("federation/sites/a/site.sqlite")))
    policy = read_policy(POLICY)
    assert adopt_policy(store, policy, datetime.now(UTC))
    again = SiteStore.open(store.path)
    assert again.identity.policy == policy_text(policy)
    assert not adopt_policy(again, policy, datetime.now(UTC))
    (event,) = own_bodies(again, PolicySet)
    with again.transaction() as transaction:
        journal = SiteJournal(transaction.connection, again.identity, datetime.now(UTC))
        assert event == PolicySet(policy=journal.commitment("policy", again.identity.policy.encode()))
        assert journal.last_said(PolicySet) == event
