"""A bundle is what its manifest says, to the last byte, and nothing that runs."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.registry import bundle, weights

from fedseal.compliance.events.fields import sha256
from fedseal.compliance.registry.bundle import (
    CONTENTS,
    GRAPH,
    MANIFEST,
    MODEL,
    RECIPE,
    BundleStore,
    InputSchema,
    Recipe,
    Standardisation,
    make_bundle,
    read_bundle,
    tensors_of,
    write_bundle,
)
from fedseal.errors import ConfigError


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A bundle on disk."""
    write_bundle(bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_comes_back_as_it_was_written(kept: Path) -> None:
    read = read_bundle(kept, bundle().digest)
    assert read == bundle()
    assert read.digest == sha256((kept / MANIFEST).read_bytes())
    assert read.model_digest == sha256((kept / MODEL).read_bytes())
    assert sorted(p.name for p in kept.iterdir()) == sorted((*CONTENTS, MANIFEST))


def test_a_threshold_makes_another_bundle_of_the_same_model() -> None:
    assert bundle(threshold=0.4).model_digest == bundle(threshold=0.5).model_digest
    assert bundle(threshold=0.4).digest != bundle(threshold=0.5).digest


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_refused(data: st.DataObject, kept: Path) -> None:
    path = kept / data.draw(st.sampled_from((*CONTENTS, MANIFEST)))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(whole[:place] + changed + whole[place + 1 :])
    with pytest.raises(ConfigError) as caught:
        read_bundle(kept, bundle().digest)
    assert str(kept) in caught.value.message
    path.write_bytes(whole)
    assert read_bundle(kept, bundle().digest) == bundle()


def extra_file(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"x")


def extra_folder(folder: Path) -> None:
    (folder / "more").mkdir()


def linked(folder: Path) -> None:
    moved = folder.parent / "elsewhere"
    (folder / MODEL).rename(moved)
    (folder / MODEL).symlink_to(moved)


def missing(folder: Path) -> None:
    (folder / RECIPE).unlink()


def escaping(folder: Path) -> None:
    text = (folder / MANIFEST).read_text().replace('"model.safetensors"', '"../model.safetensors"')
    (folder / MANIFEST).write_text(text)


def absolute(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace('"recipe.json"', '"/etc/passwd"'))


def spaced(folder: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps(json.loads((folder / MANIFEST).read_text()), indent=1))


def unversioned(folder: Path) -> None:
    """Canonical, and with a default left out."""
    text = (folder / MANIFEST).read_text()
    assert text.endswith(',"version":1}')
    (folder / MANIFEST).write_text(text.replace(',"version":1}', "}"))


def longer(folder: Path) -> None:
    with (folder / MODEL).open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize(
    "change", [extra_file, extra_folder, linked, missing, escaping, absolute, spaced, unversioned, longer]
)
def test_a_folder_that_is_no_bundle_is_refused(kept: Path, change: Callable[[Path], None]) -> None:
    assert read_bundle(kept) == bundle()
    change(kept)
    # Also where nobody says which bundle it has to be.
    with pytest.raises(ConfigError):
        read_bundle(kept)


def test_another_bundle_in_its_place_is_refused(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    write_bundle(bundle(2), store.path(bundle(1).digest))
    with pytest.raises(ConfigError, match="another bundle"):
        store.get(bundle(1).digest)
    assert read_bundle(store.path(bundle(1).digest)) == bundle(2)


def test_a_bundle_from_before_keeps_its_digest() -> None:
    """What later builds can say beside it is left out of its files where it says nothing."""
    assert bundle().digest == "sha256:a39a99deb54465149b40b74ffbadc31d7ab0b57eadf615db5c03c6f066563211"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 63))
def test_a_graph_is_named_by_the_manifest(tmp_path: Path, place: int) -> None:
    graphed = make_bundle(weights(1), bundle().recipe, bundle().schema, b"graph" * 13)
    folder = tmp_path / str(place)
    if not folder.exists():
        write_bundle(graphed, folder)
    assert read_bundle(folder) == graphed
    assert graphed.digest != bundle().digest
    whole = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ConfigError, match="not the file"):
        read_bundle(folder)
    (folder / GRAPH).unlink()
    with pytest.raises(ConfigError, match=r"has no model\.onnx"):
        read_bundle(folder)
    (folder / GRAPH).write_bytes(whole)


def test_a_graph_that_no_manifest_names_is_refused(kept: Path) -> None:
    (kept / GRAPH).write_bytes(b"graph")
    with pytest.raises(ConfigError, match=r"holds a model\.onnx"):
        read_bundle(kept)


class Boom:
    """What a pickle does when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("pickle-was-run",)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if how == "pickle":
        raw = pickle.dumps(Boom())
    else:
        torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
        raw = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(ConfigError, match="pickle") as caught:
        make_bundle(raw, bundle().recipe, bundle().schema)
    assert "safetensors" in caught.value.next_step
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize("raw", [b"", b"\x00" * 8, weights(1)[:-1], b"{}"])
def test_what_is_no_safetensors_file_is_refused(raw: bytes) -> None:
    with pytest.raises(ConfigError, match="no safetensors file"):
        tensors_of(raw)


def test_a_model_with_other_arrays_than_the_schema_is_refused() -> None:
    schema = InputSchema(shape=(3,), tensors=bundle().schema.tensors[:1])
    with pytest.raises(ConfigError, match="other arrays"):
        make_bundle(weights(1), bundle().recipe, schema)


def test_a_form_of_another_build_is_refused(kept: Path) -> None:
    """The manifest is right, and a field is not known: the build that made it has to read it."""
    text = (kept / RECIPE).read_text().replace('"version": 1', '"version": 2')
    (kept / RECIPE).write_text(text)
    manifest = json.loads((kept / MANIFEST).read_text())
    manifest["files"][1] |= {"sha256": sha256(text.encode()), "bytes": len(text.encode())}
    (kept / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":")))
    with pytest.raises(ConfigError, match="form that this build does not know"):
        read_bundle(kept)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        write_bundle(bundle(), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    write_bundle(bundle(), tmp_path / "bundle")
    with pytest.raises(ConfigError, match="exists"):
        write_bundle(bundle(2), tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle") == bundle()


def test_the_store_keeps_a_bundle_once(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "bundles")
    assert store.add(bundle()) == store.add(bundle()) == tmp_path / "bundles" / bundle().digest[7:]
    assert store.get(bundle().digest) == bundle()
    (store.path(bundle().digest) / RECIPE).write_bytes(b"{}")
    with pytest.raises(ConfigError):
        store.add(bundle())


def test_a_normalisation_needs_positive_deviations() -> None:
    Standardisation(mean=(1.0,), deviation=(0.5,))
    for mean, deviation in (((1.0,), (0.0,)), ((1.0, 2.0), (1.0,))):
        with pytest.raises(ValueError, match="above 0"):
            Standardisation(mean=mean, deviation=deviation)
    with pytest.raises(ValueError, match="pattern"):
        Recipe(study="tiny", task="../task:Blobs")
