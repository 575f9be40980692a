"""A bundle: a model with what it takes to apply it. Files in a folder, safetensors and JSON, no code.

    model.safetensors   the parameters
    recipe.json         how the model is applied
    schema.json         what goes in, and which arrays the model has
    model.onnx          the model as one graph, where it was registered with it
    manifest.json       SHA-256 and length of the others; the bundle's digest is SHA-256 of this file

Whoever reads a bundle hashes the bytes that it uses: a changed byte, another file, a link or a pickle is refused.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import safetensors
from pydantic import ValidationError, model_validator
from safetensors import SafetensorError

from fedseal.compliance.events.fields import Count, Digest, sha256
from fedseal.compliance.log.canonical import CanonicalError, Json, decode, encode
from fedseal.compliance.registry.recipe import Column, InputSchema, Output, Recipe, Standardisation, Tensor
from fedseal.config import Frozen
from fedseal.errors import ConfigError
from fedseal.storage import on_disk

# Forms of a bundle's files are looked for beside the bundle.
__all__ = [
    "Bundle",
    "BundleStore",
    "Column",
    "InputSchema",
    "Manifest",
    "Output",
    "Recipe",
    "Standardisation",
    "Tensor",
    "json_bytes",
    "make_bundle",
    "manifest_bytes",
    "read_bundle",
    "short",
    "tensors_of",
    "write_bundle",
]

MODEL, RECIPE, SCHEMA, MANIFEST = "model.safetensors", "recipe.json", "schema.json", "manifest.json"
CONTENTS = (MODEL, RECIPE, SCHEMA)
# Not every bundle has it. Last in the manifest, so that the others have their places.
GRAPH = "model.onnx"
LARGEST_TEXT = 1 << 20
OTHER_COPY = "Take the bundle from another copy; the digest that it has to have stands in the federation's log."


class ManifestEntry(Frozen):
    """A file of a bundle."""

    name: Literal["model.safetensors", "recipe.json", "schema.json", "model.onnx"]
    sha256: Digest
    bytes: Count


class Manifest(Frozen):
    """``manifest.json``, in canonical JSON: the files, each once, in the order of the module's docstring."""

    version: Literal[1] = 1
    files: tuple[ManifestEntry, ...]

    @model_validator(mode="after")
    def _all(self) -> "Manifest":
        if tuple(entry.name for entry in self.files) not in (CONTENTS, (*CONTENTS, GRAPH)):
            raise ValueError("expected the files of a bundle, each once and in their order")
        return self

    def encoded(self) -> bytes:
        """The file's bytes."""
        return encode(cast(Json, self.model_dump(mode="json")))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read and holds. ``digest`` names it, ``model`` are the bytes of model.safetensors, ``graph``
    those of model.onnx if there is one.
    """

    digest: str
    model: bytes
    recipe: Recipe
    schema: InputSchema
    manifest: Manifest
    graph: bytes | None = None

    @property
    def model_digest(self) -> str:
        """How a log names the model."""
        return self.manifest.files[0].sha256


M = TypeVar("M", bound=Frozen)


def make_bundle(model: bytes, recipe: Recipe, schema: InputSchema, graph: bytes | None = None) -> Bundle:
    """A bundle of these parts; ``graph`` is the model as ONNX.

    Raises:
        ConfigError: the model is no safetensors file, or has other arrays than the schema says.
    """
    _check_model(model, schema, "the model")
    parts = {MODEL: model, RECIPE: json_bytes(recipe), SCHEMA: json_bytes(schema)}
    if graph is not None:
        parts[GRAPH] = graph
    entries = [
        ManifestEntry.model_validate({"name": name, "sha256": sha256(part), "bytes": len(part)})
        for name, part in parts.items()
    ]
    manifest = Manifest(files=tuple(entries))
    return Bundle(sha256(manifest.encoded()), model, recipe, schema, manifest, graph)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle's files into a new folder, which appears when all of them are on disk.

    Raises:
        ConfigError: the folder exists, or cannot be made.
    """
    contents = {MODEL: bundle.model, RECIPE: json_bytes(bundle.recipe), SCHEMA: json_bytes(bundle.schema)}
    if bundle.graph is not None:
        contents[GRAPH] = bundle.graph
    contents[MANIFEST] = bundle.manifest.encoded()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        for name, content in contents.items():
            with (partial / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            raise FileExistsError(17, "it exists already")
        partial.rename(folder)
        on_disk(folder.parent)
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
    raw = manifest_bytes(folder)
    if digest is not None and sha256(raw) != digest:
        raise ConfigError(f"{folder} is another bundle than {short(digest)}, or changed", next_step=OTHER_COPY)
    manifest = _manifest(raw, folder)
    _check_complete(folder, manifest)
    parts = []
    for entry in manifest.files:
        content = _bytes_of(folder / entry.name, entry.bytes)
        if len(content) != entry.bytes or sha256(content) != entry.sha256:
            raise ConfigError(f"{folder / entry.name} is not the file that its manifest names", next_step=OTHER_COPY)
        parts.append(content)
    recipe = _read(Recipe, parts[1], folder / RECIPE)
    schema = _read(InputSchema, parts[2], folder / SCHEMA)
    _check_model(parts[0], schema, str(folder / MODEL))
    return Bundle(sha256(raw), parts[0], recipe, schema, manifest, parts[3] if len(parts) > 3 else None)


def manifest_bytes(folder: Path) -> bytes:
    """A bundle's manifest as it is in its folder, whose digest names the bundle; nothing else of it is read.

    Raises:
        ConfigError: there is no folder, or what is in it cannot be files of a bundle.
    """
    _check_names(folder)
    return _bytes_of(folder / MANIFEST, LARGEST_TEXT)


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
    """That a folder holds files of a bundle and nothing else; a link may lead anywhere, so it is none of them."""
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError(f"no bundle at {folder}", next_step="Register the model, or copy its bundle there.")
    with os.scandir(folder) as entries:
        found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    for name, is_file in sorted(found.items()):
        if name not in (*CONTENTS, GRAPH, MANIFEST) or not is_file:
            raise ConfigError(f"{folder} holds {name!r}, which is no file of a bundle", next_step=OTHER_COPY)
    for name in (*CONTENTS, MANIFEST):
        if name not in found:
            raise ConfigError(f"{folder} has no {name}", next_step=OTHER_COPY)


def _check_complete(folder: Path, manifest: Manifest) -> None:
    """The graph is there where the manifest says so, and nowhere else."""
    named = len(manifest.files) > len(CONTENTS)
    if os.path.lexists(folder / GRAPH) != named:
        what = "has no" if named else "holds a"
        raise ConfigError(f"{folder} {what} {GRAPH}, other than its manifest says", next_step=OTHER_COPY)


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
