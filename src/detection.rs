//! Finding the lines of a page: the model's input size, its input, and the boxes in its output.
//!
//! This is `DetResizeForTest`, `NormalizeImage` and `DBPostProcess` of `PaddleOCR` 3.x (paddlex 3.7) for boxes of four corners, and what 2.x,
//! `RapidOCR` and `MinerU` make of a box.

use std::borrow::Cow;

use crate::buffer;
use crate::config::{DetectionOptions, LimitType, Numerics, ScoreMode};
use crate::error::Result;
use crate::geometry::{self, MinAreaRect, Point, Quad, dilate_2x2, find_contours, score_fast, score_slow, unclip};
use crate::image::Image;
use crate::line;
use crate::resample::{resize_of, to_planes};
use crate::runtime::Normalisation;

/// The model's strides: both sides of its input are multiples of this, pixels.
const STRIDE: f64 = 32.0;
/// Pages whose width and height add up to less are padded to at least 32 x 32 first.
const TINY: usize = 64;
/// Least side of a padded tiny page, pixels.
const TINY_SIDE: usize = 32;
/// A contour's rectangle must be this wide, pixels of the map (`min_size`).
const MIN_SIDE: f32 = 3.0;
/// A grown box must be this wide, pixels of the map (`min_size + 2`).
const MIN_GROWN_SIDE: f32 = 5.0;
/// `ImageNet` means and deviations, of red, green and blue. Paddle applies them in this order to blue, green and red.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// See [`MEAN`].
const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// A line's box and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detected {
    /// Corners on the page, whole pixels.
    pub quad: Quad,
    /// Mean probability inside, before the box was grown.
    pub score: f32,
}

/// Of [`LimitType::Auto`]: a tenth of the boxes lower than this, pixels of the map. Of 53 pages the two that lose their text in a first look
/// at 1120 have 7.2 and 8.1 there (page CER at 960: 0.016 to 0.77, 0.001 to 0.42), the next one has 11.7.
const SMALL: f32 = 9.0;

/// Width and height of the second look at a page, if it needs one: `boxes` of the first, at `size`, are small, or none.
#[must_use]
pub fn second_look(boxes: &[Detected], size: (u32, u32), page: (u32, u32), o: &DetectionOptions) -> Option<(u32, u32)> {
    let own =
        input_size(page.0, page.1, &DetectionOptions { limit_type: LimitType::Min, limit_side_len: 1, ..o.clone() });
    if o.limit_type != LimitType::Auto || own <= size {
        return None;
    }
    let shorter_side = |Quad([a, b, _, d]): Quad| geometry::distance(a, b).min(geometry::distance(a, d));
    let mut heights: Vec<f32> = boxes.iter().map(|found| shorter_side(found.quad)).collect();
    heights.sort_unstable_by(f32::total_cmp);
    let to_map = size.0 as f32 / page.0 as f32;
    let is_small = heights.get(heights.len() / 10).is_none_or(|height| height * to_map < SMALL);
    is_small.then_some(own)
}

/// Pixels of an input, about: as many as a page has at most by default. They take 16 GB.
const LARGEST: f64 = 1e8;

/// Width and height of the model's input for a page of `width` x `height` pixels.
///
/// The page is scaled to `limit_side_len`, bounded by `max_side` and by [`LARGEST`], and both sides are rounded to the nearest multiple of 32, at least 32.
#[must_use]
pub fn input_size(width: u32, height: u32, o: &DetectionOptions) -> (u32, u32) {
    let (width, height) = padded_size(width as usize, height as usize);
    let (w, h) = (width as f64, height as f64);
    let limit = f64::from(o.limit_side_len);
    let ratio = match o.limit_type {
        LimitType::Max | LimitType::Auto if w.max(h) > limit => limit / w.max(h),
        LimitType::Min if w.min(h) < limit => limit / w.min(h),
        LimitType::Max | LimitType::Auto | LimitType::Min => 1.0,
        LimitType::ResizeLong => limit / w.max(h),
    };
    // Truncated after each step, as Paddle does.
    let scaled = |(w, h): (f64, f64), ratio: f64| ((w * ratio).trunc(), (h * ratio).trunc());
    let mut size = scaled((w, h), ratio);
    let longer = f64::max(size.0, size.1);
    if longer > f64::from(o.max_side) {
        size = scaled(size, f64::from(o.max_side) / longer);
    }
    let area = size.0 * size.1;
    if area > LARGEST {
        size = scaled(size, (LARGEST / area).sqrt());
    }
    // Python's round: half to even.
    let to_stride = |side: f64| ((side / STRIDE).round_ties_even() * STRIDE).max(STRIDE) as u32;
    (to_stride(size.0), to_stride(size.1))
}

