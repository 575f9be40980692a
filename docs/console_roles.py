"""Write the table of roles in docs/console.md from the console's permissions: `python docs/console_roles.py`."""

from pathlib import Path

from fedseal.server.console.permissions import PAGES, ROLE_NOTES, TIME_BOXED, Role

PAGE = Path(__file__).resolve().parent / "console.md"
BEGIN, END = "<!-- roles: written by docs/console_roles.py -->\n", "<!-- end of roles -->"


def table() -> str:
    """Pages down, roles across; then what the roles are there for."""
    lines = ["| | " + " | ".join(role.value for role in Role) + " |", "|---" * (len(Role) + 1) + "|"]
    for page in PAGES:
        cells = (("signs" if _signs(role, page.writers) else "reads") if role in page.readers else "" for role in Role)
        lines.append(f"| **{page.title}**: {page.says} | " + " | ".join(cells) + " |")
    lines += ["", "| role | is there for |", "|---|---|"]
    for role in Role:
        boxed = "; its account has a last day" if role in TIME_BOXED else ""
        lines.append(f"| `{role.value}` | {ROLE_NOTES[role]}{boxed} |")
    return "\n".join(lines) + "\n"


def _signs(role: Role, writers: frozenset[Role]) -> bool:
    # Everybody sends the forms of their own account: to sign out.
    return role in writers and writers != frozenset(Role)


def written(text: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
