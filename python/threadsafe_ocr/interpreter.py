"""Refuses subinterpreters: a process loads the native part once, and its threads and exit hook belong to the main interpreter."""

import importlib

for name in ("_interpreters", "_xxsubinterpreters"):
    try:
        interpreters = importlib.import_module(name)
    except ImportError:
        continue
    if interpreters.get_current() != interpreters.get_main():
        raise ImportError(
            "threadsafe_ocr works in the main interpreter only, not in a subinterpreter; use threads instead: they read in parallel "
            "(under mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
        )
    break
