//! Bilinear resize and cubic perspective warp of BGR8 pixels, bit for bit as OpenCV 4.x computes them (`cv2.resize` with `INTER_LINEAR`,
//! `cv2.warpPerspective` with `INTER_CUBIC` and `BORDER_REPLICATE`). Re-implemented from OpenCV's published algorithms (Apache-2.0).

use std::sync::LazyLock;

use crate::geometry::Point;
use crate::image::Image;

/// OpenCV keeps bilinear weights as 11-bit fixed point.
const WEIGHT_ONE: f32 = 2048.0;
const CHANNELS: usize = 3;

/// For every destination position: the two source positions, and their weights.
struct Taps {
    positions: Vec<[usize; 2]>,
    weights: Vec<[i32; 2]>,
}

impl Taps {
    /// `snap`: positions beyond the border weigh the border pixel fully, as OpenCV does horizontally.
    fn new(source: usize, target: usize, snap: bool) -> Self {
        let scale = source as f64 / target as f64;
        let last = source as i64 - 1;
        let taps = (0..target).map(|i| {
            let position = ((i as f64 + 0.5) * scale - 0.5) as f32;
            let floor = position.floor();
            let (mut index, mut fraction) = (floor as i64, position - floor);
            if snap && (index < 0 || index >= last) {
                (index, fraction) = (index.clamp(0, last), 0.0);
            }
            let weights = [(1.0 - fraction) * WEIGHT_ONE, fraction * WEIGHT_ONE].map(|w| w.round_ties_even() as i32);
            ([index.clamp(0, last) as usize, (index + 1).clamp(0, last) as usize], weights)
        });
        let (positions, weights) = taps.unzip();
        Self { positions, weights }
    }
}

/// Resizes BGR8 pixels as `cv2.resize(..., interpolation=INTER_LINEAR)`.
#[must_use]
pub fn resize_bilinear(source: &[u8], (w, h): (usize, usize), (new_w, new_h): (usize, usize)) -> Vec<u8> {
    if (w, h) == (new_w, new_h) {
        return source.to_vec();
    }
    if w == 2 * new_w && h == 2 * new_h {
        return halve(source, w, new_w, new_h);
    }
    let (across, down) = (Taps::new(w, new_w, true), Taps::new(h, new_h, false));
    let mut target = vec![0; new_w * new_h * CHANNELS];
    // The two source rows in use, resized horizontally, and which they are.
    let mut rows = [vec![0i32; new_w * CHANNELS], vec![0i32; new_w * CHANNELS]];
    let mut held = [usize::MAX; 2];
    for (y, out) in target.chunks_exact_mut(new_w * CHANNELS).enumerate() {
        let [top, bottom] = down.positions[y];
        if held[0] != top && held[1] == top {
            rows.swap(0, 1);
            held.swap(0, 1);
        }
        for (slot, row) in [top, bottom].into_iter().enumerate() {
            if held[slot] != row {
                resize_row(&source[row * w * CHANNELS..(row + 1) * w * CHANNELS], &across, &mut rows[slot]);
                held[slot] = row;
            }
        }
        let [a, b] = down.weights[y];
        for (out, (&top, &bottom)) in out.iter_mut().zip(rows[0].iter().zip(&rows[1])) {
            *out = ((((a * (top >> 4)) >> 16) + ((b * (bottom >> 4)) >> 16) + 2) >> 2).clamp(0, 255) as u8;
        }
    }
    target
}

fn resize_row(source: &[u8], across: &Taps, out: &mut [i32]) {
    for ((position, weight), out) in across.positions.iter().zip(&across.weights).zip(out.chunks_exact_mut(CHANNELS)) {
        let (left, right) = (&source[position[0] * CHANNELS..][..CHANNELS], &source[position[1] * CHANNELS..][..CHANNELS]);
        for c in 0..CHANNELS {
            out[c] = i32::from(left[c]) * weight[0] + i32::from(right[c]) * weight[1];
        }
    }
}

