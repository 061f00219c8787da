//! Whether a line is upside down: the input and the output of the classifier `ch_ppocr_mobile_v2.0_cls`.

use crate::image::Image;
use crate::recognition::{self, line_tensor};

/// Width of the model's input, pixels.
pub const WIDTH: usize = 192;
/// Height of the model's input, pixels.
pub const HEIGHT: usize = recognition::HEIGHT;

/// The model's input for one crop: 3 x 48 x 192, f32, BGR.
///
/// The crop keeps its ratio, at most 192 wide, with zeros to its right, as `resize_norm_img` of `PaddleOCR` 2.x.
#[must_use]
pub fn preprocess(crop: &Image) -> Vec<f32> {
    let ratio = f64::from(crop.width()) / f64::from(crop.height().max(1));
    let natural = (HEIGHT as f64 * ratio).ceil() as usize;
    line_tensor(crop, natural.min(WIDTH), WIDTH)
}

/// The model's answer: 180 degrees is the more probable of (0, 180), with a probability of more than `thresh`.
#[must_use]
pub fn is_upside_down(probabilities: &[f32], thresh: f32) -> bool {
    matches!(*probabilities, [upright, turned] if turned > upright && turned > thresh)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn narrow_crops_are_padded_and_wide_ones_squeezed() {
        let narrow = preprocess(&Image::new(3_u32, 48_u32, vec![255; 3 * 48 * 3]).unwrap());
        assert_eq!(narrow.len(), 3 * HEIGHT * WIDTH);
        assert!((narrow[2] - 1.0).abs() < 1e-6 && narrow[3].abs() < 1e-9);
        let wide = preprocess(&Image::new(1000_u32, 10_u32, vec![255; 30_000]).unwrap());
        assert!(wide.iter().all(|&v| (v - 1.0).abs() < 1e-6));
    }

    #[test]
    fn only_a_sure_180_turns_a_line() {
        assert!(is_upside_down(&[0.05, 0.95], 0.9));
        assert!(!is_upside_down(&[0.1, 0.9], 0.9));
        assert!(!is_upside_down(&[0.6, 0.4], 0.1));
        assert!(!is_upside_down(&[f32::NAN, f32::NAN], 0.9));
        assert!(!is_upside_down(&[], 0.9));
    }
}
