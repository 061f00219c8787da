"""What a service holds after hours, in small: `benches/soak.py` row 9 is the same at full size."""

from __future__ import annotations

import sys

import pytest

from conftest import Run


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_stays_where_it_was_after_the_first_pages(run_python: Run) -> None:
    run_python(
        """
        from concurrent.futures import ThreadPoolExecutor

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

        random = np.random.default_rng(0)
        sizes = [(int(h), int(w)) for h, w in np.exp(random.uniform(np.log(32), np.log(900), (320, 2)))]
        with ThreadSafeOCR() as ocr:
            # Threads, their stacks and what they keep are there then.
            ocr.warmup()

            def read_all(some):
                # New threads each time, as a service's pool makes them.
                with ThreadPoolExecutor(16) as pool:
                    assert all(page.lines == () for page in pool.map(lambda size: ocr.read(np.full((*size, 3), 255, np.uint8)), some))
                return resident()

            # The most that can be held at once: which of the mixed pages meet is chance.
            early = read_all([(900, 900)] * 32)
            late = [read_all(sizes[k:k + 80]) for k in (0, 80, 160, 240)]
        assert late[-1] < 1.06 * early, (early, late)
        """
    )
