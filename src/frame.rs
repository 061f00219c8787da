//! What is done to a page before lines are looked for on it, and the way back: `RapidOCR` 3.10 reduces a large page, enlarges a thin one and
//! puts black above and below a flat one (`utils/process_img.py`). Off unless [`PageOptions`] ask for it.

use crate::config::PageOptions;
use crate::error::{Error, Result};
use crate::geometry::{Point, Quad};
use crate::image::Image;
use crate::resample::resize_bilinear;

/// How much larger than what its permit is for a page may become, and what it may be in any case, pixels. The permit's bytes stay as they are:
/// an input pixel of detection, which has its own budget, takes fifty times those of the page.
const GROWTH: u64 = 4;
/// See [`GROWTH`].
const SMALL: u64 = 4 << 20;

/// Both sides of a page that was scaled are multiples of this, pixels.
const STEP: f64 = 32.0;

/// How a page was prepared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Pixels of the page in one of the prepared page, across and down.
    scale: (f32, f32),
    /// Rows of black above it.
    top: u32,
    /// Width and height of the page.
    page: (u32, u32),
}

impl Frame {
    /// A quad of the prepared page on the page itself, inside it.
    #[must_use]
    pub fn back(&self, Quad(corners): &Quad) -> Quad {
        let place = |at: f32, scale: f32, end: u32| (at * scale).clamp(0.0, end as f32);
        Quad(corners.map(|p| Point {
            x: place(p.x, self.scale.0, self.page.0),
            y: place(p.y - self.top as f32, self.scale.1, self.page.1),
        }))
    }
}

/// The page that lines are looked for on, and its frame where it is another than `image`. `pad`: whether a flat one gets black around it,
/// which a line by itself does not. `reserved`: the pixels that its permit is for.
///
/// # Errors
/// [`Error::InvalidImage`] where that page would become far larger.
pub fn prepare(image: Image, o: &PageOptions, pad: bool, reserved: u64) -> Result<(Image, Option<Frame>)> {
    let page = (image.width(), image.height());
    let (width, height) = scaled(page, o);
    let top = if pad { rows_above((width, height), o) } else { 0 };
    let pixels = u64::from(width) * (u64::from(height) + 2 * u64::from(top));
    if (width, height, top) == (page.0, page.1, 0) {
        return Ok((image, None));
    }
    if pixels > SMALL.saturating_add(GROWTH.saturating_mul(reserved)) {
        return Err(Error::InvalidImage(format!(
            "a page of {}x{} would be enlarged to {pixels} pixels; cut it in pieces, or set page_min_side and page_pad_ratio to 0",
            page.0, page.1
        )));
    }
    let [w, h, into_w, into_h] = [page.0, page.1, width, height].map(|side| side as usize);
    let row = into_w * 3;
    let mut prepared = vec![0; row * (into_h + 2 * top as usize)];
    let inside = &mut prepared[row * top as usize..][..row * into_h];
    if (w, h) == (into_w, into_h) {
        inside.copy_from_slice(image.pixels());
    } else {
        inside.copy_from_slice(&resize_bilinear(image.pixels(), w, h, into_w, into_h));
    }
    let scale = (f64::from(page.0) / f64::from(width), f64::from(page.1) / f64::from(height));
    let frame = Frame { scale: (scale.0 as f32, scale.1 as f32), top, page };
    Ok((Image::new(width, height + 2 * top, prepared)?, Some(frame)))
}

/// `resize_image_within_bounds`, which gives up where a side becomes 0; here it is 32 then.
fn scaled((mut width, mut height): (u32, u32), o: &PageOptions) -> (u32, u32) {
    if o.max_side > 0 && width.max(height) > o.max_side {
        (width, height) = times((width, height), f64::from(o.max_side) / f64::from(width.max(height)));
    }
    if o.min_side > 0 && width.min(height) < o.min_side {
        (width, height) = times((width, height), f64::from(o.min_side) / f64::from(width.min(height)));
    }
    (width, height)
}

fn times((width, height): (u32, u32), ratio: f64) -> (u32, u32) {
    // Python's round: half to even.
    let side = |side: u32| (((f64::from(side) * ratio).trunc() / STEP).round_ties_even() * STEP).max(STEP) as u32;
    (side(width), side(height))
}

