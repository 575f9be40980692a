"""A bundle: a model with what it takes to apply it. Four files in a folder, safetensors and JSON, nothing that runs.

    model.safetensors   the parameters
    recipe.json         how the model is applied
    schema.json         what goes in, and which arrays the model has
    manifest.json       SHA-256 and length of the other three; the bundle's digest is SHA-256 of this file

Whoever reads a bundle hashes the bytes that it uses: a changed byte, another file, a link or a pickle is refused.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import safetensors
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError

from fedseal.compliance.events.fields import Count, Digest, sha256
from fedseal.compliance.log.canonical import CanonicalError, Json, decode, encode
from fedseal.config import Frozen
from fedseal.errors import ConfigError
from fedseal.study_code import REFERENCE

MODEL, RECIPE, SCHEMA, MANIFEST = "model.safetensors", "recipe.json", "schema.json", "manifest.json"
CONTENTS = (MODEL, RECIPE, SCHEMA)
LARGEST_TEXT = 1 << 20
OTHER_COPY = "Take the bundle from another copy; the digest that it has to have stands in the federation's log."

Text = Field(min_length=1, max_length=256)


class Standardisation(Frozen):
    """What is done to features before the model sees them: (x - mean) / deviation, one number for each feature."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @model_validator(mode="after")
    def _pairs(self) -> "Standardisation":
        if len(self.mean) != len(self.deviation) or any(d <= 0 for d in self.deviation):
            raise ValueError("expected one mean and one deviation above 0 for each feature")
        return self


class Output(Frozen):
    """What the model's numbers mean. ``classes`` are in the order of the outputs, or that of a logit being 0 and 1."""

    kind: Literal["unstated", "logit", "logits", "probability", "probabilities", "value"] = "unstated"
    classes: tuple[str, ...] = ()


class Recipe(Frozen):
    """``recipe.json``: how the model is applied.

    ``task`` is the study's code, as module:Name, ``code`` the digest of its folder where the run's log has one;
    ``thresholds`` are by the name of the decision that they make.
    """

    version: Literal[1] = 1
    study: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    task: str = Field(pattern=f"^{REFERENCE}$")
    code: Digest | None = None
    normalisation: Standardisation | None = None
    output: Output = Output()
    thresholds: dict[str, float] = Field(default_factory=dict)


class Column(Frozen):
    """A column of a table that the model reads: its type, and its range or its categories where they are known."""

    name: str = Text
    type: Literal["number", "integer", "boolean", "category", "text"] = "number"
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()


class Tensor(Frozen):
    """An array of the model."""

    name: str = Text
    dtype: str = Field(pattern=r"^[A-Z0-9_]{1,12}$")
    shape: tuple[Count, ...]


class InputSchema(Frozen):
    """``schema.json``: what goes in. ``shape`` is that of one item's features, without the batch; None if not known.

    ``tensors`` are the arrays of model.safetensors, by name.
    """

    version: Literal[1] = 1
    columns: tuple[Column, ...] = ()
    shape: tuple[Count, ...] | None = None
    tensors: tuple[Tensor, ...]


class ManifestEntry(Frozen):
    """A file of a bundle."""

    name: Literal["model.safetensors", "recipe.json", "schema.json"]
    sha256: Digest
    bytes: Count


