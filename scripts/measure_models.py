#!/usr/bin/env python3
"""Measures the memory and time constants of models/manifest.json on this machine (Linux, glibc) and prints them.

    python scripts/measure_models.py [--set v6-small]

Needs threadsafe_ocr, and the set on this machine. The scheduler compares costs only with each other, so a machine of another speed changes
little; measure again when a set's files change.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # recent versions otherwise write files and upload

import numpy as np
import onnxruntime as ort
from threadsafe_ocr import model_sets

DETECTION_SIZES = [(960, 672), (1984, 1408), (4000, 2816)]
RECOGNITION_WIDTHS = [160, 320, 640, 1280, 3200]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="v6-small")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    free_memory_at_once()
    files = model_sets.manifest()["sets"][arguments.set]["files"]
    det, rec, cls = (Network(model_sets.find(files[key]["path"])) for key in ("det", "rec", "cls"))

    for height, width in DETECTION_SIZES:
        shape, pixels = (1, 3, height, width), height * width
        taken, with_arena, ms = det.live_bytes(shape), det.arena_bytes(shape), det.run_ms(shape, arguments.repeats)
        print(
            f"detection {height}x{width}: {taken / pixels:.0f} bytes a pixel "
            f"({with_arena / pixels:.0f} with the arena), "
            f"{ms:.0f} ms, {ms / pixels * 1e6:.0f} ms a megapixel"
        )
    for width in RECOGNITION_WIDTHS:
        shape = (1, 3, 48, width)
        taken, with_arena, ms = rec.live_bytes(shape), rec.arena_bytes(shape), rec.run_ms(shape, arguments.repeats)
        print(
            f"recognition 48x{width}: {taken / width:.0f} bytes a pixel of width "
            f"({with_arena / width:.0f} with the arena), "
            f"{ms:.1f} ms, {ms / width * 100:.2f} ms per 100 px"
        )
    columns, classes = rec.output_shape((1, 3, 48, 320))[1:]
    print(f"recognition: {classes} classes, {320 // columns} px of input a column")
    print(f"orientation 48x192: {cls.run_ms((1, 3, 48, 192), 10 * arguments.repeats):.2f} ms")


def free_memory_at_once():
    """Starts this script again with an allocator that gives every large block back when it is freed.

    Otherwise glibc keeps blocks of up to 32 MB, and a run's growth shows fragments of earlier ones (twice the bytes).
    """
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = str(128 * 1024)
        os.execv(sys.executable, [sys.executable, *sys.argv])


class Network:
    """A network on one thread, as a worker of the engine runs it."""

    def __init__(self, path):
        self.without_arena = self.open(path, arena=False)
        self.with_arena = self.open(path, arena=True)

    @staticmethod
    def open(path, arena):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = arena
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def live_bytes(self, shape):
        return run_bytes(lambda tensor: self.without_arena.run(None, {"x": tensor}), shape)

    def arena_bytes(self, shape):
        """With onnxruntime's arena, emptied after the run: it grows in powers of two."""
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return run_bytes(lambda tensor: self.with_arena.run(None, {"x": tensor}, options), shape)

    def run_ms(self, shape, repeats):
        tensor = noise(shape)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.with_arena.run(None, {"x": tensor})
            times.append((time.perf_counter() - start) * 1e3)
        return min(times)  # anything above the least is the rest of the machine

    def output_shape(self, shape):
        return self.with_arena.run(None, {"x": noise(shape)})[0].shape


def run_bytes(run, shape):
    """Peak growth of the resident set by one run, input and output included."""
    run(noise((*shape[:2], min(shape[2], 64), 64)))  # what the first run makes for good is not counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak (VmHWM) begins again at what is resident now
    before = resident_bytes("VmRSS")
    run(noise(shape))
    return resident_bytes("VmHWM") - before


def noise(shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def resident_bytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
