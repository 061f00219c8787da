"""Native core of threadsafe_ocr; use `threadsafe_ocr.ThreadSafeOCR`."""

from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from threadsafe_ocr.options import Options

__all__ = [
    "Pending",
    "ThreadSafeOCR",
    "__version__",
    "after_fork",
    "before_fork",
    "cores",
    "crops",
    "decode",
    "has_matrix_unit",
    "init",
    "line_widths",
    "model_cache",
    "networks",
    "next_news",
    "rewritten",
    "shut_down",
    "this_is_the_main_thread",
    "unload",
]

__version__: str

@disjoint_base
class ThreadSafeOCR:
    def __new__(cls, models: Any, settings: dict[str, Any]) -> Any: ...
    def _open(self, inputs: list[tuple[Any, bool]], *, detect: bool, recognize: bool, timeout: float | None, options: Options) -> Pending:
        """Opens a request for `inputs`, of which only sizes are looked at; each comes with whether it is RGB. Its time runs."""
    def stats(self) -> dict[str, Any]:
        """Counters so far: this object's requests and queue, and its device's runs, shared by all objects."""
    def close(self, cancel: bool = False) -> None:
        """Ends the object: requests with a permit finish, or are cancelled; the others get EngineClosedError. Waits for nothing."""
    @property
    def closed(self) -> bool:
        """Whether close() was called."""

@final
class Pending:
    """A request, and its answer to come."""

    def reserve(self, wait: bool) -> None:
        """Waits for a permit, without the GIL; `wait=False` refuses at once where none is free."""
    def take_room(self, event_loop: int) -> bool:
        """In an event loop: takes room for what is to be copied; False: not yet, `notify` tells when to ask again."""
    def start(self, inputs: list[tuple[Any, bool]]) -> None:
        """Copies `inputs`, without the GIL, and starts: under its permit where it has one, else in line for one."""
    def notify(self, line: int, number: int) -> None:
        """Sends `number` to a line of `next_news` when the answer is there, or when `take_room` should be asked again."""
    def wait(self, timeout: float | None = None) -> Any:
        """Waits for the answer, without the GIL; None where it is not there after `timeout` seconds, the request then goes on."""
    def poll(self) -> Any:
        """The answer, or None where it is not there yet."""
    def cancel(self) -> None:
        """The request is not wanted any more; what it had queued is taken out, what runs only for it is stopped."""

def init(library: str, preload: list[str]) -> None: ...
def cores() -> int:
    """Cores that this process may use, by affinity and the container's quota: as many as there are workers."""

def has_matrix_unit() -> bool:
    """Whether this process may use a matrix unit of bfloat16: AMX, on Linux."""

def line_widths() -> list[int]:
    """The widths of a GPU's runs of recognition, pixels."""

def rewritten(model: bytes, block: int) -> bytes | None:
    """A network's file as a CPU runs it whose convolutions have `block` channels in a block; None where nothing changes."""

def networks(models: Any, model_folder: str) -> list[tuple[Path, str]]:
    """The files of a set's networks, each with what it is: "det", "rec" or "cls"."""

def crops(page: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32], half: bool = False) -> list[npt.NDArray[np.uint8]]:
    """Cuts boxes, (n, 4, 2), out of a BGR page as PaddleOCR 2.x does: straightened, tall ones turned left; without the GIL.

    half: straightened as MinerU 4 does, in half precision.
    """

def decode(encoded: bytes, color: bool, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Decodes as `cv2.imdecode`: IMREAD_COLOR for `color`, else IMREAD_UNCHANGED (8 bits a sample, HxWx3 or HxWx4); without the GIL."""

def unload() -> None:
    """Unloads all models and ends the workers; ConfigError while an engine is open."""

def model_cache() -> Path | None:
    """The folder of downloaded model sets; None where there is no home."""

def next_news(line: int) -> int | None:
    """Waits, without the GIL, for the next request of a line (0: futures, 1: asyncio) to look at. For the package's daemon threads."""

def shut_down() -> None: ...
def before_fork() -> None: ...
def after_fork(child: bool) -> None: ...
def this_is_the_main_thread() -> None: ...
