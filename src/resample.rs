//! Pixel resampling: the bilinear resize and the cubic perspective crop, to the bit what `OpenCV` 4.x computes.
//!
//! The models were trained, and `PaddleOCR` runs, on pixels that `cv2` resampled in fixed point; other filters cost accuracy that no later
//! step can give back. The algorithms of `OpenCV` (Apache-2.0) are re-implemented here: `cv::resize` with `INTER_LINEAR`,
//! `cv::warpPerspective` with `INTER_CUBIC` and `BORDER_REPLICATE`, `cv::getPerspectiveTransform`. Beside them is the crop of `docvortex` 0.6.
//!
//! Images are BGR, 8 bits a channel, rows packed.

use std::sync::LazyLock;

use crate::buffer;
use crate::config::Numerics;
use crate::geometry::Point;
use crate::image::Image;

/// Bytes of a pixel.
const CHANNELS: usize = 3;

/// [`resize_bilinear`] or [`resize_bilinear_blocks`].
pub(crate) type Resize = fn(&[u8], usize, usize, usize, usize) -> Vec<u8>;

/// Whose it is.
pub(crate) fn resize_of(numerics: Numerics) -> Resize {
    if numerics == Numerics::MinerU4 { resize_bilinear_blocks } else { resize_bilinear }
}

/// `cv2.resize(src, (dst_w, dst_h), interpolation=INTER_LINEAR)`.
///
/// `src` is `src_h` rows of `src_w` pixels; the result is `dst_h` rows of `dst_w`. An empty source or destination gives zeros.
#[must_use]
pub fn resize_bilinear(src: &[u8], src_w: usize, src_h: usize, dst_w: usize, dst_h: usize) -> Vec<u8> {
    if (src_w, src_h) == (dst_w, dst_h) {
        return src.to_vec();
    }
    let mut dst = buffer::filled(0, dst_w * dst_h * CHANNELS);
    if dst.is_empty() || src.is_empty() {
        return dst;
    }
    if (src_w, src_h) == (2 * dst_w, 2 * dst_h) {
        halve(src, src_w, &mut dst, dst_w);
        return dst;
    }
    let columns = bilinear_taps(src_w, dst_w, Edge::Hold);
    let rows = bilinear_taps(src_h, dst_h, Edge::Repeat);
    let mut window = RowWindow::new(src, src_w, &columns);
    for (tap, out) in rows.iter().zip(dst.chunks_exact_mut(dst_w * CHANNELS)) {
        let (upper, lower) = window.rows(tap.first as usize, tap.second as usize);
        blend_rows(upper, lower, tap, out);
    }
    dst
}

/// Exactly half the size: `cv2.resize` then averages 2x2 blocks (its `INTER_AREA`), rounding half up.
fn halve(src: &[u8], src_w: usize, dst: &mut [u8], dst_w: usize) {
    let pairs = src.chunks_exact(2 * src_w * CHANNELS);
    for (two, out) in pairs.zip(dst.chunks_exact_mut(dst_w * CHANNELS)) {
        let (upper, lower) = two.split_at(src_w * CHANNELS);
        let blocks = upper.chunks_exact(2 * CHANNELS).zip(lower.chunks_exact(2 * CHANNELS));
        for ((a, b), pixel) in blocks.zip(out.chunks_exact_mut(CHANNELS)) {
            for c in 0..CHANNELS {
                let sum = u16::from(a[c]) + u16::from(a[c + CHANNELS]) + u16::from(b[c]) + u16::from(b[c + CHANNELS]);
                pixel[c] = ((sum + 2) >> 2) as u8;
            }
        }
    }
}

/// Fixed-point 1.0 of the bilinear weights (`INTER_RESIZE_COEF_SCALE`).
const WEIGHT_ONE: f32 = 2048.0;

/// What `cv2` does with a sample position outside the source. The two differ in the last bit, and `cv2` uses both.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// Columns: all the weight on the edge's pixel.
    Hold,
    /// Rows: the weights stay, both read the edge's row.
    Repeat,
}

/// The two source positions that make one destination position, and their weights.
struct Tap {
    first: u32,
    second: u32,
    weights: [i32; 2],
}

fn bilinear_taps(src: usize, dst: usize, edge: Edge) -> Vec<Tap> {
    // The double inversion is cv2's: its scale is 1 / (dst / src), not src / dst.
    let scale = 1.0 / (dst as f64 / src as f64);
    let last = src as i64 - 1;
    (0..dst)
        .map(|i| {
            let position = ((i as f64 + 0.5) * scale - 0.5) as f32;
            let mut floor = position.floor() as i64;
            let mut fraction = position - floor as f32;
            if edge == Edge::Hold && !(0..last).contains(&floor) {
                floor = floor.clamp(0, last);
                fraction = 0.0;
            }
            let weight = |w: f32| (w * WEIGHT_ONE).round_ties_even() as i32;
            Tap {
                first: floor.clamp(0, last) as u32,
                second: (floor + 1).clamp(0, last) as u32,
                weights: [weight(1.0 - fraction), weight(fraction)],
            }
        })
        .collect()
}

