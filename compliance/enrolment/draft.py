"""The next epoch of a federation, before the root signs it: who is in it, and which keys no longer count. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedseal.errors import ConfigError
from fedseal.privacy.membership.documents import (
    SERVER,
    Epoch,
    FormerKey,
    KeyKind,
    NodeEntry,
    Reason,
)
from fedseal.privacy.membership.requests import ServerRequest, SiteRequest
from fedseal.privacy.membership.tls import certified_key, openssh_line, read_csr, read_openssh
from fedseal.privacy.roster import RosterEntry


@dataclass(frozen=True, slots=True)
class Draft:
    """An epoch that is being made from the one before.

    ``tls`` is the server's TLS key as OpenSSH's line. ``server`` and ``tls`` are None as long as no server has asked.
    """

    federation: str
    number: int
    now: int
    server: bytes | None
    tls: str | None
    sites: tuple[RosterEntry, ...] = ()
    nodes: tuple[NodeEntry, ...] = ()
    former: tuple[FormerKey, ...] = ()

    @classmethod
    def after(cls, federation: str, before: Epoch | None, now: int) -> "Draft":
        """An epoch that changes nothing but its number; ``now`` in seconds since 1970."""
        if before is None:
            return cls(federation, 1, now, None, None)
        member = before.membership
        tls = openssh_line(certified_key(before.bundle.certificate))
        roster = before.roster
        return cls(
            federation, before.number + 1, now, roster.server_key, tls, roster.sites, member.nodes, member.former
        )

    def admit_all(self, requests: Sequence[tuple[str, SiteRequest | ServerRequest]]) -> "Draft":
        """With all that is asked for, each beside the name of its file.

        Raises:
            ConfigError: one of them asks for what cannot be.
        """
        draft = self
        for source, request in requests:
            if request.federation != self.federation:
                raise ConfigError(
                    f"{source} asks to be let in to federation {request.federation!r}, and this is {self.federation!r}",
                    next_step=f"Let whoever sent it make another one, with --federation {self.federation}.",
                )
            try:
                draft = draft._site(request) if isinstance(request, SiteRequest) else draft._server(request)
            except ConfigError as error:
                raise ConfigError(f"{source}: {error.message}", next_step=error.next_step) from None
        return draft

    def remove(self, name: str, reason: Reason) -> "Draft":
        """Without a site.

        Raises:
            ConfigError: there is none of this name.
        """
        gone = next((entry for entry in self.sites if entry.name == name), None)
        if gone is None:
            names = ", ".join(entry.name for entry in self.sites) or "none"
            raise ConfigError(f"no site {name!r} is in the federation", next_step=f"These are: {names}.")
        node = next(n.key for n in self.nodes if n.site == gone.site)
        draft = self._retired(KeyKind.SIGNING, gone.site, name, gone.signing_key, reason)
        draft = draft._retired(KeyKind.NODE, gone.site, name, node.encode("utf-8"), reason)
        return replace(
            draft,
            sites=tuple(entry for entry in draft.sites if entry.site != gone.site),
            nodes=tuple(n for n in draft.nodes if n.site != gone.site),
        )

    def _site(self, request: SiteRequest) -> "Draft":
        known = next((entry for entry in self.sites if entry.name == request.name), None)
        if known is None:
            return self._new_site(request)
        if request.previous != known.signing_key:
            raise ConfigError(
                f"site {request.name!r} is in the federation already, with another key",
                next_step="With new keys it goes on by `fedseal site rotate`, which asks in the name of both. One that "
                "has lost its keys is removed, and comes back under another name.",
            )
        read_openssh(request.node_key)
        self._fresh(request.signing_key, request.node_key)
        node = next(n.key for n in self.nodes if n.site == known.site)
        draft = self._retired(KeyKind.SIGNING, known.site, known.name, known.signing_key, Reason.ROTATED)
        draft = draft._retired(KeyKind.NODE, known.site, known.name, node.encode("utf-8"), Reason.ROTATED)
        entry = RosterEntry(known.site, known.name, request.organisation, request.signing_key, request.persons)
        return replace(
            draft,
            sites=tuple(entry if old.site == known.site else old for old in draft.sites),
            nodes=tuple(NodeEntry(n.site, request.node_key) if n.site == known.site else n for n in draft.nodes),
        )

    def _new_site(self, request: SiteRequest) -> "Draft":
        if request.previous is not None:
            raise ConfigError(
                f"site {request.name!r} asks for new keys, and no site of that name is in the federation",
                next_step="Let it make a new request: fedseal site init",
            )
        if any(f.name == request.name and f.site != SERVER for f in self.former):
            raise ConfigError(
                f"a site {request.name!r} was in the federation before, and its name stands in the log",
                next_step="Let it choose another name, such as the same with a year.",
            )
        self._fresh(request.signing_key, request.node_key)
        number = 1 + max([entry.site for entry in self.sites] + [f.site for f in self.former], default=0)
        entry = RosterEntry(number, request.name, request.organisation, request.signing_key, request.persons)
        node = NodeEntry(number, request.node_key)
        return replace(self, sites=(*self.sites, entry), nodes=(*self.nodes, node))

    def _server(self, request: ServerRequest) -> "Draft":
        tls = openssh_line(read_csr(request.certificate))
        if self.server is None or self.tls is None:
            self._fresh(request.signing_key, None)
            return replace(self, server=request.signing_key, tls=tls)
        if request.previous != self.server:
            raise ConfigError(
                "the federation has a server already, with another key",
                next_step="With new keys it goes on by `fedseal server rotate`, which asks in the name of both.",
            )
        self._fresh(request.signing_key, None)
        draft = self._retired(KeyKind.SIGNING, SERVER, "server", self.server, Reason.ROTATED)
        return replace(draft, server=request.signing_key, tls=tls)

    def retire_certificate(self, digest: bytes) -> "Draft":
        """That the server shows another certificate from now on."""
        return self._retired(KeyKind.CERTIFICATE, SERVER, "server", digest, Reason.ROTATED)

    def _fresh(self, signing: bytes, node: str | None) -> None:
        """Keys that nobody has or had: one key is one party's, in every epoch."""
        taken = {entry.signing_key for entry in self.sites} | {f.public for f in self.former} | {self.server}
        nodes = {n.key for n in self.nodes} | {f.public.decode("utf-8", "replace") for f in self.former}
        if signing in taken or (node is not None and node in nodes):
            raise ConfigError(
                "it brings a key that somebody has or had", next_step="Let it make new keys, and a new request."
            )

    def _retired(self, kind: KeyKind, site: int, name: str, public: bytes, reason: Reason) -> "Draft":
        key = FormerKey(int(kind), site, name, public, self.number - 1, int(reason), self.now)
        return replace(self, former=(*self.former, key))
