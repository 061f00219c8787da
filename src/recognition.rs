//! Reading a line: input widths, the model's input, and the text in its output.
//!
//! The crops of a page go in at height 48. `PaddleOCR` 3.x pads groups of six crops to their widest, so that a line's score depends on its
//! neighbours; by default each line here is by itself, and `group` restores Paddle's tensors where they are wanted.

use std::cmp::Ordering;

use crate::config::{Numerics, RecognitionOptions};
use crate::image::Image;
use crate::line::{self, HEIGHT};
use crate::resample::resize_of;

/// The input of a crop.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Width {
    /// Pixels across.
    pub pixels: u32,
    /// The part of it that the crop fills, 0 to 1; in groups as `PaddleOCR` reckons it for its word boxes, from ratios that are not rounded.
    pub share: f64,
}

impl Width {
    /// The same crop in a wider input.
    pub(crate) fn at(self, pixels: u32) -> Self {
        Self { pixels, share: self.share * f64::from(self.pixels) / f64::from(pixels.max(1)) }
    }
}

/// The input width of each crop, in the order of `sizes`, which are (width, height) of non-empty crops.
///
/// `group` 0: each crop by itself, `ceil(48 * width / height)` rounded up to a multiple of `width_step`, within `min_width` and `max_width`.
/// `group` n: stably sorted by width to height ratio, cut into groups of n, each as wide as its widest crop in `PaddleOCR` 3.x.
#[must_use]
pub fn widths(sizes: &[(usize, usize)], o: &RecognitionOptions) -> Vec<Width> {
    if o.group == 0 {
        return sizes.iter().map(|&size| own_width(size, o)).collect();
    }
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|&a, &b| ratio(sizes[a]).partial_cmp(&ratio(sizes[b])).unwrap_or(Ordering::Equal));
    let mut widths = vec![Width::default(); sizes.len()];
    for group in order.chunks(o.group as usize) {
        let pixels = group.iter().map(|&i| paddle_width(sizes[i], o)).max().unwrap_or(0);
        let widest = group.iter().map(|&i| ratio(sizes[i])).fold(least_ratio(o), f64::max);
        for &i in group {
            widths[i] = Width { pixels, share: ratio(sizes[i]) / widest };
        }
    }
    widths
}

fn ratio((width, height): (usize, usize)) -> f64 {
    width as f64 / height.max(1) as f64
}

/// Width of the crop itself at height 48. The product of doubles and its rounding are Paddle's.
fn natural_width(size: (usize, usize)) -> u32 {
    (HEIGHT as f64 * ratio(size)).ceil() as u32
}

fn own_width(size: (usize, usize), o: &RecognitionOptions) -> Width {
    let (step, natural) = (o.width_step.max(1), natural_width(size));
    let stepped = natural.div_ceil(step).saturating_mul(step);
    let pixels = stepped.max(o.min_width).min(o.max_width);
    Width { pixels, share: f64::from(natural.min(pixels)) / f64::from(pixels) }
}

fn least_ratio(o: &RecognitionOptions) -> f64 {
    f64::from(o.min_width) / HEIGHT as f64
}

/// `imgW` of Paddle's `OCRReisizeNormImg`, capped.
fn paddle_width(size: (usize, usize), o: &RecognitionOptions) -> u32 {
    ((HEIGHT as f64 * least_ratio(o).max(ratio(size))) as u32).min(o.max_width)
}

/// `MinerU` never makes a line narrower, pixels (`resize_text_recognition_image`).
const MINERU_LEAST: u32 = 16;

/// The model's input for one crop: 3 x 48 x `width`, f32, channels in BGR order, columns right of the line zero.
///
/// `width` is the crop's of [`widths`]. The crop keeps its ratio as far as it fits and is squeezed otherwise; in a group 3.x fits it into the
/// width that it would have alone, the others into the group's.
#[must_use]
pub fn preprocess(crop: &Image, width: u32, o: &RecognitionOptions, numerics: Numerics) -> Vec<f32> {
    line::tensor(crop, resized_width(crop, width, o, numerics), width as usize, resize_of(numerics))
}

/// The part of an input of `width` pixels that a crop fills.
pub(crate) fn resized_width(crop: &Image, width: u32, o: &RecognitionOptions, numerics: Numerics) -> usize {
    let size = (crop.width() as usize, crop.height() as usize);
    let by_itself = o.group > 0 && numerics == Numerics::Paddle3;
    let limit = if by_itself { paddle_width(size, o).min(width) } else { width };
    let least = if matches!(numerics, Numerics::MinerU | Numerics::MinerU4) { MINERU_LEAST } else { 0 };
    // An input of few widths may be wider than a line may be.
    natural_width(size).max(least).min(limit).min(o.max_width) as usize
}