/// The size after the padding of tiny pages, which an empty page also gets.
fn padded_size(width: usize, height: usize) -> (usize, usize) {
    if width + height >= TINY && width > 0 && height > 0 {
        return (width, height);
    }
    (width.max(TINY_SIDE), height.max(TINY_SIDE))
}

/// The model's input: 1 x 3 x height x width, f32, channels in BGR order. `size` is (width, height) of [`input_size`].
#[must_use]
pub fn preprocess(image: &Image, size: (u32, u32), numerics: Numerics) -> Vec<f32> {
    let (width, height) = (size.0 as usize, size.1 as usize);
    let resized = resized(image, width, height, numerics);
    let [b, g, r] = match numerics {
        Numerics::RapidOcr => [around_zero(); 3],
        Numerics::Paddle2 | Numerics::Paddle3 | Numerics::MinerU | Numerics::MinerU4 => {
            [normalised(0), normalised(1), normalised(2)]
        }
    };
    to_planes(&resized, width, height, width, [&b, &g, &r])
}

fn resized(image: &Image, width: usize, height: usize, numerics: Numerics) -> Cow<'_, [u8]> {
    let (padded_w, padded_h) = padded_size(image.width() as usize, image.height() as usize);
    let pixels = pad(image, padded_w, padded_h);
    if (padded_w, padded_h) == (width, height) {
        return pixels;
    }
    Cow::Owned(resize_of(numerics)(&pixels, padded_w, padded_h, width, height))
}

/// The input of a model that takes pixels: the page at `size`.
///
/// # Errors
/// [`crate::Error::InvalidImage`] where `size` is empty.
pub fn pixels(image: &Image, size: (u32, u32), numerics: Numerics) -> Result<Image> {
    Image::new(size.0, size.1, resized(image, size.0 as usize, size.1 as usize, numerics).into_owned())
}

/// What a model that takes pixels makes of them.
#[must_use]
pub fn normalisation(numerics: Numerics) -> Normalisation {
    match numerics {
        Numerics::RapidOcr => line::NORMALISATION,
        Numerics::Paddle2 | Numerics::Paddle3 | Numerics::MinerU | Numerics::MinerU4 => {
            let [factor, offset] = std::array::from_fn(|i| std::array::from_fn(|channel| linear(channel)[i]));
            Normalisation { factor, offset }
        }
    }
}

/// The page in the top left of black.
fn pad(image: &Image, width: usize, height: usize) -> Cow<'_, [u8]> {
    if (image.width() as usize, image.height() as usize) == (width, height) {
        return Cow::Borrowed(image.pixels());
    }
    let mut padded = vec![0; width * height * 3];
    if image.width() as usize > 0 {
        let rows = image.pixels().chunks_exact(image.width() as usize * 3);
        for (row, out) in rows.zip(padded.chunks_exact_mut(width * 3)) {
            out[..row.len()].copy_from_slice(row);
        }
    }
    Cow::Owned(padded)
}

/// What each byte of a channel becomes: `x * alpha + beta` in f32, as 3.x computes it.
fn normalised(channel: usize) -> [f32; 256] {
    let [alpha, beta] = linear(channel);
    std::array::from_fn(|x| x as f32 * alpha + beta)
}

fn linear(channel: usize) -> [f32; 2] {
    [(1.0 / 255.0 / DEVIATION[channel]) as f32, (-MEAN[channel] / DEVIATION[channel]) as f32]
}

/// The same in `RapidOCR`, whose mean and deviation are 0.5 (`DetPreProcess`, in f64 after the product).
fn around_zero() -> [f32; 256] {
    std::array::from_fn(|x| ((f64::from(x as f32 * (1.0 / 255.0) as f32) - 0.5) / 0.5) as f32)
}

