"""The command `threadsafe-ocr`: one file a subcommand, argparse and nothing else.

`pip install "threadsafe-ocr[cli]"` adds a progress bar (tqdm) and completion (argcomplete).
"""
# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import argparse
import io
import os
import signal
import sys

from threadsafe_ocr import OcrError, __version__
from threadsafe_ocr.cli import bench, doctor, models, paddle, read, serve


def parser() -> argparse.ArgumentParser:
    """The arguments of all subcommands."""
    made = argparse.ArgumentParser(prog="threadsafe-ocr", description="Reads text from images.")
    made.add_argument("--version", action="version", version=__version__)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (read, serve, models, doctor, bench, paddle):
        command.add_to(commands)
    return made


def main(arguments: list[str] | None = None) -> int:
    """The entry point; returns the exit code: 0, 1 when something failed, 2 when the arguments are wrong, 130 after Ctrl-C,
    143 after SIGTERM.
    """
    made = parser()
    _complete(made)
    parsed = made.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        # What is read later is UTF-8 everywhere; half a character in a file's name is shown as \udc80, which is JSON's way too.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    except BrokenPipeError:  # `| head` has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OcrError, OSError) as error:
        print(f"threadsafe-ocr: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, _frame: object) -> None:
    """SIGTERM ends a command as Ctrl-C does, so that nothing half done stays."""
    raise KeyboardInterrupt(number)


def _complete(made: argparse.ArgumentParser) -> None:
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(made)
