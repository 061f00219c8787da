"""Native core of threadsafe_ocr; use `threadsafe_ocr.ThreadSafeOCR`."""

from typing import Any, final

from typing_extensions import disjoint_base

__all__ = [
    "Pending",
    "ThreadSafeOCR",
    "__version__",
    "after_fork",
    "before_fork",
    "init",
    "next_finished",
    "shut_down",
    "this_is_the_main_thread",
    "unload",
]

__version__: str

@disjoint_base
class ThreadSafeOCR:
    def __new__(cls, models: Any, settings: dict[str, Any]) -> Any: ...
    def start(
        self,
        inputs: list[Any],
        *,
        detect: bool,
        recognize: bool,
        timeout: float | None,
        wait: bool,
        rgb: bool,
        in_line: bool,
        line: int | None,
        number: int,
        options: dict[str, Any],
    ) -> Pending: ...
    def stats(self) -> dict[str, Any]:
        """Counters so far: this object's requests and queue, and its device's runs, shared by all objects."""
    def close(self, cancel: bool = False) -> None:
        """Ends the object: requests with a permit finish, or are cancelled; the others get EngineClosedError. Waits for nothing."""
    @property
    def closed(self) -> bool:
        """Whether close() was called."""

@final
class Pending:
    def wait(self, timeout: float | None = None) -> Any: ...
    def cancel(self) -> None: ...

def init(library: str, preload: list[str]) -> None: ...
def unload() -> None:
    """Unloads all models and ends the workers; ConfigError while an engine is open."""

def next_finished(line: int) -> int | None: ...
def shut_down() -> None: ...
def before_fork() -> None: ...
def after_fork(child: bool) -> None: ...
def this_is_the_main_thread() -> None: ...