/// OpenCV takes the mean of 2x2 pixels when both sides are exactly halved.
fn halve(source: &[u8], w: usize, new_w: usize, new_h: usize) -> Vec<u8> {
    let mut target = Vec::with_capacity(new_w * new_h * CHANNELS);
    for y in 0..new_h {
        let top = &source[2 * y * w * CHANNELS..][..w * CHANNELS];
        let bottom = &source[(2 * y + 1) * w * CHANNELS..][..w * CHANNELS];
        for (a, b) in top.chunks_exact(2 * CHANNELS).zip(bottom.chunks_exact(2 * CHANNELS)) {
            for c in 0..CHANNELS {
                let sum = u32::from(a[c]) + u32::from(a[c + CHANNELS]) + u32::from(b[c]) + u32::from(b[c + CHANNELS]);
                target.push(((sum + 2) >> 2) as u8);
            }
        }
    }
    target
}

/// Positions between pixels are resolved in 1/32.
const STEPS: usize = 32;

/// The 4x4 weights of every fractional position, 15-bit fixed point, each summing to 32768 exactly.
static CUBIC: LazyLock<Vec<[i32; 16]>> = LazyLock::new(|| {
    let line: Vec<[f32; 4]> = (0..STEPS).map(|i| cubic_weights(i as f32 / STEPS as f32)).collect();
    line.iter().flat_map(|down| line.iter().map(|across| cubic_block(down, across))).collect()
});

/// Keys' cubic kernel with a = -0.75 (OpenCV `interpolateCubic`).
fn cubic_weights(x: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let first = ((A * (x + 1.0) - 5.0 * A) * (x + 1.0) + 8.0 * A) * (x + 1.0) - 4.0 * A;
    let second = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let third = ((A + 2.0) * (1.0 - x) - (A + 3.0)) * (1.0 - x) * (1.0 - x) + 1.0;
    [first, second, third, 1.0 - first - second - third]
}

fn cubic_block(down: &[f32; 4], across: &[f32; 4]) -> [i32; 16] {
    let mut block = [0; 16];
    for (i, weight) in block.iter_mut().enumerate() {
        *weight = ((down[i / 4] * across[i % 4] * 32768.0).round_ties_even() as i32).clamp(-32768, 32767);
    }
    // The rounding error goes to the largest or the smallest of the inner weights, as in OpenCV's `initInterTab2D`.
    let excess = block.iter().sum::<i32>() - 32768;
    let (mut smallest, mut largest) = (10, 10);
    for i in [10, 11, 14, 15] {
        if block[i] < block[smallest] {
            smallest = i;
        } else if block[i] > block[largest] {
            largest = i;
        }
    }
    block[if excess < 0 { largest } else { smallest }] -= excess;
    block
}

/// The matrix that takes the corners `from` to the rectangle (0, 0)..(w, h) (`cv2.getPerspectiveTransform`), row-major; the last element is 1.
#[must_use]
pub fn perspective_to_rectangle(from: &[Point; 4], w: f64, h: f64) -> Option<[f64; 9]> {
    let to = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)];
    let mut rows = [[0.0; 9]; 8];
    for i in 0..4 {
        let (x, y) = (f64::from(from[i].x), f64::from(from[i].y));
        let (u, v) = to[i];
        rows[i] = [x, y, 1.0, 0.0, 0.0, 0.0, -x * u, -y * u, u];
        rows[i + 4] = [0.0, 0.0, 0.0, x, y, 1.0, -x * v, -y * v, v];
    }
    let solution = solve(rows)?;
    let mut matrix = [1.0; 9];
    matrix[..8].copy_from_slice(&solution);
    Some(matrix)
}

/// Gaussian elimination with partial pivoting; none for a singular system.
fn solve(mut rows: [[f64; 9]; 8]) -> Option<[f64; 8]> {
    for k in 0..8 {
        let pivot = (k..8).max_by(|&a, &b| rows[a][k].abs().total_cmp(&rows[b][k].abs()))?;
        if rows[pivot][k].abs() < f64::EPSILON {
            return None;
        }
        rows.swap(k, pivot);
        let pivot_row = rows[k];
        for row in &mut rows[k + 1..] {
            let factor = row[k] / pivot_row[k];
            for (value, pivot) in row.iter_mut().zip(pivot_row).skip(k) {
                *value -= factor * pivot;
            }
        }
    }
    let mut x = [0.0; 8];
    for k in (0..8).rev() {
        let known: f64 = (k + 1..8).map(|j| rows[k][j] * x[j]).sum();
        x[k] = (rows[k][8] - known) / rows[k][k];
    }
    Some(x)
}

