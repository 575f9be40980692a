"""Who is let in, goes on with new keys, or leaves: each epoch follows from the one before, and no name comes back."""

import stat
from pathlib import Path

import pytest
from support.enrolled import Seats, settled
from support.keys import key
from support.spoilt import of_version

from fedseal.compliance.enrolment.files import read_bundle, write_request
from fedseal.compliance.enrolment.root import AUTHORITY, FederationPart, Root
from fedseal.errors import ConfigError
from fedseal.privacy.membership.documents import KeyKind, Reason
from fedseal.privacy.membership.requests import Applicant, SiteKeys, ask_as_site
from fedseal.privacy.membership.tls import new_private_key


def test_the_first_epoch_has_the_server_and_all_who_asked(tmp_path: Path) -> None:
    seats = Seats(tmp_path)
    epoch = read_bundle(seats.admit([seats.begin(), seats.apply("north"), seats.apply("south")]))
    assert (epoch.number, epoch.membership.previous, epoch.membership.former) == (1, (), ())
    assert [(e.site, e.name, e.organisation, e.persons) for e in epoch.roster.sites] == [
        (1, "north", "north e.V.", 110),
        (2, "south", "south e.V.", 110),
    ]
    assert epoch.membership.address == "127.0.0.1:4711"


def test_keys_are_for_their_owner_and_nothing_handed_over_holds_one(tmp_path: Path) -> None:
    seats = settled(tmp_path, "north")
    secret = [seats.folder / "root" / name for name in ("root.key", "authority.key")]
    secret += [seats.server_folder / name for name in ("server.sqlite", "superlink.key")]
    secret += [seats.site_folder("north") / name for name in ("site.sqlite", "node.key")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert not (seats.site_folder("north") / "next").exists()
    handed = [seats.root.bundle(1), seats.server_folder / "server.request"]
    handed.append(seats.site_folder("north") / "north.request")
    seeds = [seats.server.identity.key.seed, seats.site("north").identity.key.seed]
    seeds_hex = [seed.reveal().hex() for seed in seeds] + [(seats.folder / "root" / "root.key").read_text().strip()]
    for path in handed:
        raw = path.read_bytes()
        assert not any(bytes.fromhex(seed) in raw or seed.encode() in raw for seed in seeds_hex)
        assert b"PRIVATE" not in raw


def test_an_epoch_without_a_request_is_for_another_year(tmp_path: Path) -> None:
    seats = settled(tmp_path, "north")
    first, second = read_bundle(seats.root.bundle(1)), read_bundle(seats.admit())
    assert second.roster.sites == first.roster.sites
    assert second.membership.previous == (first.membership.digest(),)
    assert second.bundle.certificate != first.bundle.certificate
    assert [KeyKind(f.kind) for f in second.membership.former] == [KeyKind.CERTIFICATE]


def test_a_site_that_left_is_remembered_by_number_name_and_keys(tmp_path: Path) -> None:
    seats = settled(tmp_path, "north", "south")
    old = read_bundle(seats.root.bundle(1))
    epoch = read_bundle(seats.remove("south", Reason.REVOKED))
    assert [e.name for e in epoch.roster.sites] == ["north"]
    gone = {KeyKind(f.kind): f for f in epoch.membership.former if f.name == "south"}
    assert gone[KeyKind.SIGNING].public == old.roster.sites[1].signing_key
    assert gone[KeyKind.NODE].public.decode() == old.membership.node_key(2)
    assert {f.reason for f in gone.values()} == {Reason.REVOKED}
    third = read_bundle(seats.admit([seats.apply("south-2")]))
    assert [(e.site, e.name) for e in third.roster.sites] == [(1, "north"), (3, "south-2")]
    assert epoch.membership.former == third.membership.former[: len(epoch.membership.former)]


def asking(folder: Path, name: str, *, federation: str = "town", before: str | None = None) -> Path:
    keys = SiteKeys(key(f"{name} new"), new_private_key())
    path = folder / f"{name}-{federation}-{before}.asked"
    signed = ask_as_site(Applicant(federation, name, "x", 10), keys, 1, before=None if before is None else key(before))
    write_request(path, signed)
    return path


def test_what_cannot_be_asked_for_changes_nothing(tmp_path: Path) -> None:
    seats = settled(tmp_path, "north", "south")
    seats.take(seats.remove("south"), "north")
    for path, message in (
        (asking(tmp_path, "east", federation="village"), "asks to be let in to federation 'village'"),
        (asking(tmp_path, "north"), "in the federation already, with another key"),
        (asking(tmp_path, "north", before="thief"), "in the federation already, with another key"),
        (asking(tmp_path, "east", before="east"), "no site of that name is in the federation"),
        (asking(tmp_path, "south"), "was in the federation before"),
        (seats.site_folder("south") / "south.request", "was in the federation before"),
        (seats.site_folder("north") / "north.request", "in the federation already"),
        (seats.server_folder / "server.request", "has a server already"),
    ):
        with pytest.raises(ConfigError, match=message):
            seats.admit([path])
    with pytest.raises(ConfigError, match="no site 'nobody'"):
        seats.remove("nobody")
    with pytest.raises(ConfigError, match="the only site left"):
        seats.remove("north")
    assert seats.root.newest() == read_bundle(seats.root.bundle(2))


def test_one_key_is_one_partys(tmp_path: Path) -> None:
    seats = Seats(tmp_path)
    server = seats.begin()
    keys = SiteKeys(key("shared"), new_private_key())
    paths = []
    for name in ("a", "b"):
        paths.append(tmp_path / f"{name}.request")
        write_request(paths[-1], ask_as_site(Applicant("town", name, name, 10), keys, 1))
    with pytest.raises(ConfigError, match="brings a key that somebody has or had"):
        seats.admit([server, *paths])


def test_the_first_epoch_needs_a_server_and_a_site(tmp_path: Path) -> None:
    seats = Seats(tmp_path)
    server = seats.begin()
    with pytest.raises(ConfigError, match="needs the request of a site"):
        seats.admit([server])
    with pytest.raises(ConfigError, match="needs the server's request"):
        seats.admit([seats.apply("north")])


def test_a_root_that_is_not_the_one_before_signs_nothing(tmp_path: Path) -> None:
    seats = settled(tmp_path / "one", "north")
    other = Root.create(tmp_path / "other", FederationPart(name="town", address="127.0.0.1:1"), seats.now)
    (seats.folder / "root" / "root.key").unlink()
    (other.folder / "root.key").rename(seats.folder / "root" / "root.key")
    with pytest.raises(ConfigError, match="another root key"):
        seats.admit()
    assert not seats.root.bundle(2).exists()


def test_a_roots_folder_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder of a federation's root"):
        Root.open(tmp_path)
    seats = settled(tmp_path / "seats", "north")
    file = seats.folder / "root" / "federation.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"town"', '"city"'), encoding="utf-8")
    with pytest.raises(ConfigError, match="says 'city', and its epochs are of 'town'"):
        Root.open(file.parent)
    file.write_text(text.replace("4711", "4712"), encoding="utf-8")
    assert read_bundle(seats.admit()).membership.address == "127.0.0.1:4712"
    authority = file.with_name(AUTHORITY)
    whole = authority.read_bytes()
    for spoilt in (b"nothing", of_version(5, whole)):
        authority.write_bytes(spoilt)
        with pytest.raises(ConfigError, match="holds no certificate"):
            seats.admit()
    authority.write_bytes(whole)
    (file.parent / "root.key").chmod(0o640)
    with pytest.raises(ConfigError, match="others may read"):
        seats.admit()
    with pytest.raises(ConfigError, match="is not empty"):
        Root.create(file.parent, FederationPart(name="town", address="127.0.0.1:1"), seats.now)
