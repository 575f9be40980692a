"""Federated learning whose sums are sealed, whose privacy is bounded and whose lineage is proven."""

from pathlib import Path

__version__ = "0.1.0"

if (Path(__file__).parent / "server").is_file():
    raise ImportError(
        "src/fedseal/server is not a link: this checkout was made without symlinks. "
        "Run: git config core.symlinks true && git checkout -- src/fedseal"
    )
