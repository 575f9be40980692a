"""A federation's log in PostgreSQL: read by its URL with a policy, and recovered from a mirror."""

from pathlib import Path

import pytest
from support.flower import Federation
from support.keys import SERVER
from support.postgres import server

from fedseal.compliance.audit.recover import recover
from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import AuditCode
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.log.database import open_database
from fedseal.compliance.log.store import Log
from fedseal.errors import ConfigError
from fedseal.privacy.store import SiteStore


def test_a_log_in_postgresql_is_recovered_and_read(honest: Federation, tmp_path: Path) -> None:
    with server() as form, open_log(honest.server) as copy:
        url = form.format(database="postgres")
        engine = open_database(url)
        store = SiteStore.open(honest.sites[1], reading=True)
        with store.transaction() as theirs, engine.begin() as connection:
            mirror = Log(theirs.connection, "test/server")
            result = recover(connection, SERVER, honest.roster, mirror, 1)
        engine.dispose()
        assert (result.before, result.after) == (0, copy.log.size)
        with open_log(url, policy=copy.policy) as recovered:
            assert recovered.log.root() == copy.log.root()
            assert list(recovered.leaves()) == list(copy.leaves())
            # Its witnesses have not said anew what they cosigned.
            assert verify_copy(recovered).code is AuditCode.QUORUM_MISSING
        with pytest.raises(ConfigError, match="whose signatures count"), open_log(url):
            pass
