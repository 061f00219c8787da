//! Plane geometry between the detection map and the crops: contours, boxes, their growth, their scores, their order, their crops.
//!
//! Everything follows what `PaddleOCR` 3.x gets from `cv2` 4.x and pyclipper 1.4, step by step and with the same roundings, so that a box
//! here is the box there. The algorithms of `OpenCV` (Apache-2.0) and of Clipper 6.4 by Angus Johnson (BSL-1.0) are re-implemented. The
//! functions of `MinerU` 4 follow `docvortex` 0.6 instead, whose rectangles and crops round elsewhere.
//!
//! Coordinates are pixels, x to the right, y down; a pixel's position is its centre.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::buffer;
use crate::image::Image;
use crate::resample::{
    perspective_transform, perspective_transform_fused, turn_half, turn_left, warp_perspective, warp_perspective_half,
};

/// A position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f32,
    /// Down.
    pub y: f32,
}

/// Four corners, clockwise on the page from the top left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quad(pub [Point; 4]);

/// A closed polygon on whole pixels.
pub type Contour = Vec<(i32, i32)>;

// Contours.

/// Steps to the eight neighbours, from the right against the clock.
const NEIGHBOURS: [(i32, i32); 8] = [(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)];

/// `cv2.findContours(mask, RETR_LIST, CHAIN_APPROX_SIMPLE)`: outer borders and the borders of holes, the last found first.
///
/// `mask` is `height` rows of `width` bytes, non-zero where there is text. The border following of Suzuki and Abe, "Topological structural
/// analysis of digitized binary images by border following", 1985, without the hierarchy, which a list does not need.
#[must_use]
pub fn find_contours(mask: &[u8], width: usize, height: usize) -> Vec<Contour> {
    if width == 0 || height == 0 {
        return Vec::new();
    }
    let mut grid = BorderGrid::new(mask, width, height);
    let mut contours = Vec::new();
    for y in 1..=height {
        grid.scan_row(y, &mut contours);
    }
    contours.reverse();
    contours
}

/// The mask with one empty pixel around it; every pixel is labelled as borders pass it.
struct BorderGrid {
    cells: Vec<i8>,
    stride: usize,
}

impl BorderGrid {
    const EMPTY: i8 = 0;
    const INSIDE: i8 = 1;
    /// On a border.
    const BORDER: i8 = 2;
    /// On a border, with nothing to its right: no hole starts here. Negative, so that one comparison tells.
    const RIGHT_BORDER: i8 = -2;

    fn new(mask: &[u8], width: usize, height: usize) -> Self {
        let stride = width + 2;
        let mut cells = buffer::filled(Self::EMPTY, stride * (height + 2));
        for (row, out) in mask.chunks_exact(width).zip(cells.chunks_exact_mut(stride).skip(1)) {
            for (cell, &byte) in out[1..].iter_mut().zip(row) {
                *cell = i8::from(byte != 0);
            }
        }
        Self { cells, stride }
    }

    /// Follows every border that starts in this row.
    fn scan_row(&mut self, y: usize, contours: &mut Vec<Contour>) {
        let end = (y + 1) * self.stride - 1;
        let mut cell = y * self.stride + 1;
        let mut before = Self::EMPTY;
        loop {
            cell += self.run_of(before, cell, end);
            if cell == end {
                return;
            }
            let here = self.cells[cell];
            if before == Self::EMPTY && here == Self::INSIDE {
                contours.push(self.follow(cell, false));
            } else if here == Self::EMPTY && before > Self::EMPTY {
                contours.push(self.follow(cell - 1, true));
            }
            before = self.cells[cell];
            cell += 1;
        }
    }

    /// How many cells from `start` carry `label`. Most of a page is empty: whole chunks are compared at once.
    fn run_of(&self, label: i8, start: usize, end: usize) -> usize {
        const CHUNK: usize = 32;
        let cells = &self.cells[start..end];
        let differs = |chunk: &[i8]| chunk.iter().fold(0, |all, &cell| all | (cell ^ label)) != 0;
        let skipped = cells.chunks_exact(CHUNK).take_while(|chunk| !differs(chunk)).count() * CHUNK;
        skipped + cells[skipped..].iter().take_while(|&&cell| cell == label).count()
    }

    fn neighbour(&self, cell: usize, direction: usize) -> usize {
        let (dx, dy) = NEIGHBOURS[direction & 7];
        (cell as isize + dy as isize * self.stride as isize + dx as isize) as usize
    }

    /// Follows one border from its first cell and labels it. Only the corners are kept, as `CHAIN_APPROX_SIMPLE` does.
    fn follow(&mut self, start: usize, is_hole: bool) -> Contour {
        let mut at = ((start % self.stride) as i32 - 1, (start / self.stride) as i32 - 1);
        let outside = if is_hole { 0 } else { 4 };
        let entry =
            (1..8).map(|turn| (outside + 8 - turn) & 7).find(|&d| self.cells[self.neighbour(start, d)] != Self::EMPTY);
        let Some(entry) = entry else {
            self.cells[start] = Self::RIGHT_BORDER;
            return vec![at];
        };
        let last = self.neighbour(start, entry);
        let mut contour = Vec::new();
        let (mut cell, mut back, mut heading) = (start, entry, entry ^ 4);
        loop {
            let (next, direction) = self.next_on_border(cell, back);
            if (1..=back).contains(&direction) {
                // The search passed the right neighbour and found it empty.
                self.cells[cell] = Self::RIGHT_BORDER;
            } else if self.cells[cell] == Self::INSIDE {
                self.cells[cell] = Self::BORDER;
            }
            if direction != heading {
                contour.push(at);
                heading = direction;
            }
            if next == start && cell == last {
                return contour;
            }
            at = (at.0 + NEIGHBOURS[direction].0, at.1 + NEIGHBOURS[direction].1);
            cell = next;
            back = direction ^ 4;
        }
    }

    /// The first labelled neighbour against the clock after `back`; `back` itself, where the border came from, at the latest.
    fn next_on_border(&self, cell: usize, back: usize) -> (usize, usize) {
        let direction =
            (back + 1..back + 8).find(|&d| self.cells[self.neighbour(cell, d)] != Self::EMPTY).unwrap_or(back) & 7;
        (self.neighbour(cell, direction), direction)
    }
}

/// `cv2.dilate(mask, np.ones((2, 2)))`: a pixel is set when it, the one to its left, the one above or the one between them is.
///
/// `mask` is `height` rows of `width` bytes, zero or not; the result holds zeros and ones.
#[must_use]
pub fn dilate_2x2(mask: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut out = vec![0; width * height];
    if width == 0 {
        return out;
    }
    for y in 0..height {
        for source in [y.saturating_sub(1), y] {
            let row = &mask[source * width..][..width];
            let target = &mut out[y * width..][..width];
            for (t, &m) in target.iter_mut().zip(row) {
                *t |= u8::from(m != 0);
            }
            for (t, &m) in target[1..].iter_mut().zip(row) {
                *t |= u8::from(m != 0);
            }
        }
    }
    out
}

// The rectangle of least area.

/// The rectangle of least area around some points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MinAreaRect {
    /// Its corners in the order of Paddle's `get_mini_boxes`: of the two left ones the upper first, then the upper right, lower right,
    /// lower left.
    pub corners: [Point; 4],
    /// The shorter of its sides, pixels.
    pub short_side: f32,
}

