"""Records what cv2 and pyclipper compute, for tests/numerics.rs.

    python scripts/record_numerics.py tests/data/numerics

Needs numpy, pyclipper and OpenCV 4.10, which PaddleOCR 3.7 requires: `cv2.fillPoly`, and with it every score, differs from 4.11 on. The reference functions below restate PaddleOCR 3.7 (paddlex
inference/models/text_detection, text_recognition and pipelines/components/common) on plain arrays. Source pixels are made by a formula that
tests/numerics.rs repeats, so only results are stored: hashes, a few numbers, and the raw bytes of the crops.
"""

import json
import math
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyclipper

RNG = np.random.RandomState(20261124)


# Inputs by formula; the same in tests/numerics.rs.


def mix(x):
    """A 32-bit hash (lowbias32)."""
    x = np.asarray(x, dtype=np.uint32)
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def page(width, height, seed):
    """A page of noisy lines of black blocks: uint8 (height, width, 3)."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    noise = mix((y * width + x) * 3 + c + seed * 1_000_003)
    block = mix((y // 4) * 7919 + x // 4 + seed * 31) & 1
    ink = (y % 40 < 22) & (block == 1)
    return np.where(ink, 30 + 10 * c + (noise & 31), 225 - 5 * c + (noise & 15)).astype(np.uint8)


def probability_map(width, height, blobs, seed):
    """Turned bars on noise, in steps of 1/1024: float32 (height, width)."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    noise = mix(y * width + x + seed * 1_000_003).astype(np.int64)
    value = noise & 127
    for cx, cy, ux, uy, half_u, half_v, level in blobs:
        u = (x - cx) * ux + (y - cy) * uy
        v = (y - cy) * ux - (x - cx) * uy
        inside = (abs(u) <= half_u) & (abs(v) <= half_v)
        value = np.where(inside, np.maximum(value, level - (noise >> 8 & 255)), value)
    return (value / 1024).astype(np.float32)


# PaddleOCR 3.7, restated.


def mini_box(points):
    """get_mini_boxes: ordered corners, shorter side."""
    rect = cv2.minAreaRect(points)
    a, b, c, d = sorted(cv2.boxPoints(rect), key=lambda p: p[0])
    top_left, bottom_left = (a, b) if b[1] > a[1] else (b, a)
    top_right, bottom_right = (c, d) if d[1] > c[1] else (d, c)
    return np.array([top_left, top_right, bottom_right, bottom_left]), min(rect[1])


