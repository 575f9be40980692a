"""The Flower app that is submitted: a study's own code with fedseal's two apps and one run's configuration.

`flwr run` can only override keys that an app's own pyproject.toml has. So every run gets an app folder of its own,
with everything the run is configured by written out in it. Flower bundles .py, .toml and .md files and a LICENSE.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from fedseal.config import read_toml
from fedseal.study import Study

FLOWER = "1.41.0"
SERVER_APP = "fedseal.server.recording:app"
CLIENT_APP = "fedseal.client.stock:app"
# Flower's own limits: what of a folder it bundles.
SUFFIXES = {".py", ".md"}
NO_LICENCE = "The authors of this study have stated no licence.\n"

Setting = str | int


def write_app(folder: Path, study: Study, run_config: Mapping[str, Setting]) -> None:
    """Write the app folder of one run.

    Args:
        folder: a new folder.
        study: whose code is shipped; folders with names that begin with a dot or underscores are left out.
        run_config: the run's configuration; sites see it, so it holds nothing secret.

    Raises:
        ConfigError: the study's pyproject.toml cannot be read.
    """
    folder.mkdir(parents=True)
    for source in sorted(study.folder.rglob("*")):
        place = source.relative_to(study.folder)
        if (
            source.is_file()
            and source.suffix in SUFFIXES
            and not any(p.startswith((".", "__")) for p in place.parts[:-1])
        ):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / place)
    licence = study.folder / "LICENSE"
    text = licence.read_text(encoding="utf-8") if licence.is_file() else NO_LICENCE
    (folder / "LICENSE").write_text(text, encoding="utf-8")
    (folder / "pyproject.toml").write_text(_pyproject(study, run_config), encoding="utf-8")


def _pyproject(study: Study, run_config: Mapping[str, Setting]) -> str:
    tables, _ = read_toml(study.folder / "pyproject.toml")
    project = tables.get("project")
    version = project.get("version") if isinstance(project, dict) else None
    config = "\n".join(f"{key} = {toml_value(value)}" for key, value in run_config.items())
    return f"""\
[project]
name = {toml_value(study.contract.name)}
version = {toml_value(version if isinstance(version, str) else "1.0.0")}
description = {toml_value(study.contract.title)}
license = {{ file = "LICENSE" }}
dependencies = ["flwr>={FLOWER}", "fedseal[client]"]

[tool.flwr.app]
publisher = "fedseal"
fab-format-version = 1
flwr-version-target = "{FLOWER}"

[tool.flwr.app.components]
serverapp = "{SERVER_APP}"
clientapp = "{CLIENT_APP}"

[tool.flwr.app.config]
{config}
"""


def toml_value(value: Setting) -> str:
    """A value as TOML writes it. A JSON string is a TOML string, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
