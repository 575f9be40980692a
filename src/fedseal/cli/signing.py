"""`fedseal model approve`, and the same in three steps for signers who have no access to the server's store."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedseal.cli.model import AliasOption, AsJson, Bundles, Database, Log, MeaningName, Which, model
from fedseal.cli.person import PassphraseFile, RoleName, key_in
from fedseal.errors import ConfigError

__all__ = ["model"]

if TYPE_CHECKING:
    from fedseal.compliance.registry.people import Person
    from fedseal.compliance.registry.promotion import Aim

MeaningOption = Annotated[MeaningName, typer.Option("--meaning", help="What the signature means.")]
RoleOption = Annotated[RoleName | None, typer.Option(help="In which role; the signer's only one if not given.")]
Key = Annotated[Path, typer.Option("--key", help="The signer's key file.")]


@model.command()
def approve(
    which: Which,
    alias: AliasOption,
    meaning: MeaningOption,
    key: Key,
    log: Log,
    role: RoleOption = None,
    passphrase_file: PassphraseFile = None,
    bundles: Bundles = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Sign a bundle with your own key, for one alias and with one meaning."""
    from fedseal.cli.registry import opened, say
    from fedseal.compliance.registry.approvals import signer
    from fedseal.compliance.registry.bundle import short

    signing = key_in(key, passphrase_file)
    with opened(log, bundles, database) as found:
        registry, state = found.registry, found.registry.state()
        registration = registry.find(which, state)
        who = signer(state, signing.public)
        aim = _aim(who, alias, meaning, role)
        # Nobody signs what is not there: the files are read and checked first.
        registry.bundles.get(registration.bundle)
        index = registry.approve(registration, aim, signing, datetime.now(UTC))
        name = found.names().get(who.actor, who.actor)
    outcome: dict[str, Any] = {"index": index, "person": who.actor, "role": aim.role.value, "meaning": meaning}
    outcome |= {"alias": alias, "bundle": registration.bundle, "model": registration.model}
    text = f"{name}, {aim.role.value}, has signed bundle {short(registration.bundle)} for {alias} as {meaning}: "
    say(outcome, f"{text}entry {index}.", as_json=as_json)


@model.command()
def ask(
    which: Which,
    alias: AliasOption,
    meaning: MeaningOption,
    person: Annotated[str, typer.Option(help="Who is asked: a pseudonym of `fedseal person list`.")],
    out: Annotated[Path, typer.Option("--out", help="The request's file, for the signer, with the bundle's folder.")],
    log: Log,
    role: RoleOption = None,
    database: Database = None,
) -> None:
    """Write down what a person is asked to sign elsewhere, with `fedseal model sign`."""
    from fedseal.cli.registry import opened, say

    with opened(log, None, database) as found:
        registry, state = found.registry, found.registry.state()
        who = state.persons.get(person)
        if who is None:
            raise ConfigError("the log knows no such person", next_step="See `fedseal person list`.")
        asked = registry.ask(who, registry.find(which, state), _aim(who, alias, meaning, role))
    _write(out, asked.model_dump_json(indent=2).encode("utf-8") + b"\n")
    say({}, f"Wrote {out}. It is good until that person signs something else.", as_json=False)


@model.command()
def sign(
    request: Annotated[Path, typer.Argument(help="The request's file.")],
    bundle: Annotated[Path, typer.Option(help="The folder of the bundle that is signed.")],
    key: Key,
    out: Annotated[Path, typer.Option("--out", help="The signature's file, for `fedseal model submit`.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign what you were asked to, if it is the bundle that you have. Needs no log and no server."""
    from pydantic import ValidationError

    from fedseal.cli.registry import say
    from fedseal.compliance.events.leaf import TIME_FORMAT
    from fedseal.compliance.registry.approvals import Request
    from fedseal.compliance.registry.approvals import sign as signed
    from fedseal.compliance.registry.bundle import read_bundle, short

    try:
        asked = Request.model_validate_json(request.read_bytes())
    except (OSError, ValidationError):
        raise ConfigError(f"{request} is no request", next_step="Make one with `fedseal model ask`.") from None
    read = read_bundle(bundle, asked.body.bundle)
    if read.model_digest != asked.body.model:
        raise ConfigError(f"{request} names another model than the bundle has")
    leaf = signed(asked, key_in(key, passphrase_file), datetime.now(UTC).strftime(TIME_FORMAT))
    _write(out, base64.b64encode(leaf) + b"\n")
    body = asked.body
    text = f"Signed bundle {short(read.digest)} for {body.alias.value} as {body.meaning.value}, {body.role.value}."
    say({}, f"{text} Send {out} back.", as_json=False)


@model.command()
def submit(
    signature: Annotated[Path, typer.Argument(help="The signature's file.")],
    log: Log,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Append a signature that was made elsewhere to the log."""
    from fedseal.cli.registry import opened, say

    try:
        leaf = base64.b64decode(signature.read_bytes(), validate=False)
    except (OSError, ValueError):
        raise ConfigError(f"{signature} is no signature", next_step="Make one with `fedseal model sign`.") from None
    with opened(log, None, database) as found:
        index = found.registry.submit(leaf)
    say({"index": index}, f"The signature is entry {index}.", as_json=as_json)


def _aim(who: "Person", alias: str, meaning: str, role: str | None) -> "Aim":
    from fedseal.compliance.events.fields import Alias, Meaning, Role
    from fedseal.compliance.registry.promotion import Aim

    if role is None and len(who.roles) != 1:
        raise ConfigError(
            "this person has several roles" if who.roles else "this person has no role",
            next_step="Say in which they sign: --role " + " or ".join(sorted(who.roles)) if who.roles else "",
        )
    return Aim(Alias(alias), Meaning(meaning), next(iter(who.roles)) if role is None else Role(role))


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror or type(error).__name__}") from None
