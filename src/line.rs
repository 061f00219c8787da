//! What the models of a line, recognition and orientation, take in.

use std::sync::LazyLock;

use crate::image::Image;
use crate::resample::{Resize, to_planes};

/// Height of their input, pixels.
pub const HEIGHT: usize = 48;

/// A byte as they take it: `(x / 255 - 0.5) / 0.5` in f32.
static NORMALISED: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|x| (x as f32 / 255.0 - 0.5) / 0.5));

/// A crop, resized to `resized_w` x 48, normalised and zero-padded on the right to `width`: 3 x 48 x `width`.
pub(crate) fn tensor(crop: &Image, resized_w: usize, width: usize, resize: Resize) -> Vec<f32> {
    let resized = resize(crop.pixels(), crop.width() as usize, crop.height() as usize, resized_w, HEIGHT);
    to_planes(&resized, resized_w, HEIGHT, width, [&NORMALISED; 3])
}
