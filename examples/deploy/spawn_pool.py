"""Processes of your own: `concurrent.futures` with spawn. python spawn_pool.py IMAGE...

One process with threads uses all cores as well; this is for a program that has processes anyway.
"""

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from threadsafe_ocr import ThreadSafeOCR


def start():
    global ocr
    ocr = ThreadSafeOCR()


def read(path):
    return ocr.read(path).to_dict()


def main(paths):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), start) as processes:
        for path, page in zip(paths, processes.map(read, paths), strict=True):
            print(json.dumps({"path": path, **page}))


if __name__ == "__main__":
    main(sys.argv[1:])
