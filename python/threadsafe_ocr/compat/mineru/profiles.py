"""How the versions of magic-pdf and MinerU differ in what they do around the networks, read in their sources and wheels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Profile:
    """One version's steps."""

    # Model sets of detection and of recognition.
    det: str
    rec: str
    numerics: Literal["paddle2", "mineru", "mineru4"] = "mineru"
    # Detection's input is never longer, pixels; before 3.0 there was no bound but `limit`.
    det_max_side: int = 4000
    # Recognition: lines padded together, and the widest input, pixels.
    group: int = 6
    max_width: int = 2560
    # Boxes of a line are joined only in long ones.
    only_long_lines: bool = True
    # Upright boxes are sliced out of the page, not warped.
    slices: bool = True
    # A crop this many times as high as wide is turned left; slices too?
    tall: float = 1.5
    turns_slices: bool = True
    # The score of a line without text: at 1 it is kept.
    empty_score: float = 1.0
    # PaddleOCR 2.7's calls: a list of lines has an outer element for each; `__call__` has `cls` before `mfd_res`, and seconds third.
    paddle: bool = False


MINERU4 = Profile(det="v6-tiny", rec="v6-small", numerics="mineru4")
MINERU3_4 = replace(MINERU4, det="v6-small", numerics="mineru")
MINERU3_1_15 = replace(MINERU3_4, det="v5-mobile", rec="v5-mobile")
MINERU3 = replace(MINERU3_1_15, max_width=1280)
MINERU2_7 = replace(MINERU3, tall=2.0, turns_slices=False)
MINERU2_6 = replace(MINERU2_7, turns_slices=True, empty_score=0.0)
MINERU2_2 = replace(MINERU2_6, slices=False, group=8)
MINERU2_1 = replace(MINERU2_2, group=6, tall=1.5)
MINERU2 = replace(MINERU2_1, only_long_lines=False)
MAGIC1_3 = MINERU2
MAGIC1 = replace(MAGIC1_3, det="v4-mobile", rec="v4-mobile", numerics="paddle2", max_width=65_536, paddle=True)

# From which version on, the newest first.
MINERU = (
    ((4,), MINERU4), ((3, 4), MINERU3_4), ((3, 1, 15), MINERU3_1_15), ((3,), MINERU3), ((2, 7), MINERU2_7), ((2, 6), MINERU2_6),
    ((2, 2), MINERU2_2), ((2, 1), MINERU2_1), ((0,), MINERU2),
)  # fmt: skip
MAGIC_PDF = (((1, 3), MAGIC1_3), ((0,), MAGIC1))

# What was run here, in `make test-mineru`.
TESTED = {"mineru": ("4.0.12", "3.4.5", "3.1.14", "2.7.6", "2.5.4", "2.0.6"), "magic-pdf": ("1.3.12", "1.2.2")}


def profile(package: str, version: str) -> Profile:
    """The steps of "mineru" or "magic-pdf" in a version."""
    steps = MINERU if package == "mineru" else MAGIC_PDF
    return next(found for first, found in steps if _numbers(version) >= first)


def place(package: str, version: str) -> str:
    """What `patch_mineru` replaces in that version."""
    if package == "magic-pdf":
        name = "PytorchPaddleOCR" if _numbers(version) >= (1, 3) else "ModifiedPaddleOCR and RapidTableModel"
        return f"magic_pdf.model.sub_modules.model_init.{name}"
    if _numbers(version) >= (4,):
        return "mineru.model.runtime.hybrid.atom_model_init"
    return "mineru.backend.pipeline.model_init.PytorchPaddleOCR"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])
