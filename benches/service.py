"""Closed loop: N clients share one object. usage: service.py CLIENTS SECONDS IMAGE..."""

import statistics
import sys
import threading
import time

from threadsafe_ocr import ThreadSafeOCR

clients, seconds, images = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
times: list[float] = []
with ThreadSafeOCR() as ocr:
    ocr.read(images[0])
    end, cpu = time.perf_counter() + seconds, time.process_time()

    def client(k: int) -> None:
        while (start := time.perf_counter()) < end:
            ocr.read(images[k % len(images)])
            k += 1
            times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu = time.process_time() - cpu
print(
    f"{len(times) / seconds:.2f} pages/s, {cpu / len(times):.2f} CPU s a page, p50 {statistics.median(times):.2f} s, max {max(times):.2f} s"
)
