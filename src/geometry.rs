//! Points, boxes and polygons: contours, the smallest rectangle, its growth, reading order, crops. Pure.
//!
//! Follows `cv2.findContours`, `cv2.minAreaRect`, `cv2.fillPoly` (OpenCV, Apache-2.0) and Clipper 6's round-join offset as pyclipper
//! calls it (Angus Johnson, Boost licence), re-implemented.

use crate::image::Image;
use crate::resample::{perspective_to_rectangle, warp_cubic};

/// A position in pixels; x to the right, y down.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// To the right.
    pub x: f32,
    /// Down.
    pub y: f32,
}

/// Four corners, clockwise from the top left of the text.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quad(pub [Point; 4]);

impl Quad {
    /// An upright rectangle from (0, 0).
    #[must_use]
    pub fn of_size(w: f32, h: f32) -> Self {
        Self([(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)].map(|(x, y)| Point { x, y }))
    }
}

fn distance(a: Point, b: Point) -> f32 {
    (a.x - b.x).hypot(a.y - b.y)
}

/// The outlines of the non-zero regions of `mask` (w x h), outer ones and holes, the last found first, as `cv2.findContours` with
/// `RETR_LIST` and `CHAIN_APPROX_NONE` (Suzuki and Abe, 1985).
#[must_use]
pub fn find_contours(mask: &[u8], w: usize, h: usize) -> Vec<Vec<(i32, i32)>> {
    // A frame of zeros, so that neighbours always exist.
    let stride = w + 2;
    let mut labels = vec![0i8; stride * (h + 2)];
    for (y, row) in mask.chunks_exact(w.max(1)).enumerate() {
        for (x, &value) in row.iter().enumerate() {
            labels[(y + 1) * stride + x + 1] = i8::from(value != 0);
        }
    }
    let mut contours = Vec::new();
    for y in 1..=h {
        let mut previous = 0i8;
        for x in 1..=w {
            let at = y * stride + x;
            let value = labels[at];
            let outer = previous == 0 && value == 1;
            let hole = value == 0 && previous >= 1;
            if outer {
                contours.push(trace(&mut labels, stride, at, 4));
            } else if hole {
                contours.push(trace(&mut labels, stride, at - 1, 0));
            }
            previous = labels[at];
        }
    }
    contours.reverse();
    contours
}

/// Follows one border from `start`; `from` is the direction (0: right, counter-clockwise in steps of 45 degrees) of the zero pixel that
/// made it a border. Marks visited pixels: 2, or -2 where the border's right neighbour is zero.
fn trace(labels: &mut [i8], stride: usize, start: usize, from: usize) -> Vec<(i32, i32)> {
    let s = stride as isize;
    let offsets = [1, 1 - s, -s, -s - 1, -1, s - 1, s, s + 1];
    let step = |at: usize, direction: usize| (at as isize + offsets[direction & 7]) as usize;
    let position = |at: usize| ((at % stride) as i32 - 1, (at / stride) as i32 - 1);
    // Clockwise from the zero pixel to the first non-zero neighbour.
    let Some(first_direction) = (1..8).map(|k| (from + 8 - k) & 7).find(|&d| labels[step(start, d)] != 0) else {
        labels[start] = -2;
        return vec![position(start)];
    };
    let end = step(start, first_direction);
    let (mut at, mut direction) = (start, first_direction);
    let mut points = Vec::new();
    loop {
        // Counter-clockwise from where we came to the next non-zero neighbour.
        let came_from = direction;
        let mut next = direction;
        loop {
            next = (next + 1) & 7;
            if labels[step(at, next)] != 0 {
                break;
            }
        }
        // The pixel to the right was looked at and is zero: this is the end of a region in its row.
        let passed_right = passed_zero(came_from, next);
        if passed_right {
            labels[at] = -2;
        } else if labels[at] == 1 {
            labels[at] = 2;
        }
        points.push(position(at));
        let following = step(at, next);
        if following == start && at == end {
            return points;
        }
        at = following;
        direction = (next + 4) & 7;
    }
}

/// Whether a counter-clockwise search that began after direction `from` and ended at `to` looked at direction 0 in between.
fn passed_zero(from: usize, to: usize) -> bool {
    (1..8).map(|k| (from + k) & 7).take_while(|&d| d != to).any(|d| d == 0)
}

