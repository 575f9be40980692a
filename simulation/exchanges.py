"""Which round and exchange a message to a site belongs to: for whatever stands between a server and its sites."""

from dataclasses import dataclass
from typing import Any

from fedseal.client.records import control_bytes
from fedseal.client.requests import STAGES, decode_request
from fedseal.errors import PeerError
from fedseal.privacy.runs import ControlMessage
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.wire import decode


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange of one attempt at a round."""

    header: Header
    stage: Stage


class Exchanges:
    """Reads requests. A round's later ones name only the hash of the header that opened it, so headers are kept."""

    def __init__(self) -> None:
        self._opened: dict[bytes, Header] = {}
        self._last: tuple[bytes, Header] | None = None

    def of(self, control: bytes) -> Exchange | None:
        """The exchange of a request's control bytes; None for what opens or closes a run, or is no request."""
        try:
            request = decode_request(control)
        except PeerError:
            return None
        match request:
            case ControlMessage():
                return None
            case AdvertiseRequest():
                return Exchange(self._header(request.header), Stage.ADVERTISE)
            case _:
                header = self._opened.get(request.header_hash)
                return None if header is None else Exchange(header, STAGES[type(request)])

    def read(self, message: Any) -> Exchange | None:
        """The exchange of a Flower message; None for what belongs to none."""
        try:
            return self.of(control_bytes(message))
        except PeerError:
            return None

    def _header(self, raw: bytes) -> Header:
        # The same bytes go to every site of a cohort, one after the other.
        if self._last is None or self._last[0] != raw:
            header = decode(raw, Header)
            self._last = raw, header
            self._opened[header.digest()] = header
        return self._last[1]