/// The two horizontally resized rows in use. Destination rows go down the page, so most reuse both.
struct RowWindow<'a> {
    src: &'a [u8],
    src_w: usize,
    columns: &'a [Tap],
    upper: Vec<i32>,
    lower: Vec<i32>,
    /// Source rows that `upper` and `lower` hold.
    held: [Option<usize>; 2],
}

impl<'a> RowWindow<'a> {
    fn new(src: &'a [u8], src_w: usize, columns: &'a [Tap]) -> Self {
        let row = vec![0; columns.len() * CHANNELS];
        Self { src, src_w, columns, upper: row.clone(), lower: row, held: [None; 2] }
    }

    fn rows(&mut self, upper: usize, lower: usize) -> (&[i32], &[i32]) {
        if self.held[0] != Some(upper) {
            if self.held[1] == Some(upper) {
                std::mem::swap(&mut self.upper, &mut self.lower);
                self.held.swap(0, 1);
            } else {
                resize_row(self.row(upper), self.columns, &mut self.upper);
                self.held[0] = Some(upper);
            }
        }
        if self.held[1] != Some(lower) {
            resize_row(self.row(lower), self.columns, &mut self.lower);
            self.held[1] = Some(lower);
        }
        (&self.upper, &self.lower)
    }

    fn row(&self, y: usize) -> &'a [u8] {
        &self.src[y * self.src_w * CHANNELS..][..self.src_w * CHANNELS]
    }
}

/// One row, resized: values scaled by 2048.
fn resize_row(row: &[u8], columns: &[Tap], out: &mut [i32]) {
    let (pixels, _) = row.as_chunks::<CHANNELS>();
    let (out, _) = out.as_chunks_mut::<CHANNELS>();
    for (tap, pixel) in columns.iter().zip(out) {
        let (a, b) = (pixels[tap.first as usize], pixels[tap.second as usize]);
        for c in 0..CHANNELS {
            pixel[c] = i32::from(a[c]) * tap.weights[0] + i32::from(b[c]) * tap.weights[1];
        }
    }
}

/// Two rows into one, in the 16-bit steps of cv2's `VResizeLinear`: the intermediate truncations are part of the result.
fn blend_rows(upper: &[i32], lower: &[i32], tap: &Tap, out: &mut [u8]) {
    let [a, b] = tap.weights;
    for ((byte, &u), &l) in out.iter_mut().zip(upper).zip(lower) {
        let sum = ((a * (u >> 4)) >> 16) + ((b * (l >> 4)) >> 16);
        *byte = ((sum + 2) >> 2).clamp(0, 255) as u8;
    }
}

/// `resize_image(src, (dst_w, dst_h))` of `docvortex` 0.6, which does as `OpenCV` 5 on Arm: [`resize_bilinear`] unless both sides become
/// shorter and the width by no more than two thirds. Then rows are blended before columns, by weights of 8 bits.
#[must_use]
pub fn resize_bilinear_blocks(src: &[u8], src_w: usize, src_h: usize, dst_w: usize, dst_h: usize) -> Vec<u8> {
    let is_reduced = dst_w < src_w && dst_h < src_h && dst_h > 0 && dst_w * 3 >= src_w;
    if !is_reduced || dst_w * CHANNELS < TAIL || src_w * CHANNELS < 2 * BLOCK {
        return resize_bilinear(src, src_w, src_h, dst_w, dst_h);
    }
    let row_bytes = src_w * CHANNELS;
    let taps = |(i, position): (usize, i64)| ByteTap::new(position, src_w, CHANNELS, i % CHANNELS);
    let columns: Vec<ByteTap> = block_positions(src_w, dst_w).into_iter().enumerate().map(taps).collect();
    let rows = Scale::new(src_h, dst_h);
    let mut blended = vec![0; row_bytes];
    let mut dst = buffer::filled(0, dst_w * dst_h * CHANNELS);
    for (y, out) in dst.chunks_exact_mut(dst_w * CHANNELS).enumerate() {
        let tap = ByteTap::new(rows.centre(y), src_h, row_bytes, 0);
        let [upper, lower] = [&src[tap.first..][..row_bytes], &src[tap.second..][..row_bytes]];
        for ((byte, &a), &b) in blended.iter_mut().zip(upper).zip(lower) {
            *byte = tap.blend(a, b);
        }
        for (byte, tap) in out.iter_mut().zip(&columns) {
            *byte = tap.blend(blended[tap.first], blended[tap.second]);
        }
    }
    dst
}

/// Bytes of the destination that are placed together, and those at a row's end.
const BLOCK: usize = 16;
/// See [`BLOCK`].
const TAIL: usize = 8;
/// Threes of blocks after which their place is reckoned anew.
const THREES: usize = 171;

/// Positions in a source of another length, with 16 bits below the pixel.
struct Scale {
    src: i64,
    dst: i64,
}

impl Scale {
    const ONE: i64 = 1 << 16;

    fn new(src: usize, dst: usize) -> Self {
        Self { src: src as i64, dst: dst as i64 }
    }