class Manifest(Frozen):
    """``manifest.json``, in canonical JSON: the three files by name, each once."""

    version: Literal[1] = 1
    files: tuple[ManifestEntry, ...]

    @model_validator(mode="after")
    def _all(self) -> "Manifest":
        if tuple(entry.name for entry in self.files) != CONTENTS:
            raise ValueError("expected the three files of a bundle, by name")
        return self

    def encoded(self) -> bytes:
        """The file's bytes."""
        return encode(cast(Json, self.model_dump(mode="json")))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read and holds. ``digest`` names it, ``model`` are the bytes of model.safetensors."""

    digest: str
    model: bytes
    recipe: Recipe
    schema: InputSchema
    manifest: Manifest

    @property
    def model_digest(self) -> str:
        """How a log names the model."""
        return self.manifest.files[0].sha256


M = TypeVar("M", bound=Frozen)


def make_bundle(model: bytes, recipe: Recipe, schema: InputSchema) -> Bundle:
    """A bundle of these parts.

    Raises:
        ConfigError: the model is no safetensors file, or has other arrays than the schema says.
    """
    _check_model(model, schema, "the model")
    parts = (model, json_bytes(recipe), json_bytes(schema))
    entries = [
        ManifestEntry.model_validate({"name": name, "sha256": sha256(part), "bytes": len(part)})
        for name, part in zip(CONTENTS, parts, strict=True)
    ]
    manifest = Manifest(files=tuple(entries))
    return Bundle(sha256(manifest.encoded()), model, recipe, schema, manifest)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle's files into a new folder, which appears when all of them are on disk.

    Raises:
        ConfigError: the folder exists, or cannot be made.
    """
    contents = (bundle.model, json_bytes(bundle.recipe), json_bytes(bundle.schema), bundle.manifest.encoded())
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        for name, content in zip((*CONTENTS, MANIFEST), contents, strict=True):
            with (partial / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            raise FileExistsError(17, "it exists already")
        partial.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{folder} cannot hold a bundle: {reason}", next_step="Give another folder.") from None
    finally:
        for left in partial.glob("*") if partial.is_dir() else ():
            left.unlink()
        if partial.is_dir():
            partial.rmdir()


def read_bundle(folder: Path, digest: str | None = None) -> Bundle:
    """The bundle in a folder.

    Args:
        folder: where it is.
        digest: which one it has to be; any that holds in itself if None.

    Raises:
        ConfigError: there is none, it is another one, or anything in it is not what its manifest says.
    """
    _check_names(folder)
    raw = _bytes_of(folder / MANIFEST, LARGEST_TEXT)
    if digest is not None and sha256(raw) != digest:
        raise ConfigError(f"{folder} is another bundle than {short(digest)}, or changed", next_step=OTHER_COPY)
    manifest = _manifest(raw, folder)
    parts = []
    for entry in manifest.files:
        content = _bytes_of(folder / entry.name, entry.bytes)
        if len(content) != entry.bytes or sha256(content) != entry.sha256:
            raise ConfigError(f"{folder / entry.name} is not the file that its manifest names", next_step=OTHER_COPY)
        parts.append(content)
    recipe = _read(Recipe, parts[1], folder / RECIPE)
    schema = _read(InputSchema, parts[2], folder / SCHEMA)
    _check_model(parts[0], schema, str(folder / MODEL))
    return Bundle(sha256(raw), parts[0], recipe, schema, manifest)


def tensors_of(model: bytes, source: str = "the model") -> tuple[Tensor, ...]:
    """Names, types and shapes of a safetensors file's arrays, by name.

    Raises:
        ConfigError: it is no safetensors file.
    """
    # torch.save writes a zip, pickle itself begins with its protocol: both run code when they are read.
    if model[:2] == b"PK" or model[:1] == b"\x80":
        raise ConfigError(
            f"{source} is a pickle, which runs code when it is read",
            next_step="Save the parameters as safetensors: safetensors.torch.save_file(state, path).",
        )
    try:
        found = safetensors.deserialize(model)  # type: ignore[no-untyped-call]
        tensors = [Tensor(name=name, dtype=facts["dtype"], shape=tuple(facts["shape"])) for name, facts in found]
    except (SafetensorError, ValidationError):
        raise ConfigError(f"{source} is no safetensors file that can be read", next_step=OTHER_COPY) from None
    return tuple(sorted(tensors, key=lambda tensor: tensor.name))


def json_bytes(value: Frozen) -> bytes:
    """A recipe or schema as it stands in its file."""
    return value.model_dump_json(indent=2).encode("utf-8") + b"\n"


def short(digest: str) -> str:
    """A digest as people read it."""
    return digest.partition(":")[2][:12]


def _check_model(model: bytes, schema: InputSchema, source: str) -> None:
    if tensors_of(model, source) != schema.tensors:
        raise ConfigError(f"{source} has other arrays than the bundle's schema says", next_step=OTHER_COPY)


def _check_names(folder: Path) -> None:
    """That a folder holds the four files and nothing else; a link may lead anywhere, so it is none of them."""
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError(f"no bundle at {folder}", next_step="Register the model, or copy its bundle there.")
    with os.scandir(folder) as entries:
        found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    for name, is_file in sorted(found.items()):
        if name not in (*CONTENTS, MANIFEST) or not is_file:
            raise ConfigError(f"{folder} holds {name!r}, which is no file of a bundle", next_step=OTHER_COPY)
    for name in (*CONTENTS, MANIFEST):
        if name not in found:
            raise ConfigError(f"{folder} has no {name}", next_step=OTHER_COPY)


def _bytes_of(path: Path, most: int) -> bytes:
    """What a file holds, one byte more than allowed at most. Links are not followed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        raise ConfigError(f"{path} cannot be read", next_step=OTHER_COPY) from None
    with os.fdopen(handle, "rb") as file:
        return file.read(most + 1)


def _manifest(raw: bytes, folder: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate(decode(raw))
    except (CanonicalError, ValidationError):
        raise ConfigError(f"{folder / MANIFEST} is no manifest of a bundle", next_step=OTHER_COPY) from None
    if manifest.encoded() != raw:
        raise ConfigError(f"{folder / MANIFEST} is not written out", next_step=OTHER_COPY)
    return manifest


def _read(form: type[M], raw: bytes, path: Path) -> M:
    """A recipe or a schema, in the one way that it is written."""
    try:
        value = form.model_validate_json(raw)
    except ValidationError:
        value = None
    if value is None or json_bytes(value) != raw:
        raise ConfigError(
            f"{path} has a form that this build does not know", next_step="Use the fedseal that made the bundle."
        )
    return value


def _sync(folder: Path) -> None:
    """A rename is on disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class BundleStore:
    """Bundles by what they are: a folder each, named by the digest in hex. Nothing in it is ever changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, bundle: Bundle) -> Path:
        """Keep a bundle; where it is. Nothing happens if it is kept already and holds."""
        place = self.path(bundle.digest)
        if place.exists():
            read_bundle(place, bundle.digest)
        else:
            write_bundle(bundle, place)
        return place

    def get(self, digest: str) -> Bundle:
        """A bundle, checked to the last byte; ConfigError if it is not there or was changed."""
        return read_bundle(self.path(digest), digest)

    def path(self, digest: str) -> Path:
        """Where a bundle of this digest is kept."""
        return self.folder / digest.removeprefix("sha256:")
