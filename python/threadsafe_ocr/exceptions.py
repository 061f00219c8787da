"""Everything that threadsafe_ocr raises of its own. All of it is an OcrError.

>>> from threadsafe_ocr import InvalidImageError, OcrError, ThreadSafeOCR
>>> try:
...     ThreadSafeOCR().read(b"hello")
... except InvalidImageError as error:
...     print(isinstance(error, OcrError), error)
True not an image: ...
"""


class OcrError(Exception):
    """The base of all errors of this package."""


class ConfigError(OcrError, ValueError):
    """A setting has a value that cannot work."""


class InvalidArgumentError(ConfigError, AssertionError):
    """Of `threadsafe_ocr.compat`: an argument for which the original fails an assertion."""


class ModelLoadError(OcrError, RuntimeError):
    """A model file is there and cannot be used; the message names it."""


class ModelNotFoundError(ModelLoadError, FileNotFoundError):
    """A model set or one of its files is not there."""


class InvalidImageError(OcrError, ValueError):
    """The input is not an image that can be read: broken, cut short, too large, or no image at all."""


class PasswordError(InvalidImageError):
    """The document is encrypted; give password=, or another one."""


class ImageFileError(OcrError, OSError):
    """The image file cannot be read; errno and filename are those of the operating system."""


class ImageNotFoundError(ImageFileError, FileNotFoundError):
    """The image file is not there."""


class OverloadedError(OcrError):
    """wait=False, and no permit is free. A service answers 503 with Retry-After."""


class OcrTimeoutError(OcrError, TimeoutError):
    """The deadline passed. A service answers 504."""


class InferenceError(OcrError, RuntimeError):
    """A model run failed; other requests are not affected."""


class EngineClosedError(OcrError, RuntimeError):
    """The engine was closed, or the interpreter is ending."""


class EngineUnavailableError(OcrError, RuntimeError):
    """The device or ONNX Runtime cannot be used; the message says what to install."""


class ForkedProcessError(OcrError, RuntimeError):
    """The engine belongs to the parent process and was made with on_fork="error"."""
