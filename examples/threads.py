"""Many threads share one object; each gets the answer of a lone call."""

import sys
from concurrent.futures import ThreadPoolExecutor

from threadsafe_ocr import ThreadSafeOCR

with ThreadSafeOCR() as ocr, ThreadPoolExecutor(16) as threads:
    for path, page in zip(sys.argv[1:], threads.map(ocr.read, sys.argv[1:]), strict=True):
        print(path, len(page.lines), "lines")