/// `get_padding_h`: so much black that the page is a quarter as high as wide, and twice `pad_height` at least.
fn rows_above((width, height): (u32, u32), o: &PageOptions) -> u32 {
    let (w, h, most) = (f64::from(width), f64::from(height), f64::from(o.pad_ratio));
    let is_flat = most > 0.0 && w / h > most;
    if !is_flat && height > o.pad_height {
        return 0;
    }
    let least = if most > 0.0 { (w / most) as u32 } else { 0 };
    least.max(o.pad_height).saturating_mul(2).saturating_sub(height) / 2
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rapidocr() -> PageOptions {
        PageOptions { max_side: 2000, min_side: 30, pad_ratio: 8.0, pad_height: 30 }
    }

    fn prepared(width: u32, height: u32, o: &PageOptions) -> (u32, u32, u32) {
        let page = Image::new(width, height, vec![9; (width * height * 3) as usize]).unwrap();
        let (image, frame) = prepare(page, o, true, 100_000_000).unwrap();
        (image.width(), image.height(), frame.map_or(0, |frame| frame.top))
    }

    #[test]
    fn a_page_is_left_alone_unless_asked() {
        assert_eq!(prepared(3000, 10, &PageOptions::default()), (3000, 10, 0));
        assert_eq!(prepared(1000, 700, &rapidocr()), (1000, 700, 0));
    }

    #[test]
    fn large_thin_and_flat_pages_become_rapidocrs() {
        // Of 3000x2100, 2000x1400: 62.5 and 43.75 steps of 32, to the even one.
        assert_eq!(prepared(3000, 2100, &rapidocr()), (1984, 1408, 0));
        assert_eq!(prepared(20, 100, &rapidocr()), (32, 160, 0));
        // Ten times as wide as high: twice 1000 / 8 high.
        assert_eq!(prepared(1000, 100, &rapidocr()), (1000, 250, 75));
        assert_eq!(prepared(60, 30, &rapidocr()), (60, 60, 15));
        assert_eq!(prepared(1000, 100, &PageOptions { pad_ratio: 0.0, ..rapidocr() }), (1000, 100, 0));
    }

    #[test]
    fn a_side_that_would_vanish_is_a_step_long() {
        assert_eq!(prepared(40_000, 5, &rapidocr()).0, 1984);
    }

    #[test]
    fn the_page_stands_in_the_middle_of_the_black_and_boxes_come_back() {
        let page = Image::new(400_u32, 40_u32, vec![200; 400 * 40 * 3]).unwrap();
        let (image, frame) = prepare(page, &rapidocr(), true, 1_000_000).unwrap();
        let rows: Vec<u8> = image.pixels().chunks(400 * 3).map(|row| row[0]).collect();
        assert_eq!(rows.iter().position(|&value| value == 200), Some(30));
        assert_eq!(rows.iter().rposition(|&value| value == 200), Some(69));
        let quad = Quad([(0.0, 20.0), (400.0, 35.0), (399.0, 69.0), (5.0, 90.0)].map(|(x, y)| Point { x, y }));
        let back = frame.unwrap().back(&quad).0.map(|p| (p.x as i32, p.y as i32));
        assert_eq!(back, [(0, 0), (400, 5), (399, 39), (5, 40)]);
    }

    #[test]
    fn boxes_of_a_reduced_page_are_enlarged() {
        let page = Image::new(4000_u32, 2000_u32, vec![0; 24_000_000]).unwrap();
        let (image, frame) = prepare(page, &rapidocr(), true, 100_000_000).unwrap();
        let (w, h) = (image.width() as f32, image.height() as f32);
        let quad = Quad([(0.0, 0.0), (w / 2.0, 0.0), (w, h), (0.0, h)].map(|(x, y)| Point { x, y }));
        let back = frame.unwrap().back(&quad).0.map(|p| (p.x.round() as i32, p.y.round() as i32));
        assert_eq!(back, [(0, 0), (2000, 0), (4000, 2000), (0, 2000)]);
    }

    #[test]
    fn a_page_that_would_grow_beyond_the_limit_is_refused() {
        let strip = Image::new(2000_u32, 1_u32, vec![0; 6000]).unwrap();
        let error = prepare(strip, &rapidocr(), true, 1_000_000).unwrap_err();
        assert!(error.to_string().contains("page_min_side"), "{error}");
    }
}