/// The smallest rectangle around some points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MinAreaRect {
    /// Its corners.
    pub quad: Quad,
    /// Its shorter side, pixels.
    pub short_side: f32,
}

type P = (f64, f64);

fn cross(o: P, a: P, b: P) -> f64 {
    (a.0 - o.0) * (b.1 - o.1) - (a.1 - o.1) * (b.0 - o.0)
}

/// Andrew's monotone chain.
fn convex_hull(mut points: Vec<P>) -> Vec<P> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let mut hull: Vec<P> = Vec::new();
    let mut chain = |points: &mut dyn Iterator<Item = P>| {
        let start = hull.len();
        for point in points {
            while hull.len() >= start + 2 && cross(hull[hull.len() - 2], hull[hull.len() - 1], point) <= 0.0 {
                hull.pop();
            }
            hull.push(point);
        }
        hull.pop();
    };
    chain(&mut points.iter().copied());
    chain(&mut points.iter().rev().copied());
    hull
}

/// The rectangle of least area around the points (`cv2.minAreaRect`), every hull edge tried in f64; corners in the order of PaddleOCR's
/// `get_mini_boxes`: by x, then the left pair and the right pair by y.
#[must_use]
pub fn min_area_rect(points: impl Iterator<Item = (f64, f64)>) -> MinAreaRect {
    let hull = convex_hull(points.filter(|p| p.0.is_finite() && p.1.is_finite()).collect());
    let mut best = (f64::MAX, 0.0, [hull.first().copied().unwrap_or_default(); 4]);
    for (i, &a) in hull.iter().enumerate() {
        let b = hull[(i + 1) % hull.len()];
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        if length == 0.0 {
            continue;
        }
        let (ux, uy) = ((b.0 - a.0) / length, (b.1 - a.1) / length);
        let (mut low, mut high) = ((f64::MAX, f64::MAX), (f64::MIN, f64::MIN));
        for p in &hull {
            let (u, v) = (p.0 * ux + p.1 * uy, p.1 * ux - p.0 * uy);
            low = (low.0.min(u), low.1.min(v));
            high = (high.0.max(u), high.1.max(v));
        }
        let (w, h) = (high.0 - low.0, high.1 - low.1);
        if w * h < best.0 - 1e-9 {
            let corner = |u: f64, v: f64| (u * ux - v * uy, u * uy + v * ux);
            let corners = [corner(low.0, low.1), corner(high.0, low.1), corner(high.0, high.1), corner(low.0, high.1)];
            best = (w * h, w.min(h), corners);
        }
    }
    let corners = best.2.map(|(x, y)| Point { x: x as f32, y: y as f32 });
    MinAreaRect { quad: in_mini_box_order(corners), short_side: best.1 as f32 }
}

fn in_mini_box_order(mut corners: [Point; 4]) -> Quad {
    corners.sort_by(|a, b| a.x.total_cmp(&b.x));
    let [a, b, c, d] = corners;
    let (top_left, bottom_left) = if b.y > a.y { (a, b) } else { (b, a) };
    let (top_right, bottom_right) = if d.y > c.y { (c, d) } else { (d, c) };
    Quad([top_left, top_right, bottom_right, bottom_left])
}

/// Grows the box by `area * ratio / perimeter` with round corners, as pyclipper does (Clipper 6, `JT_ROUND`, arc tolerance 0.25):
/// coordinates are truncated to integers first, the result is integer.
#[must_use]
pub fn unclip(quad: &Quad, ratio: f32) -> Vec<(i64, i64)> {
    let corners = quad.0;
    let pairs = || (0..4).map(|i| (corners[i], corners[(i + 1) % 4]));
    let area: f64 = pairs().map(|(a, b)| f64::from(a.x) * f64::from(b.y) - f64::from(b.x) * f64::from(a.y)).sum::<f64>() / 2.0;
    let perimeter: f64 = pairs().map(|(a, b)| f64::from(distance(a, b))).sum();
    let delta = area.abs() * f64::from(ratio) / perimeter;
    let mut points: Vec<P> = corners.iter().map(|p| (f64::from(p.x.trunc()), f64::from(p.y.trunc()))).collect();
    points.dedup();
    while points.len() > 1 && points.first() == points.last() {
        points.pop();
    }
    if points.len() < 3 || !delta.is_finite() || delta <= 0.0 {
        return points.iter().map(|p| (p.0 as i64, p.1 as i64)).collect();
    }
    let turned: f64 = (0..points.len()).map(|i| (points[i], points[(i + 1) % points.len()])).map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum();
    if turned < 0.0 {
        points.reverse();
    }
    offset_round(&points, delta)
}

