//! Finding the lines: a page to detection's input, and its probability map to boxes (DB, "differentiable binarization").
//! Numerically PaddleOCR 3.x.

use crate::config::{DetectionOptions, LimitType, ScoreMode};
use crate::geometry::{Point, Quad, dilate_2x2, find_contours, mean_inside, min_area_rect, unclip};
use crate::image::Image;
use crate::resample::resize_bilinear;

/// `ImageNet`'s mean and standard deviation, applied in BGR order as PaddleOCR does.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// The net halves its input five times.
const MULTIPLE: f64 = 32.0;
/// Boxes shorter than this in the map are noise, before and after they are grown (PaddleOCR's `min_size`).
const MIN_SIDE: f32 = 3.0;

/// A box and how sure detection is of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detected {
    /// Corners in the page's pixels.
    pub quad: Quad,
    /// Mean probability inside, 0 to 1.
    pub score: f32,
}

/// Width and height of the input for a page (PaddleOCR's `DetResizeForTest`): bounded by the options, multiples of 32.
#[must_use]
pub fn input_size(width: u32, height: u32, options: &DetectionOptions) -> (u32, u32) {
    let (width, height) = padded_size(width, height);
    let (w, h) = (f64::from(width), f64::from(height));
    let limit = f64::from(options.limit_side_len);
    let ratio = match options.limit_type {
        LimitType::Max if w.max(h) > limit => limit / w.max(h),
        LimitType::Min if w.min(h) < limit => limit / w.min(h),
        LimitType::ResizeLong => limit / w.max(h),
        LimitType::Max | LimitType::Min => 1.0,
    };
    let (mut w, mut h) = ((w * ratio).trunc(), (h * ratio).trunc());
    let most = f64::from(options.max_side);
    if w.max(h) > most {
        let ratio = most / w.max(h);
        (w, h) = ((w * ratio).trunc(), (h * ratio).trunc());
    }
    let fit = |side: f64| ((side / MULTIPLE).round_ties_even() * MULTIPLE).max(MULTIPLE) as u32;
    (fit(w), fit(h))
}

/// A tiny page is padded with black before it is resized.
fn padded_size(width: u32, height: u32) -> (u32, u32) {
    if width + height < 64 { (width.max(32), height.max(32)) } else { (width, height) }
}

/// The input tensor, f32, 1 x 3 x h x w.
#[must_use]
pub fn preprocess(image: &Image, (w, h): (u32, u32)) -> Vec<f32> {
    let padded = padded_size(image.width(), image.height());
    let side = |size: (u32, u32)| (size.0 as usize, size.1 as usize);
    let resized = if padded == (image.width(), image.height()) {
        resize_bilinear(image.pixels(), side(padded), side((w, h)))
    } else {
        resize_bilinear(&pad(image, padded), side(padded), side((w, h)))
    };
    let plane = (w * h) as usize;
    let mut tensor = vec![0.0; 3 * plane];
    for (c, values) in tensor.chunks_exact_mut(plane).enumerate() {
        let (scale, shift) = (1.0 / 255.0 / STD[c], -MEAN[c] / STD[c]);
        for (value, pixel) in values.iter_mut().zip(resized.chunks_exact(3)) {
            *value = f32::from(pixel[c]) * scale + shift;
        }
    }
    tensor
}

fn pad(image: &Image, (w, h): (u32, u32)) -> Vec<u8> {
    let mut pixels = vec![0; (w * h * 3) as usize];
    let row = image.width() as usize * 3;
    for (target, source) in pixels.chunks_exact_mut(w as usize * 3).zip(image.pixels().chunks_exact(row)) {
        target[..row].copy_from_slice(source);
    }
    pixels
}

/// The boxes in a probability map of `map_size`, in the pixels of a page of `page_size`, in the order of the map's contours (from the bottom up).
#[must_use]
pub fn postprocess(map: &[f32], map_size: (u32, u32), page_size: (u32, u32), options: &DetectionOptions) -> Vec<Detected> {
    let (w, h) = (map_size.0 as usize, map_size.1 as usize);
    let mut mask: Vec<u8> = map.iter().map(|&p| u8::from(p > options.thresh)).collect();
    if options.use_dilation {
        mask = dilate_2x2(&mask, w, h);
    }
    let contours = find_contours(&mask, w, h);
    let scale = (f64::from(page_size.0) / f64::from(map_size.0), f64::from(page_size.1) / f64::from(map_size.1));
    let on_page = |p: Point| Point {
        x: (f64::from(p.x) * scale.0).round_ties_even().clamp(0.0, f64::from(page_size.0)) as f32,
        y: (f64::from(p.y) * scale.1).round_ties_even().clamp(0.0, f64::from(page_size.1)) as f32,
    };
    let detect = |contour: &Vec<(i32, i32)>| {
        let found = min_area_rect(contour.iter().map(|p| (f64::from(p.0), f64::from(p.1))));
        if found.short_side < MIN_SIDE {
            return None;
        }
        let score = match options.score_mode {
            ScoreMode::Fast => mean_inside(map, w, h, &in_own_frame(&found.quad, w, h)),
            ScoreMode::Slow => mean_inside(map, w, h, contour),
        };
        // Written so that a score that is no number is dropped.
        if !(score >= options.box_thresh) {
            return None;
        }
        let grown = unclip(&found.quad, options.unclip_ratio);
        let grown = min_area_rect(grown.into_iter().map(|p| (p.0 as f64, p.1 as f64)));
        (grown.short_side >= MIN_SIDE + 2.0).then(|| Detected { quad: Quad(grown.quad.0.map(on_page)), score })
    };
    contours.iter().take(options.max_candidates as usize).filter_map(detect).collect()
}

/// The box's corners as PaddleOCR's fast score truncates them: relative to the box's own integer frame inside the map.
fn in_own_frame(quad: &Quad, w: usize, h: usize) -> Vec<(i32, i32)> {
    let low = |f: fn(&Point) -> f32, size: usize| {
        quad.0.iter().map(f).fold(f32::MAX, f32::min).floor().clamp(0.0, size as f32 - 1.0)
    };
    let (left, top) = (low(|p| p.x, w), low(|p| p.y, h));
    quad.0.iter().map(|p| ((left + (p.x - left).trunc()) as i32, (top + (p.y - top).trunc()) as i32)).collect()
}