/// `cv2.minAreaRect` and `cv2.boxPoints`, then Paddle's `get_mini_boxes`.
///
/// Computed in f32 in the order of `OpenCV` 4.x, not in f64: a corner that comes out at 99.99999 there makes a crop one pixel narrower, and of
/// two rectangles of the same area the same one must win. No points give a rectangle without size at the origin.
#[must_use]
pub fn min_area_rect(points: &[(i32, i32)]) -> MinAreaRect {
    let rect = enclose(points, |a, b, c| a * b + c, Sides::rect);
    MinAreaRect { corners: order_corners(rect.corners()), short_side: rect.width.min(rect.height) }
}

/// `minimum_rectangle` and `rectangle_corners` of `docvortex` 0.6, then `get_mini_boxes`: the same calipers with fused multiply-adds, the angle
/// in [-90, 0) degrees, every corner by itself.
#[must_use]
pub fn min_area_rect_fused(points: &[(i32, i32)]) -> MinAreaRect {
    let rect = enclose(points, f32::mul_add, Sides::rect_fused);
    MinAreaRect { corners: order_corners(rect.all_corners()), short_side: rect.width.min(rect.height) }
}

/// `a * b + c`, rounded twice or once.
type MultiplyAdd = fn(f32, f32, f32) -> f32;

fn enclose(points: &[(i32, i32)], multiply_add: MultiplyAdd, rect: fn(&Sides) -> RotatedRect) -> RotatedRect {
    let hull: Vec<Point> = convex_hull(points).iter().map(|&(x, y)| Point { x: x as f32, y: y as f32 }).collect();
    match hull[..] {
        [] => RotatedRect::around(Point { x: 0.0, y: 0.0 }),
        [point] => RotatedRect::around(point),
        [a, b] => RotatedRect::along(a, b),
        _ => rect(&rotating_calipers(&hull, multiply_add)),
    }
}

/// `cv::RotatedRect`.
struct RotatedRect {
    centre: Point,
    width: f32,
    height: f32,
    /// Of the width's side, degrees.
    angle: f32,
}

impl RotatedRect {
    fn around(centre: Point) -> Self {
        Self { centre, width: 0.0, height: 0.0, angle: 0.0 }
    }

    /// The rectangle without height that two points make.
    fn along(a: Point, b: Point) -> Self {
        let centre = Point { x: (a.x + b.x) * 0.5, y: (a.y + b.y) * 0.5 };
        let side = minus(b, a);
        Self { centre, width: length(side), height: 0.0, angle: degrees(side) }
    }

    /// `cv::RotatedRect::points`.
    fn corners(&self) -> [Point; 4] {
        let [first, second, ..] = self.all_corners();
        let opposite = |p: Point| Point { x: 2.0 * self.centre.x - p.x, y: 2.0 * self.centre.y - p.y };
        [first, second, opposite(first), opposite(second)]
    }

    /// The same, but the last two are not mirrored.
    fn all_corners(&self) -> [Point; 4] {
        let angle = f64::from(self.angle) * std::f64::consts::PI / 180.0;
        let b = angle.cos() as f32 * 0.5;
        let a = angle.sin() as f32 * 0.5;
        let Self { centre, width, height, .. } = *self;
        [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(up, along)| Point {
            x: centre.x + up * (a * height) + along * (b * width),
            y: centre.y - up * (b * height) + along * (a * width),
        })
    }
}

/// A rectangle by its centre and two of its sides.
struct Sides {
    centre: Point,
    along: Point,
    up: Point,
}

impl Sides {
    fn rect(&self) -> RotatedRect {
        let Self { centre, along, up } = *self;
        RotatedRect { centre, width: length(along), height: length(up), angle: degrees(along) }
    }

    fn rect_fused(&self) -> RotatedRect {
        let Self { centre, along, up } = *self;
        if along.x == 0.0 && along.y > 0.0 {
            return RotatedRect { centre, width: length(along), height: length(up), angle: -90.0 };
        }
        let angle = -f64::from(along.x).atan2(f64::from(along.y)).to_degrees() as f32;
        RotatedRect { centre, width: length(up), height: length(along), angle }
    }
}

/// The angle of a side, degrees, through the roundings of `cv2.minAreaRect`.
fn degrees(side: Point) -> f32 {
    let radians = f64::from(side.y).atan2(f64::from(side.x)) as f32;
    (f64::from(radians * 180.0) / std::f64::consts::PI) as f32
}

fn length(side: Point) -> f32 {
    let (x, y) = (f64::from(side.x), f64::from(side.y));
    (x * x + y * y).sqrt() as f32
}

fn minus(a: Point, b: Point) -> Point {
    Point { x: a.x - b.x, y: a.y - b.y }
}

/// Paddle's `get_mini_boxes`: sorted by x, then each pair by y. The sort is stable, as Python's.
fn order_corners(mut corners: [Point; 4]) -> [Point; 4] {
    corners.sort_by(|a, b| compare(a.x, b.x));
    let [a, b, c, d] = corners;
    let (top_left, bottom_left) = if b.y > a.y { (a, b) } else { (b, a) };
    let (top_right, bottom_right) = if d.y > c.y { (c, d) } else { (d, c) };
    [top_left, top_right, bottom_right, bottom_left]
}

/// Zeros of either sign are equal, unlike in `f32::total_cmp`.
fn compare(a: f32, b: f32) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

/// `cv2.convexHull`: the corners only, from the rightmost (the lowest such) over the lowest.
///
/// Where the hull runs along the input, it starts at the input's first or last point of it, as in cv2: the start decides which of two
/// equally small rectangles the calipers meet last.
fn convex_hull(points: &[(i32, i32)]) -> Vec<(i32, i32)> {
    let mut sorted: Vec<usize> = (0..points.len()).collect();
    sorted.sort_by_key(|&i| (points[i], i));
    sorted.dedup_by_key(|i| points[*i]);
    if sorted.len() < 3 {
        return sorted.iter().rev().map(|&i| points[i]).collect();
    }
    let mut hull = Vec::new();
    extend_chain(points, sorted.iter().rev(), &mut hull);
    extend_chain(points, sorted.iter(), &mut hull);
    start_as_input(&mut hull);
    hull.iter().map(|&i| points[i]).collect()
}

/// Andrew's monotone chain: one half of the hull, without its last point.
fn extend_chain<'a>(points: &[(i32, i32)], sorted: impl Iterator<Item = &'a usize>, hull: &mut Vec<usize>) {
    let first = hull.len();
    for &next in sorted {
        while let [.., a, b] = hull[first..] {
            if turn(points[a], points[b], points[next]) < 0 {
                break;
            }
            hull.pop();
        }
        hull.push(next);
    }
    hull.pop();
}

/// Twice the signed area of a triangle. Negative: the turn at `b` is the hull's.
fn turn(a: (i32, i32), b: (i32, i32), c: (i32, i32)) -> i128 {
    let wide = |p: (i32, i32)| (i128::from(p.0), i128::from(p.1));
    let (a, b, c) = (wide(a), wide(b), wide(c));
    (b.1 - a.1) * (c.0 - b.0) - (b.0 - a.0) * (c.1 - b.1)
}

/// Rotates the hull's indices into ascending or descending order, if one rotation does that.
fn start_as_input(hull: &mut [usize]) {
    if hull.len() < 3 {
        return;
    }
    let position = |wanted: Option<&usize>| hull.iter().position(|i| Some(i) == wanted).unwrap_or(0);
    let (low, high) = (position(hull.iter().min()), position(hull.iter().max()));
    let rotated = |start: usize| hull[start..].iter().chain(&hull[..start]);
    if rotated(low).is_sorted() {
        hull.rotate_left(low);
    } else if rotated(high).is_sorted_by(|a, b| a > b) {
        hull.rotate_left(high);
    }
}

/// `vector` after `quarters` quarter turns with the clock of a y that points up.
fn quarter_turns(vector: Point, quarters: usize) -> Point {
    let Point { x, y } = vector;
    match quarters {
        0 => vector,
        1 => Point { x: y, y: -x },
        2 => Point { x: -x, y: -y },
        _ => Point { x: -y, y: x },
    }
}

