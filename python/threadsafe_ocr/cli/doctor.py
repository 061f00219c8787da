"""`threadsafe-ocr doctor`: what is installed, what would be used, what is wrong, and how to put it right."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from threadsafe_ocr import OcrError, ThreadSafeOCR, __version__, _core, draw, model_sets, runtime
from threadsafe_ocr.cli import models
from threadsafe_ocr.compat.mineru import profiles
from threadsafe_ocr.runtime import version as _version

# Every distribution that writes into the folder `onnxruntime`.
FLAVOURS = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-migraphx", "onnxruntime-webgpu", "onnxruntime-directml",
    "onnxruntime-rocm", "onnxruntime-qnn", "onnxruntime-silicon", "onnxruntime-training", "ort-nightly", "ort-nightly-gpu",
)  # fmt: skip
PAGE = Path(__file__).with_name("page.png")
PAGE_TEXT = "threadsafe-ocr 2026\n文字识别正常"
SELF_TEST_SECONDS = 120


class Finding(NamedTuple):
    """One line of the report."""

    subject: str
    text: str
    # How to put it right: what is found is broken.
    remedy: str | None = None


def add_to(commands: Any) -> None:
    """The arguments."""
    command = commands.add_parser(
        "doctor", help="check the installation and say what to fix", description="Checks the installation; exit code 1 when it is broken."
    )
    command.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Prints what it finds; 1 when something is broken."""
    broken = 0
    for finding in examine():
        print(f"{'PROBLEM' if finding.remedy else 'ok':<8} {finding.subject:<12} {finding.text}", flush=True)
        if finding.remedy:
            print(f"{'':<8} {'to fix':<12} {finding.remedy}", flush=True)
            broken += 1
    print(f"{broken} problem{'s' * (broken != 1)} found" if broken else "all is well")
    return 1 if broken else 0


def examine() -> Iterator[Finding]:
    """Everything, in the order in which one thing needs the other."""
    versions = f"threadsafe-ocr {__version__}, Python {platform.python_version()}, numpy {np.__version__}"
    yield Finding("package", f"{versions}, {platform.platform()}")
    yield from flavours()
    yield library()
    yield telemetry()
    yield processor()
    yield precision()
    yield gpus()
    yield from sets()
    yield drawing()
    yield from mineru()
    yield self_test()


def flavours() -> Iterator[Finding]:
    """The installed builds of ONNX Runtime: two of them overwrite each other's files."""
    found = {name: version for name in FLAVOURS if (version := _version(name))}
    names = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        keep = "onnxruntime-gpu[cuda,cudnn]" if "onnxruntime-gpu" in found and cards() else "onnxruntime"
        yield Finding(
            "flavours", f"{names} share one folder and overwrite each other's files",
            f'pip uninstall -y {" ".join(found)} && pip install "{keep}>=1.23"',
        )  # fmt: skip
    else:
        yield Finding("flavours", names or "no build of ONNX Runtime is installed", None if found else 'pip install "onnxruntime>=1.23"')


def library() -> Finding:
    """The library that would be loaded, and why that one."""
    given = os.environ.get("ORT_DYLIB_PATH")
    try:
        path = runtime.library(gpu=runtime.has_gpu_flavour())
    except OcrError as error:
        return Finding("library", str(error), 'pip install --force-reinstall "onnxruntime>=1.23"')
    why = "ORT_DYLIB_PATH says so" if given else "by the version of the installed build"
    if not path.is_file():
        return Finding("library", f"{path} ({why}) is not there", runtime.UNSET)
    return Finding("library", f"{path} ({why}), {path.stat().st_size / 1e6:.0f} MB")


def telemetry() -> Finding:
    """Whether ONNX Runtime will call home."""
    value = os.environ.get("ORT_DISABLE_TELEMETRY")
    if value in (None, "1"):
        who = "this package sets ORT_DISABLE_TELEMETRY=1" if value is None else "ORT_DISABLE_TELEMETRY=1 is set"
        return Finding("telemetry", f"off: {who}; a program that imports onnxruntime before this package must set it itself")
    return Finding("telemetry", f"as ORT_DISABLE_TELEMETRY={value} says: onnxruntime 1.29 and later may send it; 1 turns it off")


def processor() -> Finding:
    """Cores of the machine, and how many of them this process may use."""
    host = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host
    quota = cpu_quota()
    limits = [f"{affinity} by affinity"] if affinity != host else []
    if quota is not None:
        limits.append(f"{quota:g} by the container's quota")
    granted = max(1, min(affinity, int(quota) if quota is not None else affinity))
    text = f"{granted} of {host} cores granted" + (f" ({', '.join(limits)})" if limits else "")
    return Finding("cores", f"{text}; as many workers (ocr-cpu-k) and page threads (ocr-page-k)")


def precision() -> Finding:
    """What costs less than the default."""
    on_card = '; "fp16" is of GPUs (docs/gpu.md)' if cards() else ""
    said = 'f32 unless another is named; precision="fast" costs about half the CPU time and reads nearly as well, '
    said += f'"int8" two thirds to four fifths{on_card}'
    if _core.has_matrix_unit():
        said += '; this processor has AMX: "bf16" costs two thirds, no set is worse by more than 0.1 points of CER, and "fast" uses it'
    return Finding("precision", said)


