"""Which store a command of a site's operator is about."""

from pathlib import Path
from typing import Annotated

import typer

from fedseal.config import read_toml, validate
from fedseal.errors import ConfigError

Config = Annotated[Path | None, typer.Option("--config", help="The site's file; see docs/site-policy.md.")]
Store = Annotated[Path | None, typer.Option("--store", help="The site's store, where no file names it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output and nothing else there.")]


def store_path(config: Path | None, store: Path | None) -> Path:
    """The store that is named, by itself or in a site's file. Nothing else in the file is looked at but its form.

    Raises:
        ConfigError: neither or both are given, or the file is wrong.
    """
    if (config is None) == (store is None):
        raise ConfigError("name the site's file or its store", next_step="--config site.toml, or --store site.sqlite")
    if config is None:
        return Path(store or "")
    from fedseal.client.site_config import NodeConfig

    table, text = read_toml(config)
    return config.resolve().parent / validate(NodeConfig, table, text=text, source=str(config)).site.store