fn offset_round(points: &[P], delta: f64) -> Vec<(i64, i64)> {
    let n = points.len();
    let round = |v: f64| if v < 0.0 { (v - 0.5) as i64 } else { (v + 0.5) as i64 };
    let tolerance = 0.25f64.min(delta * 0.25);
    let steps = (std::f64::consts::PI / (1.0 - tolerance / delta).acos()).min(delta * std::f64::consts::PI);
    let (sin, cos) = (std::f64::consts::TAU / steps).sin_cos();
    let steps_per_radian = steps / std::f64::consts::TAU;
    let normal = |i: usize| {
        let (a, b) = (points[i], points[(i + 1) % n]);
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let scale = 1.0 / (dx * dx + dy * dy).sqrt();
        (dy * scale, -dx * scale)
    };
    let mut outline = Vec::new();
    for j in 0..n {
        let (before, after) = (normal((j + n - 1) % n), normal(j));
        let mut put = |direction: P| outline.push((round(points[j].0 + direction.0 * delta), round(points[j].1 + direction.1 * delta)));
        let sin_a = before.0 * after.1 - after.0 * before.1;
        let cos_a = before.0 * after.0 + before.1 * after.1;
        if (sin_a * delta).abs() < 1.0 && cos_a > 0.0 {
            put(before);
            continue;
        }
        let angle = sin_a.clamp(-1.0, 1.0).atan2(cos_a);
        let mut direction = before;
        for _ in 0..round(steps_per_radian * angle.abs()).max(1) {
            put(direction);
            direction = (direction.0 * cos - sin * direction.1, direction.0 * sin + direction.1 * cos);
        }
        put(after);
    }
    outline
}

/// Mean of `map` (w x h) inside a polygon with integer corners, edges included (`cv2.fillPoly` and `cv2.mean`); 0 where it is empty.
#[must_use]
pub fn mean_inside(map: &[f32], w: usize, h: usize, polygon: &[(i32, i32)]) -> f32 {
    let range = |low: i32, high: i32, size: usize| (low.max(0) as usize, (i64::from(high) + 1).clamp(0, size as i64) as usize);
    let bounds = |f: fn(&(i32, i32)) -> i32| (polygon.iter().map(f).min().unwrap_or(0), polygon.iter().map(f).max().unwrap_or(-1));
    let (top, bottom) = bounds(|p| p.1);
    let (mut sum, mut count) = (0.0f64, 0usize);
    let rows = range(top, bottom, h);
    for y in rows.0..rows.1 {
        let mut spans = filled_spans(polygon, y as i32);
        spans.sort_unstable();
        let mut next = 0;
        for (left, right) in spans {
            let (left, right) = range(left, right, w);
            let left = left.max(next);
            if left < right {
                sum += map[y * w + left..y * w + right].iter().map(|&v| f64::from(v)).sum::<f64>();
                count += right - left;
                next = right;
            }
        }
    }
    if count == 0 { 0.0 } else { (sum / count as f64) as f32 }
}

/// What row `y` of the polygon covers: between the crossings of its edges, and the pixels of the edges themselves.
fn filled_spans(polygon: &[(i32, i32)], y: i32) -> Vec<(i32, i32)> {
    let n = polygon.len();
    let mut crossings: Vec<f64> = Vec::new();
    let mut spans: Vec<(i32, i32)> = Vec::new();
    for i in 0..n {
        let (a, b) = (polygon[i], polygon[(i + 1) % n]);
        let (low, high) = (a.1.min(b.1), a.1.max(b.1));
        if y < low || y > high {
            continue;
        }
        if a.1 == b.1 {
            spans.push((a.0.min(b.0), a.0.max(b.0)));
            continue;
        }
        let slope = f64::from(b.0 - a.0) / f64::from(b.1 - a.1);
        let x = f64::from(a.0) + slope * f64::from(y - a.1);
        if y < high {
            crossings.push(x);
        }
        // Bresenham's pixels of a flat edge in this row: those whose own row rounds to y.
        let half = (slope.abs() / 2.0).max(0.0);
        let bound = |v: f64| v.clamp(f64::from(a.0.min(b.0)), f64::from(a.0.max(b.0)));
        let (left, right) = (bound(x - half), bound(x + half));
        if slope.abs() <= 1.0 {
            spans.push((x.round() as i32, x.round() as i32));
        } else {
            spans.push((left.ceil() as i32, right.floor() as i32));
        }
    }
    crossings.sort_by(f64::total_cmp);
    spans.extend(crossings.chunks_exact(2).map(|pair| (pair[0].ceil() as i32, pair[1].floor() as i32)));
    spans
}

