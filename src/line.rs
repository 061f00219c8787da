//! What the models of a line, recognition and orientation, take in.

use std::sync::LazyLock;

use crate::error::Result;
use crate::image::Image;
use crate::resample::{Resize, to_planes};
use crate::runtime::Normalisation;

/// Height of their input, pixels.
pub const HEIGHT: usize = 48;

/// A byte as they take it: `(x / 255 - 0.5) / 0.5` in f32.
static NORMALISED: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|x| (x as f32 / 255.0 - 0.5) / 0.5));

/// The same of a model that takes pixels.
pub const NORMALISATION: Normalisation = Normalisation { factor: [1.0 / 127.5; 3], offset: [-1.0; 3] };

/// A byte that is nearly zero then.
pub const NOTHING: u8 = 127;

/// A crop, resized to `resized_w` x 48.
pub(crate) fn resized(crop: &Image, resized_w: usize, resize: Resize) -> Result<Image> {
    let pixels = resize(crop.pixels(), crop.width() as usize, crop.height() as usize, resized_w, HEIGHT);
    Image::new(resized_w as u32, HEIGHT as u32, pixels)
}

/// Copies a [`resized`] line to its place in a tensor of 48 x `width` x 3 bytes, with [`NOTHING`] to its right.
pub(crate) fn lay(resized: &Image, place: &mut [u8], width: usize) {
    let row = (resized.width() as usize * 3).min(width * 3);
    let rows = resized.pixels().chunks_exact(resized.width().max(1) as usize * 3);
    for (from, to) in rows.zip(place.chunks_exact_mut(width * 3)) {
        to[..row].copy_from_slice(&from[..row]);
        to[row..].fill(NOTHING);
    }
}

/// A crop, resized to `resized_w` x 48, normalised and zero-padded on the right to `width`: 3 x 48 x `width`.
pub(crate) fn tensor(crop: &Image, resized_w: usize, width: usize, resize: Resize) -> Vec<f32> {
    let resized = resize(crop.pixels(), crop.width() as usize, crop.height() as usize, resized_w, HEIGHT);
    to_planes(&resized, resized_w, HEIGHT, width, [&NORMALISED; 3])
}
