"""Detection of PaddleOCR 2.8 and later in parts of a page: `slice=` of a call, and pages much longer than wide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from threadsafe_ocr.compat.paddle_images import Pixels
from threadsafe_ocr.exceptions import InvalidArgumentError

Box = npt.NDArray[np.float32]
Detect = Callable[[Pixels], Box]

_NONE = np.zeros((0, 4, 2), np.float32)
_MOST_SLICES = 500
# Pixels: text that ends nearer to a part's end may be cut in two, so the next part begins above it.
_NEAR_END = 50
# Pixels: boxes whose first corners differ by less in y stand side by side.
_SAME_LINE = 10


def detect(page: Pixels, sizes: dict[str, int], find: Detect) -> Box:
    """The boxes of a grid of windows, joined where a window's edge cut them, in reading order.

    sizes: horizontal_stride and vertical_stride of the windows, merge_x_thres and merge_y_thres for what is joined; all in pixels.
    """
    missing = {"horizontal_stride", "vertical_stride", "merge_x_thres", "merge_y_thres"} - sizes.keys()
    if missing:
        raise InvalidArgumentError(f"slice has no {min(missing)!r}")
    across, down = int(sizes["horizontal_stride"]), int(sizes["vertical_stride"])
    height, width = page.shape[:2]
    if min(across, down) < 1 or max(-(-height // down), -(-width // across)) >= _MOST_SLICES:
        raise InvalidArgumentError(
            f"a page of {width}x{height} in windows of {across}x{down}: fewer than {_MOST_SLICES} a side; raise the strides"
        )
    found = []
    for top in range(0, height, down):
        for left in range(0, width, across):
            boxes = find(page[top : top + down, left : left + across])
            found.append(boxes + np.array([left, top], np.float32))
    boxes = np.concatenate(found)
    return _in_order(_joined(boxes, sizes["merge_x_thres"], sizes["merge_y_thres"])) if len(boxes) else _NONE


def _joined(boxes: Box, most_x: float, most_y: float) -> Box:
    """Boxes of one height that touch at a side become one, until no two do."""
    while True:
        kept: list[Box] = []
        gone: set[int] = set()
        for i, box in enumerate(boxes):
            if i in gone:
                continue
            for j in range(i + 1, len(boxes)):
                if j not in gone and (both := _both(box, boxes[j], most_x, most_y)) is not None:
                    box = both
                    gone.add(j)
            kept.append(box)
        if len(kept) == len(boxes):
            return np.stack(kept)
        boxes = np.stack(kept)


def _both(a: Box, b: Box, most_x: float, most_y: float) -> Box | None:
    if abs(a[0, 1] - b[0, 1]) > most_y or abs(a[2, 1] - b[2, 1]) > most_y or abs(a[1, 0] - b[0, 0]) > most_x:
        return None
    left, right = min(a[0, 0], b[0, 0]), max(a[1, 0], b[1, 0])
    top, bottom = min(a[0, 1], b[0, 1]), max(a[2, 1], b[2, 1])
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def _in_order(boxes: Box) -> Box:
    """2.x's reading order: by y and x of the first corner, then by x where two stand side by side."""
    order = sorted(boxes, key=lambda box: (box[0, 1], box[0, 0]))
    for end in range(len(order) - 1):
        for i in range(end, -1, -1):
            a, b = order[i], order[i + 1]
            if abs(b[0, 1] - a[0, 1]) >= _SAME_LINE or b[0, 0] >= a[0, 0]:
                break
            order[i], order[i + 1] = b, a
    return np.stack(order)


def detect_long(page: Pixels, limit: int, find: Detect) -> Box:
    """The boxes of a page; of one more than twice as high as wide, or thrice as wide as high, and larger than `limit`, part by part."""
    height, width = page.shape[:2]
    if height / width > 2 and height > limit:
        return _along(page, 1, find)
    if width / height > 3 and width > limit * 3:
        return _along(page, 0, find)
    return find(page)


def _along(page: Pixels, axis: int, find: Detect) -> Box:
    """Parts along y (1) or x (0), each three quarters as long as the page is wide; text at a part's end is looked for in the next."""
    length, breadth = (page.shape[0], page.shape[1]) if axis else (page.shape[1], page.shape[0])
    step, start, found = breadth * 3 // 4, 0, [_NONE]
    while start < length and step:
        boxes = find(page[start : start + step] if axis else page[:, start : start + step])
        offset, advance = start, step
        # Where a box ends: its bottom right below, its top right beside.
        ends = boxes[:, 2, 1] if axis else boxes[:, 1, 0]
        if len(boxes) > 1 and breadth - boxes[:, 3, axis].max() <= _NEAR_END:
            last = int(ends[np.argsort(boxes[:, 2, axis])[:-1]].max())
            if last > 0:
                advance, boxes = last, boxes[ends <= last]
        shift = np.zeros(2, np.float32)
        shift[axis] = offset
        found.append(boxes + shift)
        start += advance
    return np.concatenate(found)