/// cv2's `firstVecIsRight`.
fn is_right_of(a: Point, b: Point, multiply_add: MultiplyAdd) -> bool {
    let a = quarter_turns(a, 1);
    multiply_add(a.x, b.x, a.y * b.y) < 0.0
}

/// cv2's `rotatingCalipers`: four lines around a hull of three points or more turn together from edge to edge.
fn rotating_calipers(hull: &[Point], multiply_add: MultiplyAdd) -> Sides {
    let n = hull.len();
    let edges: Vec<Point> = (0..n).map(|i| minus(hull[(i + 1) % n], hull[i])).collect();
    // Points that the low, right, high and left lines touch; the extremes met first.
    let extreme =
        |key: fn(Point) -> f32| (1..n).fold(0, |best, i| if key(hull[i]) < key(hull[best]) { i } else { best });
    let mut touching = [extreme(|p| p.y), extreme(|p| -p.x), extreme(|p| -p.y), extreme(|p| p.x)];
    let mut best = Caliper::default();
    for _ in 0..n {
        let ahead: [Point; 4] = std::array::from_fn(|i| quarter_turns(edges[touching[i]], i));
        let lead = (1..4).fold(0, |lead, i| if is_right_of(ahead[i], ahead[lead], multiply_add) { i } else { lead });
        let inverse = inverse_length(ahead[lead]);
        let base = Point { x: ahead[lead].x * inverse, y: ahead[lead].y * inverse };
        touching[lead] = (touching[lead] + 1) % n;
        let here = Caliper::new(hull, touching, base, multiply_add);
        // Of equal areas the last wins, as in cv2.
        if here.area <= best.area {
            best = here;
        }
    }
    best.sides(multiply_add)
}

/// `1 / |v|`, rounded once.
fn inverse_length(v: Point) -> f32 {
    let (x, y) = (f64::from(v.x), f64::from(v.y));
    (1.0 / (x * x + y * y).sqrt()) as f32
}

/// One position of the calipers.
struct Caliper {
    /// Unit vector along the low line.
    base: Point,
    low: Point,
    left: Point,
    width: f32,
    height: f32,
    area: f32,
}

impl Default for Caliper {
    fn default() -> Self {
        let zero = Point { x: 0.0, y: 0.0 };
        Self { base: zero, low: zero, left: zero, width: 0.0, height: 0.0, area: f32::MAX }
    }
}

impl Caliper {
    fn new(hull: &[Point], touching: [usize; 4], base: Point, multiply_add: MultiplyAdd) -> Self {
        let [low, right, high, left] = touching.map(|i| hull[i]);
        let across = minus(right, left);
        let up = minus(high, low);
        let width = multiply_add(across.x, base.x, across.y * base.y);
        let height = multiply_add(-up.x, base.y, up.y * base.x);
        Self { base, low, left, width, height, area: width * height }
    }

    fn sides(&self, multiply_add: MultiplyAdd) -> Sides {
        let Self { base: Point { x: a, y: b }, low, left, width, height, .. } = *self;
        // The corner is where the left and the low line meet.
        let c1 = multiply_add(a, left.x, left.y * b);
        let c2 = multiply_add(-b, low.x, low.y * a);
        let scale = 1.0 / multiply_add(a, a, b * b);
        let corner = Point { x: multiply_add(c1, a, -c2 * b) * scale, y: multiply_add(a, c2, b * c1) * scale };
        let along = Point { x: a * width, y: b * width };
        let up = Point { x: -b * height, y: a * height };
        let centre = Point { x: corner.x + (along.x + up.x) * 0.5, y: corner.y + (along.y + up.y) * 0.5 };
        Sides { centre, along, up }
    }
}

// Growing a box.

/// Paddle's `unclip`: the quad, grown by `area * ratio / perimeter` on every side, with round corners.
///
/// Area and perimeter are those of the exact quad (`cv2.contourArea`, `cv2.arcLength`); the offset then starts from its corners truncated
/// to integers and gives integers, as pyclipper does. Fewer than three different truncated corners, or no area, give nothing.
#[must_use]
pub fn unclip(quad: &Quad, ratio: f32) -> Contour {
    let perimeter = perimeter(quad);
    // The ratio was written as a decimal (1.4) and Python multiplies by that double, not by the f32 nearest to it.
    let ratio = (f64::from(ratio) * 1e6).round() / 1e6;
    let distance = area(quad) * ratio / perimeter;
    let polygon = clipper_path(quad);
    // A quad without perimeter has a distance that is not a number, which no range contains.
    if !(0.0..=f64::from(i32::MAX)).contains(&distance) || polygon.len() < 3 {
        return Vec::new();
    }
    if distance < CLIPPER_NEAR_ZERO {
        return polygon;
    }
    RoundOffset::new(polygon, distance).run()
}

/// Clipper copies the path for offsets below this (`NEAR_ZERO`).
const CLIPPER_NEAR_ZERO: f64 = 1e-20;

/// `cv2.contourArea` of an f32 quad.
fn area(Quad(corners): &Quad) -> f64 {
    let mut sum = 0.0;
    let mut before = corners[3];
    for &here in corners {
        sum += f64::from(before.x) * f64::from(here.y) - f64::from(before.y) * f64::from(here.x);
        before = here;
    }
    (sum * 0.5).abs()
}

/// `cv2.arcLength` of a closed f32 quad: f32 lengths, summed in f64.
fn perimeter(Quad(corners): &Quad) -> f64 {
    (0..4).map(|i| f64::from(distance(corners[i], corners[(i + 3) % 4]))).sum()
}

pub(crate) fn distance(a: Point, b: Point) -> f32 {
    let d = minus(a, b);
    (d.x * d.x + d.y * d.y).sqrt()
}

/// The corners as Clipper takes them: integers, no repetition, area positive.
fn clipper_path(Quad(corners): &Quad) -> Contour {
    let mut path: Contour = corners.iter().map(|p| (p.x as i32, p.y as i32)).collect();
    path.dedup();
    while path.len() > 1 && path.first() == path.last() {
        path.pop();
    }
    let twice_area: i128 = (0..path.len()).map(|i| cross(path[i], path[(i + 1) % path.len()])).sum();
    if twice_area < 0 {
        path.reverse();
    }
    path
}

fn cross(a: (i32, i32), b: (i32, i32)) -> i128 {
    i128::from(a.0) * i128::from(b.1) - i128::from(b.0) * i128::from(a.1)
}

/// `ClipperOffset` with `jtRound`, `etClosedPolygon` and a positive delta, for one polygon that is convex or nearly so.
///
/// The union that Clipper runs afterwards only removes points on straight lines and the small loops of concave corners: neither is on the
/// hull of the result, which is all that is asked of it.
struct RoundOffset {
    polygon: Contour,
    normals: Vec<(f64, f64)>,
    delta: f64,
    steps_per_radian: f64,
    /// Sine and cosine of one step.
    step: (f64, f64),
    out: Contour,
}

impl RoundOffset {
    /// Clipper's `ArcTolerance`, pixels, and the part of delta that bounds it (`def_arc_tolerance`).
    const ARC_TOLERANCE: f64 = 0.25;

    fn new(polygon: Contour, delta: f64) -> Self {
        use std::f64::consts::{PI, TAU};
        let tolerance = Self::ARC_TOLERANCE.min(delta * Self::ARC_TOLERANCE);
        // Steps of a full turn.
        let steps = (PI / (1.0 - tolerance / delta).acos()).min(delta * PI);
        let normals = (0..polygon.len()).map(|i| unit_normal(polygon[i], polygon[(i + 1) % polygon.len()])).collect();
        Self { polygon, normals, delta, steps_per_radian: steps / TAU, step: (TAU / steps).sin_cos(), out: Vec::new() }
    }

