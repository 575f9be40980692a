"""The file that a new site begins with: what the site decides, and in comments what else it may."""

import json
from pathlib import Path


def site_toml(store: str, data: Path, key: str, study: Path, code: bytes, policy: str) -> str:
    """The text of a site's file.

    Args:
        store: the store's file, beside this one.
        data: the folder of the site's data.
        key: the file of the node's key, beside this one.
        study: the folder of the study's code.
        code: that code's digest.
        policy: what the site allows to begin with.
    """
    shown = "\n".join(f"# {line}".rstrip() for line in policy.splitlines())
    return (
        "# Made by `fedseal site init`. Paths count from this file's folder. Where the server is, and who it has to\n"
        "# be, is in the store: it comes with the federation's bundle.\n"
        f'[site]\nstore = "{store}"\ndata = {_text(data.resolve())}\nkey = "{key}"\n'
        "# How many threads training may use.\nthreads = 1\n\n"
        "# The only code that runs: read it. Whoever changes a file there has to change the digest here.\n"
        f'[study]\nfolder = {_text(study.resolve())}\ndigest = "sha256:{code.hex()}"\n\n'
        "# What this site allows, as its store has it from the study's contract; see docs/schemas/site-policy-1.json.\n"
        f"{shown}\n"
    )


def _text(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
