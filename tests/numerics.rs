//! The numerics against vectors recorded from cv2 and pyclipper by `scripts/record_numerics.py`.
//!
//! Source pixels come from the same formulas as there; only results are stored.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::LazyLock;

use serde::Deserialize;
use threadsafe_ocr::config::{DetectionOptions, LimitType, Numerics, RecognitionOptions, ScoreMode};
use threadsafe_ocr::geometry::{
    Direction, MinAreaRect, Point, Quad, crop, crop_quad, crop_size, dilate_2x2, find_contours, min_area_rect,
    score_fast, score_slow, sort_reading_order, unclip,
};
use threadsafe_ocr::image::Image;
use threadsafe_ocr::resample::{perspective_transform, resize_bilinear, warp_perspective};
use threadsafe_ocr::{detection, orientation, recognition};

type Size = (usize, usize);
/// Eight numbers: x and y of four corners.
type Corners = [f32; 8];
/// Page width and height, limit, its type, `max_side`, the input's size.
type InputSizeCase = (u32, u32, u32, String, u32, (u32, u32));
/// Centre, direction, half extents along and across it, level; see `probability_map`.
type Blob = [i64; 7];

#[derive(Deserialize)]
struct Vectors {
    resize: Vec<ResizeCase>,
    crops: Vec<CropCase>,
    warps: Vec<WarpCase>,
    contours: ContourCase,
    rects: Vec<(Vec<i32>, Corners, f32)>,
    offsets: Vec<(Corners, f32, Corners, f32)>,
    scores: ScoreCase,
    orders: Vec<OrderCase>,
    postprocess: Vec<PostprocessCase>,
    inputs: InputCases,
}

#[derive(Deserialize)]
struct ResizeCase {
    source: (usize, usize, usize),
    size: Size,
    crc: u32,
    first: Vec<u8>,
}

#[derive(Deserialize)]
struct CropCase {
    quad: Corners,
    size: Size,
    at: usize,
}

#[derive(Deserialize)]
struct WarpCase {
    corners: Corners,
    matrix: [f64; 9],
    size: Size,
    at: usize,
}

#[derive(Deserialize)]
struct ContourCase {
    size: Size,
    blobs: Vec<Blob>,
    seed: usize,
    thresh: f32,
    contours: Vec<Vec<i32>>,
    rects: Vec<(Corners, f32)>,
    dilated: u32,
}

#[derive(Deserialize)]
struct ScoreCase {
    size: Size,
    blobs: Vec<Blob>,
    seed: usize,
    fast: Vec<(Corners, f32)>,
    slow_thresh: f32,
    slow: Vec<f32>,
}

#[derive(Deserialize)]
struct OrderCase {
    corners: Vec<f32>,
    order: Vec<usize>,
}

#[derive(Deserialize)]
struct PostprocessCase {
    size: (u32, u32),
    blobs: Vec<Blob>,
    seed: usize,
    image: (u32, u32),
    options: PostprocessOptions,
    found: Vec<(Corners, f32)>,
}

#[derive(Deserialize)]
struct PostprocessOptions {
    thresh: f32,
    box_thresh: f32,
    ratio: f32,
    mode: String,
    dilation: bool,
    max_candidates: u32,
}

#[derive(Deserialize)]
struct InputCases {
    detection: Vec<DetectionCase>,
    detection_sizes: Vec<InputSizeCase>,
    recognition: Vec<RecognitionCase>,
    orientation: Vec<OrientationCase>,
    widths: WidthCase,
}

#[derive(Deserialize)]
struct DetectionCase {
    page: (usize, usize, usize),
    limit: u32,
    limit_type: String,
    max_side: u32,
    size: (u32, u32),
    crc: u32,
}

#[derive(Deserialize)]
struct RecognitionCase {
    page: (usize, usize, usize),
    width: u32,
    crc: u32,
}

#[derive(Deserialize)]
struct OrientationCase {
    page: (usize, usize, usize),
    crc: u32,
}