    /// A length of the destination in the source, to the nearest, half up.
    fn length(&self, dst: i64) -> i64 {
        (dst * self.src + self.dst / 2) / self.dst
    }

    /// Of a destination pixel's centre; half a weight's step more, since weights are cut off.
    fn centre(&self, pixel: usize) -> i64 {
        self.length(pixel as i64 * Self::ONE + Self::ONE / 2) - Self::ONE / 2 + 128
    }
}

/// Where each byte of a destination row lies in its source row. Positions are stepped from block to block, and the roundings of the steps are
/// part of the result: the bytes of one pixel may lie apart.
fn block_positions(src_w: usize, dst_w: usize) -> Vec<i64> {
    let (scale, bytes) = (Scale::new(src_w, dst_w), dst_w * CHANNELS);
    // A block is made of two or of three blocks of the source.
    let reach = if 2 * dst_w >= src_w { 2 * BLOCK } else { 3 * BLOCK };
    let blocks = if src_w * CHANNELS >= reach { bytes / (2 * BLOCK) * 2 } else { 0 };
    let is_inside = |block: usize| {
        let first = block * BLOCK;
        let source = (scale.centre(first / CHANNELS) / Scale::ONE) as usize * CHANNELS + first % CHANNELS;
        source + reach <= src_w * CHANNELS
    };
    let inside = (0..blocks).rev().find(|&block| is_inside(block)).map_or(0, |last| last + 1);
    let threes = if blocks > 3 { inside / 3 } else { 0 };
    let mut positions = Vec::with_capacity(bytes);
    let mut start = scale.centre(0);
    for three in 0..threes {
        if three % THREES == THREES - 1 {
            start = scale.centre(three * BLOCK);
        }
        // Three blocks are sixteen pixels.
        for pixels in [5, 5, 6] {
            let phase = positions.len() % CHANNELS;
            let pixel = |i: usize| ((i + phase) / CHANNELS) as i64;
            positions.extend((0..BLOCK).map(|i| start + scale.length(pixel(i) * Scale::ONE)));
            start += scale.length(pixels * Scale::ONE);
        }
    }
    // The rest is placed by itself, its pixels equally far apart; the last bytes once more.
    let step = scale.length(Scale::ONE);
    while positions.len() < bytes {
        let width = if positions.len() < blocks * BLOCK { BLOCK } else { TAIL };
        positions.truncate(bytes - width);
        let (pixel, phase) = (positions.len() / CHANNELS, positions.len() % CHANNELS);
        positions.extend((0..width).map(|i| scale.centre(pixel) + ((i + phase) / CHANNELS) as i64 * step));
    }
    positions
}

/// The two source bytes, or rows of them, that make one of the destination, and the second's weight of 256.
struct ByteTap {
    first: usize,
    second: usize,
    weight: u16,
}

impl ByteTap {
    /// `length` pixels or rows, `stride` bytes apart.
    fn new(position: i64, length: usize, stride: usize, channel: usize) -> Self {
        let pixel = position.div_euclid(Scale::ONE);
        let byte = |pixel: i64| pixel.clamp(0, length as i64 - 1) as usize * stride + channel;
        let weight = (position.rem_euclid(Scale::ONE) >> 8) as u16;
        Self { first: byte(pixel), second: byte(pixel + 1), weight }
    }

    fn blend(&self, a: u8, b: u8) -> u8 {
        // At most 255 * 256 + 128.
        ((u16::from(a) * (256 - self.weight) + u16::from(b) * self.weight + 128) >> 8) as u8
    }
}

/// `cv2.getPerspectiveTransform(src, dst)`: the row-major 3x3 matrix that takes each point of `src` to its point of `dst`.
///
/// Points that fix no such matrix (three on a line) give what `cv2` gives: zeros and a final one.
#[must_use]
pub fn perspective_transform(src: &[Point; 4], dst: &[Point; 4]) -> [f64; 9] {
    transform(src, dst, |a, b, c| a * b + c)
}

/// The same with fused multiply-adds, as `perspective_matrix` of `docvortex` 0.6.
#[must_use]
pub fn perspective_transform_fused(src: &[Point; 4], dst: &[Point; 4]) -> [f64; 9] {
    transform(src, dst, f64::mul_add)
}

/// `a * b + c`, rounded twice or once.
type MultiplyAdd = fn(f64, f64, f64) -> f64;

fn transform(src: &[Point; 4], dst: &[Point; 4], multiply_add: MultiplyAdd) -> [f64; 9] {
    let mut system = [[0.0; 9]; 8];
    for (i, (s, d)) in src.iter().zip(dst).enumerate() {
        let (x, y) = (f64::from(s.x), f64::from(s.y));
        // cv2 multiplies the coordinates in f32.
        let products = |to: f32| (f64::from(-s.x * to), f64::from(-s.y * to));
        let (xx, yx) = products(d.x);
        let (xy, yy) = products(d.y);
        system[i] = [x, y, 1.0, 0.0, 0.0, 0.0, xx, yx, f64::from(d.x)];
        system[i + 4] = [0.0, 0.0, 0.0, x, y, 1.0, xy, yy, f64::from(d.y)];
    }
    let mut matrix = [0.0; 9];
    if let Some(solution) = solve(&mut system, multiply_add) {
        matrix[..8].copy_from_slice(&solution);
    }
    matrix[8] = 1.0;
    matrix
}