/// The boxes in the model's output, in the order of `cv2.findContours`.
///
/// `map` is `map_size` (width, height) probabilities in rows; `image_size` is the page's own (width, height), before any padding: that is
/// what Paddle scales by. A box whose score is not a number is dropped.
#[must_use]
pub fn postprocess(
    map: &[f32],
    map_size: (u32, u32),
    image_size: (u32, u32),
    o: &DetectionOptions,
    numerics: Numerics,
) -> Vec<Detected> {
    let map = Map { values: map, width: map_size.0 as usize, height: map_size.1 as usize };
    if map.width == 0 || map.values.len() < map.width * map.height {
        return Vec::new();
    }
    let contours = find_contours(&map.mask(o), map.width, map.height);
    let scale = Scale::new(map_size, image_size);
    let candidates = contours.iter().take(o.max_candidates as usize);
    let enclose = if numerics == Numerics::MinerU4 { geometry::min_area_rect_fused } else { geometry::min_area_rect };
    let found = candidates.filter_map(|contour| map.detect(contour, o, enclose));
    match numerics {
        Numerics::Paddle2 => found.filter_map(|found| scale.apply_inside(found, geometry::clockwise_by_sums)).collect(),
        Numerics::Paddle3 => found.map(|found| scale.apply(found)).collect(),
        Numerics::RapidOcr | Numerics::MinerU | Numerics::MinerU4 => {
            found.filter_map(|found| scale.apply_inside(found, geometry::clockwise_by_x)).collect()
        }
    }
}

/// The model's output.
struct Map<'a> {
    values: &'a [f32],
    width: usize,
    height: usize,
}

impl Map<'_> {
    /// One where there is text.
    fn mask(&self, o: &DetectionOptions) -> Vec<u8> {
        let pixels = &self.values[..self.width * self.height];
        let mut mask = buffer::room_for(pixels.len());
        mask.extend(pixels.iter().map(|&p| u8::from(p > o.thresh)));
        if o.use_dilation { dilate_2x2(&mask, self.width, self.height) } else { mask }
    }

    /// One contour's box, on the map.
    fn detect(
        &self,
        contour: &[(i32, i32)],
        o: &DetectionOptions,
        enclose: fn(&[(i32, i32)]) -> MinAreaRect,
    ) -> Option<Detected> {
        let rect = enclose(contour);
        if rect.short_side < MIN_SIDE {
            return None;
        }
        let quad = Quad(rect.corners);
        let score = match o.score_mode {
            ScoreMode::Fast => score_fast(self.values, self.width, self.height, &quad),
            ScoreMode::Slow => score_slow(self.values, self.width, self.height, contour),
        };
        if score.is_nan() || score < o.box_thresh {
            return None;
        }
        let grown = enclose(&unclip(&quad, o.unclip_ratio));
        (grown.short_side >= MIN_GROWN_SIDE).then_some(Detected { quad: Quad(grown.corners), score })
    }
}

/// From the map to the page.
struct Scale {
    /// Width and height of each.
    map: (f64, f64),
    image: (f64, f64),
}

impl Scale {
    fn new(map: (u32, u32), image: (u32, u32)) -> Self {
        let sides = |(width, height): (u32, u32)| (f64::from(width), f64::from(height));
        Self { map: sides(map), image: sides(image) }
    }

    fn apply(&self, found: Detected) -> Detected {
        // Python's round, half to even; the page's far edges are allowed. Adding zero drops a zero's sign.
        let place = |at: f32, map: f64, end: f64| {
            ((f64::from(at) * (end / map)).round_ties_even().clamp(0.0, end) + 0.0) as f32
        };
        let corners = found
            .quad
            .0
            .map(|p| Point { x: place(p.x, self.map.0, self.image.0), y: place(p.y, self.map.1, self.image.1) });
        Detected { quad: Quad(corners), ..found }
    }