#[derive(Deserialize)]
struct WidthCase {
    sizes: Vec<Size>,
    group: u32,
    widths: Vec<u32>,
}

static VECTORS: LazyLock<Vectors> = LazyLock::new(|| serde_json::from_slice(&data("vectors.json")).unwrap());
static CROPS: LazyLock<Vec<u8>> = LazyLock::new(|| data("crops.bin"));

fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/numerics").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run scripts/record_numerics.py", path.display()))
}

fn mix(x: usize) -> u32 {
    let mut x = x as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn page((width, height, seed): (usize, usize, usize)) -> Image {
    let pixel = |i: usize| {
        let (y, x, c) = (i / 3 / width, i / 3 % width, i % 3);
        let noise = mix(i + seed * 1_000_003);
        let block = mix((y / 4) * 7919 + x / 4 + seed * 31) & 1;
        let value = if y % 40 < 22 && block == 1 {
            30 + 10 * c as u32 + (noise & 31)
        } else {
            225 - 5 * c as u32 + (noise & 15)
        };
        value as u8
    };
    Image::new(width as u32, height as u32, (0..width * height * 3).map(pixel).collect()).unwrap()
}

fn probability_map(width: usize, height: usize, blobs: &[Blob], seed: usize) -> Vec<f32> {
    let value = |i: usize| {
        let (x, y) = ((i % width) as i64, (i / width) as i64);
        let noise = i64::from(mix(i + seed * 1_000_003));
        let level = |&[cx, cy, ux, uy, half_u, half_v, level]: &Blob| {
            let u = (x - cx) * ux + (y - cy) * uy;
            let v = (y - cy) * ux - (x - cx) * uy;
            (u.abs() <= half_u && v.abs() <= half_v).then_some(level - (noise >> 8 & 255))
        };
        let top = blobs.iter().filter_map(level).max().unwrap_or(0);
        top.max(noise & 127) as f32 / 1024.0
    };
    (0..width * height).map(value).collect()
}

/// CRC-32 as zlib has it.
fn crc(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

fn crc_f32(values: &[f32]) -> u32 {
    crc(values.iter().flat_map(|v| v.to_le_bytes()))
}

fn points(corners: &Corners) -> [Point; 4] {
    std::array::from_fn(|i| Point { x: corners[2 * i], y: corners[2 * i + 1] })
}

fn pairs(flat: &[i32]) -> Vec<(i32, i32)> {
    flat.chunks_exact(2).map(|p| (p[0], p[1])).collect()
}

/// Largest difference of a coordinate.
fn apart(a: &[Point; 4], b: &[Point; 4]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a.x - b.x).abs().max((a.y - b.y).abs())).fold(0.0, f32::max)
}

#[track_caller]
fn assert_rect(found: &MinAreaRect, corners: &Corners, short_side: f32, tolerance: f32) {
    let wanted = points(corners);
    assert!(apart(&found.corners, &wanted) <= tolerance, "{:?} is not {wanted:?}", found.corners);
    assert!((found.short_side - short_side).abs() <= tolerance, "{} is not {short_side}", found.short_side);
}

/// Bytes that differ; panics where one differs by more than a level.
fn off_by_one(found: &[u8], wanted: &[u8]) -> usize {
    assert_eq!(found.len(), wanted.len());
    assert!(found.iter().zip(wanted).all(|(a, b)| a.abs_diff(*b) <= 1));
    found.iter().zip(wanted).filter(|(a, b)| a != b).count()
}

fn limit_type(name: &str) -> LimitType {
    match name {
        "min" => LimitType::Min,
        "max" => LimitType::Max,
        "resize_long" => LimitType::ResizeLong,
        _ => panic!("{name}"),
    }
}

#[test]
fn resize_is_bit_exact() {
    assert!(VECTORS.resize.len() >= 13);
    for case in &VECTORS.resize {
        let source = page(case.source);
        let (w, h) = case.size;
        let resized = resize_bilinear(source.pixels(), source.width() as usize, source.height() as usize, w, h);
        let first = case.first.len();
        assert_eq!(resized[..first], case.first, "{:?} to {w}x{h}", case.source);
        assert_eq!(crc(resized), case.crc, "{:?} to {w}x{h}", case.source);
    }
}