def unclip(box, ratio):
    distance = cv2.contourArea(box) * ratio / cv2.arcLength(box, True)
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(box, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    return np.array(offset.Execute(distance)[0])


def score_in(prob, polygon, floor, ceil):
    height, width = prob.shape
    left, right = (max(0, min(f(v), width - 1)) for f, v in ((floor, polygon[:, 0].min()), (ceil, polygon[:, 0].max())))
    top, bottom = (max(0, min(f(v), height - 1)) for f, v in ((floor, polygon[:, 1].min()), (ceil, polygon[:, 1].max())))
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    moved = polygon - np.array([left, top], dtype=polygon.dtype)
    cv2.fillPoly(mask, moved.reshape(1, -1, 2).astype(np.int32), 1)
    return cv2.mean(prob[top : bottom + 1, left : right + 1], mask)[0]


def score_fast(prob, box):
    return score_in(prob, box, math.floor, math.ceil)


def score_slow(prob, contour):
    return score_in(prob, contour.reshape(-1, 2), int, int)


def postprocess(prob, image_size, thresh, box_thresh, ratio, mode, dilation, max_candidates):
    mask = (prob > thresh).astype(np.uint8)
    if dilation:
        mask = cv2.dilate(mask, np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask * 255, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    height, width = prob.shape
    found = []
    for contour in contours[:max_candidates]:
        box, side = mini_box(contour)
        if side < 3:
            continue
        score = score_fast(prob, box) if mode == "fast" else score_slow(prob, contour)
        if score < box_thresh:
            continue
        box, side = mini_box(unclip(box, ratio).reshape(-1, 1, 2))
        if side < 5:
            continue
        quad = [
            [max(0, min(round(float(x) * (image_size[0] / width)), image_size[0])), max(0, min(round(float(y) * (image_size[1] / height)), image_size[1]))]
            for x, y in box
        ]
        found.append([np.array(quad).ravel().tolist(), score])
    return found


def sort_reading_order(quads):
    order = sorted(range(len(quads)), key=lambda i: (quads[i][0][1], quads[i][0][0]))
    for i in range(len(order) - 1):
        for j in range(i, -1, -1):
            here, after = quads[order[j]][0], quads[order[j + 1]][0]
            if abs(after[1] - here[1]) >= 10 or after[0] >= here[0]:
                break
            order[j], order[j + 1] = order[j + 1], order[j]
    return order


def warp(image, corners):
    """get_rotate_crop_image without its turn; also the matrix."""
    norm = np.linalg.norm
    width = int(max(norm(corners[0] - corners[1]), norm(corners[2] - corners[3])))
    height = int(max(norm(corners[0] - corners[3]), norm(corners[1] - corners[2])))
    if width == 0 or height == 0:
        return None, None
    target = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    matrix = cv2.getPerspectiveTransform(corners, target)
    return cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC), matrix


def crop(image, quad):
    pixels, _ = warp(image, mini_box(np.asarray(quad).astype(np.int32))[0])
    if pixels is None:
        return None
    return np.rot90(pixels) if pixels.shape[0] / pixels.shape[1] >= 1.5 else pixels


def detection_size(width, height, limit, limit_type, max_side):
    if width + height < 64:
        width, height = max(width, 32), max(height, 32)
    ratio = 1.0
    if limit_type == "max" and max(width, height) > limit:
        ratio = limit / max(width, height)
    elif limit_type == "min" and min(width, height) < limit:
        ratio = limit / min(width, height)
    elif limit_type == "resize_long":
        ratio = limit / max(width, height)
    width, height = int(width * ratio), int(height * ratio)
    if max(width, height) > max_side:
        ratio = max_side / max(width, height)
        width, height = int(width * ratio), int(height * ratio)
    return [max(int(round(side / 32) * 32), 32) for side in (width, height)]


def detection_input(image, size):
    height, width = image.shape[:2]
    if width + height < 64:
        padded = np.zeros((max(32, height), max(32, width), 3), np.uint8)
        padded[:height, :width] = image
        image = padded
    planes = np.moveaxis(cv2.resize(image, tuple(size)), 2, 0).astype(np.float32)
    for plane, mean, std in zip(planes, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)):
        plane *= 1 / 255.0 / std
        plane += -mean / std
    return planes


def line_input(image, resized_width, width):
    planes = np.zeros((3, 48, width), np.float32)
    resized = np.moveaxis(cv2.resize(image, (resized_width, 48)).astype(np.float32), 2, 0) / 255
    planes[:, :, :resized_width] = (resized - np.float32(0.5)) / np.float32(0.5)
    return planes


def recognition_width(width, height):
    return int(48 * max(320 / 48, width / height))


def recognition_input(image):
    height, width = image.shape[:2]
    own = recognition_width(width, height)
    if own > 3200:
        return line_input(image, 3200, 3200)
    return line_input(image, min(own, math.ceil(48 * (width / height))), own)


def recognition_widths(sizes, group):
    order = sorted(range(len(sizes)), key=lambda i: sizes[i][0] / sizes[i][1])
    widths = [0] * len(sizes)
    for start in range(0, len(order), group):
        members = order[start : start + group]
        widest = max(min(recognition_width(*sizes[i]), 3200) for i in members)
        for i in members:
            widths[i] = widest
    return widths


# Recording.


def crc(array):
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def turned_rect(cx, cy, width, height, degrees):
    return cv2.boxPoints(((float(cx), float(cy)), (float(width), float(height)), float(degrees)))


def random_blobs(width, height, count):
    directions = [(1, 0), (1, 0), (1, 0), (0, 1), (20, 1), (20, -3), (5, 4), (1, 1), (1, -2)]
    blobs = []
    for _ in range(count):
        ux, uy = directions[RNG.randint(len(directions))]
        norm = math.hypot(ux, uy)
        half_u, half_v = int(RNG.randint(3, 45) * norm), int(RNG.randint(1, 9) * norm)
        blobs.append([int(RNG.randint(width)), int(RNG.randint(height)), ux, uy, half_u, half_v, int(RNG.choice([500, 800, 900, 1000]))])
    return blobs