/// Gauss with partial pivots, in the order of cv2's `LU`; the last column is the right-hand side. `None`: singular.
fn solve(system: &mut [[f64; 9]; 8], multiply_add: MultiplyAdd) -> Option<[f64; 8]> {
    for i in 0..8 {
        let mut pivot = i;
        for j in i + 1..8 {
            if system[j][i].abs() > system[pivot][i].abs() {
                pivot = j;
            }
        }
        if system[pivot][i].abs() < f64::EPSILON * 100.0 {
            return None;
        }
        system.swap(i, pivot);
        let lead = system[i];
        let scale = -1.0 / lead[i];
        for row in &mut system[i + 1..] {
            let factor = row[i] * scale;
            for k in i + 1..9 {
                row[k] = multiply_add(factor, lead[k], row[k]);
            }
        }
    }
    let mut solution = [0.0; 8];
    for i in (0..8).rev() {
        let mut rest = system[i][8];
        for k in i + 1..8 {
            rest = multiply_add(-system[i][k], solution[k], rest);
        }
        solution[i] = rest / system[i][i];
    }
    Some(solution)
}

/// `cv2.warpPerspective(src, matrix, (dst_w, dst_h), flags=INTER_CUBIC, borderMode=BORDER_REPLICATE)` of `OpenCV` 4.x.
///
/// `matrix` is row-major and takes a source position to its destination, as [`perspective_transform`] gives it; it is inverted here.
/// Returns `dst_h` rows of `dst_w` pixels. An empty source gives zeros.
#[must_use]
pub fn warp_perspective(src: &Image, matrix: &[f64; 9], dst_w: usize, dst_h: usize) -> Vec<u8> {
    let mut dst = vec![0; dst_w * dst_h * CHANNELS];
    if dst.is_empty() || src.pixels().is_empty() {
        return dst;
    }
    let sampler = CubicSampler::new(src);
    let inverse = invert(matrix);
    let block = block_width(dst_w, dst_h);
    for (y, row) in dst.chunks_exact_mut(dst_w * CHANNELS).enumerate() {
        for (i, pixels) in row.chunks_mut(block * CHANNELS).enumerate() {
            warp_block(&sampler, &inverse, (i * block) as f64, y as f64, pixels);
        }
    }
    dst
}

/// Width of the blocks in which cv2 walks the destination. Positions are computed from the block's left end, which shows in the last bit.
fn block_width(dst_w: usize, dst_h: usize) -> usize {
    const AREA: usize = 32 * 32;
    (AREA / dst_h.min(16)).min(dst_w)
}

/// One row of one block: `pixels` starts at destination (`left`, `y`).
fn warp_block(sampler: &CubicSampler, inverse: &[f64; 9], left: f64, y: f64, pixels: &mut [u8]) {
    let [m0, m1, m2, m3, m4, m5, m6, m7, m8] = *inverse;
    let x0 = m0 * left + m1 * y + m2;
    let y0 = m3 * left + m4 * y + m5;
    let w0 = m6 * left + m7 * y + m8;
    for (i, pixel) in pixels.as_chunks_mut().0.iter_mut().enumerate() {
        let dx = i as f64;
        let w = w0 + m6 * dx;
        let scale = if w.abs() > 0.0 { f64::from(SUBPIXELS) / w } else { 0.0 };
        let x = ((x0 + m0 * dx) * scale).round_ties_even() as i32;
        let y = ((y0 + m3 * dx) * scale).round_ties_even() as i32;
        *pixel = sampler.sample(x, y);
    }
}

/// `warp_image(src, matrix, (dst_w, dst_h), interpolation="cubic", border="replicate")` of `docvortex` 0.6, which does as `OpenCV` 5 on Arm.
///
/// As [`warp_perspective`], but positions are not kept to parts of a pixel, and Keys' cubic (a = -0.75) is reckoned in half precision: every
/// weight and every partial sum has 11 bits.
#[must_use]
pub fn warp_perspective_half(src: &Image, matrix: &[f64; 9], dst_w: usize, dst_h: usize) -> Vec<u8> {
    let mut dst = vec![0; dst_w * dst_h * CHANNELS];
    if dst.is_empty() || src.pixels().is_empty() {
        return dst;
    }
    let sampler = CubicSampler::new(src);
    let inverse = invert(matrix).map(|value| value as f32);
    for (y, row) in dst.chunks_exact_mut(dst_w * CHANNELS).enumerate() {
        let starts: [f64; 3] =
            std::array::from_fn(|i| f64::from((y as f32).mul_add(inverse[3 * i + 1], inverse[3 * i + 2])));
        for (x, pixel) in row.as_chunks_mut().0.iter_mut().enumerate() {
            let [across, down, scale]: [f64; 3] =
                std::array::from_fn(|i| starts[i] + x as f64 * f64::from(inverse[3 * i]));
            let place = |at: f64| if scale.abs() > 0.0 { (at / scale) as f32 } else { 0.0 };
            *pixel = sampler.sample_half(place(across), place(down));
        }
    }
    dst
}

