"""The command line, as a user meets it."""

from __future__ import annotations

import errno
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
from threadsafe_ocr import OcrResult, ThreadSafeOCR, __version__, cli, model_sets, runtime
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
    read_many = lambda engine, *_, **__: given.update(engine._arguments[1]) or (page for page in [blank])  # noqa: E731
    monkeypatch.setattr(ThreadSafeOCR, "read_many", read_many)
    monkeypatch.setattr(read, "files", lambda *_: {Path("x"): Path("x")})
    cli.main(["read", "x", *flags.split()])
    flag, *value = flags.removeprefix("--").split()
    name = flag.removeprefix("no-").replace("-", "_")
    options = {key: given[key] for key in given if key not in ("device", "precision")}
    assert options.keys() == {name}
    assert str(options[name]) == (value[0] if value else str(not flag.startswith("no-"))) or float(options[name]) == float(value[0])


def test_a_precision_is_the_sets_of_that_precision(capfd: pytest.CaptureFixture[str]) -> None:
    """A set in integers and the flag are the same network, so its scores are too; f32's are others."""
    rows = []
    for flags in (["--precision", "int8"], ["--models", "v6-small-int8"], []):
        assert cli.main(["read", str(LINES[0]), "--tsv", *flags]) == 0
        rows.append(capfd.readouterr().out)
    assert rows[0] == rows[1] != rows[2]


def test_a_request_takes_every_flag(ocr: ThreadSafeOCR, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["read", str(LINES[0]), "--rec-score-thresh", "1.0", "--timeout", "50"]) == 0
    assert capfd.readouterr().out == "\n", "no line is that sure"


