"""A running link follows the server's store: who is gone is refused at once, who is new is let in, the run is told."""

import json
import ssl
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from support.enrolled import NOW, Seats, settled
from support.linked import ask

from fedseal.client.fleet import Fleet, NotAdmittedError
from fedseal.client.site_config import read_site
from fedseal.errors import ConfigError
from fedseal.privacy.membership.documents import Reason
from fedseal.server.app import SITES_KEY
from fedseal.server.coordination import Coordinator, ordered
from fedseal.server.epochs import EpochWatch
from fedseal.server.link import Link
from fedseal.server.listening import Listener
from fedseal.server.recording import EVENTS
from fedseal.server.server_config import read_server


def fleet(seats: Seats, name: str, port: int) -> Fleet:
    site = read_site(seats.site_folder(name) / "site.toml")
    return Fleet(f"127.0.0.1:{port}", site.trust, site.key)


def shown(port: int) -> str:
    """The certificate that a new connection sees."""
    return ssl.get_server_certificate(("127.0.0.1", port))


def test_a_running_link_moves_with_its_store(tmp_path: Path) -> None:
    seats = settled(tmp_path, "north", "south")
    found = read_server(seats.server_folder / "server.toml")
    listener = Listener("127.0.0.1", 0, found.listener.certificate, found.listener.key)
    with Link(listener, found.nodes) as link:
        watch = EpochWatch(link, listener, found.store, found.epoch)
        north, south = fleet(seats, "north", link.port), fleet(seats, "south", link.port)
        assert {north.join(), south.join()} == set(link.state.nodes)
        certificate = shown(link.port)
        with link.run({}) as grid:
            assert len(list(grid.get_node_ids())) == 2
            (number,) = ask(grid, south.node)
            seats.take(seats.remove("south", Reason.REVOKED), "north")
            watch.look()
            # In the middle of a run, with a message waiting for it.
            with pytest.raises(NotAdmittedError):
                south.next()
            with pytest.raises(NotAdmittedError):
                south.join()
            assert north.beat()
            with pytest.raises(ConfigError, match="a site has left the federation, or has other keys"):
                list(grid.get_node_ids())
            # What it was asked is answered by nobody, and that is known at once.
            (answer,) = grid.pull_messages([number])
            assert answer.has_error()
        assert shown(link.port) != certificate
        assert shown(link.port).strip() == found.listener.certificate.read_text(encoding="ascii").strip()
        seats.take(seats.admit([seats.apply("west")]), "north", "west")
        watch.look()
        west = fleet(seats, "west", link.port)
        assert west.join()
        assert link.online() == ["north", "west"]
        # A site's new node key takes the place of the old one.
        seats.take(seats.admit([seats.rotate("west")]), "north", "west")
        watch.look()
        with pytest.raises(NotAdmittedError):
            west.next()
        again = fleet(seats, "west", link.port)
        assert again.join()
        for one in (north, south, west, again):
            one.leave()


def test_a_certificate_that_is_not_there_yet_keeps_nobody_in(tmp_path: Path) -> None:
    seats = settled(tmp_path, "north", "south")
    found = read_server(seats.server_folder / "server.toml")
    certificate = found.listener.certificate.read_bytes()
    link = Link(found.listener, found.nodes)
    watch = EpochWatch(link, found.listener, found.store, found.epoch)
    seats.take(seats.remove("south"))
    found.listener.certificate.write_bytes(certificate)
    with pytest.raises(ConfigError, match="is not the server's certificate of epoch 2"):
        watch.look()
    assert len(link.state.nodes) == 1
    seats.take(seats.root.bundle(2))
    watch.look()
    assert len(link.state.nodes) == 1


class NoLink:
    """A link that nothing may be asked of."""

    def online(self) -> list[str]:
        raise AssertionError

    def run(self, config: object) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("begun", "sites", "message"),
    [
        (NOW, 3, "the run was ordered for 3 sites, and the federation has 2 in epoch 1"),
        (NOW - timedelta(days=400), 2, "the membership of federation 'town', epoch 1, ended on"),
    ],
)
def test_a_run_does_not_begin_in_an_epoch_that_is_not_its(
    tmp_path: Path, begun: datetime, sites: int, message: str
) -> None:
    seats = Seats(tmp_path, now=begun)
    seats.take(seats.admit([seats.begin(), seats.apply("north"), seats.apply("south")]))
    runs = tmp_path / "runs"
    with ordered(runs, "x") as (_, place):
        order = place({SITES_KEY: sites})
    Coordinator(cast(Link, NoLink()), seats.server_folder / "server.sqlite", runs).make(order)
    (event,) = map(json.loads, (order.folder / EVENTS).read_text(encoding="utf-8").splitlines())
    assert event["event"] == "failed"
    assert message in event["message"]
    assert event["next_step"]