/// Inverse of a row-major 3x3 matrix by cofactors, as cv2 does it; zeros when there is none.
fn invert(m: &[f64; 9]) -> [f64; 9] {
    let minor = |a: usize, b: usize, c: usize, d: usize| m[a] * m[d] - m[b] * m[c];
    let determinant = m[0] * minor(4, 5, 7, 8) - m[1] * minor(3, 5, 6, 8) + m[2] * minor(3, 4, 6, 7);
    if determinant.abs() <= 0.0 {
        return [0.0; 9];
    }
    let d = 1.0 / determinant;
    [
        minor(4, 5, 7, 8) * d,
        minor(2, 1, 8, 7) * d,
        minor(1, 2, 4, 5) * d,
        minor(5, 3, 8, 6) * d,
        minor(0, 2, 6, 8) * d,
        minor(2, 0, 5, 3) * d,
        minor(3, 4, 6, 7) * d,
        minor(1, 0, 7, 6) * d,
        minor(0, 1, 3, 4) * d,
    ]
}

/// Positions are kept to 1/32 of a pixel (`INTER_TAB_SIZE`).
const SUBPIXELS: i32 = 32;
/// log2 of [`SUBPIXELS`].
const SUBPIXEL_BITS: u32 = 5;
/// Fixed-point bits of the cubic weights (`INTER_REMAP_COEF_BITS`).
const CUBIC_BITS: u32 = 15;

/// 4x4 weights for each of the 32x32 positions inside a pixel, `[y][x]`; each set sums to 32768.
static CUBIC_WEIGHTS: LazyLock<Vec<[i16; 16]>> = LazyLock::new(cubic_weights);

fn cubic_weights() -> Vec<[i16; 16]> {
    let lines: Vec<[f32; 4]> = (0..SUBPIXELS).map(|i| cubic_line(i as f32 / SUBPIXELS as f32)).collect();
    lines.iter().flat_map(|vertical| lines.iter().map(|horizontal| cubic_square(vertical, horizontal))).collect()
}

/// Weights of four neighbours at `x` in `[0, 1)` from the second: Keys' cubic with a = -0.75 (cv2's `interpolateCubic`).
fn cubic_line(x: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let near = |d: f32| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
    let first = ((A * (x + 1.0) - 5.0 * A) * (x + 1.0) + 8.0 * A) * (x + 1.0) - 4.0 * A;
    let (second, third) = (near(x), near(1.0 - x));
    [first, second, third, 1.0 - first - second - third]
}

/// The product of two lines in fixed point; what rounding left over goes to one of the weights from the third on, as in cv2.
fn cubic_square(vertical: &[f32; 4], horizontal: &[f32; 4]) -> [i16; 16] {
    const ONE: f32 = (1 << CUBIC_BITS) as f32;
    let mut weights = [0i16; 16];
    for (i, weight) in weights.iter_mut().enumerate() {
        // `as` saturates, like saturate_cast<short>: 1.0 becomes 32767.
        *weight = (vertical[i / 4] * horizontal[i % 4] * ONE).round_ties_even() as i16;
    }
    let excess = weights.iter().map(|&w| i32::from(w)).sum::<i32>() - (1 << CUBIC_BITS);
    let (mut low, mut high) = (10, 10);
    for i in [10, 11, 14, 15] {
        if weights[i] < weights[low] {
            low = i;
        } else if weights[i] > weights[high] {
            high = i;
        }
    }
    let target = if excess < 0 { high } else { low };
    weights[target] -= excess as i16;
    weights
}

/// To the nearest number of half precision, ties to even: a sum with 1.5 * 2^42 times the value's power of two has no bits below its eleventh.
/// Half precision has no finer steps than 2^-24; nothing here is too large for it.
fn half(value: f64) -> f64 {
    const POWER: u64 = 0x7ff << 52;
    const LEAST: f64 = 1.0 / 16384.0;
    const SHIFT: f64 = 1.5 * (1u64 << 42) as f64;
    let shift = f64::from_bits(value.to_bits() & POWER).max(LEAST) * SHIFT;
    (value + shift) - shift
}

/// As [`cubic_line`], the third weight being what the others leave; every step in half precision.
fn cubic_line_half(x: f32) -> [f64; 4] {
    const A: f64 = -0.75;
    let x = half(f64::from(x));
    let rest = half(1.0 - x);
    let square = half(x * x);
    let first = half(A * half(x * half(rest * rest)));
    let second = half(square * half((A + 2.0) * x - (A + 3.0)) + 1.0);
    let fourth = half(A * half(square * rest));
    let third = half(half(half(1.0 - first) - second) - fourth);
    [first, second, third, fourth]
}

/// Reads an image at positions of 1/32 pixel, or at any in half precision.
struct CubicSampler<'a> {
    pixels: &'a [[u8; CHANNELS]],
    width: i32,
    height: i32,
    weights: &'static [[i16; 16]],
}

