"""PostgreSQL holds the same tables and gives the same answers as SQLite."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from support.histories import Story, chapters, digest, memory, secret
from support.postgres import server

from fedseal.compliance.lineage.projection import Projection
from fedseal.compliance.lineage.questions import Questions
from fedseal.compliance.log.database import open_database


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with server() as url:
        found = open_database(url.format(database="postgres"))
        yield found
        found.dispose()


def test_both_databases_say_the_same(engine: Engine) -> None:
    with memory().begin() as log, memory().begin() as tables, engine.begin() as connection:
        story = Story(log, 3)
        growing, plain = Projection(connection), Projection(tables)
        for _ in chapters(story):
            growing.update(story.log, stride=2)
        growing.update(story.log)
        plain.update(story.log)
        assert growing.digest() == plain.digest()
        here, there = Questions(connection), Questions(tables)
        for model in (digest("m3"), digest("m9")):
            assert here.show(model) == there.show(model)
            assert here.graph(model) == there.graph(model)
        for cause in ("site-1", secret("data 1"), secret("data 3"), digest("code"), digest("m1")):
            found = here.impact(cause)
            assert found == there.impact(cause)
            assert found.models
        assert here.epsilon("site-1") == there.epsilon("site-1")
        assert here.diff(digest("m3"), digest("m9")) == there.diff(digest("m3"), digest("m9"))
        growing.rebuild(story.log)
        assert growing.digest() == plain.digest()