/// Class and probability of every column, as a model that takes pixels tells them: two numbers each.
#[must_use]
pub fn told_classes(output: &[f32]) -> Vec<(u32, f32)> {
    output.chunks_exact(2).map(|pair| (pair[0] as u32, pair[1])).collect()
}

/// The most probable class of every time step and its probability, the first of equals as `numpy.argmax` has it.
///
/// `output` is T x `classes`, softmax. A value that is not a number is never the maximum; a step without any other gives class 0 at
/// probability 0.
#[must_use]
pub fn best_classes(output: &[f32], classes: usize) -> Vec<(u32, f32)> {
    if classes == 0 {
        return Vec::new();
    }
    output.chunks_exact(classes).map(best_class).collect()
}

/// Two passes: a maximum over independent lanes, which the compiler turns into vector instructions, then its first position.
fn best_class(row: &[f32]) -> (u32, f32) {
    const LANES: usize = 32;
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    let best = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |best, &value| larger(best, value));
    first_at_least(row, best).map_or((0, 0.0), |class| (class as u32, best))
}

/// Position of the first value that is not below `wanted`, chunk by chunk.
fn first_at_least(row: &[f32], wanted: f32) -> Option<usize> {
    const LANES: usize = 64;
    // Counting has no early exit, so it runs in vectors.
    let has = |chunk: &&[f32]| chunk.iter().filter(|&&value| value >= wanted).count() > 0;
    let (index, chunk) = row.chunks(LANES).enumerate().find(|(_, chunk)| has(chunk))?;
    chunk.iter().position(|&value| value >= wanted).map(|at| index * LANES + at)
}

/// What a line says, and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The text.
    pub text: String,
    /// Mean probability of its characters, each at its first time step as PaddleOCR has it; 0 for no text.
    pub score: f32,
    /// The first time step of each code point of `text` and its probability there, those of one dictionary entry alike.
    pub characters: Vec<(u32, f32)>,
    /// The confidence in each code point of `text`: the highest probability among its time steps. It tells better what is misread than the
    /// first one, which is low where a character begins between two steps.
    pub confidences: Vec<f32>,
}

