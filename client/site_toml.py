"""The file that a new site begins with: what the site decides, and in comments what else it may."""

import json
import re
from pathlib import Path


def site_toml(store: str, data: Path, key: str, study: Path, code: bytes, policy: str) -> str:
    """The text of a site's file.

    Args:
        store: the store's file, beside this one.
        data: the folder of the site's data.
        key: the file of the node's key, beside this one.
        study: the folder of the study's code.
        code: that code's digest.
        policy: what the site allows to begin with, as a policy's file.
    """
    # A policy's tables are below [policy] here.
    rules = re.sub(r"(?m)^\[", "\n[policy.", policy)
    return (
        "# Made by `fedseal site init`. Paths count from this file's folder. Where the server is, and who it has to\n"
        "# be, is in the store: it comes with the federation's bundle.\n"
        f'[site]\nstore = "{store}"\ndata = {_text(data.resolve())}\nkey = "{key}"\n'
        "# How many threads training may use.\nthreads = 1\n\n"
        "# The only code that runs: read it. Whoever changes a file there has to change the digest here.\n"
        f'[study]\nfolder = {_text(study.resolve())}\ndigest = "sha256:{code.hex()}"\n\n'
        "# What this site allows: what the study asks for. Every key is in docs/site-policy.md: purposes, who has\n"
        "# read the code, budgets for a month, hours, what waits for a person. A change counts from the next start.\n"
        f"[policy]\n{rules}"
    )


def _text(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