def test_a_bad_file_does_not_stop_the_rest(ocr: ThreadSafeOCR, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "aa.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert cli.main(["read", str(folder), str(folder / "gone.png")]) == 1
    out, err = capfd.readouterr()
    assert TEXT in out
    assert "This input" in out
    assert f"{folder / 'aa.png'}: " in err
    assert f"{folder / 'gone.png'}: " in err
    assert err.splitlines()[-1].startswith("2 of 4 pages read, 2 failed; ")


# Without the capabilities that open every folder to root: exec lowers those of a process to its bounding set.
AS_ANYBODY = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; needless, and refused, where it is not root who tests
os.execv(sys.executable, [sys.executable, "-m", "threadsafe_ocr.cli", *sys.argv[1:]])
"""


def test_what_a_folder_keeps_from_its_reader_is_named_and_counted(folder: Path) -> None:
    (folder / "far" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "far" / "below").chmod(0)
    command = [sys.executable, "-c", AS_ANYBODY, "read", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        bench = subprocess.run([*command[:3], "bench", str(folder)], capture_output=True, text=True, check=False)
    finally:
        (folder / "far" / "below").chmod(0o755)
    assert (done.returncode, done.stdout) == (1, f"== {folder / 'a.png'}\n{TEXT}\n")
    locked, gone, summary = done.stderr.splitlines()
    assert locked.startswith(f"{folder / 'far' / 'below'}: [Errno 13] Permission denied")
    assert gone.startswith(f"{folder / 'far' / 'gone.png'}: [Errno 2] No such file or directory")
    assert summary.startswith("1 of 3 pages read, 2 failed; ")
    assert bench.returncode == 1, "half of a folder is no measure"
    assert "Permission denied" in bench.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "--resume", "--draw", "--text --json", "--no-such-flag", "--jobs many", "--jobs 0", "--jobs -1", "--det-thresh 5",
        "--rec-score-thresh nan", "--timeout -1", "--device gpu", "--device cuda:x", "--models nope", "--models ./nope",
        "--precision half",
    ],
)  # fmt: skip
def test_wrong_arguments_are_2_and_said_once(arguments: str, ocr: ThreadSafeOCR, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["read", str(LINES[0]), str(LINES[2]), *arguments.split()])
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("error:") == 1


def test_a_set_that_is_not_here_is_no_wrong_argument(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path))
    assert cli.main(["read", str(LINES[0]), "--models", "v4-mobile"]) == 1
    assert capfd.readouterr().err.endswith("threadsafe-ocr models get v4-mobile\n")


@pytest.mark.parametrize("arguments", ["--seconds nan", "--seconds inf", "--seconds 0", "--device gpu"])
def test_wrong_arguments_of_bench_are_2(arguments: str, ocr: ThreadSafeOCR, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", str(LINES[0]), *arguments.split()])
    assert ended.value.code == 2


def test_a_page_that_cannot_be_written_does_not_stop_the_rest(
    ocr: ThreadSafeOCR, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    longest, too_long = "l" * 247 + ".png", "m" * 248 + ".png"  # 255 bytes is what a file system has, and .txt comes after
    for name in (longest, too_long):
        shutil.copy(folder / "a.png", folder / name)
    out = tmp_path / "out"
    (out / "a.png.txt").mkdir(parents=True)
    (out / "far").touch()
    assert cli.main(["read", str(folder), "--out", str(out)]) == 1
    said = capfd.readouterr().err.splitlines()
    assert f"{folder / 'a.png'}: cannot write {out / 'a.png.txt'}: Is a directory" in said
    assert f"{folder / too_long}: cannot write {out / too_long}.txt: File name too long" in said
    assert any(line.startswith("1 of 4 pages read, 3 failed; ") for line in said)
    assert sorted(path.name for path in out.iterdir()) == ["a.png.txt", "far", f"{longest}.txt"]
    assert cli.main(["read", str(folder), "--out", str(out), "--resume"]) == 1
    assert ", 2 were there already; " in capfd.readouterr().err


def test_a_full_disk_ends_a_run_and_is_named(
    ocr: ThreadSafeOCR, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(_path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert cli.main(["read", str(folder), "--out", str(tmp_path / "out")]) == 1
    tally, error = capfd.readouterr().err.splitlines()
    assert tally.startswith("interrupted: 0 of 2 pages read, 0 failed; ")
    assert error == f"threadsafe-ocr: [Errno 28] No space left on device: '{tmp_path / 'out' / 'a.png.txt'}'"


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


@pytest.mark.parametrize("out", [".", "out", "../out"])
def test_what_an_earlier_run_wrote_is_no_page(ocr: ThreadSafeOCR, folder: Path, out: str, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / ".git").mkdir()
    for hidden in (".a.png", ".git/a.png"):
        shutil.copy(folder / "a.png", folder / hidden)
    for run in (str(folder), str(folder), f"{folder}/**/*.*[gG]"):
        assert cli.main(["read", run, "--out", str(folder / out), "--draw"]) == 0
        assert capfd.readouterr().err.startswith("2 of 2 pages read, 0 failed; ")


def test_a_file_with_two_names_is_read_once(ocr: ThreadSafeOCR, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(["read", "a.png", str(folder / "a.png"), "--out", "out"]) == 0, "two pages would be written to one file"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_keep_what_is_done_and_resume_does_the_rest_once(tmp_path: Path, end: signal.Signals) -> None:
    blanks(tmp_path / "in", good=150, bad=5)
    out = tmp_path / "out"
    command = [*COMMAND, "read", str(tmp_path / "in"), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while len(outputs(out)) < 20:
            time.sleep(0.01)
        process.send_signal(end)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + end
    first = outputs(out)
    summary = err.splitlines()[-1]
    assert summary.startswith("interrupted: ")
    assert abs(int(summary.split()[1]) - len(first)) <= 1
    assert 20 <= len(first) < 150

    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    assert lines[-1].startswith(f"{150 - len(first)} of {155 - len(first)} pages read, 5 failed, {len(first)} were there already; ")
    both = outputs(out)
    assert len(both) == 150
    assert all(both[name] == first[name] for name in first), "what was there is not read again"


@pytest.mark.parametrize(("tqdm", "columns"), [(True, 80), (True, 0), (False, 80)])
def test_progress_shows_on_a_terminal(folder: Path, tqdm: bool, columns: int) -> None:
    hide = "" if tqdm else "import sys; sys.modules['tqdm'] = None; "
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
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
    assert capfd.readouterr().out == "".join(f"{name}: ok\n" for name in model_sets.manifest()["packaged"])
    assert cli.main(["models", "verify", "v4-mobile"]) == 1
    assert "put it right with: threadsafe-ocr models get v4-mobile" in capfd.readouterr().out
    assert cli.main(["models", "path", "v6-small"]) == 0
    assert Path(capfd.readouterr().out.strip(), "det", "inference.onnx").is_file()
    assert cli.main(["models", "path", "v6-cascade-int8"]) == cli.main(["models", "get", "v6-cascade-int8"]) == 0
    assert capfd.readouterr().out.split() == [str(model_sets.folder())] * 2
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
    assert 'precision="fast" costs about half' in report
    assert report.endswith("all is well\n")


@pytest.mark.parametrize(("card", "keep"), [(True, "onnxruntime-gpu[cuda,cudnn]"), (False, "onnxruntime")])
def test_doctor_finds_flavours_that_overwrite_each_other(tmp_path: Path, card: bool, keep: str) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A Card (UUID: GPU-1)'\n" if card else "#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "onnxruntime_gpu-1.22.0.dist-info").mkdir()
    (tmp_path / "onnxruntime_gpu-1.22.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.22.0\n"
    )
    code, report = diagnose(PYTHONPATH=str(tmp_path), THREADSAFE_OCR_DEVICE="cpu", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 1
    assert "onnxruntime-gpu 1.22.0 share one folder and overwrite each other's files" in report
    assert f'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "{keep}>=1.23"' in report
    assert ("A Card;" in report) == card


def test_doctor_finds_a_library_that_is_not_there(tmp_path: Path) -> None:
    code, report = diagnose(ORT_DYLIB_PATH=str(tmp_path / "libonnxruntime.so"))
    assert code == 1
    assert f"{tmp_path / 'libonnxruntime.so'} (ORT_DYLIB_PATH says so) is not there" in report
    assert "PROBLEM  self-test" in report


def test_doctor_finds_a_library_that_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = tmp_path / "libonnxruntime.so"
    with runtime.library(gpu=False).open("rb") as whole:
        cut.write_bytes(whole.read(1 << 20))
    monkeypatch.setenv("ORT_DYLIB_PATH", str(cut))
    found = doctor.self_test()
    assert found.text == "killed by SIGBUS: a library file is cut short"
    assert found.remedy is not None
    assert found.remedy.startswith("unset ORT_DYLIB_PATH")


def test_doctor_finds_a_library_that_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DYLIB_PATH", "libc.so.6")
    found = doctor.self_test()
    assert found.text.startswith("threadsafe_ocr.exceptions.EngineUnavailableError: unset ORT_DYLIB_PATH, or let it name ")
    assert found.remedy is not None
    assert "unset ORT_DYLIB_PATH" in found.remedy


def test_nobody_is_told_to_install_a_package_that_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PAGE_TEXT", "another text")
    for remedy in (doctor.self_test().remedy, model_sets.remedy("v6-small")):
        assert remedy is not None
        assert "the wheel you installed from" in remedy
        assert "threadsafe-ocr" not in remedy


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