    fn run(mut self) -> Contour {
        let mut before = self.polygon.len() - 1;
        for corner in 0..self.polygon.len() {
            if self.offset_corner(corner, before) {
                before = corner;
            }
        }
        self.out
    }

    /// `OffsetPoint`: the corner between edge `before` and edge `corner`. False: almost straight, the next corner joins the same edge.
    fn offset_corner(&mut self, corner: usize, before: usize) -> bool {
        let (a, b) = (self.normals[before], self.normals[corner]);
        let sine = a.0 * b.1 - b.0 * a.1;
        let cosine = a.0 * b.0 + a.1 * b.1;
        if (sine * self.delta).abs() < 1.0 && cosine > 0.0 {
            self.push(corner, a);
            return false;
        }
        if sine * self.delta < 0.0 {
            self.push(corner, a);
            self.out.push(self.polygon[corner]);
            self.push(corner, b);
        } else {
            self.round_corner(corner, a, b, sine.clamp(-1.0, 1.0).atan2(cosine));
        }
        true
    }

    /// `DoRound`: an arc from normal `a` to normal `b`.
    fn round_corner(&mut self, corner: usize, a: (f64, f64), b: (f64, f64), angle: f64) {
        let (sine, cosine) = self.step;
        let steps = clipper_round(self.steps_per_radian * angle.abs()).max(1);
        let (mut x, mut y) = a;
        for _ in 0..steps {
            self.push(corner, (x, y));
            (x, y) = (x * cosine - sine * y, x * sine + y * cosine);
        }
        self.push(corner, b);
    }

    fn push(&mut self, corner: usize, normal: (f64, f64)) {
        let (x, y) = self.polygon[corner];
        let along = |at: i32, n: f64| clipper_round(f64::from(at) + n * self.delta);
        self.out.push((along(x, normal.0), along(y, normal.1)));
    }
}

/// Half away from zero, as Clipper's `Round`.
fn clipper_round(value: f64) -> i32 {
    (if value < 0.0 { value - 0.5 } else { value + 0.5 }) as i32
}

/// `GetUnitNormal`; the points differ.
fn unit_normal(a: (i32, i32), b: (i32, i32)) -> (f64, f64) {
    let (dx, dy) = (f64::from(b.0) - f64::from(a.0), f64::from(b.1) - f64::from(a.1));
    let scale = 1.0 / (dx * dx + dy * dy).sqrt();
    (dy * scale, -(dx * scale))
}

// Scores.

/// Paddle's `box_score_fast`: the mean of the map in the box, its corners truncated to pixels.
///
/// `map` is `height` rows of `width` probabilities. A box outside the map scores 0.
#[must_use]
pub fn score_fast(map: &[f32], width: usize, height: usize, quad: &Quad) -> f32 {
    let xs = quad.0.map(|p| p.x);
    let ys = quad.0.map(|p| p.y);
    let low = |values: [f32; 4]| values.into_iter().fold(f32::INFINITY, f32::min).floor() as i64;
    let high = |values: [f32; 4]| values.into_iter().fold(f32::NEG_INFINITY, f32::max).ceil() as i64;
    let Some(window) = Window::new(map, width, height, [low(xs), low(ys), high(xs), high(ys)]) else {
        return 0.0;
    };
    let corners = quad.0.map(|p| ((p.x - window.left as f32) as i32, (p.y - window.top as f32) as i32));
    window.mean(&corners)
}

/// Paddle's `box_score_slow`: the mean of the map inside the contour, its border included.
///
/// `map` is `height` rows of `width` probabilities.
#[must_use]
pub fn score_slow(map: &[f32], width: usize, height: usize, contour: &[(i32, i32)]) -> f32 {
    let xs = || contour.iter().map(|p| i64::from(p.0));
    let ys = || contour.iter().map(|p| i64::from(p.1));
    let (Some(left), Some(top), Some(right), Some(bottom)) = (xs().min(), ys().min(), xs().max(), ys().max()) else {
        return 0.0;
    };
    let Some(window) = Window::new(map, width, height, [left, top, right, bottom]) else {
        return 0.0;
    };
    let (left, top) = (window.left as i32, window.top as i32);
    let polygon: Contour = contour.iter().map(|p| (p.0.saturating_sub(left), p.1.saturating_sub(top))).collect();
    window.mean(&polygon)
}

/// The part of a map that a box covers.
struct Window<'a> {
    map: &'a [f32],
    stride: usize,
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl<'a> Window<'a> {
    /// `bounds`: left, top, right, bottom, inclusive; clipped to the map. `None`: the map is empty, or no corner is a number.
    fn new(map: &'a [f32], width: usize, height: usize, bounds: [i64; 4]) -> Option<Self> {
        if width == 0 || height == 0 {
            return None;
        }
        let column = |x: i64| x.clamp(0, width as i64 - 1) as usize;
        let row = |y: i64| y.clamp(0, height as i64 - 1) as usize;
        let [left, top, right, bottom] = [column(bounds[0]), row(bounds[1]), column(bounds[2]), row(bounds[3])];
        if right < left || bottom < top {
            return None;
        }
        Some(Self { map, stride: width, left, top, width: right + 1 - left, height: bottom + 1 - top })
    }

    /// `cv2.mean` under the mask of `cv2.fillPoly`; the polygon is relative to the window.
    fn mean(&self, polygon: &[(i32, i32)]) -> f32 {
        let mask = fill_polygon(self.width, self.height, polygon);
        let (mut sum, mut count) = (0.0, 0u32);
        for (y, selected) in mask.chunks_exact(self.width).enumerate() {
            let values = &self.map[(self.top + y) * self.stride + self.left..][..self.width];
            for (&value, &inside) in values.iter().zip(selected) {
                if inside != 0 {
                    sum += f64::from(value);
                    count += 1;
                }
            }
        }
        if count == 0 { 0.0 } else { (sum / f64::from(count)) as f32 }
    }
}

/// `steps * rise / run`, truncated.
fn along(steps: i64, rise: i64, run: i64) -> i64 {
    (steps as f64 * rise as f64 / run as f64) as i64
}

/// Fixed-point bits of the positions on a polygon's edges (`XY_SHIFT`).
const EDGE_BITS: u32 = 16;

/// Corners beyond this are moved to it, pixels: further out than any map is wide, and the fixed-point products stay in 64 bits.
const FAR: i32 = 1 << 20;

/// `cv2.fillPoly` with 1 on zeros, `height` rows of `width`: the edges as 8-connected lines, then the rows between them, even-odd.
///
/// The roundings are those of `OpenCV` 4.10, which `PaddleOCR` 3.7 requires; 4.11 chose others for slanted edges.
fn fill_polygon(width: usize, height: usize, polygon: &[(i32, i32)]) -> Vec<u8> {
    let mut canvas = Canvas { width: width as i64, height: height as i64, cells: vec![0; width * height] };
    let bounded = |at: i32| i64::from(at.clamp(-FAR, FAR));
    let wide = |p: (i32, i32)| (bounded(p.0), bounded(p.1));
    let Some(mut before) = polygon.last().map(|&p| wide(p)) else {
        return canvas.cells;
    };
    // (row, fixed-point column) of every crossing of an edge and a row.
    let mut crossings = Vec::new();
    for here in polygon.iter().map(|&p| wide(p)) {
        let drawn = canvas.draw_line(before, here);
        canvas.collect_crossings(before, here, drawn, &mut crossings);
        before = here;
    }
    crossings.sort_unstable();
    for pair in crossings.chunks_exact(2) {
        canvas.fill_row(pair[0].0, pair[0].1 >> EDGE_BITS, pair[1].1 >> EDGE_BITS);
    }
    canvas.cells
}