fn invert(m: &[f64; 9]) -> [f64; 9] {
    let minor = |a: usize, b: usize, c: usize, d: usize| m[a] * m[d] - m[b] * m[c];
    let determinant = m[0] * minor(4, 5, 7, 8) - m[1] * minor(3, 5, 6, 8) + m[2] * minor(3, 4, 6, 7);
    let d = 1.0 / determinant;
    [
        minor(4, 5, 7, 8) * d,
        (m[2] * m[7] - m[1] * m[8]) * d,
        minor(1, 2, 4, 5) * d,
        (m[5] * m[6] - m[3] * m[8]) * d,
        minor(0, 2, 6, 8) * d,
        (m[2] * m[3] - m[0] * m[5]) * d,
        minor(3, 4, 6, 7) * d,
        (m[1] * m[6] - m[0] * m[7]) * d,
        minor(0, 1, 3, 4) * d,
    ]
}

/// Warps `image` by `matrix` (source to target) into BGR8 pixels of `w` x `h`.
#[must_use]
pub fn warp_cubic(image: &Image, matrix: &[f64; 9], w: usize, h: usize) -> Vec<u8> {
    let inverse = invert(matrix);
    // OpenCV computes positions from the left edge of blocks of this width; the float rounding depends on it.
    let rows = 16.min(h.max(1));
    let block = (1024 / rows).min(w.max(1));
    let mut target = vec![0; w * h * CHANNELS];
    for (y, row) in target.chunks_exact_mut((w * CHANNELS).max(1)).enumerate() {
        for (k, pixels) in row.chunks_mut(block * CHANNELS).enumerate() {
            let (x, y) = ((k * block) as f64, y as f64);
            let origin = [0, 3, 6].map(|i| inverse[i] * x + inverse[i + 1] * y + inverse[i + 2]);
            for (i, pixel) in pixels.chunks_exact_mut(CHANNELS).enumerate() {
                let i = i as f64;
                let scale = origin[2] + inverse[6] * i;
                let scale = if scale == 0.0 { 0.0 } else { STEPS as f64 / scale };
                let at = |k: usize| ((origin[k] + inverse[3 * k] * i) * scale).clamp(f64::from(i32::MIN), f64::from(i32::MAX));
                let (x, y) = (at(0).round_ties_even() as i32, at(1).round_ties_even() as i32);
                pixel.copy_from_slice(&sample(image, x, y));
            }
        }
    }
    target
}

/// The pixel at (x, y), in 1/32 of a pixel.
fn sample(image: &Image, x: i32, y: i32) -> [u8; 3] {
    let (w, h) = (image.width() as usize, image.height() as usize);
    let weights = &CUBIC[((y & 31) * 32 + (x & 31)) as usize];
    let left = (x >> 5).clamp(-32768, 32767) - 1;
    let top = (y >> 5).clamp(-32768, 32767) - 1;
    let pixels = image.pixels();
    let mut sums = [1 << 14; CHANNELS];
    let inside = left >= 0 && top >= 0 && left as usize + 3 < w && top as usize + 3 < h;
    for (k, weights) in weights.chunks_exact(4).enumerate() {
        if inside {
            let row = &pixels[((top as usize + k) * w + left as usize) * CHANNELS..][..4 * CHANNELS];
            for (weight, pixel) in weights.iter().zip(row.chunks_exact(CHANNELS)) {
                for c in 0..CHANNELS {
                    sums[c] += weight * i32::from(pixel[c]);
                }
            }
            continue;
        }
        let row = (top + k as i32).clamp(0, h as i32 - 1) as usize;
        for (i, weight) in weights.iter().enumerate() {
            let column = (left + i as i32).clamp(0, w as i32 - 1) as usize;
            let pixel = &pixels[(row * w + column) * CHANNELS..][..CHANNELS];
            for c in 0..CHANNELS {
                sums[c] += weight * i32::from(pixel[c]);
            }
        }
    }
    sums.map(|sum| (sum >> 15).clamp(0, 255) as u8)
}