impl<'a> CubicSampler<'a> {
    fn new(image: &'a Image) -> Self {
        Self {
            pixels: image.pixels().as_chunks().0,
            width: image.width() as i32,
            height: image.height() as i32,
            weights: &CUBIC_WEIGHTS,
        }
    }

    /// The pixel at (`x`, `y`) / 32.
    fn sample(&self, x: i32, y: i32) -> [u8; CHANNELS] {
        let (column, row) = (x >> SUBPIXEL_BITS, y >> SUBPIXEL_BITS);
        let fraction = (y & (SUBPIXELS - 1)) * SUBPIXELS + (x & (SUBPIXELS - 1));
        if fraction == 0 {
            // On a pixel the weights give that pixel, exactly. Upright lines are nothing else.
            return self.pixels[self.nearest(column, row)];
        }
        let weights = &self.weights[fraction as usize];
        let sums = if self.is_interior(column, row) {
            self.interior(column, row, weights)
        } else {
            self.border(column, row, weights)
        };
        sums.map(|sum| ((sum + (1 << (CUBIC_BITS - 1))) >> CUBIC_BITS).clamp(0, 255) as u8)
    }

    /// The pixel at (`x`, `y`), its weights and sums in half precision.
    fn sample_half(&self, x: f32, y: f32) -> [u8; CHANNELS] {
        let (column, row) = (x.floor(), y.floor());
        let [across, down] = [cubic_line_half(x - column), cubic_line_half(y - row)];
        let around = |at: f32, length: i32| [-1, 0, 1, 2].map(|i| (at as i32).saturating_add(i).clamp(0, length - 1));
        let columns = around(column, self.width).map(|column| column as usize);
        let rows = around(row, self.height).map(|row| row as usize * self.width as usize);
        let mut sums = [0.0; CHANNELS];
        for (row, weight) in rows.into_iter().zip(down) {
            let mut line = [0.0; CHANNELS];
            for (column, weight) in columns.into_iter().zip(across) {
                add_half(&mut line, self.pixels[row + column].map(f64::from), weight);
            }
            add_half(&mut sums, line, weight);
        }
        sums.map(|sum| sum.round_ties_even().clamp(0.0, 255.0) as u8)
    }

    /// All sixteen neighbours are in the image.
    fn is_interior(&self, column: i32, row: i32) -> bool {
        column >= 1 && row >= 1 && column < self.width - 2 && row < self.height - 2
    }

    fn interior(&self, column: i32, row: i32, weights: &[i16; 16]) -> [i32; CHANNELS] {
        let first = self.nearest(column - 1, row - 1);
        let mut sums = [0; CHANNELS];
        for (i, line) in weights.chunks_exact(4).enumerate() {
            let pixels = &self.pixels[first + i * self.width as usize..][..4];
            for (pixel, &weight) in pixels.iter().zip(line) {
                add_weighted(&mut sums, *pixel, weight);
            }
        }
        sums
    }

    fn border(&self, column: i32, row: i32, weights: &[i16; 16]) -> [i32; CHANNELS] {
        let mut sums = [0; CHANNELS];
        for (i, &weight) in (0i32..).zip(weights) {
            let at = self.nearest(column.saturating_add(i % 4 - 1), row.saturating_add(i / 4 - 1));
            add_weighted(&mut sums, self.pixels[at], weight);
        }
        sums
    }

    /// Index of a pixel; outside, of the pixel nearest to it.
    fn nearest(&self, column: i32, row: i32) -> usize {
        let column = column.clamp(0, self.width - 1) as usize;
        let row = row.clamp(0, self.height - 1) as usize;
        row * self.width as usize + column
    }
}

fn add_weighted(sums: &mut [i32; CHANNELS], pixel: [u8; CHANNELS], weight: i16) {
    for (sum, byte) in sums.iter_mut().zip(pixel) {
        *sum += i32::from(byte) * i32::from(weight);
    }
}

fn add_half(sums: &mut [f64; CHANNELS], values: [f64; CHANNELS], weight: f64) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = half(value * weight + *sum);
    }
}

/// Interleaved BGR bytes into three planes of `dst_w` columns, each byte through its channel's table; columns past `src_w` are zero.
///
/// `src` is `height` rows of `src_w` pixels, `src_w <= dst_w`; the result is 3 x `height` x `dst_w`, the layout every model here takes.
pub(crate) fn to_planes(src: &[u8], src_w: usize, height: usize, dst_w: usize, tables: [&[f32; 256]; 3]) -> Vec<f32> {
    let mut planes = buffer::filled(0.0, CHANNELS * height * dst_w);
    if planes.is_empty() || src_w == 0 {
        return planes;
    }
    let (blue, rest) = planes.split_at_mut(height * dst_w);
    let (green, red) = rest.split_at_mut(height * dst_w);
    let rows = blue.chunks_exact_mut(dst_w).zip(green.chunks_exact_mut(dst_w)).zip(red.chunks_exact_mut(dst_w));
    for (pixels, ((b, g), r)) in src.chunks_exact(src_w * CHANNELS).zip(rows) {
        for (((pixel, b), g), r) in pixels.as_chunks::<CHANNELS>().0.iter().zip(b).zip(g).zip(r) {
            *b = tables[0][usize::from(pixel[0])];
            *g = tables[1][usize::from(pixel[1])];
            *r = tables[2][usize::from(pixel[2])];
        }
    }
    planes
}