struct Canvas {
    width: i64,
    height: i64,
    cells: Vec<u8>,
}

impl Canvas {
    /// Bits: left, right, above, below.
    fn outside(&self, (x, y): (i64, i64)) -> u8 {
        u8::from(x < 0) | u8::from(x >= self.width) << 1 | u8::from(y < 0) << 2 | u8::from(y >= self.height) << 3
    }

    /// `cv2.line` of thickness 1 (`LineIterator`, 8-connected, left to right). Returns the ends after clipping.
    fn draw_line(&mut self, a: (i64, i64), b: (i64, i64)) -> [(i64, i64); 2] {
        let ends @ [a, b] = self.clip_line(a, b);
        if self.outside(a) != 0 || self.outside(b) != 0 {
            return ends;
        }
        let (start, end) = if b.0 < a.0 { (b, a) } else { (a, b) };
        let (dx, dy) = (end.0 - start.0, end.1 - start.1);
        let down = dy.signum();
        let (long, short) = (dx.max(dy.abs()), dx.min(dy.abs()));
        let (along, aside) = if dy.abs() > dx { ((0, down), (1, 0)) } else { ((1, 0), (0, down)) };
        let mut error = long - 2 * short;
        let (mut x, mut y) = start;
        for _ in 0..=long {
            self.cells[(y * self.width + x) as usize] = 1;
            if error < 0 {
                error += 2 * long;
                (x, y) = (x + aside.0, y + aside.1);
            }
            error -= 2 * short;
            (x, y) = (x + along.0, y + along.1);
        }
        ends
    }

    /// cv2's `CollectPolyEdges`, then the walk of `FillEdgeCollection` down the edge from `a` to `b`.
    fn collect_crossings(&self, a: (i64, i64), b: (i64, i64), drawn: [(i64, i64); 2], crossings: &mut Vec<(i64, i64)>) {
        if a.1 == b.1 {
            return;
        }
        let [(ax, ay), (bx, by)] = self.edge_ends(a, b, drawn);
        let slope = (bx - ax) / (by - ay);
        let (top, bottom, x) =
            if a.1 < b.1 { (a.1, b.1, ax + (a.1 - ay) * slope) } else { (b.1, a.1, bx + (b.1 - by) * slope) };
        crossings.extend((top.max(0)..bottom.min(self.height)).map(|y| (y, x + (y - top) * slope)));
    }

    /// The ends of an edge, x in fixed point: rounded if it is all on the canvas, those of the clipped line otherwise.
    fn edge_ends(&self, a: (i64, i64), b: (i64, i64), drawn: [(i64, i64); 2]) -> [(i64, i64); 2] {
        let fixed = |(x, y): (i64, i64), rounding: i64| ((x << EDGE_BITS) + rounding, y);
        if self.outside(a) | self.outside(b) == 0 {
            return [a, b].map(|p| fixed(p, 1 << (EDGE_BITS - 1)));
        }
        let is_level = drawn[0].1 == drawn[1].1;
        (if is_level { [a, b] } else { drawn }).map(|p| fixed(p, 0))
    }

    /// `cv2.clipLine`, its truncations included; ends that are still outside mean that nothing is visible.
    fn clip_line(&self, mut a: (i64, i64), mut b: (i64, i64)) -> [(i64, i64); 2] {
        if self.needs_clipping(a, b) {
            a = self.clip_to_rows(a, b);
            b = self.clip_to_rows(b, a);
        }
        if self.needs_clipping(a, b) {
            a = self.clip_to_columns(a, b);
            b = self.clip_to_columns(b, a);
        }
        [a, b]
    }

    fn needs_clipping(&self, a: (i64, i64), b: (i64, i64)) -> bool {
        let (a, b) = (self.outside(a), self.outside(b));
        a & b == 0 && a | b != 0
    }

    /// Moves `a` along the line to `b` onto the nearest row of the canvas.
    fn clip_to_rows(&self, a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
        let y = a.1.clamp(0, self.height - 1);
        if y == a.1 { a } else { (a.0 + along(y - a.1, b.0 - a.0, b.1 - a.1), y) }
    }

    /// Moves `a` along the line to `b` onto the nearest column of the canvas.
    fn clip_to_columns(&self, a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
        let x = a.0.clamp(0, self.width - 1);
        if x == a.0 { a } else { (x, a.1 + along(x - a.0, b.1 - a.1, b.0 - a.0)) }
    }

    /// Fills from `left` to `right`, inclusive, as far as they are on the canvas.
    fn fill_row(&mut self, row: i64, left: i64, right: i64) {
        let (left, right) = (left.max(0), right.min(self.width - 1));
        if left <= right {
            let row = row * self.width;
            self.cells[(row + left) as usize..=(row + right) as usize].fill(1);
        }
    }
}

// Reading order.

/// Where text runs to on a page; as a number, the corner of a line's quad at which the reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// As on an upright page.
    Right = 0,
    /// The page was turned right; also Chinese in columns.
    Down = 1,
    /// Upside down.
    Left = 2,
    /// The page was turned left.
    Up = 3,
}

impl Direction {
    /// Of a line whose crop was turned left if it is `sideways`, and then by 180 degrees if it is `turned`.
    #[must_use]
    pub fn of(sideways: bool, turned: bool) -> Self {
        match (sideways, turned) {
            (false, false) => Self::Right,
            (false, true) => Self::Left,
            (true, false) => Self::Down,
            (true, true) => Self::Up,
        }
    }

    /// The same on a page that was turned left once more.
    #[must_use]
    pub fn turned_left(self) -> Self {
        match self {
            Self::Right => Self::Up,
            Self::Down => Self::Right,
            Self::Left => Self::Down,
            Self::Up => Self::Left,
        }
    }

    /// The top left corner of a quad as the reader sees it, on axes turned with him.
    fn first_corner(self, Quad(corners): &Quad) -> Point {
        match self {
            Self::Right => corners[0],
            Self::Left => Point { x: -corners[2].x, y: -corners[2].y },
            Self::Down => Point { x: corners[1].y, y: -corners[1].x },
            Self::Up => Point { x: -corners[3].y, y: corners[3].x },
        }
    }
}

/// Where the greatest length of text runs to; `Right` where there is none.
#[must_use]
pub fn main_direction(quads: &[Quad], directions: impl Iterator<Item = Direction>) -> Direction {
    let mut lengths = [(Direction::Right, 0.0), (Direction::Down, 0.0), (Direction::Up, 0.0), (Direction::Left, 0.0)];
    for (Quad([a, b, c, _]), direction) in quads.iter().zip(directions) {
        for (_, length) in lengths.iter_mut().filter(|(of, _)| *of == direction) {
            *length += distance(*a, *b).max(distance(*b, *c));
        }
    }
    let mut main = lengths[0];
    for other in lengths {
        if other.1 > main.1 {
            main = other;
        }
    }
    main.0
}

/// Indices of the quads from top to bottom, and from left to right where two first corners differ by less than 10 pixels in y, as a reader
/// sees them for whom text runs `towards`. For an upright page it is Paddle's `SortQuadBoxes`.
#[must_use]
pub fn sort_reading_order(quads: &[Quad], towards: Direction) -> Vec<usize> {
    /// Pixels of the page.
    const SAME_LINE: f32 = 10.0;
    let corner = |i: usize| towards.first_corner(&quads[i]);
    let mut order: Vec<usize> = (0..quads.len()).collect();
    order.sort_by(|&a, &b| compare(corner(a).y, corner(b).y).then(compare(corner(a).x, corner(b).x)));
    for end in 1..order.len() {
        for i in (0..end).rev() {
            let (a, b) = (corner(order[i]), corner(order[i + 1]));
            if (b.y - a.y).abs() >= SAME_LINE || b.x >= a.x {
                break;
            }
            order.swap(i, i + 1);
        }
    }
    order
}

