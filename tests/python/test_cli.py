"""The command line, as a user meets it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image

from conftest import LINES, PAGES
from threadsafe_ocr import OcrResult, ThreadSafeOCR, __version__, cli, model_sets
from threadsafe_ocr.cli import doctor, read
from threadsafe_ocr.options import Settings

TEXT = r"\mynumber = \mydimen"
COMMAND = [sys.executable, "-m", "threadsafe_ocr.cli"]
# Keywords of the constructor that no request takes.
OF_THE_ENGINE = {
    "max_pixels", "max_queue_size", "max_queue_bytes", "on_fork", "run_size", "intra_op_num_threads", "activation_bytes",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two lines, one of them in a folder below, and a file that is no image."""
    (tmp_path / "in" / "far" / "below").mkdir(parents=True)
    shutil.copy(LINES[0], tmp_path / "in" / "a.png")
    shutil.copy(LINES[2], tmp_path / "in" / "far" / "below" / "b.PNG")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def blanks(folder: Path, good: int, bad: int) -> None:
    """Pages that are read in no time, and broken ones among them."""
    folder.mkdir()
    for number in range(good):
        Image.new("L", (64, 64), 255).save(folder / f"{number:03}.png")
    for number in range(bad):
        (folder / f"{number * 29:03}-bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")


def outputs(folder: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_text_of_one_page_is_text_and_nothing_else(ocr: ThreadSafeOCR, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["read", str(LINES[0])]) == 0
    assert capfd.readouterr() == (f"{TEXT}\n", "")


def test_a_folder_is_read_with_all_below_it(ocr: ThreadSafeOCR, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["read", str(folder)]) == 0
    out, err = capfd.readouterr()
    assert out == f"== {folder / 'a.png'}\n{TEXT}\n== {folder / 'far' / 'below' / 'b.PNG'}\nThis input\n"
    assert err.startswith("2 of 2 pages read, 0 failed; ")
    assert "\r" not in err, "no progress in a pipe"


def test_a_pattern_finds_files_and_each_is_read_once(ocr: ThreadSafeOCR, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["read", "--json", str(folder / "**" / "*.PNG"), str(folder), str(folder / "a.png")]) == 0
    pages = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [page["path"] for page in pages] == [str(folder / "far" / "below" / "b.PNG"), str(folder / "a.png")]
    assert [page["lines"][0]["text"] for page in pages] == ["This input", TEXT]


def test_rows_say_where_each_line_is(ocr: ThreadSafeOCR, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["read", "--tsv", str(LINES[0])]) == 0
    head, row = (line.split("\t") for line in capfd.readouterr().out.splitlines())
    assert head == ["path", "line", "score", "x0", "y0", "x1", "y1", "text"]
    line = ocr.read(LINES[0]).lines[0]
    assert row == [str(LINES[0]), "1", f"{line.score:.4f}", *(f"{value:.0f}" for value in line.box), TEXT]


def test_an_image_comes_in_on_stdin() -> None:
    done = subprocess.run([*COMMAND, "read", "-"], input=LINES[0].read_bytes(), capture_output=True, check=True)
    assert done.stdout.decode() == f"{TEXT}\n"


def test_what_goes_into_a_pipe_is_utf8_in_any_locale(tmp_path: Path) -> None:
    odd = tmp_path / "\udcff.png"
    shutil.copy(LINES[6], odd)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "read", "--json", str(odd)], capture_output=True, env=environment, check=True)
    page = json.loads(done.stdout.decode())
    assert page["path"] == str(odd)
    assert any(character >= "\u4e00" for character in page["lines"][0]["text"])