/// Dilates a mask by a 2x2 square, as `cv2.dilate(mask, np.ones((2, 2)))`.
#[must_use]
pub fn dilate_2x2(mask: &[u8], w: usize, h: usize) -> Vec<u8> {
    let mut out = mask.to_vec();
    for y in 0..h {
        for x in 0..w {
            let left = x > 0 && mask[y * w + x - 1] != 0;
            let above = y > 0 && mask[(y - 1) * w + x] != 0;
            let both = x > 0 && y > 0 && mask[(y - 1) * w + x - 1] != 0;
            out[y * w + x] |= u8::from(left || above || both);
        }
    }
    out
}

/// The order in which boxes are read: by the first corner's y, then x; neighbours within 10 px of height by x (PaddleOCR's `sorted_boxes`).
#[must_use]
pub fn reading_order(quads: &[Quad]) -> Vec<usize> {
    let corner = |i: usize| quads[i].0[0];
    let mut order: Vec<usize> = (0..quads.len()).collect();
    order.sort_by(|&a, &b| corner(a).y.total_cmp(&corner(b).y).then(corner(a).x.total_cmp(&corner(b).x)));
    for i in 0..order.len().saturating_sub(1) {
        for j in (0..=i).rev() {
            let (upper, lower) = (corner(order[j]), corner(order[j + 1]));
            if (lower.y - upper.y).abs() >= 10.0 || lower.x >= upper.x {
                break;
            }
            order.swap(j, j + 1);
        }
    }
    order
}

/// The rectangle that is cut out for a box: the smallest one around its integer corners (PaddleOCR 3.x).
#[must_use]
pub fn crop_rectangle(quad: &Quad) -> Quad {
    min_area_rect(quad.0.iter().map(|p| (f64::from(p.x.trunc()), f64::from(p.y.trunc())))).quad
}

/// A line this much taller than wide is turned by 90 degrees.
const TALL: f32 = 1.5;

/// Width and height of the crop of a [`crop_rectangle`], before it is turned, and whether it will be.
fn warp_size(rectangle: &Quad) -> (usize, usize, bool) {
    let [a, b, c, d] = rectangle.0;
    let (w, h) = (distance(a, b).max(distance(c, d)) as usize, distance(a, d).max(distance(b, c)) as usize);
    (w, h, w > 0 && h as f32 / w as f32 >= TALL)
}

/// Width and height of the upright crop of a [`crop_rectangle`]; a side may be 0.
#[must_use]
pub fn crop_size(rectangle: &Quad) -> (usize, usize) {
    let (w, h, tall) = warp_size(rectangle);
    if tall { (h, w) } else { (w, h) }
}

/// Cuts a [`crop_rectangle`] out, upright; turned by 180 degrees where it is `upside_down`. None where it is empty.
#[must_use]
pub fn crop(image: &Image, rectangle: &Quad, upside_down: bool) -> Option<Image> {
    let (w, h, tall) = warp_size(rectangle);
    if w == 0 || h == 0 {
        return None;
    }
    let matrix = perspective_to_rectangle(&rectangle.0, w as f64, h as f64)?;
    let pixels = warp_cubic(image, &matrix, w, h);
    let (mut pixels, w, h) = if tall { (turn_left(&pixels, w, h), h, w) } else { (pixels, w, h) };
    if upside_down {
        turn_around(&mut pixels);
    }
    Image::new(w as u32, h as u32, pixels).ok()
}

/// Turns BGR8 pixels by 90 degrees counter-clockwise (`np.rot90`).
fn turn_left(pixels: &[u8], w: usize, h: usize) -> Vec<u8> {
    let columns = (0..w).rev();
    columns.flat_map(|x| (0..h).flat_map(move |y| pixels[(y * w + x) * 3..][..3].iter().copied())).collect()
}

fn turn_around(pixels: &mut [u8]) {
    pixels.reverse();
    for pixel in pixels.chunks_exact_mut(3) {
        pixel.swap(0, 2);
    }
}