/// The corners in the order of 2.x (`order_points_clockwise`): least sum of x and y, then of the other two the one with the lesser y - x,
/// greatest sum, the remaining one.
pub(crate) fn clockwise_by_sums(Quad(corners): &Quad) -> Quad {
    // The first of equals, as numpy's argmin and argmax have it.
    let first = |of: &dyn Fn(Point) -> f32, among: &[Point]| {
        (1..among.len()).fold(0, |best, i| if of(among[i]) < of(among[best]) { i } else { best })
    };
    let (least, greatest) = (first(&|p| p.x + p.y, corners), first(&|p| -(p.x + p.y), corners));
    let others: Vec<Point> = (0..4).filter(|&i| i != least && i != greatest).map(|i| corners[i]).collect();
    let (right, left) = (first(&|p| p.y - p.x, &others), first(&|p| p.x - p.y, &others));
    Quad([corners[least], others[right], corners[greatest], others[left]])
}

/// The corners in the order of `RapidOCR` and `MinerU` (`order_points_clockwise`): of the two leftmost the upper one, of the others the upper
/// one, the lower one, and the lower one of the leftmost.
pub(crate) fn clockwise_by_x(Quad(corners): &Quad) -> Quad {
    let mut by_x = *corners;
    by_x.sort_by(|a, b| compare(a.x, b.x));
    for pair in by_x.chunks_mut(2) {
        pair.sort_by(|a, b| compare(a.y, b.y));
    }
    let [top_left, bottom_left, top_right, bottom_right] = by_x;
    Quad([top_left, top_right, bottom_right, bottom_left])
}

/// Indices of the quads in the order of `RapidOCR` 3.10 (`sorted_boxes`): rows from top to bottom, each from left to right. A row ends where
/// the next first corner is 10 pixels or more lower, so a row may be higher than that.
#[must_use]
pub fn sort_rows(quads: &[Quad]) -> Vec<usize> {
    /// Pixels of the page.
    const NEXT_ROW: f32 = 10.0;
    let corner = |i: usize| quads[i].0[0];
    let mut order: Vec<usize> = (0..quads.len()).collect();
    order.sort_by(|&a, &b| compare(corner(a).y, corner(b).y));
    for row in order.chunk_by_mut(|&a, &b| corner(b).y - corner(a).y < NEXT_ROW) {
        row.sort_by(|&a, &b| compare(corner(a).x, corner(b).x));
    }
    order
}

// Crops.

/// A crop at least this many times as high as wide holds vertical text and is turned.
const TALL: f64 = 1.5;

/// The rectangle that is cut out for a detected quad: the one of least area around its corners, truncated to integers (3.x
/// `get_minarea_rect_crop`).
#[must_use]
pub fn crop_quad(quad: &Quad) -> Quad {
    let corners = quad.0.map(|p| (p.x as i32, p.y as i32));
    Quad(min_area_rect(&corners).corners)
}

/// Width and height of the crop of a detected quad, and whether it was turned by a quarter. Zeros where the crop is empty.
#[must_use]
pub fn crop_size(quad: &Quad) -> (usize, usize, bool) {
    let (width, height) = upright_size(quad);
    if width == 0 || height == 0 {
        return (0, 0, false);
    }
    if is_tall(width, height) { (height, width, true) } else { (width, height, false) }
}

fn upright_size(Quad([a, b, c, d]): &Quad) -> (usize, usize) {
    let width = distance(*a, *b).max(distance(*c, *d));
    let height = distance(*a, *d).max(distance(*b, *c));
    (width as usize, height as usize)
}

fn is_tall(width: usize, height: usize) -> bool {
    height as f64 / width as f64 >= TALL
}

/// An image that is a line, turned by 180 degrees if it is `upside_down`.
#[must_use]
pub fn whole(image: &Image, upside_down: bool) -> Option<Cow<'_, Image>> {
    if !upside_down {
        return Some(Cow::Borrowed(image));
    }
    let mut pixels = image.pixels().to_vec();
    turn_half(&mut pixels);
    Image::new(image.width(), image.height(), pixels).ok().map(Cow::Owned)
}

/// Cuts a detected quad out of its page: straightened, a tall crop turned a quarter against the clock, then the half turn if `upside_down`.
///
/// `None` where the crop is empty.
#[must_use]
pub fn crop(image: &Image, quad: &Quad, upside_down: bool) -> Option<Image> {
    straighten(image, quad, upside_down, |image, target, width, height| {
        warp_perspective(image, &perspective_transform(&quad.0, target), width, height)
    })
}

/// The same with the roundings of `MinerU` 4, which warps by `docvortex` 0.6: [`warp_perspective_half`].
#[must_use]
pub fn crop_half(image: &Image, quad: &Quad) -> Option<Image> {
    straighten(image, quad, false, |image, target, width, height| {
        warp_perspective_half(image, &perspective_transform_fused(&quad.0, target), width, height)
    })
}

/// `warp`: the pixels of the image that become an upright rectangle, given its corners, width and height.
fn straighten(
    image: &Image,
    quad: &Quad,
    upside_down: bool,
    warp: impl Fn(&Image, &[Point; 4], usize, usize) -> Vec<u8>,
) -> Option<Image> {
    let (width, height) = upright_size(quad);
    if width == 0 || height == 0 || image.pixels().is_empty() {
        return None;
    }
    let (right, bottom) = (width as f32, height as f32);
    let target = [(0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom)].map(|(x, y)| Point { x, y });
    let mut pixels = warp(image, &target, width, height);
    let turned = is_tall(width, height);
    if turned {
        pixels = turn_left(&pixels, width, height);
    }
    if upside_down {
        turn_half(&mut pixels);
    }
    if turned {
        Image::new(height as u32, width as u32, pixels).ok()
    } else {
        Image::new(width as u32, height as u32, pixels).ok()
    }
}