#[test]
fn crops_are_those_of_cv2() {
    assert!(VECTORS.crops.len() >= 60);
    let image = page((420, 300, 1));
    let (mut different, mut total) = (0, 0);
    for case in &VECTORS.crops {
        let quad = Quad(points(&case.quad));
        let found = crop(&image, &crop_quad(&quad), false).unwrap();
        assert_eq!((found.width() as usize, found.height() as usize), case.size, "{quad:?}");
        let (w, h, _) = crop_size(&crop_quad(&quad));
        assert_eq!((w, h), case.size);
        let wanted = &CROPS[case.at..][..w * h * 3];
        different += off_by_one(found.pixels(), wanted);
        total += wanted.len();

        let mut turned = crop(&image, &crop_quad(&quad), true).unwrap().pixels().to_vec();
        turned.reverse();
        let swapped: Vec<u8> = turned.chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
        assert_eq!(swapped, found.pixels());
    }
    assert!(different * 1000 <= total, "{different} of {total} bytes differ");
}

#[test]
fn warps_of_any_quad_are_those_of_cv2() {
    let image = page((420, 300, 1));
    let (mut different, mut total) = (0, 0);
    for case in &VECTORS.warps {
        let (w, h) = case.size;
        let (right, bottom) = (w as f32, h as f32);
        let target = points(&[0.0, 0.0, right, 0.0, right, bottom, 0.0, bottom]);
        let matrix = perspective_transform(&points(&case.corners), &target);
        for (found, wanted) in matrix.iter().zip(&case.matrix) {
            assert!((found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0), "{matrix:?} is not {:?}", case.matrix);
        }
        let wanted = &CROPS[case.at..][..w * h * 3];
        different += off_by_one(&warp_perspective(&image, &matrix, w, h), wanted);
        total += wanted.len();
    }
    assert!(different * 1000 <= total, "{different} of {total} bytes differ");
}

fn mask_of(case: &ContourCase) -> Vec<u8> {
    let map = probability_map(case.size.0, case.size.1, &case.blobs, case.seed);
    map.iter().map(|&p| u8::from(p > case.thresh)).collect()
}

#[test]
fn contours_are_those_of_cv2_in_its_order() {
    let case = &VECTORS.contours;
    let found = find_contours(&mask_of(case), case.size.0, case.size.1);
    assert_eq!(found.len(), case.contours.len());
    for (found, wanted) in found.iter().zip(&case.contours) {
        assert_eq!(*found, pairs(wanted));
    }
}

#[test]
fn dilation_is_that_of_cv2() {
    let case = &VECTORS.contours;
    assert_eq!(crc(dilate_2x2(&mask_of(case), case.size.0, case.size.1)), case.dilated);
}

#[test]
fn rectangles_are_those_of_cv2() {
    let case = &VECTORS.contours;
    for (contour, (corners, side)) in case.contours.iter().zip(&case.rects) {
        assert_rect(&min_area_rect(&pairs(contour)), corners, *side, 0.01);
    }
    for (points, corners, side) in &VECTORS.rects {
        assert_rect(&min_area_rect(&pairs(points)), corners, *side, 0.01);
    }
}

#[test]
fn grown_boxes_are_those_of_pyclipper() {
    for (corners, ratio, grown, side) in &VECTORS.offsets {
        let polygon = unclip(&Quad(points(corners)), *ratio);
        assert_rect(&min_area_rect(&polygon), grown, *side, 0.01);
    }
}

