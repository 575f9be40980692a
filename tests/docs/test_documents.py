"""The documents say what the code does: schemas, diagrams, exit codes, links, and the README's commands."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from fedseal.cli.audit import audit
from fedseal.cli.main import cli
from fedseal.cli.report import report
from fedseal.compliance.audit.verify import AuditCode
from fedseal.errors import ExitCode
from fedseal.study import Contract

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md"])
FEDSEAL = Path(sys.executable).with_name("fedseal")


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_published_schemas_are_those_of_the_models() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "schemas.py"))
    for name, model in made["SCHEMAS"].items():
        assert text(f"docs/schemas/{name}.json") == made["schema_text"](model), "run: python docs/schemas.py"


def test_the_protocols_diagrams_are_those_of_the_tables() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "diagrams.py"))
    page = text("docs/protocol.md")
    for diagram in (made["site_diagram"](), made["server_diagram"]()):
        assert f"```mermaid\n{diagram}\n```" in page, "run: python docs/diagrams.py"


def test_every_exit_code_is_documented() -> None:
    documented = {int(n) for n in re.findall(r"^\| (\d+) \|", text("docs/exit-codes.md"), re.MULTILINE)}
    assert documented == {int(code) for code in ExitCode}


def test_every_verdict_of_an_audit_is_documented() -> None:
    documented = {int(n) for n in re.findall(r"^\| \*\*(\d+)\*\* \|", text("docs/exit-codes.md"), re.MULTILINE)}
    assert documented == {int(code) for code in AuditCode} | {int(ExitCode.USAGE)}


def test_every_command_of_an_audit_is_documented() -> None:
    page = text("docs/audit-log.md") + text("docs/reports.md")
    names = [
        command.name or command.callback.__name__
        for command in (*audit.registered_commands, *report.registered_commands)
        if command.callback
    ]
    for name in names:
        assert f"fedseal {'report' if name in ('model_card', 'annex_iv') else 'audit'} {name.replace('_', '-')}" in page


def test_every_key_of_a_contract_is_documented() -> None:
    page = text("docs/studies.md")
    for table, field in Contract.model_fields.items():
        nested = getattr(field.annotation, "model_fields", {})
        for key in nested or [table]:
            assert f"`{key}`" in page, f"docs/studies.md says nothing about {table}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_decisions_are_numbered_without_gaps() -> None:
    names = sorted(p.name for p in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    for name in names:
        assert text(f"docs/decisions/{name}").startswith(f"# {int(name[:4])}. ")


def readme_commands() -> list[str]:
    """The `fedseal` commands that the README shows for a clone, in order. Those for sites and servers, which begin with
    `fedseal`, are walked through in tests/deployed; here they are parsed, with the runbook's.
    """
    lines = [line.strip() for line in text("README.md").splitlines() if line.startswith("    ")]
    return [line.split("#")[0].strip() for line in lines if line.startswith(".venv/bin/fedseal ")]


def test_the_readme_shows_the_two_commands_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE)
    for command in re.findall(r"^    make ([a-z-]+)", text("README.md"), re.MULTILINE):
        assert command in targets
    assert {"demo", "test"} <= set(targets)


def test_the_readmes_fedseal_commands_run(tmp_path: Path) -> None:
    """To the letter, but for the folder of the environment and fewer rounds."""
    commands = readme_commands()
    assert len(commands) == 10
    for command in commands:
        newest = max((tmp_path / "runs").glob("readmission-*"), key=lambda run: run.stat().st_mtime, default=tmp_path)
        program, *arguments = shlex.split(command.replace("<id>", newest.name), comments=True)
        assert program == ".venv/bin/fedseal"
        arguments, kept = (arguments[:-2], arguments[-1]) if ">" in arguments else (arguments, "")
        if arguments[0] == "simulate":
            # Of a study fewer rounds, and the last --rounds counts; a scenario's gates need all of its own.
            arguments = [*arguments, "--no-baselines", *(["--rounds", "2"] if arguments[1] == "readmission" else [])]
        done = subprocess.run([str(FEDSEAL), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        if kept:
            (tmp_path / kept).write_text(done.stdout, encoding="utf-8")
        # A simulated run's model card lacks what only people can say, and its exit code says that.
        expected = ExitCode.INCOMPLETE if arguments[0] == "report" else ExitCode.OK
        assert done.returncode == expected, done.stderr
    assert len(list((tmp_path / "runs").iterdir())) == 4
    assert (tmp_path / "card.html").is_file()
    assert (tmp_path / "gates.xml").is_file()


def test_the_contributing_page_names_every_blanket_except() -> None:
    folders = ("client", "server", "privacy", "simulation", "compliance", "src/fedseal/cli")
    sources = [p for folder in folders for p in (ROOT / folder).rglob("*.py")] + list(
        (ROOT / "src/fedseal").glob("*.py")
    )
    blanket = [
        p for p in sources if re.search(r"except \(?(Exception|BaseException)\b|except:", p.read_text(encoding="utf-8"))
    ]
    names = {str(p.relative_to(ROOT)) for p in blanket}
    assert names == {
        "client/isolation/service.py",
        "client/mod.py",
        "server/coordination.py",
        "simulation/engine/portions.py",
        "simulation/engine/worker.py",
        "simulation/grid.py",
        "src/fedseal/cli/main.py",
    }
    assert all(f"`{name}`" in text("CONTRIBUTING.md") for name in names)


def runbook_commands() -> list[tuple[str, str]]:
    """The `fedseal` commands of the README and the runbook, with their pages: lines of their own, and in the text."""
    found = []
    pages = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("enrolment.md", "isolation.md", "site-policy.md"))]
    for page in (*pages, *sorted((ROOT / "docs" / "operate").glob("*.md"))):
        content = page.read_text(encoding="utf-8")
        lines = [line.split("#")[0].strip() for line in content.splitlines() if line.startswith("    ")]
        whole = page.parent.name == "operate"
        inside = [code for code in re.findall(r"`(fedseal [a-z][^`]+)`", content) if "--" in code and whole]
        found += [(page.name, line) for line in (*lines, *inside) if line.startswith("fedseal ")]
    return found


@pytest.mark.parametrize(("page", "line"), runbook_commands())
def test_the_runbooks_commands_are_commands_with_these_options(page: str, line: str) -> None:
    """Parsed, not run: they need a federation; tests/server and tests/cli run them."""
    assert missing(shlex.split(line)[1:]) == []


def test_a_command_that_is_not_one_would_be_found() -> None:
    assert missing(["server", "backup", "kept"]) == ["--config"]
    with pytest.raises(click.NoSuchOption):
        missing(["server", "backup", "--confg", "server.toml", "kept"])
    with pytest.raises(KeyError):
        missing(["server", "bakcup"])


def missing(words: list[str]) -> list[str]:
    """Parse a command; what it asks for and was not given."""
    command = typer.main.get_command(cli)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    given, rest, _ = command.make_parser(click.Context(command)).parse_args(words)
    assert not rest
    return [
        parameter.opts[0]
        for parameter in command.params
        if parameter.required and given.get(parameter.name or "") in (None, ())
    ]
