"""The files of a node and of a server: what is looked at before anything is sent or listened for."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedseal.cli.server import server as server_commands
from fedseal.cli.site import site as site_commands
from fedseal.client.site_config import read_site
from fedseal.compliance.data.code import code_digest
from fedseal.errors import ConfigError
from fedseal.privacy.planning import plan_run
from fedseal.server.recording import Events
from fedseal.server.server_config import read_server
from fedseal.simulation.deployed.bundled import settle_by_bundle
from fedseal.simulation.deployed.certificates import make_node_key, make_server_certificate
from fedseal.simulation.deployed.demo import demo_contract
from fedseal.simulation.deployed.enrolment import enrol_for_real
from fedseal.simulation.deployed.residence import Residence
from fedseal.study import Study, load_study

NOW = datetime.now(UTC)
DEMO = Path(__file__).resolve().parents[2] / "examples" / "breast-cancer"


@pytest.fixture
def made(tmp_path: Path) -> Residence:
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("pyproject.toml", "task.py"):
        (folder / name).write_bytes((DEMO / name).read_bytes())
    original = load_study(folder)
    contract = demo_contract(original.contract, "none")
    persons = {"a": 100, "b": 100, "c": 100}
    data = {name: tmp_path / name for name in persons}
    for place in data.values():
        place.mkdir()
    return settle_by_bundle(tmp_path / "made", Study(folder, contract), plan_run(contract), persons, data, 4711)


def changed(path: Path, change: Callable[[str], str]) -> Path:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def test_what_was_made_can_be_read(made: Residence) -> None:
    site = read_site(made.nodes["a"])
    assert site.address == "127.0.0.1:4711"
    assert site.study.contract.task == load_study(DEMO).contract.task
    found = read_server(made.server)
    assert sorted(found.nodes) == ["a", "b", "c"]
    assert found.listener.port == 4711


def test_code_that_is_not_what_was_approved_does_not_run(made: Residence) -> None:
    site = read_site(made.nodes["a"])
    (site.study.folder / "task.py").open("a", encoding="utf-8").write("\n")
    with pytest.raises(ConfigError, match="not what was approved") as caught:
        read_site(made.nodes["a"])
    # What to approve is said, for after it has been read; and a process that looked before looks again.
    assert f"sha256:{code_digest(site.study.folder).hex()}" in caught.value.next_step
    with pytest.raises(ConfigError, match="not what was approved"):
        site.check_code()


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"store = .*", 'store = "nowhere.sqlite"', "store.*does not exist"),
        (r"data = .*", 'data = "nowhere"', "data.*does not exist"),
        (r"digest = .*", 'digest = "sha256:12"', "study.digest"),
        (r"threads = ", "treads = ", "unknown key 'site.treads'"),
        (r"\[site\]", '[server]\naddress = "https://there"\nauthority = "a"\n[site]', "server.address"),
        (r"\[site\]", '[server]\naddress = "h:1"\nauthority = "nowhere.pem"\n[site]', "nowhere.pem does not exist"),
    ],
)
def test_a_nodes_file_that_is_wrong_says_where(made: Residence, pattern: str, replacement: str, message: str) -> None:
    path = changed(made.nodes["a"], lambda text: re.sub(pattern, lambda _: replacement, text, count=1))
    with pytest.raises(ConfigError, match=message):
        read_site(path)


def test_a_key_that_others_may_read_is_not_used(made: Residence) -> None:
    key = made.nodes["a"].parent / "node.key"
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read") as caught:
        read_site(made.nodes["a"])
    assert caught.value.next_step == f"chmod 600 {key}"
    key.chmod(0o600)
    key.write_bytes(b"no key")
    with pytest.raises(ConfigError, match="no private key"):
        read_site(made.nodes["a"])


def test_another_sites_key_is_not_this_nodes(made: Residence) -> None:
    key = made.nodes["a"].parent / "node.key"
    key.write_bytes((made.nodes["b"].parent / "node.key").read_bytes())
    with pytest.raises(ConfigError, match=r"node\.key is not this site's node key in epoch 1 of the federation"):
        read_site(made.nodes["a"])


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"\Z", '\n[nodes]\na = "a.pub"\n', "the store says who is let in, by epoch 1"),
        (r"certificate = .*", 'certificate = "nowhere.pem"', "nowhere.pem does not exist"),
        (r"certificate = .*", 'certificate = "server.toml"', "is not the server's certificate of epoch 1"),
        (r"port = .*", "port = 70000", "listen.port"),
    ],
)
def test_a_servers_file_that_is_wrong_says_where(made: Residence, pattern: str, replacement: str, message: str) -> None:
    path = changed(made.server, lambda text: re.sub(pattern, lambda _: replacement, text, count=1))
    with pytest.raises(ConfigError, match=message):
        read_server(path)


@pytest.fixture
def rostered(tmp_path: Path) -> tuple[Path, Path]:
    """The files of a server and of a node that know a roster and no epoch: everything is in the files."""
    contract = demo_contract(load_study(DEMO).contract, "none")
    enrolled = enrol_for_real(tmp_path / "federation", contract, plan_run(contract), {"a": 100, "b": 100})
    tls = tmp_path / "tls"
    tls.mkdir()
    certificate, keys = make_server_certificate(tls), {name: make_node_key(tls, name) for name in ("a", "b")}
    server, node = tmp_path / "server.toml", tmp_path / "node.toml"
    server.write_text(
        f'[listen]\nhost = "127.0.0.1"\nport = 4711\ncertificate = "{certificate.certificate}"\n'
        f'key = "{certificate.key}"\n[server]\nstore = "{enrolled.server_store}"\nruns = "runs"\n[nodes]\n'
        + "".join(f'{name} = "{key.public}"\n' for name, key in keys.items()),
        encoding="utf-8",
    )
    node.write_text(
        f'[server]\naddress = "127.0.0.1:4711"\nauthority = "{certificate.authority}"\n'
        f'[site]\nstore = "{enrolled.site_stores["a"]}"\ndata = "tls"\nkey = "{keys["a"].private}"\n'
        f'[study]\nfolder = "{DEMO}"\ndigest = "sha256:{code_digest(DEMO).hex()}"\n',
        encoding="utf-8",
    )
    return server, node


def test_a_federation_without_epochs_is_told_by_its_files(rostered: tuple[Path, Path]) -> None:
    server, node = rostered
    found, site = read_server(server), read_site(node)
    assert (sorted(found.nodes), found.epoch, site.address, site.epoch) == (["a", "b"], None, "127.0.0.1:4711", None)
    assert found.check_now(NOW) is None
    assert site.check_now(NOW) is None
    changed(node, lambda text: text.partition("[site]")[1] + text.partition("[site]")[2])
    with pytest.raises(ConfigError, match="'server' is missing, and this site has joined no epoch"):
        read_site(node)


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"b = .*", "", "'b' has no key"),
        (r"b = ", "d = ", "'b' has no key"),
        (r"b = (.*)", r"b = \1\nd = \1", "'d' is no site of the roster"),
        (r"\[nodes\](.|\n)*", "", "'nodes' is missing"),
    ],
)
def test_nodes_that_are_not_the_rosters_are_named(
    rostered: tuple[Path, Path], pattern: str, replacement: str, message: str
) -> None:
    path = changed(rostered[0], lambda text: re.sub(pattern, replacement, text))
    with pytest.raises(ConfigError, match=message):
        read_server(path)


def test_the_digest_of_a_study_and_the_runs_of_a_server_can_be_asked_for(made: Residence) -> None:
    study = read_site(made.nodes["a"]).study.folder
    done = CliRunner().invoke(site_commands, ["code", str(study)])
    assert done.output == f"sha256:{code_digest(study).hex()}\n"
    asked = ["status", "--config", str(made.server)]
    assert "No run was ordered yet." in CliRunner().invoke(server_commands, asked).output
    for name, events in (("run-1", ["started", "finished"]), ("run-2", ["started"]), ("run-3", [])):
        folder = made.server.parent / "runs" / name
        folder.mkdir(parents=True)
        (folder / "order.json").write_text("{}", encoding="utf-8")
        for event in events:
            Events(folder).write(event)
    Events(folder.with_name("run-2")).write("round", number=7)
    output = CliRunner().invoke(server_commands, asked).output
    rows = [re.findall(r"[\w-]+", line) for line in output.splitlines() if "run-" in line]
    assert rows == [["run-1", "finished", "0"], ["run-2", "running", "7"], ["run-3", "ordered", "0"]]
