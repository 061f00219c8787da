"""`rapidocr` 3.10's names on this engine; `threadsafe_ocr.install_as("rapidocr")` makes it what `import rapidocr` finds."""

from threadsafe_ocr.compat.rapidocr.ocr import LoadImageError, RapidOCR
from threadsafe_ocr.compat.rapidocr.output import RapidOCROutput, TextClsOutput, TextDetOutput, TextRecOutput, VisRes
from threadsafe_ocr.compat.rapidocr.settings import EngineType, LangCls, LangDet, LangRec, ModelType, OCRVersion

__all__ = [
    "EngineType",
    "LangCls",
    "LangDet",
    "LangRec",
    "LoadImageError",
    "ModelType",
    "OCRVersion",
    "RapidOCR",
    "RapidOCROutput",
    "TextClsOutput",
    "TextDetOutput",
    "TextRecOutput",
    "VisRes",
]