    /// As 2.x places a box (`boxes_from_bitmap`, in f32) and cleans it (`filter_tag_det_res`): inside the page, none of three pixels or less.
    fn apply_inside(&self, found: Detected, clockwise: fn(&Quad) -> Quad) -> Option<Detected> {
        let (width, height) = (self.image.0 as f32, self.image.1 as f32);
        // Adding zero drops a zero's sign.
        let place = |at: f32, map: f64, end: f32| (at / map as f32 * end).round_ties_even().clamp(0.0, end) + 0.0;
        let corners =
            found.quad.0.map(|p| Point { x: place(p.x, self.map.0, width), y: place(p.y, self.map.1, height) });
        let quad =
            Quad(clockwise(&Quad(corners)).0.map(|p| Point { x: p.x.min(width - 1.0), y: p.y.min(height - 1.0) }));
        let [a, b, _, d] = quad.0;
        let is_large = geometry::distance(a, b) >= 4.0 && geometry::distance(a, d) >= 4.0;
        is_large.then_some(Detected { quad, ..found })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Independent of the defaults.
    fn options() -> DetectionOptions {
        let (limit_type, limit_side_len) = (LimitType::Min, 64);
        DetectionOptions {
            limit_type,
            limit_side_len,
            box_thresh: 0.6,
            unclip_ratio: 1.5,
            ..DetectionOptions::default()
        }
    }

    #[test]
    fn input_sizes() {
        let size = |w, h| input_size(w, h, &options());
        assert_eq!(size(1240, 1754), (1248, 1760));
        // 48 / 32 = 1.5 and 80 / 32 = 2.5 both round to 2.
        assert_eq!(size(80, 4096 - 16), (64, 4000));
        assert_eq!(size(48, 48), (64, 64));
        assert_eq!(size(5, 5), (64, 64));
        assert_eq!(size(1, 63), (64, 4000));
        assert_eq!(size(10_000, 100), (4000, 32));
        let max = DetectionOptions { limit_type: LimitType::Max, limit_side_len: 960, ..options() };
        assert_eq!(input_size(1240, 1754, &max), (672, 960));
        assert_eq!(input_size(300, 200, &max), (288, 192));
        let long = DetectionOptions { limit_type: LimitType::ResizeLong, ..max };
        assert_eq!(input_size(300, 200, &long), (960, 640));
        let huge = DetectionOptions { limit_side_len: 65_536, max_side: 65_536, ..long };
        assert_eq!(input_size(64, 64, &huge), (9984, 9984));
        assert_eq!(input_size(64, 6400, &huge), (640, 65_536));
    }

    #[test]
    fn small_letters_get_a_second_look() {
        let auto = DetectionOptions { limit_type: LimitType::Auto, limit_side_len: 960, ..options() };
        let (page, first) = ((1240, 1754), (672, 960));
        assert_eq!(input_size(page.0, page.1, &auto), first);
        let corners =
            |height: f32| [(0.0, 0.0), (300.0, 0.0), (300.0, height), (0.0, height)].map(|(x, y)| Point { x, y });
        let boxes = |heights: &[f32]| {
            heights.iter().map(|&h| Detected { quad: Quad(corners(h)), score: 0.9 }).collect::<Vec<_>>()
        };
        // 20 pixels of the page are 11 of the map, 12 are 6.5.
        assert_eq!(second_look(&boxes(&[20.0; 9]), first, page, &auto), None);
        assert_eq!(
            second_look(
                &boxes(&[20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 12.0]),
                first,
                page,
                &auto
            ),
            None
        );
        assert_eq!(second_look(&boxes(&[20.0, 20.0, 20.0, 12.0]), first, page, &auto), Some((1248, 1760)));
        assert_eq!(second_look(&[], first, page, &auto), Some((1248, 1760)));
        // Nothing more is to be seen there.
        assert_eq!(second_look(&[], (480, 640), (480, 640), &auto), None);
        assert_eq!(second_look(&[], first, page, &DetectionOptions { limit_type: LimitType::Max, ..auto }), None);
    }

    #[test]
    fn input_is_normalised_in_bgr_order() {
        let page = Image::new(64_u32, 64_u32, [255, 0, 128].repeat(64 * 64)).unwrap();
        let input = preprocess(&page, (64, 64), Numerics::Paddle3);
        let plane = 64 * 64;
        assert_eq!(input.len(), 3 * plane);
        assert!((input[0] - (1.0 - 0.485) / 0.229).abs() < 1e-5);
        assert!((input[plane] + 0.456 / 0.224).abs() < 1e-5);
        assert!((input[2 * plane] - (128.0 / 255.0 - 0.406) / 0.225).abs() < 1e-5);
    }

    #[test]
    fn tiny_pages_are_padded_with_black() {
        let page = Image::new(2_u32, 1_u32, vec![255; 6]).unwrap();
        let input = preprocess(&page, (32, 32), Numerics::Paddle3);
        let black = -0.485 / 0.229;
        assert!((input[1] - (1.0 - 0.485) / 0.229).abs() < 1e-5);
        assert!((input[2] - black).abs() < 1e-5 && (input[32] - black).abs() < 1e-5);
    }

    fn map_with(width: usize, height: usize, (x0, y0, x1, y1): (usize, usize, usize, usize), p: f32) -> Vec<f32> {
        let mut map = vec![0.0; width * height];
        for y in y0..=y1 {
            map[y * width + x0..=y * width + x1].fill(p);
        }
        map
    }

    #[test]
    fn one_bright_bar_is_one_line() {
        let map = map_with(64, 32, (10, 10, 49, 19), 0.75);
        let found = postprocess(&map, (64, 32), (128, 64), &options(), Numerics::Paddle3);
        assert_eq!(found.len(), 1);
        assert!((found[0].score - 0.75).abs() < 1e-6);
        // 39 x 9 grows by 39 * 9 * 1.5 / 96 = 5.48 to about 50 x 20, then doubles.
        let corners = found[0].quad.0.map(|p| (p.x as i32, p.y as i32));
        assert_eq!(corners, [(10, 10), (108, 10), (108, 48), (10, 48)]);
    }

    #[test]
    fn paddle2_keeps_boxes_inside_the_page_and_drops_slivers() {
        let map = map_with(64, 32, (4, 4, 63, 27), 0.75);
        let found = |page, numerics| postprocess(&map, (64, 32), page, &options(), numerics);
        let corners = |found: &[Detected]| found[0].quad.0.map(|p| (p.x as i32, p.y as i32));
        assert_eq!(corners(&found((128, 64), Numerics::Paddle3))[2], (128, 64));
        assert_eq!(corners(&found((128, 64), Numerics::Paddle2))[2], (127, 63));
        let edge = map_with(64, 32, (0, 4, 40, 27), 0.75);
        let at_edge = postprocess(&edge, (64, 32), (128, 64), &options(), Numerics::Paddle2);
        assert!(at_edge[0].quad.0.iter().all(|p| p.x.is_sign_positive() && p.y.is_sign_positive()));
        // Four pixels high on the map, three of them inside the page.
        assert_eq!(found((128, 4), Numerics::Paddle3).len(), 1);
        assert!(found((128, 4), Numerics::Paddle2).is_empty());
    }

    #[test]
    fn rapidocrs_input_lies_around_zero() {
        let page = Image::new(64_u32, 64_u32, [255, 0, 51].repeat(64 * 64)).unwrap();
        let input = preprocess(&page, (64, 64), Numerics::RapidOcr);
        let first = [input[0], input[64 * 64], input[2 * 64 * 64]];
        assert!(first.iter().zip([1.0, -1.0, -0.6]).all(|(value, wanted)| (value - wanted).abs() < 1e-6), "{first:?}");
    }

    #[test]
    fn rapidocr_takes_the_leftmost_corners_of_a_slanted_box_for_its_left_side() {
        // A bar that falls by more than 45 degrees: by sums its upper end is the left side, by x its lower one.
        let mut map = vec![0.0; 96 * 96];
        for y in 0..60 {
            for x in 0..8 {
                map[(16 + y) * 96 + 70 - y / 2 + x] = 0.9;
            }
        }
        let corners = |numerics| postprocess(&map, (96, 96), (96, 96), &options(), numerics)[0].quad.0;
        let [by_sums, by_x] = [Numerics::Paddle2, Numerics::RapidOcr].map(corners);
        assert!(by_sums[0].y < by_x[0].y, "{by_sums:?} {by_x:?}");
        assert!(by_x[3].x < by_x[1].x && by_x[0].x < by_x[2].x, "{by_x:?}");
    }

    #[test]
    fn weak_small_and_empty_maps_have_no_lines() {
        let none =
            |map: &[f32], w, h| assert!(postprocess(map, (w, h), (w, h), &options(), Numerics::Paddle3).is_empty());
        none(&map_with(64, 32, (10, 10, 49, 19), 0.5), 64, 32);
        none(&map_with(64, 32, (10, 10, 10, 10), 0.9), 64, 32);
        none(&map_with(64, 32, (10, 10, 40, 10), 0.9), 64, 32);
        none(&[0.0; 64], 8, 8);
        none(&[], 0, 0);
        none(&[0.9], 8, 8);
    }

    #[test]
    fn values_that_are_not_numbers_do_no_harm() {
        let mut map = map_with(64, 32, (10, 10, 49, 19), 0.75);
        map[15 * 64 + 20] = f32::NAN;
        assert!(postprocess(&map, (64, 32), (64, 32), &options(), Numerics::Paddle3).is_empty());
        assert!(postprocess(&[f32::NAN; 1024], (32, 32), (32, 32), &options(), Numerics::Paddle3).is_empty());
        assert!(postprocess(&[f32::INFINITY; 1024], (32, 32), (32, 32), &options(), Numerics::Paddle3).len() <= 1);
    }

    #[test]
    fn at_most_max_candidates_contours_are_looked_at() {
        let mut map = map_with(64, 64, (4, 4, 50, 14), 0.9);
        for (m, v) in map.iter_mut().zip(map_with(64, 64, (4, 40, 50, 50), 0.8)) {
            *m = m.max(v);
        }
        let two = postprocess(&map, (64, 64), (64, 64), &options(), Numerics::Paddle3);
        assert_eq!(two.len(), 2);
        // The contour found last, lowest on the page, comes first.
        assert!((two[0].score - 0.8).abs() < 1e-6);
        let one = DetectionOptions { max_candidates: 1, ..options() };
        assert_eq!(postprocess(&map, (64, 64), (64, 64), &one, Numerics::Paddle3), two[..1]);
    }
}
