//! Whether a line is upside down: a crop to the 0/180 model's input, and its answer to a flag. Numerically PaddleOCR 2.x's `cls`.

use crate::image::Image;
use crate::recognition::normalise_into;

/// Input width, pixels.
pub const WIDTH: usize = 192;
/// Input height, pixels.
pub const HEIGHT: usize = 48;

/// The input tensor, f32, 3 x 48 x 192: resized to the height, at most 192 wide, the rest zero.
#[must_use]
pub fn preprocess(crop: &Image) -> Vec<f32> {
    let ratio = f64::from(crop.width()) / f64::from(crop.height());
    let width = ((HEIGHT as f64 * ratio).ceil() as usize).clamp(1, WIDTH);
    let mut tensor = vec![0.0; 3 * HEIGHT * WIDTH];
    normalise_into(&mut tensor, crop, width, HEIGHT, WIDTH);
    tensor
}

/// Whether the probabilities of (0, 180 degrees) say upside down, surely enough.
#[must_use]
pub fn is_upside_down(probabilities: &[f32], thresh: f32) -> bool {
    matches!(probabilities, [up, down, ..] if down > up && *down > thresh)
}