def record_resize():
    targets = [(417, 295), (320, 224), (210, 150), (209, 151), (420, 300), (840, 600), (841, 599), (333, 97), (60, 480), (32, 32), (210, 300), (1, 1)]
    cases = [(420, 300, 1, w, h) for w, h in targets]
    cases += [(640, 35, 2, 878, 48), (133, 61, 3, 105, 48), (96, 48, 4, 96, 48), (1, 7, 5, 9, 48), (64, 96, 6, 32, 48)]
    out = []
    for w, h, seed, dw, dh in cases:
        resized = cv2.resize(page(w, h, seed), (dw, dh))
        out.append({"source": [w, h, seed], "size": [dw, dh], "crc": crc(resized), "first": resized.ravel()[:24].tolist()})
    return out


def record_crops(raw):
    """Detected quads: whole pixels, most upright or nearly so, some turned, some over the page's edge."""
    image = page(420, 300, 1)
    out = []
    for i in range(72):
        angle = [0, RNG.uniform(-4, 4), RNG.uniform(-90, 90)][i % 3]
        box = turned_rect(RNG.uniform(-5, 425), RNG.uniform(-5, 305), RNG.uniform(8, 150), RNG.uniform(6, 30), angle)
        quad = mini_box(np.round(box).astype(np.int32))[0].round()
        if i % 4 == 1:
            quad = quad + RNG.randint(-3, 4, (4, 2))
        pixels = crop(image, quad)
        if pixels is None:
            continue
        out.append({"quad": quad.ravel().tolist(), "size": [pixels.shape[1], pixels.shape[0]], "at": len(raw)})
        raw.extend(pixels.tobytes())
    return out


def record_warps(raw):
    """Quads that are no rectangles."""
    image = page(420, 300, 1)
    out = []
    for _ in range(14):
        box = turned_rect(RNG.uniform(0, 420), RNG.uniform(0, 300), RNG.uniform(30, 120), RNG.uniform(12, 40), RNG.uniform(-20, 20))
        corners = (mini_box(np.round(box).astype(np.int32))[0] + RNG.uniform(-4, 4, (4, 2))).astype(np.float32)
        pixels, matrix = warp(image, corners)
        out.append({"corners": corners.ravel().tolist(), "matrix": matrix.ravel().tolist(), "size": [pixels.shape[1], pixels.shape[0]], "at": len(raw)})
        raw.extend(pixels.tobytes())
    return out


