"""`fedseal predict`: a model applied to a file at a site, if the federation's log permits it."""

import importlib.util
import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from fedseal import __version__
from fedseal.cli.model import AliasName
from fedseal.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from fedseal.client.serving.batch import Predicted
    from fedseal.client.serving.network import Network
    from fedseal.compliance.registry.bundle import Bundle
    from fedseal.compliance.registry.provenance import Standing

VERSION = 1


@dataclass(frozen=True, slots=True)
class Sources:
    """Where it is looked up whether a bundle may be used, and which code may run."""

    config: Path | None
    log: str | None
    policy: Path | None
    proof: Path | None
    entry: Path | None
    study: Path | None


def predict(
    model: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    file: Annotated[Path, typer.Argument(help="CSV or parquet, a row for each person.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="A new CSV or parquet file; FILE.predictions.* if not given.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The site's file: its store, its approved code.")
    ] = None,
    log: Annotated[
        str | None, typer.Option("--log", help="A store, an exported log or a run's folder, in place of --config.")
    ] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="Whose signatures count.")] = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="A .tlog-proof file with the cosignatures of a quorum.")
    ] = None,
    entry: Annotated[
        Path | None, typer.Option("--entry", help="The entry of --proof, where there is no log to read it in.")
    ] = None,
    alias: Annotated[AliasName, typer.Option("--alias", help="What has to point to the bundle.")] = "production",
    study: Annotated[Path | None, typer.Option("--study", help="The folder of the study's code.")] = None,
    runtime: Annotated[
        Literal["auto", "onnxruntime", "torch"], typer.Option(help="auto: the bundle's graph if it can be used.")
    ] = "auto",
    key: Annotated[str | None, typer.Option("--id", help="A column to copy, which names the rows.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a file that is not as the schema says.")] = False,
    refuse_drift: Annotated[
        bool, typer.Option("--refuse-drift", help="Refuse a file whose scores are spread otherwise.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON and nothing else.")] = False,
) -> None:
    """Apply a model to a file, if its proof and signatures hold and the federation's log permits its use."""
    _need("pyarrow")
    from fedseal.client.serving.batch import Options, plan_of, predict_file
    from fedseal.client.serving.writing import write_text
    from fedseal.compliance.events.fields import Alias, sha256
    from fedseal.compliance.registry.bundle import manifest_bytes, read_bundle

    target = out or file.with_name(f"{file.stem}.predictions{file.suffix}")
    receipt = target.with_name(target.name + ".receipt.json")
    for path in (target, receipt):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} exists", next_step="Give another file: --out FILE.")
    sources = Sources(config, log, policy, proof, entry, study)
    # Whether the bundle may be used is known before a byte of what is in it is read.
    digest = sha256(manifest_bytes(model))
    standing = _standing(sources, digest, Alias(alias))
    bundle = read_bundle(model, digest)
    if bundle.model_digest != standing.model:
        raise ConfigError(f"{model} holds another model than the log names")
    plan_of(bundle)
    network = _network(bundle, sources, runtime)
    found = predict_file(bundle, network, file, target, Options(key, strict, refuse_drift))
    said = _receipt(bundle, standing, network, file, target, found)
    write_text(receipt, json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    if as_json:
        typer.echo(json.dumps(said, indent=2))
    else:
        _tell(bundle, standing, target, receipt, found)


def _standing(sources: Sources, digest: str, alias: Any) -> "Standing":
    """What permits the use of a bundle."""
    from fedseal.compliance.audit.source import open_log, read_policy
    from fedseal.compliance.registry.provenance import standing_by_proof, standing_in

    given = None if sources.policy is None else read_policy(sources.policy)
    evidence = None if sources.proof is None else _bytes(sources.proof)
    where = str(_config(sources.config)[0]) if sources.config is not None else sources.log
    if where is None:
        if evidence is None or sources.entry is None or given is None:
            raise ConfigError(
                "nothing says that this bundle may be used",
                next_step="Give the site's file, by --config; or a log, by --log; or --proof, --entry and --policy.",
            )
        return standing_by_proof(evidence, _bytes(sources.entry).removesuffix(b"\n"), given, digest, alias)
    try:
        with open_log(where, policy=given) as copy:
            # A site's own store holds the keys that the site itself has pinned.
            if copy.own_word and not copy.seen:
                raise ConfigError(
                    f"{where} says itself whose signatures count, and so proves nothing",
                    next_step="Name the policy that you know: --policy FILE. A site's own store needs none.",
                )
            return standing_in(copy, digest, alias, evidence)
    except LocalError as error:
        # A store that is looked at by hand is somebody's file.
        raise ConfigError(f"{where}: {error.message}", next_step=error.next_step) from None


def _config(path: Path) -> tuple[Path, Path, bytes]:
    """Of a site's file: its store, the study's folder, and the digest of the approved code."""
    from fedseal.client.site_config import NodeConfig
    from fedseal.config import read_toml, validate

    table, text = read_toml(path)
    read = validate(NodeConfig, table, text=text, source=str(path))
    home = path.resolve().parent
    approved = bytes.fromhex(read.study.digest.removeprefix("sha256:"))
    return home / read.site.store, home / read.study.folder, approved


def _network(bundle: "Bundle", sources: Sources, runtime: str) -> "Network":
    """What applies the model: the bundle's graph, which needs no study's code, or the study's own."""
    from fedseal.client.serving.network import by_graph, by_study

    has_graph = bundle.graph is not None and importlib.util.find_spec("onnxruntime") is not None
    if runtime == "onnxruntime" or (runtime == "auto" and has_graph):
        return by_graph(bundle)
    folder, approved = sources.study, None
    if sources.config is not None:
        _, configured, approved = _config(sources.config)
        folder = folder or configured
    if folder is None:
        raise ConfigError(
            "the model needs the study's code",
            next_step="Name the site's file, by --config, or the folder of the code, by --study.",
        )
    _need("torch", "pandas")
    return by_study(bundle, folder, approved)


def _receipt(
    bundle: "Bundle", standing: "Standing", network: "Network", source: Path, target: Path, found: "Predicted"
) -> dict[str, Any]:
    """What was done, for the site's own records: it stays here."""
    import numpy as np

    from fedseal.compliance.data.code import file_digest

    rule = bundle.recipe.abstention
    return {
        "version": VERSION,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bundle": bundle.digest,
        "model": bundle.model_digest,
        "study": bundle.recipe.study,
        "permitted": {**asdict(standing), "alias": standing.alias.value, "cosigned": list(standing.cosigned)},
        "versions": {
            "fedseal": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "runtime": network.runtime,
            network.runtime: network.version,
        },
        "source": {"name": source.name, "sha256": file_digest(source).hex()},
        "output": {"name": target.name, "sha256": file_digest(target).hex()},
        "counts": {
            "rows": found.rows,
            "predicted": found.predicted,
            "abstained": found.abstained,
            "problems": found.problems,
            "clipped": found.clipped,
            "further_columns": found.further,
        },
        "abstention": None if rule is None else rule.model_dump(mode="json"),
        "drift": asdict(found.shift),
    }


_SHIFTS = {
    "no-reference": "The bundle has no reference of scores: whether this file is like the evaluation's is not known.",
    "too-few-rows": "Too few rows to say whether this file is like the evaluation's.",
    "none-found": "No difference from the evaluation's scores was found.",
}


def _tell(bundle: "Bundle", standing: "Standing", target: Path, receipt: Path, found: "Predicted") -> None:
    console = Console(highlight=False, soft_wrap=True)

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False)

    say(f"{target}: {found.predicted} of {found.rows} rows have a prediction. Receipt: {receipt}")
    for reason, count in found.abstained.items():
        say(f"  {count} left out: {reason}")
    for name, count in found.clipped.items():
        say(f"  {count} values of {name} were beyond its range, and brought into it")
    who = "a simulated federation's log" if standing.simulated else "the log"
    say(f"{standing.alias.value} in entry {standing.index} of {who} {standing.origin}, cosigned by a quorum.")
    if standing.read is None:
        say("The proof says that it was promoted, not whether it was suspended or replaced since.", "bold yellow")
    rule = bundle.recipe.abstention
    if rule is None:
        say("The bundle has no rule of abstention: every row that can be read has a prediction.")
    else:
        say(
            f"Where both classes or none are possible at coverage {rule.coverage:g} there is no prediction. It is "
            "that of persons like the evaluation's, all together: of no group or site, nor of those predicted alone."
        )
    shift = found.shift
    if shift.verdict in _SHIFTS:
        say(_SHIFTS[shift.verdict])
    else:
        word = "slightly otherwise" if shift.verdict == "slight" else "otherwise"
        say(
            f"The scores are spread {word} than the evaluation's (p = {shift.p:.2g}, PSI-like {shift.psi:.2f}): "
            "another mix of patients, or drift. A coverage need not hold here.",
            "bold yellow",
        )


def _need(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"this needs {', '.join(missing)}", next_step='pip install "fedseal[client]"')


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