def cpu_quota(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The cores of the narrowest CPU quota around this process; None where there is none."""
    quotas: list[float] = []
    lines = groups.read_text().splitlines() if groups.is_file() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mount / "cpu" if controllers else mount
        inner = base / path.lstrip("/")
        quotas += (quota for folder in (inner, *inner.parents) if folder.is_relative_to(base) for quota in _quota_of(folder))
    return min(quotas, default=None)


def _quota_of(folder: Path) -> Iterator[float]:
    if (v2 := folder / "cpu.max").is_file():
        allowed, period = v2.read_text().split()
        if allowed != "max":
            yield int(allowed) / int(period)
    if (v1 := folder / "cpu.cfs_quota_us").is_file() and (allowed_us := int(v1.read_text())) > 0:
        yield allowed_us / int((folder / "cpu.cfs_period_us").read_text())


@functools.cache
def cards() -> list[str]:
    """NVIDIA's cards, a line each."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [card.split(" (UUID")[0] for card in done.stdout.strip().splitlines()] if done.returncode == 0 else []


def gpus() -> Finding:
    """The cards, and whether the installed build can use them."""
    flavour = runtime.has_gpu_flavour()
    if not cards():
        return Finding("gpu", "none (nvidia-smi lists no card)" + ("; onnxruntime-gpu will use the CPU" if flavour else ""))
    install = 'pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]>=1.23" "onnx>=1.16"'
    use = 'device="auto" uses cuda:0' if flavour and runtime.version("onnx") else f"not used: {install}"
    return Finding("gpu", f"{'; '.join(cards())}; {use}")


def sets() -> Iterator[Finding]:
    """The model sets: where they are, and whether their files are the published ones."""
    try:
        names = [*model_sets.manifest()["sets"], *model_sets.added()]
    except (OSError, ValueError) as error:
        text = f"the manifest in {model_sets.folder()} cannot be read: {error}"
        yield Finding("models", text, "unset THREADSAFE_OCR_MODEL_DIR, or reinstall threadsafe-ocr")
        return
    default = model_sets.manifest()["default"]
    for name in names:
        if missing := model_sets.missing(name):
            if name == default or (model_sets.cache() / name).is_dir():
                yield Finding("models", f"{name}: {missing[0]} is missing", model_sets.remedy(name))
            else:
                yield Finding("models", f"{name}: not here ({model_sets.remedy(name)})")
        elif damaged := model_sets.damaged(name):
            yield Finding("models", f"{name}: {damaged[0]} is not the published file", model_sets.remedy(name))
        else:
            digest = next(iter(model_sets.hashes(name).values()))[:12]
            yield Finding("models", f"{name}: {models.state(name)}, every sha256 right ({digest}...)")
    yield Finding("cache", str(model_sets.cache()))


def drawing() -> Finding:
    """What `--draw` would have."""
    try:
        return Finding("drawing", draw.note() or f"Pillow {_version('pillow')}, font {draw.find_font()}")
    except OcrError as error:
        return Finding("drawing", f"not possible: {error}")


def mineru() -> Iterator[Finding]:
    """What `patch_mineru` would do to the MinerU that is installed."""
    is_on = os.environ.get("THREADSAFE_OCR_MINERU", "0") not in ("", "0")
    how = "THREADSAFE_OCR_MINERU is set" if is_on else "off; patch_mineru() or THREADSAFE_OCR_MINERU=1 turns it on"
    for package, tested in profiles.TESTED.items():
        if (version := _version(package)) is None:
            continue
        steps = profiles.profile(package, version)
        lacking = sorted({name for name in (steps.det, steps.rec) if model_sets.missing(name)})
        sets = f"{' and '.join(dict.fromkeys((steps.det, steps.rec)))}" + (f" ({', '.join(lacking)} not here: v6-small)" if lacking else "")
        state = "tested" if version in tested else "this version was never tested"
        yield Finding("mineru", f"{package} {version} ({state}): {profiles.place(package, version)} would read with {sets}; {how}")


def self_test() -> Finding:
    """Reads a small page in a process of its own, so that a library that crashes is a finding too."""
    command = [sys.executable, "-c", "from threadsafe_ocr.cli.doctor import read_page; read_page()"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=SELF_TEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Finding("self-test", f"no answer within {SELF_TEST_SECONDS} s", "look at what else uses the processor, then report it")
    build = "onnxruntime-gpu" if runtime.has_gpu_flavour() else "onnxruntime"
    remedy = runtime.UNSET if os.environ.get("ORT_DYLIB_PATH") else f"pip install --force-reinstall --no-deps {build}"
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        why = ": a library file is cut short" if name == "SIGBUS" else ""
        return Finding("self-test", f"killed by {name}{why}", f"{remedy}; else {model_sets.REINSTALL}")
    if done.returncode != 0:
        last = next(reversed(done.stderr.strip().splitlines()), f"it ended with code {done.returncode}")
        return Finding("self-test", last, f"put right what is said above; else {remedy}; else {model_sets.REINSTALL}")
    answer = json.loads(done.stdout)
    if answer["text"] != PAGE_TEXT:
        return Finding("self-test", f"read {answer['text']!r} in place of {PAGE_TEXT!r}", f"{remedy}; else {model_sets.REINSTALL}")
    return Finding(
        "self-test",
        f"right; models loaded in {answer['load']:.2f} s, first page {answer['first']:.2f} s, second {answer['second']:.3f} s; "
        f"threads: {answer['threads'] or 'not known here'}",
    )


def read_page() -> None:
    """The self-test's process: prints its figures."""
    figures: dict[str, Any] = {}
    start = time.perf_counter()
    with ThreadSafeOCR() as ocr:
        for figure in ("load", "first", "second"):
            if figure != "load":
                figures["text"] = ocr.read(PAGE).text
            figures[figure], start = time.perf_counter() - start, time.perf_counter()
        figures["threads"] = " ".join(sorted(filter(None, map(_native, Path("/proc/self/task").glob("*/comm")))))
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print(json.dumps(figures))


def _native(comm: Path) -> str | None:
    name = comm.read_text().strip()
    return name if name.startswith("ocr-") else None