/// CTC: repeats and blanks dropped, the rest looked up.
///
/// `best` is [`best_classes`]' result; `dictionary[0]` is the blank, its last entry a space. A class beyond it is dropped.
#[must_use]
pub fn ctc_decode(best: &[(u32, f32)], dictionary: &[String]) -> Reading {
    const BLANK: u32 = 0;
    let (mut text, mut characters, mut confidences) = (String::new(), Vec::new(), Vec::new());
    let (mut sum, mut count) = (0.0, 0u32);
    let mut end = 0;
    for run in best.chunk_by(|a, b| a.0 == b.0) {
        let (class, probability) = run[0];
        let step = end;
        end += run.len() as u32;
        let Some(character) = dictionary.get(class as usize).filter(|_| class != BLANK) else { continue };
        let highest = run.iter().map(|&(_, probability)| probability).fold(probability, f32::max);
        text.push_str(character);
        characters.extend(character.chars().map(|_| (step, probability)));
        confidences.extend(character.chars().map(|_| highest));
        sum += f64::from(probability);
        count += 1;
    }
    let score = if count == 0 { 0.0 } else { (sum / f64::from(count)) as f32 };
    Reading { text, score, characters, confidences }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn paddle() -> RecognitionOptions {
        RecognitionOptions { group: 6, min_width: 320, ..RecognitionOptions::default() }
    }

    fn pixels(sizes: &[(usize, usize)], o: &RecognitionOptions) -> Vec<u32> {
        widths(sizes, o).iter().map(|width| width.pixels).collect()
    }

    #[test]
    fn own_widths_are_stepped_and_bounded() {
        let o = RecognitionOptions::default();
        let sizes = [(10, 48), (320, 48), (321, 48), (4000, 48), (1, 4000)];
        assert_eq!(pixels(&sizes, &o), [160, 320, 352, 3200, 160]);
        let o = RecognitionOptions { width_step: 1, min_width: 8, max_width: 100, ..o };
        assert_eq!(pixels(&[(10, 48), (33, 24), (200, 48)], &o), [10, 66, 100]);
    }

    #[test]
    fn a_crop_fills_its_part_of_the_input() {
        let share = |size, o: &RecognitionOptions| widths(&[size], o)[0].share;
        let o = RecognitionOptions { min_width: 320, ..RecognitionOptions::default() };
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(share((80, 24), &o), 0.5) && near(share((320, 48), &o), 1.0) && near(share((9000, 48), &o), 1.0));
        // Paddle's group: the widest is not rounded down here, though its input of 409 pixels is.
        let shares: Vec<f64> = widths(&[(401, 47), (100, 25)], &paddle()).iter().map(|width| width.share).collect();
        assert!(near(shares[0], 1.0) && near(shares[1], 4.0 * 47.0 / 401.0));
        assert!(near(share((100, 30), &paddle()), 0.5));
    }

    #[test]
    fn groups_are_as_wide_as_their_widest() {
        let sizes = [(960, 48), (100, 48), (481, 48), (100_000, 48)];
        let o = RecognitionOptions { group: 2, ..paddle() };
        assert_eq!(pixels(&sizes, &o), [3200, 481, 481, 3200]);
        assert!(widths(&[], &o).is_empty());
    }

    #[test]
    fn paddle_rounds_wide_lines_down() {
        // 48 * 401 / 47 = 409.5: PaddleOCR's input is 409 wide and the crop is resized to that, not to 410.
        assert_eq!(pixels(&[(401, 47)], &paddle()), [409]);
        assert_eq!(pixels(&[(401, 47)], &RecognitionOptions::default()), [416]);
    }

    #[test]
    fn the_rest_of_a_line_is_zero() {
        let crop = Image::new(2_u32, 1_u32, vec![255; 6]).unwrap();
        let o = RecognitionOptions::default();
        let input = preprocess(&crop, 320, &o, Numerics::Paddle3);
        assert_eq!(input.len(), 3 * HEIGHT * 320);
        assert!(input[..96].iter().all(|&v| (v - 1.0).abs() < 1e-6));
        assert!(input[96..320].iter().all(|&v| v.abs() < 1e-9));
    }

    #[test]
    fn a_squeezed_line_fills_its_width() {
        let crop = Image::new(500_u32, 2_u32, vec![0; 3000]).unwrap();
        let o = RecognitionOptions { max_width: 64, min_width: 8, ..RecognitionOptions::default() };
        assert!(preprocess(&crop, 64, &o, Numerics::Paddle3).iter().all(|&v| (v + 1.0).abs() < 1e-6));
    }

    #[test]
    fn a_narrow_line_is_widened_for_mineru() {
        let crop = Image::new(1_u32, 48_u32, vec![255; 144]).unwrap();
        let width = |numerics| {
            let input = preprocess(&crop, 320, &paddle(), numerics);
            input[..320].iter().filter(|&&value| value > 0.9).count()
        };
        assert_eq!(
            [Numerics::Paddle2, Numerics::RapidOcr, Numerics::MinerU, Numerics::MinerU4].map(width),
            [1, 1, 16, 16]
        );
    }

    #[test]
    fn best_class_is_the_first_maximum_wherever_it_is() {
        for classes in [1, 2, 31, 32, 33, 64, 65, 130] {
            for at in 0..classes {
                let mut row = vec![0.25; classes];
                row[at..].fill(0.5);
                assert_eq!(best_classes(&row, classes), [(at as u32, 0.5)]);
            }
        }
    }

    #[test]
    fn best_class_ignores_what_is_not_a_number() {
        assert_eq!(best_classes(&[f32::NAN, 0.1, 0.7, f32::NAN], 4), [(2, 0.7)]);
        assert_eq!(best_classes(&[f32::NAN; 3], 3), [(0, 0.0)]);
        assert!(best_classes(&[], 5).is_empty());
        assert!(best_classes(&[1.0], 0).is_empty());
    }

    #[test]
    fn ctc_drops_repeats_and_blanks() {
        let dictionary = ["blank", "a", "b", " "].map(String::from);
        let best = [(0, 0.9), (1, 0.8), (1, 0.1), (0, 0.9), (1, 0.6), (3, 0.5), (2, 0.7), (2, 0.2), (9, 0.3)];
        let reading = ctc_decode(&best, &dictionary);
        assert_eq!(reading.text, "aa b");
        assert!((reading.score - 0.65).abs() < 1e-6);
        assert_eq!(ctc_decode(&[(0, 1.0)], &dictionary), Reading::default());
        assert_eq!(ctc_decode(&[], &dictionary), Reading::default());
    }

    #[test]
    fn every_code_point_has_the_first_step_of_its_class() {
        let dictionary = ["blank", "a", "e\u{301}"].map(String::from);
        let reading = ctc_decode(&[(0, 0.9), (1, 0.8), (1, 0.9), (2, 0.7), (9, 0.6), (1, 0.5)], &dictionary);
        assert_eq!(reading.text, "ae\u{301}a");
        assert_eq!(reading.characters, [(1, 0.8), (3, 0.7), (3, 0.7), (5, 0.5)]);
    }

    #[test]
    fn every_code_point_has_the_confidence_of_the_surest_step_of_its_class() {
        let dictionary = ["blank", "a", "e\u{301}"].map(String::from);
        let best = [(1, 0.5), (1, 0.9), (1, 0.8), (0, 0.9), (1, 0.7), (2, 0.3), (2, 0.6), (9, 0.9), (9, 0.9)];
        let reading = ctc_decode(&best, &dictionary);
        assert_eq!(reading.text, "aae\u{301}");
        assert_eq!(reading.confidences, [0.9, 0.7, 0.6, 0.6]);
    }
}
