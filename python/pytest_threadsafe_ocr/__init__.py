"""Tests of thread safety, for any code: `assert_thread_safe`, and the pytest plugin (`plugin.py`) with fixtures and a marker.

A package of its own beside threadsafe_ocr: pytest imports its plugins at every start, and the engine is loaded only where a test uses it.
"""

from pytest_threadsafe_ocr.check import assert_thread_safe

__all__ = ["assert_thread_safe"]