def test_a_reader_that_has_enough_is_no_error(folder: Path) -> None:
    script = f"{' '.join(COMMAND)} read {folder} {folder.parent} {PAGES / 'rec_lines'} | head -1"
    done = subprocess.run(script, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_every_option_of_a_request_has_a_flag() -> None:
    assert set(read.OPTIONS) == set(Settings.__annotations__) - OF_THE_ENGINE


@pytest.mark.parametrize(
    "flags",
    [
        "--numerics paddle2", "--det-limit-side-len 960", "--det-limit-type max", "--det-max-side 1000", "--det-thresh 0.3",
        "--det-box-thresh 0.5",
        "--det-unclip-ratio 2", "--det-use-dilation", "--det-score-mode slow", "--det-max-candidates 10", "--cls-thresh 0.8",
        "--no-use-textline-orientation", "--use-doc-orientation", "--rec-score-thresh 0.2",
        "--rec-width-step 8", "--rec-min-width 64", "--rec-max-width 640",
        "--rec-group 6", "--timeout 60",
    ],
)  # fmt: skip
def test_flags_reach_the_request(flags: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given, blank = {}, OcrResult((), 1, 1)
    monkeypatch.setattr(ThreadSafeOCR, "read_many", lambda _self, _images, **keywords: given.update(keywords) or (page for page in [blank]))
    monkeypatch.setattr(read, "files", lambda _: {Path("x"): Path("x")})
    cli.main(["read", "x", *flags.split()])
    flag, *value = flags.removeprefix("--").split()
    name = flag.removeprefix("no-").replace("-", "_")
    options = {key: given[key] for key in given if key not in ("in_flight", "return_errors")}
    assert options.keys() == {name}
    assert str(options[name]) == (value[0] if value else str(not flag.startswith("no-"))) or float(options[name]) == float(value[0])


def test_a_request_takes_every_flag(ocr: ThreadSafeOCR, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["read", str(LINES[0]), "--rec-score-thresh", "1.0", "--timeout", "50"]) == 0
    assert capfd.readouterr().out == "\n", "no line is that sure"
    assert cli.main(["read", str(LINES[0]), "--det-thresh", "7"]) == 1
    assert "det_thresh=7 is not between 0 and 1" in capfd.readouterr().err


def test_a_bad_file_does_not_stop_the_rest(ocr: ThreadSafeOCR, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "aa.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert cli.main(["read", str(folder), str(folder / "gone.png")]) == 1
    out, err = capfd.readouterr()
    assert TEXT in out
    assert "This input" in out
    assert f"{folder / 'aa.png'}: " in err
    assert f"{folder / 'gone.png'}: " in err
    assert err.splitlines()[-1].startswith("2 of 4 pages read, 2 failed; ")


@pytest.mark.parametrize("arguments", [["--resume"], ["--draw"], ["--text", "--json"], ["--no-such-flag"], ["--jobs", "many"]])
def test_wrong_arguments_are_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["read", str(LINES[0]), *arguments])
    assert ended.value.code == 2


def test_two_inputs_never_share_an_output(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "a.png", folder / "far" / "below" / "a.png")
    with pytest.raises(SystemExit) as ended:
        cli.main(["read", str(folder / "a.png"), str(folder / "far" / "below"), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "would both be written to" in capfd.readouterr().err


def test_outputs_mirror_the_folder(ocr: ThreadSafeOCR, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["read", str(folder), "--out", str(out), "--json", "--draw"]) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == [
        "a.png.drawn.png", "a.png.json", "far/below/b.PNG.drawn.png", "far/below/b.PNG.json",
    ]  # fmt: skip
    assert json.loads((out / "a.png.json").read_text(encoding="utf-8"))["lines"][0]["text"] == TEXT
    with Image.open(out / "a.png.drawn.png") as drawn, Image.open(folder / "a.png") as page:
        assert drawn.width == 2 * page.width
    assert capfd.readouterr().out == ""


def test_ctrl_c_keeps_what_is_done_and_resume_does_the_rest_once(tmp_path: Path) -> None:
    blanks(tmp_path / "in", good=290, bad=10)
    out = tmp_path / "out"
    command = [*COMMAND, "read", str(tmp_path / "in"), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while len(outputs(out)) < 20:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    first = outputs(out)
    summary = err.splitlines()[-1]
    assert summary.startswith("interrupted: ")
    assert abs(int(summary.split()[1]) - len(first)) <= 1
    assert 20 <= len(first) < 290

    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 11
    assert lines[-1].startswith(f"{290 - len(first)} of {300 - len(first)} pages read, 10 failed, {len(first)} were there already; ")
    both = outputs(out)
    assert len(both) == 290
    assert all(both[name] == first[name] for name in first), "what was there is not read again"


@pytest.mark.parametrize("tqdm", [True, False])
def test_progress_shows_on_a_terminal(folder: Path, tqdm: bool) -> None:
    hide = "" if tqdm else "import sys; sys.modules['tqdm'] = None; "
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    script = f"{hide}from threadsafe_ocr.cli import main; main(['read', {str(folder)!r}, {str(folder / 'gone.png')!r}])"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\r" not in done.stdout
    assert "pages/s" in shown
    assert "3/3" in shown
    assert "gone.png" in shown


def test_progress_stays_out_of_text_on_the_same_terminal(folder: Path) -> None:
    ours, theirs = pty.openpty()
    subprocess.run([*COMMAND, "read", str(folder)], stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode().replace("\r\n", "\n")
    os.close(ours)
    assert "\r" not in shown
    assert shown.startswith(f"== {folder / 'a.png'}\n{TEXT}\n== ")


def test_completion_knows_the_flags_and_the_sets(tmp_path: Path) -> None:
    def complete(line: str) -> list[str]:
        answer = tmp_path / "answer"
        environment = {
            **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "COMP_LINE": line,
            "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        }  # fmt: skip
        subprocess.run(COMMAND, env=environment, capture_output=True, check=False)
        return answer.read_text().split("\n")

    assert complete("threadsafe-ocr read --det-th") == ["--det-thresh"]
    assert set(model_sets.manifest()["sets"]) <= set(complete("threadsafe-ocr read --models "))


def test_models_are_listed_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path))
    assert cli.main(["models", "list"]) == 0
    rows = {line.split()[0]: line for line in capfd.readouterr().out.splitlines()}
    assert "in the package" in rows["v6-small"]
    assert "not here" in rows["v4-mobile"]
    assert cli.main(["models", "verify"]) == 0
    assert capfd.readouterr().out == "v6-small: ok\n"
    assert cli.main(["models", "verify", "v4-mobile"]) == 1
    assert "put it right with: threadsafe-ocr models get v4-mobile" in capfd.readouterr().out
    assert cli.main(["models", "path", "v6-small"]) == 0
    assert Path(capfd.readouterr().out.strip(), "det", "inference.onnx").is_file()
    assert cli.main(["models", "path", "v4-mobile"]) == 1
    assert "threadsafe-ocr models get v4-mobile" in capfd.readouterr().err
    assert cli.main(["models", "add", str(tmp_path / "gone")]) == 1


def test_bench_has_a_row_for_each_number_of_clients(ocr: ThreadSafeOCR, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", str(LINES[0]), "--seconds", "0.2"]) == 0
    head, columns, *rows = capfd.readouterr().out.splitlines()
    assert head.startswith("1 pages, models v6-small")
    assert columns.split()[:2] == ["clients", "pages/s"]
    assert [row.split()[0] for row in rows] == ["1", "4", "16"]
    assert all(float(figure) > 0 for row in rows for figure in row.split())
    assert cli.main(["bench", "gone.png"]) == 1


def diagnose(**environment: str) -> tuple[int, str]:
    done = subprocess.run([*COMMAND, "doctor"], env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_doctor_finds_a_healthy_environment_healthy() -> None:
    code, report = diagnose()
    assert code == 0, report
    assert "PROBLEM" not in report
    assert "self-test    right; " in report
    assert "ocr-cpu-0" in report
    assert report.endswith("all is well\n")


def test_doctor_finds_flavours_that_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime_gpu-1.22.0.dist-info").mkdir()
    (tmp_path / "onnxruntime_gpu-1.22.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.22.0\n"
    )
    code, report = diagnose(PYTHONPATH=str(tmp_path), THREADSAFE_OCR_DEVICE="cpu")
    assert code == 1
    assert "onnxruntime-gpu 1.22.0 share one folder and overwrite each other's files" in report
    assert 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "onnxruntime-gpu[cuda,cudnn]>=1.22"' in report


def test_doctor_finds_a_library_that_is_not_there(tmp_path: Path) -> None:
    code, report = diagnose(ORT_DYLIB_PATH=str(tmp_path / "libonnxruntime.so"))
    assert code == 1
    assert f"{tmp_path / 'libonnxruntime.so'} (ORT_DYLIB_PATH says so) is not there" in report
    assert "PROBLEM  self-test" in report


def test_doctor_finds_a_damaged_set(tmp_path: Path) -> None:
    (tmp_path / "v4-mobile" / "det").mkdir(parents=True)
    (tmp_path / "v4-mobile" / "det" / "inference.onnx").write_bytes(b"cut")
    code, report = diagnose(THREADSAFE_OCR_CACHE=str(tmp_path))
    assert code == 1
    assert "PROBLEM  models       v4-mobile: v4-mobile/rec/inference.onnx is missing" in report
    assert "threadsafe-ocr models get v4-mobile" in report


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/a/b", {"a/cpu.max": "100000 100000"}, 1.0),
        ("0::/a/b", {"a/b/cpu.max": "150000 100000", "cpu.max": "max 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("3:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "25000"}, 2.0),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_doctor_reads_the_containers_quota(tmp_path: Path, group: str, files: dict[str, str], cores: float | None) -> None:
    (tmp_path / "cgroup").write_text(f"{group}\n")
    for name, content in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(f"{content}\n")
    assert doctor.cpu_quota(tmp_path / "cgroup", tmp_path / "mount") == cores


def test_doctor_says_how_many_cores_are_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 1.5)
    assert doctor.processor().text.startswith("1 of 8 cores granted (4 by affinity, 1.5 by the container's quota)")


def test_version_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capfd.readouterr().out.strip() == __version__