/// The quarter turn against the clock of `np.rot90`; the result is `width` rows of `height` pixels.
pub(crate) fn turn_left(src: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut dst = Vec::with_capacity(src.len());
    for x in (0..width).rev() {
        for y in 0..height {
            dst.extend_from_slice(&src[(y * width + x) * CHANNELS..][..CHANNELS]);
        }
    }
    dst
}

/// The half turn of `cv2.rotate(src, ROTATE_180)`, in place.
pub(crate) fn turn_half(pixels: &mut [u8]) {
    pixels.reverse();
    for pixel in pixels.chunks_exact_mut(CHANNELS) {
        pixel.reverse();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn gradient(width: usize, height: usize) -> Vec<u8> {
        (0..width * height * CHANNELS).map(|i| (i * 7 % 251) as u8).collect()
    }

    fn image(width: usize, height: usize) -> Image {
        Image::new(width as u32, height as u32, gradient(width, height)).unwrap()
    }

    #[test]
    fn resize_keeps_a_flat_colour_and_single_pixels() {
        let flat = [10, 20, 30].repeat(5 * 4);
        for (w, h) in [(1, 1), (3, 9), (10, 8), (64, 2)] {
            assert_eq!(resize_bilinear(&flat, 5, 4, w, h), [10, 20, 30].repeat(w * h));
        }
        assert_eq!(resize_bilinear(&[1, 2, 3], 1, 1, 7, 5), [1, 2, 3].repeat(35));
    }

    #[test]
    fn resize_of_nothing_is_nothing() {
        assert!(resize_bilinear(&gradient(3, 3), 3, 3, 0, 5).is_empty());
        assert_eq!(resize_bilinear(&[], 0, 0, 2, 1), [0; 6]);
    }

    #[test]
    fn half_size_averages_blocks_rounding_half_up() {
        let src = [0, 0, 0, 1, 2, 3, 0, 0, 0, 1, 0, 0];
        assert_eq!(resize_bilinear(&src, 2, 2, 1, 1), [1, 1, 1]);
    }

    #[test]
    fn reduced_rows_are_those_of_docvortex() {
        let resized = resize_bilinear_blocks(&gradient(43, 8), 43, 8, 35, 5);
        let third: [u8; 105] = [
            151, 158, 165, 177, 184, 148, 131, 138, 91, 103, 110, 117, 129, 136, 143, 154, 129, 136, 120, 62, 69, 81,
            88, 95, 107, 114, 121, 133, 140, 147, 158, 165, 172, 184, 191, 119, 102, 109, 98, 110, 117, 124, 136, 143,
            150, 161, 101, 108, 91, 69, 76, 88, 95, 102, 114, 121, 128, 140, 147, 154, 165, 172, 179, 191, 198, 90, 91,
            98, 105, 117, 124, 131, 143, 150, 157, 168, 72, 79, 69, 76, 83, 95, 102, 109, 121, 128, 135, 147, 154, 161,
            172, 179, 186, 173, 79, 86, 98, 105, 112, 124, 131, 138, 150, 157, 164,
        ];
        assert_eq!(resized[2 * 105..][..105], third);
        // Long rows, whose positions are reckoned anew after 171 threes of blocks; three source blocks for one.
        for (from, to, sum) in [((2900, 4), (2880, 2), 1_070_839_745), ((700, 4), (300, 2), 102_758_206)] {
            let resized = resize_bilinear_blocks(&gradient(from.0, from.1), from.0, from.1, to.0, to.1);
            let weighted = resized.iter().enumerate().map(|(i, &byte)| (i % 1000 + 1) * usize::from(byte));
            assert_eq!(weighted.sum::<usize>(), sum);
        }
    }

    #[test]
    fn rows_that_are_not_reduced_so_are_cv2s() {
        for (from, to) in
            [((43, 8), (43, 5)), ((43, 8), (14, 4)), ((43, 8), (50, 4)), ((10, 8), (9, 4)), ((43, 8), (20, 0))]
        {
            let src = gradient(from.0, from.1);
            let blocks = resize_bilinear_blocks(&src, from.0, from.1, to.0, to.1);
            assert_eq!(blocks, resize_bilinear(&src, from.0, from.1, to.0, to.1));
        }
        assert_eq!(resize_bilinear_blocks(&[], 0, 0, 2, 1), [0; 6]);
        let flat = [10, 20, 30].repeat(43 * 8);
        assert_eq!(resize_bilinear_blocks(&flat, 43, 8, 35, 5), [10, 20, 30].repeat(35 * 5));
    }

    #[test]
    fn half_precision_has_eleven_bits_and_steps_of_two_to_the_minus_24() {
        let bits = |exponent: i32| 2.0_f64.powi(exponent);
        for (value, wanted) in [
            (0.0, 0.0),
            (255.0, 255.0),
            (-0.75, -0.75),
            (1.0 + bits(-11), 1.0),
            (1.0 + 3.0 * bits(-11), 1.0 + bits(-9)),
            (1.0 + bits(-11) + bits(-40), 1.0 + bits(-10)),
            (2049.0, 2048.0),
            (bits(-24), bits(-24)),
            (-bits(-25), 0.0),
            (1.75 * bits(-24), bits(-23)),
        ] {
            assert!((half(value) - wanted).abs() <= 0.0, "{value}: {}", half(value));
        }
    }

    #[test]
    fn every_cubic_weight_set_sums_to_one() {
        assert_eq!(CUBIC_WEIGHTS.len(), 1024);
        for weights in CUBIC_WEIGHTS.iter() {
            assert_eq!(weights.iter().map(|&w| i32::from(w)).sum::<i32>(), 1 << CUBIC_BITS);
        }
    }

    #[test]
    fn the_copy_on_a_whole_pixel_equals_the_weighted_sum() {
        let image = image(9, 9);
        let sampler = CubicSampler::new(&image);
        let copied = sampler.sample(4 * SUBPIXELS, 4 * SUBPIXELS);
        let summed = sampler.interior(4, 4, &CUBIC_WEIGHTS[0]).map(|s| ((s + (1 << 14)) >> 15) as u8);
        assert_eq!(copied, summed);
    }

    #[test]
    fn interior_and_border_paths_agree() {
        let image = image(12, 11);
        let sampler = CubicSampler::new(&image);
        for fraction in [1, 77, 500, 1023] {
            let weights = &CUBIC_WEIGHTS[fraction];
            assert_eq!(sampler.interior(5, 6, weights), sampler.border(5, 6, weights));
        }
    }

    #[test]
    fn warp_of_the_identity_copies_and_repeats_the_border() {
        let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let source = image(4, 3);
        assert_eq!(warp_perspective(&source, &identity, 4, 3), source.pixels());
        let wide = warp_perspective(&source, &identity, 6, 1);
        assert_eq!(wide[12..15], source.pixels()[9..12]);
        assert_eq!(wide[15..18], source.pixels()[9..12]);
    }

    #[test]
    fn warp_in_half_precision_of_the_identity_copies_and_repeats_the_border() {
        let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let source = image(4, 3);
        assert_eq!(warp_perspective_half(&source, &identity, 4, 3), source.pixels());
        assert_eq!(warp_perspective_half(&source, &identity, 6, 1)[15..], source.pixels()[9..12]);
    }

    #[test]
    fn warp_survives_hopeless_matrices() {
        let source = image(4, 3);
        for matrix in [[0.0; 9], [f64::NAN; 9], [1e300; 9], [1.0, 0.0, 1e12, 0.0, 1.0, -1e12, 0.0, 0.0, 1.0]] {
            assert_eq!(warp_perspective(&source, &matrix, 5, 5).len(), 75);
            assert_eq!(warp_perspective_half(&source, &matrix, 5, 5).len(), 75);
        }
    }

    #[test]
    fn perspective_transform_takes_corners_to_corners() {
        let at = |x: f32, y: f32| Point { x, y };
        let src = [at(10.0, 20.0), at(110.0, 25.0), at(105.0, 60.0), at(8.0, 58.0)];
        let dst = [at(0.0, 0.0), at(100.0, 0.0), at(100.0, 40.0), at(0.0, 40.0)];
        let m = perspective_transform(&src, &dst);
        for (s, d) in src.iter().zip(&dst) {
            let (x, y) = (f64::from(s.x), f64::from(s.y));
            let w = m[6] * x + m[7] * y + m[8];
            assert!(((m[0] * x + m[1] * y + m[2]) / w - f64::from(d.x)).abs() < 1e-9);
            assert!(((m[3] * x + m[4] * y + m[5]) / w - f64::from(d.y)).abs() < 1e-9);
        }
        let zero = perspective_transform(&[at(0.0, 0.0); 4], &dst);
        assert!(zero[..8].iter().all(|v| v.abs() < 1e-9) && (zero[8] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn turns() {
        let src: Vec<u8> = [1, 2, 3, 4, 5, 6].iter().flat_map(|&v| [v, v + 10, v + 20]).collect();
        let left = turn_left(&src, 3, 2);
        assert_eq!(left.chunks(3).map(|p| p[0]).collect::<Vec<_>>(), [3, 6, 2, 5, 1, 4]);
        let mut half = src.clone();
        turn_half(&mut half);
        assert_eq!(half.chunks(3).map(|p| p[0]).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
        assert_eq!(half[..3], [6, 16, 26]);
    }

    #[test]
    fn planes_are_padded_with_zero() {
        let mut table = [0.0; 256];
        for (i, v) in table.iter_mut().enumerate() {
            *v = i as f32 + 0.5;
        }
        let planes = to_planes(&[1, 2, 3], 1, 1, 2, [&table; 3]);
        assert_eq!(planes, [1.5, 0.0, 2.5, 0.0, 3.5, 0.0]);
    }
}