#[test]
fn scores_are_those_of_cv2() {
    let case = &VECTORS.scores;
    let (w, h) = case.size;
    let map = probability_map(w, h, &case.blobs, case.seed);
    for (corners, wanted) in &case.fast {
        let found = score_fast(&map, w, h, &Quad(points(corners)));
        assert!((found - wanted).abs() < 1e-6, "{corners:?}: {found} is not {wanted}");
    }
    let mask: Vec<u8> = map.iter().map(|&p| u8::from(p > case.slow_thresh)).collect();
    let contours = find_contours(&mask, w, h);
    assert_eq!(contours.len(), case.slow.len());
    for (contour, wanted) in contours.iter().zip(&case.slow) {
        let found = score_slow(&map, w, h, contour);
        assert!((found - wanted).abs() < 1e-6, "{contour:?}: {found} is not {wanted}");
    }
}

#[test]
fn reading_order_is_that_of_paddle() {
    for case in &VECTORS.orders {
        let quads: Vec<Quad> = case.corners.chunks(2).map(|p| Quad([Point { x: p[0], y: p[1] }; 4])).collect();
        assert_eq!(sort_reading_order(&quads, Direction::Right), case.order);
    }
}

#[test]
fn boxes_of_a_map_are_those_of_paddle() {
    assert!(VECTORS.postprocess.iter().all(|case| case.found.len() > 1));
    for case in &VECTORS.postprocess {
        let o = &case.options;
        let options = DetectionOptions {
            thresh: o.thresh,
            box_thresh: o.box_thresh,
            unclip_ratio: o.ratio,
            use_dilation: o.dilation,
            score_mode: if o.mode == "fast" { ScoreMode::Fast } else { ScoreMode::Slow },
            max_candidates: o.max_candidates,
            ..DetectionOptions::default()
        };
        let map = probability_map(case.size.0 as usize, case.size.1 as usize, &case.blobs, case.seed);
        let found = detection::postprocess(&map, case.size, case.image, &options, Numerics::Paddle3);
        assert_eq!(found.len(), case.found.len());
        for (found, (corners, score)) in found.iter().zip(&case.found) {
            let wanted = points(corners);
            assert!(apart(&found.quad.0, &wanted) <= 1.0, "{:?} is not {wanted:?}", found.quad);
            assert!((found.score - score).abs() < 1e-6);
        }
    }
}

#[test]
fn detection_inputs_are_those_of_paddle() {
    for case in &VECTORS.inputs.detection {
        let options = DetectionOptions {
            limit_side_len: case.limit,
            limit_type: limit_type(&case.limit_type),
            max_side: case.max_side,
            ..DetectionOptions::default()
        };
        let size = detection::input_size(case.page.0 as u32, case.page.1 as u32, &options);
        assert_eq!(size, case.size);
        assert_eq!(crc_f32(&detection::preprocess(&page(case.page), size)), case.crc, "{:?}", case.page);
    }
    for (width, height, limit, kind, max_side, wanted) in &VECTORS.inputs.detection_sizes {
        let options = DetectionOptions {
            limit_side_len: *limit,
            limit_type: limit_type(kind),
            max_side: *max_side,
            ..DetectionOptions::default()
        };
        assert_eq!(detection::input_size(*width, *height, &options), *wanted, "{width}x{height}, {kind} {limit}");
    }
}

#[test]
fn line_inputs_are_those_of_paddle() {
    let options = RecognitionOptions { group: 6, ..RecognitionOptions::default() };
    for case in &VECTORS.inputs.recognition {
        let crop = page(case.page);
        assert_eq!(
            recognition::widths(&[(crop.width() as usize, crop.height() as usize)], &options)[0].pixels,
            case.width
        );
        assert_eq!(
            crc_f32(&recognition::preprocess(&crop, case.width, &options, Numerics::Paddle3)),
            case.crc,
            "{:?}",
            case.page
        );
    }
    for case in &VECTORS.inputs.orientation {
        assert_eq!(crc_f32(&orientation::preprocess(&page(case.page))), case.crc, "{:?}", case.page);
    }
    let case = &VECTORS.inputs.widths;
    let options = RecognitionOptions { group: case.group, ..RecognitionOptions::default() };
    let widths: Vec<u32> = recognition::widths(&case.sizes, &options).iter().map(|width| width.pixels).collect();
    assert_eq!(widths, case.widths);
}