def record_contours():
    """A mask with holes, single pixels, lines one pixel wide and shapes at the border."""
    size, blobs = (180, 130), random_blobs(180, 130, 26)
    thresh = 0.55
    mask = (probability_map(*size, blobs, 7) > thresh).astype(np.uint8)
    contours, _ = cv2.findContours(mask * 255, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    dilated = cv2.dilate(mask, np.ones((2, 2), np.uint8))
    rects = [mini_box(c) for c in contours]
    return {
        "size": size,
        "blobs": blobs,
        "seed": 7,
        "thresh": thresh,
        "contours": [c.ravel().tolist() for c in contours],
        "rects": [[box.ravel().tolist(), float(side)] for box, side in rects],
        "dilated": crc(dilated),
    }


def record_rects():
    """Point sets on small grids, where rectangles of equal area are common."""
    out = []
    for i in range(300):
        span = [4, 8, 20, 200][i % 4]
        points = RNG.randint(0, span, (RNG.randint(1, 14), 2)).astype(np.int32)
        box, side = mini_box(points.reshape(-1, 1, 2))
        out.append([points.ravel().tolist(), box.ravel().tolist(), float(side)])
    return out


def record_offsets():
    out = []
    for i in range(300):
        angle = [0, RNG.uniform(-5, 5), RNG.uniform(-90, 90)][i % 3]
        box = turned_rect(RNG.uniform(0, 900), RNG.uniform(0, 900), RNG.uniform(3, 300), RNG.uniform(3, 40), angle)
        ratio = float(RNG.choice([1.4, 1.5, 1.6, 2.0]))
        grown, side = mini_box(unclip(box, ratio).reshape(-1, 1, 2))
        out.append([box.ravel().tolist(), ratio, grown.ravel().tolist(), float(side)])
    return out


def record_scores():
    size, blobs = (160, 120), random_blobs(160, 120, 22)
    prob = probability_map(*size, blobs, 11)
    boxes = []
    for i in range(400):
        spread = 20 if i % 4 == 0 else 0
        box = turned_rect(RNG.uniform(-spread, 160 + spread), RNG.uniform(-spread, 120 + spread), RNG.uniform(2, 90), RNG.uniform(2, 25), RNG.uniform(-90, 90))
        boxes.append([box.ravel().tolist(), score_fast(prob, box)])
    contours, _ = cv2.findContours((prob > 0.6).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    slow = [score_slow(prob, c) for c in contours]
    return {"size": size, "blobs": blobs, "seed": 11, "fast": boxes, "slow_thresh": 0.6, "slow": slow}


def record_orders():
    out = []
    for _ in range(12):
        corners = np.stack([RNG.randint(0, 600, 40), RNG.randint(0, 12, 40) * 14 + RNG.randint(0, 9, 40)], axis=1)
        quads = [[[int(x), int(y)]] for x, y in corners]
        out.append({"corners": corners.ravel().tolist(), "order": sort_reading_order(quads)})
    return out


def record_postprocess():
    cases = [
        ((480, 352), (960, 704), 0.3, 0.6, 1.5, "fast", False, 3000),
        ((320, 240), (917, 655), 0.2, 0.45, 1.4, "slow", False, 3000),
        ((224, 320), (201, 333), 0.3, 0.5, 2.0, "fast", True, 3000),
        ((320, 240), (320, 240), 0.3, 0.4, 1.6, "fast", False, 260),
    ]
    out = []
    for seed, (size, image_size, *options) in enumerate(cases, 21):
        blobs = random_blobs(*size, 36)
        prob = probability_map(*size, blobs, seed)
        keys = ("thresh", "box_thresh", "ratio", "mode", "dilation", "max_candidates")
        out.append({"size": size, "blobs": blobs, "seed": seed, "image": image_size, "options": dict(zip(keys, options)), "found": postprocess(prob, image_size, *options)})
    return out


def record_inputs():
    detection = []
    for w, h, limit, limit_type, max_side in [(100, 70, 64, "min", 4000), (96, 64, 64, "min", 4000), (20, 9, 64, "min", 4000), (300, 41, 960, "max", 4000), (150, 200, 128, "resize_long", 4000), (150, 90, 64, "min", 96)]:
        size = detection_size(w, h, limit, limit_type, max_side)
        values = detection_input(page(w, h, 9), size)
        detection.append({"page": [w, h, 9], "limit": limit, "limit_type": limit_type, "max_side": max_side, "size": size, "crc": crc(values)})
    sizes = [[int(RNG.randint(1, 5000)), int(RNG.randint(1, 5000)), int(RNG.choice([64, 736, 960])), str(RNG.choice(["min", "max", "resize_long"])), int(RNG.choice([960, 4000]))] for _ in range(300)]
    detection_sizes = [[*s, detection_size(*s)] for s in sizes]
    recognition = []
    for w, h in [(300, 20), (401, 47), (30, 48), (640, 9), (17, 40), (96, 24)]:
        values = recognition_input(page(w, h, 13))
        recognition.append({"page": [w, h, 13], "width": values.shape[2], "crc": crc(values)})
    orientation = []
    for w, h in [(300, 20), (100, 47), (30, 48)]:
        values = line_input(page(w, h, 17), min(192, math.ceil(48 * (w / h))), 192)
        orientation.append({"page": [w, h, 17], "crc": crc(values)})
    lines = [[int(RNG.randint(5, 900)), int(RNG.randint(6, 60))] for _ in range(100)] + [[6000, 30]]
    widths = {"sizes": lines, "group": 6, "widths": recognition_widths(lines, 6)}
    return {"detection": detection, "detection_sizes": detection_sizes, "recognition": recognition, "orientation": orientation, "widths": widths}


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    raw = bytearray()
    vectors = {
        "versions": {"cv2": cv2.__version__, "pyclipper": pyclipper.__version__, "numpy": np.__version__, "python": sys.version.split()[0]},
        "resize": record_resize(),
        "crops": record_crops(raw),
        "warps": record_warps(raw),
        "contours": record_contours(),
        "rects": record_rects(),
        "offsets": record_offsets(),
        "scores": record_scores(),
        "orders": record_orders(),
        "postprocess": record_postprocess(),
        "inputs": record_inputs(),
    }
    rows = (f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'), default=float)}" for k, v in vectors.items())
    (out / "vectors.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")
    (out / "crops.bin").write_bytes(raw)
    print({k: len(v) for k, v in vectors.items()}, len(raw))


if __name__ == "__main__":
    main()
