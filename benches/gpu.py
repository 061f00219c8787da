"""Reading on a GPU beside RapidOCR: `make bench-gpu`, or `python benches/gpu.py --engines fp16 f32 rapid`.

Every engine is a process of its own, one after the other: where two plan at once, both take minutes. It reads the pages a few times, until
cuDNN has planned every shape, and is then measured: a lone client, then as many as --clients, on encoded pages. Prints a JSON object for
each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PAGES = Path(__file__).parent.parent / "tests/data/pages"
DENSE = ("docs_en/tex-nutshell-p013.png", "docs_zh/qyxf-book-doc-p014.png")


def ours(precision: str) -> Callable[[bytes], int]:
    from threadsafe_ocr import ThreadSafeOCR

    device = "cpu" if precision == "cpu" else "cuda"
    ocr = ThreadSafeOCR(device=device, precision="f32" if precision == "cpu" else precision)
    return lambda page: len(ocr.read(page).lines)


def rapid() -> Callable[[bytes], int]:
    """RapidOCR with its own settings, on this package's networks, which are the ones that it downloads."""
    import tempfile

    import yaml
    from rapidocr import RapidOCR

    models = Path(__file__).parent.parent / "models/v6-small"
    characters = yaml.safe_load((models / "rec/inference.yml").read_text(encoding="utf-8"))["PostProcess"]["character_dict"]
    keys = Path(tempfile.mkdtemp()) / "keys.txt"
    keys.write_text("\n".join(map(str, characters)) + "\n", encoding="utf-8")
    files = {f"{name}.model_path": str(models / name.lower() / "inference.onnx") for name in ("Det", "Rec", "Cls")}
    engine = RapidOCR(params={"EngineConfig.onnxruntime.use_cuda": True, "Rec.rec_keys_path": str(keys), **files})
    return lambda page: len(engine(page).txts or ())


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def of_card(field: str) -> list[int]:
    told = subprocess.run(["nvidia-smi", f"--query-{field}", "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False)
    return [int(word) for line in told.stdout.splitlines() if (word := line.split(",")[-1].strip()).isdigit()]


def measured(read: Callable[[bytes], int], pages: Sequence[bytes], clients: int, seconds: float) -> dict[str, object]:
    """Pages a second and times of answers of so many clients; how busy the card and the cores were."""
    times: list[float] = []
    busy: list[int] = []
    cpu, start = cpu_seconds(), time.perf_counter()

    def client(number: int) -> None:
        k = number
        while time.perf_counter() < start + seconds:
            since = time.perf_counter()
            read(pages[k % len(pages)])
            times.append(time.perf_counter() - since)
            k += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while time.perf_counter() < start + seconds:
        busy += of_card("gpu=utilization.gpu")
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    times.sort()
    return {
        "clients": clients, "answers": len(times), "pages_per_second": round(len(times) / took, 2),
        "p50_ms": round(1000 * statistics.median(times), 1), "p99_ms": round(1000 * times[min(len(times) - 1, int(len(times) * 0.99))], 1),
        "cores_busy": round((cpu_seconds() - cpu) / took, 1), "card_busy_percent": round(statistics.mean(busy), 1) if busy else None,
    }  # fmt: skip


def child(engine: str, clients: Sequence[int], seconds: float) -> None:
    pages = [(PAGES / name).read_bytes() for name in DENSE]
    before = time.perf_counter()
    read = rapid() if engine == "rapid" else ours(engine)
    first = []
    for page in pages:
        since = time.perf_counter()
        lines = read(page)
        first.append((round(time.perf_counter() - since, 2), lines))
    # Both workers of a model plan every shape.
    with ThreadPoolExecutor(1 if engine == "rapid" else 8) as pool:
        list(pool.map(read, pages * (1 if engine == "rapid" else 16)))
    answer = {"engine": engine, "first_reads_s_and_lines": first, "ready_s": round(time.perf_counter() - before, 1)}
    answer["runs"] = [measured(read, pages, count, seconds) for count in clients]
    answer["card_memory_mib"] = memory_of_processes().get(os.getpid())
    print(json.dumps(answer), flush=True)


def memory_of_processes() -> dict[int, int]:
    """Process -> MiB on the card, where the driver tells it."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    pairs = [line.replace(" ", "").split(",") for line in told]
    return {int(pair[0]): int(pair[1]) for pair in pairs if len(pair) == 2 and all(map(str.isdigit, pair))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["fp16", "f32", "rapid"], choices=["fp16", "f32", "rapid", "cpu"])
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.clients, arguments.seconds)
        return
    for engine in arguments.engines:
        # RapidOCR's sessions are shared by four threads at most: more only wait.
        clients = [min(count, 4) for count in arguments.clients] if engine == "rapid" else arguments.clients
        command = [sys.executable, __file__, "--child", engine, "--seconds", str(arguments.seconds), "--clients", *map(str, clients)]
        subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