/// The pixels of the rows inside a quad that stands upright on the image; none where it does not.
#[must_use]
pub fn rows_inside<'a>(image: &'a Image, Quad([a, b, c, d]): &Quad) -> Option<impl Iterator<Item = &'a [u8]>> {
    let is_near = |x: f32, y: f32| (x - y).abs() < 0.01;
    if !(is_near(a.x, d.x) && is_near(b.x, c.x) && is_near(a.y, b.y) && is_near(c.y, d.y)) {
        return None;
    }
    let (width, height) = (image.width() as usize, image.height() as usize);
    let within = |side: f32, most: usize| (side.round().max(0.0) as usize).min(most);
    let (left, right) = (within(a.x, width), within(c.x, width));
    let (top, bottom) = (within(a.y, height), within(c.y, height));
    let row = move |y: usize| image.pixels().get((y * width + left) * 3..(y * width + right) * 3).unwrap_or_default();
    Some((top..bottom).map(row))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn quad(corners: [(f32, f32); 4]) -> Quad {
        Quad(corners.map(|(x, y)| Point { x, y }))
    }

    fn upright(left: f32, top: f32, right: f32, bottom: f32) -> Quad {
        quad([(left, top), (right, top), (right, bottom), (left, bottom)])
    }

    fn assert_near(found: &MinAreaRect, wanted: &Quad) {
        let near = |(a, b): (&Point, &Point)| (a.x - b.x).abs() < 1e-4 && (a.y - b.y).abs() < 1e-4;
        assert!(found.corners.iter().zip(&wanted.0).all(near), "{found:?} is not {wanted:?}");
    }

    /// Rows of `#` and `.`.
    fn mask(rows: &[&str]) -> (Vec<u8>, usize, usize) {
        let cells = rows.iter().flat_map(|row| row.bytes().map(|b| u8::from(b == b'#'))).collect();
        (cells, rows[0].len(), rows.len())
    }

    fn contours(rows: &[&str]) -> Vec<Contour> {
        let (cells, width, height) = mask(rows);
        find_contours(&cells, width, height)
    }

    #[test]
    fn nothing_has_no_contours() {
        assert!(find_contours(&[], 0, 0).is_empty());
        assert!(contours(&["...", "..."]).is_empty());
    }

    #[test]
    fn pixels_lines_and_blocks() {
        assert_eq!(contours(&["#"]), [[(0, 0)]]);
        assert_eq!(contours(&["...", ".#.", "..."]), [[(1, 1)]]);
        assert_eq!(contours(&["####"]), [[(0, 0), (3, 0)]]);
        assert_eq!(contours(&["##", "##", "##"]), [[(0, 0), (0, 2), (1, 2), (1, 0)]]);
    }

    #[test]
    fn the_last_contour_found_comes_first_and_holes_count() {
        let found = contours(&["#......", "..####.", "..#..#.", "..####.", "#......"]);
        assert_eq!(found.len(), 4);
        assert_eq!(found[0], [(0, 4)]);
        // The hole's border runs over the pixels around it.
        assert_eq!(found[1].len(), 6);
        assert_eq!(found[2], [(2, 1), (2, 3), (5, 3), (5, 1)]);
        assert_eq!(found[3], [(0, 0)]);
    }

    #[test]
    fn dilation_grows_to_the_right_and_down() {
        let (cells, w, h) = mask(&["#...", "..#.", "...#"]);
        assert_eq!(dilate_2x2(&cells, w, h), mask(&["##..", "####", "..##"]).0);
        assert!(dilate_2x2(&[], 0, 0).is_empty());
        assert_eq!(dilate_2x2(&[0, 9], 1, 2), [0, 1]);
    }

    #[test]
    fn rectangles_without_area() {
        assert!(min_area_rect(&[]).short_side.abs() < 1e-9);
        let point = min_area_rect(&[(3, 4), (3, 4)]);
        assert_eq!(point.corners, [Point { x: 3.0, y: 4.0 }; 4]);
        for line in [[(0, 0), (5, 0), (9, 0)], [(0, 0), (2, 2), (9, 9)], [(7, 1), (7, 2), (7, 5)]] {
            let rect = min_area_rect(&line);
            assert!(rect.short_side.abs() < 1e-9, "{rect:?}");
            assert!(rect.corners.iter().all(|p| p.x.is_finite() && p.y.is_finite()));
        }
    }

    #[test]
    fn an_upright_rectangle_is_exact() {
        let rect = min_area_rect(&[(10, 20), (40, 20), (40, 28), (10, 28), (22, 24)]);
        assert_eq!(Quad(rect.corners), upright(10.0, 20.0, 40.0, 28.0));
        assert!((rect.short_side - 8.0).abs() < 1e-6);
    }

    #[test]
    fn a_diamond_is_its_own_rectangle() {
        let rect = min_area_rect(&[(10, 0), (20, 10), (10, 20), (0, 10)]);
        assert!((rect.short_side - 200f32.sqrt()).abs() < 1e-4);
    }

    #[test]
    fn fused_rectangles_are_those_of_docvortex() {
        let recorded = [
            (
                [(34, 16), (10, 33), (10, 16), (25, 21), (3, 1)],
                [(-7.432_37, 8.389_593), (16.567_627, -8.610_405), (33.999_996, 15.999_997), (9.999_999, 32.999_996)],
                29.410_88,
            ),
            (
                [(3, 28), (11, 21), (36, 11), (29, 6), (12, 38)],
                [(3.000_003_8, 28.0), (29.685_085, 3.983_424_2), (38.685_085, 13.983_424), (12.000_004, 38.0)],
                13.453_624,
            ),
            (
                [(8, 23), (18, 33), (27, 29), (22, 14), (11, 17)],
                [(6.5, 18.499_998), (21.8, 13.399_998), (27.3, 29.899_998), (12.0, 34.999_996)],
                16.127_615,
            ),
        ];
        let mut apart = 0;
        for (points, corners, short_side) in recorded {
            let rect = min_area_rect_fused(&points);
            assert_eq!(Quad(rect.corners), quad(corners));
            assert!((rect.short_side - short_side).abs() <= 0.0);
            apart += usize::from(min_area_rect(&points) != rect);
        }
        assert_eq!(apart, 3);
        let upright_one = min_area_rect_fused(&[(10, 20), (40, 20), (40, 28), (10, 28), (22, 24)]);
        assert_eq!(Quad(upright_one.corners), upright(10.0, 20.0, 40.0, 28.0));
        assert!(min_area_rect_fused(&[]).short_side.abs() < 1e-9);
        assert!(min_area_rect_fused(&[(0, 0), (2, 2), (9, 9)]).short_side.abs() < 1e-9);
    }

    #[test]
    fn crops_in_half_precision_are_those_of_docvortex() {
        let pixels = (0..12 * 9 * 3).map(|i| (i * 7 % 251) as u8).collect::<Vec<_>>();
        let image = Image::new(12_u32, 9_u32, pixels).unwrap();
        let slanted = quad([(2.0, 1.0), (9.0, 3.0), (8.0, 7.0), (1.0, 5.0)]);
        let cut = crop_half(&image, &slanted).unwrap();
        assert_eq!((cut.width(), cut.height()), (7, 4));
        let recorded: [u8; 84] = [
            43, 50, 57, 64, 71, 78, 86, 93, 100, 107, 114, 121, 128, 135, 142, 149, 156, 163, 171, 178, 185, 38, 45,
            52, 59, 66, 73, 80, 87, 94, 102, 108, 116, 123, 130, 137, 144, 151, 158, 165, 172, 180, 34, 42, 48, 56, 63,
            70, 77, 84, 91, 98, 105, 112, 120, 127, 134, 141, 148, 155, 162, 169, 176, 31, 38, 45, 53, 60, 67, 74, 81,
            88, 95, 102, 109, 116, 123, 130, 138, 144, 152, 159, 166, 173,
        ];
        assert_eq!(cut.pixels(), recorded);
        assert!(crop_half(&image, &upright(3.0, 3.0, 3.0, 5.0)).is_none());
    }

    #[test]
    fn unclip_grows_every_side() {
        // 100 * 20 * 1.5 / 240 = 12.5; 37.5 is rounded up.
        let grown = min_area_rect(&unclip(&upright(50.0, 50.0, 150.0, 70.0), 1.5));
        assert_near(&grown, &upright(38.0, 38.0, 163.0, 83.0));
    }

    #[test]
    fn unclip_takes_the_ratio_as_the_decimal_it_was_written_as() {
        // 10 * 10 * 1.4 / 40 is 3.5, and 33.5 rounds up to 34; 1.4 as f32 is a little less.
        let grown = min_area_rect(&unclip(&upright(20.0, 20.0, 30.0, 30.0), 1.4));
        assert_near(&grown, &upright(17.0, 17.0, 34.0, 34.0));
    }

    #[test]
    fn unclip_by_nothing_truncates() {
        assert_eq!(unclip(&upright(1.7, 1.2, 9.9, 5.5), 0.0), [(1, 1), (9, 1), (9, 5), (1, 5)]);
    }

    #[test]
    fn hopeless_quads_are_not_grown() {
        assert!(unclip(&upright(5.0, 5.0, 5.0, 5.0), 1.5).is_empty());
        assert!(unclip(&upright(0.1, 0.1, 0.9, 0.9), 1.5).is_empty());
        assert!(unclip(&upright(1.0, 1.0, 50.0, 1.0), 1.5).is_empty());
        assert!(unclip(&upright(f32::NAN, 1.0, 50.0, 4.0), 1.5).is_empty());
        // No area, but three different corners: copied, as Clipper does.
        let flat = quad([(0.0, 0.0), (5.0, 0.0), (9.0, 0.0), (5.0, 0.0)]);
        assert!(min_area_rect(&unclip(&flat, 1.5)).short_side < 1e-6);
    }

    #[test]
    fn huge_ratios_end() {
        let grown = min_area_rect(&unclip(&upright(0.0, 0.0, 4000.0, 4000.0), 100.0));
        assert!((grown.short_side - 204_000.0).abs() < 1.0);
        assert!(!unclip(&upright(-4e9, -4e9, 4e9, 4e9), 0.1).is_empty());
        assert!(unclip(&upright(0.0, 0.0, 1e30, 1e30), 100.0).len() <= 4);
        let _ =
            min_area_rect(&[(i32::MIN, i32::MIN), (i32::MAX, i32::MIN), (i32::MAX, i32::MAX), (i32::MIN, i32::MAX)]);
    }

    #[test]
    fn scores_are_means_inside() {
        let mut map = vec![0.0; 20 * 10];
        for y in 2..=5 {
            map[y * 20 + 3..=y * 20 + 12].fill(0.5);
        }
        assert!((score_fast(&map, 20, 10, &upright(3.0, 2.0, 12.0, 5.0)) - 0.5).abs() < 1e-6);
        assert!((score_slow(&map, 20, 10, &[(3, 2), (3, 5), (12, 5), (12, 2)]) - 0.5).abs() < 1e-6);
        // 4 x 10 pixels of 6 x 12.
        let wide = score_fast(&map, 20, 10, &upright(2.0, 1.0, 13.0, 6.0));
        assert!((wide - 0.5 * 40.0 / 72.0).abs() < 1e-6);
        assert!((score_slow(&map, 20, 10, &[(3, 2)]) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn scores_outside_the_map_or_without_numbers_do_no_harm() {
        let map = vec![0.5; 200];
        assert!(score_fast(&map, 20, 10, &upright(-90.0, -90.0, -50.0, -50.0)).abs() < 1e-9);
        assert!(score_fast(&map, 20, 10, &upright(1e9, 1e9, 2e9, 2e9)).abs() < 1e-9);
        assert!((score_fast(&map, 20, 10, &upright(-1e9, -1e9, 1e9, 1e9)) - 0.5).abs() < 1e-6);
        assert!(score_fast(&map, 20, 10, &upright(f32::NAN, f32::NAN, f32::NAN, f32::NAN)).is_finite());
        assert!(score_fast(&[], 0, 0, &upright(0.0, 0.0, 3.0, 3.0)).abs() < 1e-9);
        assert!(score_slow(&map, 20, 10, &[]).abs() < 1e-9);
        assert!(score_slow(&map, 20, 10, &[(-5, -5), (30, 2), (8, 30)]).is_finite());
        assert!(score_fast(&vec![f32::NAN; 200], 20, 10, &upright(1.0, 1.0, 5.0, 5.0)).is_nan());
    }

    #[test]
    fn lines_are_read_from_the_left_and_pages_from_the_top() {
        let at = |x: f32, y: f32| upright(x, y, x + 10.0, y + 5.0);
        let quads = [at(200.0, 50.0), at(10.0, 59.0), at(100.0, 54.0), at(0.0, 10.0), at(0.0, 70.0)];
        assert_eq!(sort_reading_order(&quads, Direction::Right), [3, 1, 2, 0, 4]);
        assert!(sort_reading_order(&[], Direction::Right).is_empty());
    }

    #[test]
    fn a_turned_page_is_read_in_its_own_order() {
        // Two lines of a page of 100 x 60, the first with two words, and the same page turned.
        let page = [upright(0.0, 0.0, 40.0, 10.0), upright(50.0, 1.0, 90.0, 11.0), upright(0.0, 30.0, 80.0, 40.0)];
        let turn = |point: fn(Point) -> Point, first: usize| {
            page.map(|Quad(corners)| Quad(std::array::from_fn(|k| point(corners[(k + first) % 4]))))
        };
        let half = turn(|p| Point { x: 100.0 - p.x, y: 60.0 - p.y }, 2);
        let right = turn(|p| Point { x: 60.0 - p.y, y: p.x }, 3);
        let left = turn(|p| Point { x: p.y, y: 100.0 - p.x }, 1);
        for (quads, towards) in
            [(page, Direction::Right), (half, Direction::Left), (right, Direction::Down), (left, Direction::Up)]
        {
            assert_eq!(sort_reading_order(&quads, towards), [0, 1, 2], "{towards:?}");
            assert_eq!(main_direction(&quads, [towards, Direction::Right, towards].into_iter()), towards);
        }
        assert_eq!(main_direction(&[], std::iter::empty()), Direction::Right);
    }

    fn numbered(width: usize, height: usize) -> Image {
        let pixels = (0..width * height).flat_map(|i| [i as u8, 0, 255]).collect();
        Image::new(width as u32, height as u32, pixels).unwrap()
    }

    fn first_channel(image: &Image) -> Vec<u8> {
        image.pixels().chunks(3).map(|p| p[0]).collect()
    }

    #[test]
    fn corners_by_their_sums() {
        let quad = |corners: [(f32, f32); 4]| Quad(corners.map(|(x, y)| Point { x, y }));
        // A steep box: by x and then y, as 3.x has it, it would begin at (0, 9).
        let steep = [(5.0, 1.0), (9.0, 5.0), (4.0, 13.0), (0.0, 9.0)];
        for start in 0..4 {
            let mut turned = steep;
            turned.rotate_left(start);
            assert_eq!(clockwise_by_sums(&quad(turned)), quad(steep));
        }
    }

    #[test]
    fn an_upright_crop_copies() {
        let page = numbered(16, 8);
        let box_ = upright(3.0, 2.0, 6.0, 4.0);
        assert_eq!(crop_size(&box_), (3, 2, false));
        assert_eq!(first_channel(&crop(&page, &box_, false).unwrap()), [35, 36, 37, 51, 52, 53]);
        assert_eq!(first_channel(&crop(&page, &box_, true).unwrap()), [53, 52, 51, 37, 36, 35]);
    }

    #[test]
    fn a_tall_crop_is_turned_against_the_clock() {
        let page = numbered(16, 8);
        let box_ = upright(3.0, 2.0, 5.0, 5.0);
        assert_eq!(crop_size(&box_), (3, 2, true));
        let found = crop(&page, &box_, false).unwrap();
        assert_eq!((found.width(), found.height()), (3, 2));
        assert_eq!(first_channel(&found), [36, 52, 68, 35, 51, 67]);
    }

    #[test]
    fn a_crop_without_area_is_none() {
        let page = numbered(16, 8);
        for empty in [upright(3.0, 3.0, 3.0, 3.0), upright(3.0, 3.0, 9.0, 3.0), upright(2.1, 2.1, 2.9, 2.9)] {
            assert!(crop(&page, &empty, false).is_none());
            assert_eq!(crop_size(&empty), (0, 0, false));
        }
    }

    #[test]
    fn a_crop_outside_the_page_repeats_its_edge() {
        let page = numbered(16, 8);
        let found = crop(&page, &upright(14.0, 0.0, 18.0, 3.0), false).unwrap();
        assert_eq!(first_channel(&found)[..4], [14, 15, 15, 15]);
    }
}
