//! Reading a line: its input width, a crop to recognition's input, and class scores to text (CTC). Numerically PaddleOCR 3.x.

use crate::config::RecognitionOptions;
use crate::image::Image;
use crate::resample::resize_bilinear;

/// Input height, pixels.
pub const HEIGHT: usize = 48;

/// The padded input width of every crop of a request, from its width and height; a function of the request alone.
#[must_use]
pub fn input_widths(sizes: &[(usize, usize)], options: &RecognitionOptions) -> Vec<u32> {
    if options.group == 0 {
        return sizes.iter().map(|&size| grid_width(size, options)).collect();
    }
    let ratio = |&(w, h): &(usize, usize)| w as f64 / h as f64;
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|&a, &b| ratio(&sizes[a]).total_cmp(&ratio(&sizes[b])));
    let mut widths = vec![0; sizes.len()];
    for group in order.chunks(options.group as usize) {
        let widest = group.iter().map(|&i| own_width(sizes[i], options)).max().unwrap_or(options.min_width);
        for &i in group {
            widths[i] = widest;
        }
    }
    widths
}

/// The crop's width at height 48.
fn natural_width((w, h): (usize, usize)) -> f64 {
    (HEIGHT as f64 * (w as f64 / h as f64)).ceil()
}

fn grid_width(size: (usize, usize), options: &RecognitionOptions) -> u32 {
    let width = natural_width(size).min(f64::from(options.max_width)) as u32;
    width.next_multiple_of(options.width_step).clamp(options.min_width, options.max_width)
}

/// PaddleOCR's own width of a crop: at least `min_width`, at most `max_width`.
fn own_width((w, h): (usize, usize), options: &RecognitionOptions) -> u32 {
    let least = f64::from(options.min_width) / HEIGHT as f64;
    let width = HEIGHT as f64 * least.max(w as f64 / h as f64);
    width.min(f64::from(options.max_width)) as u32
}

/// The input tensor, f32, 3 x 48 x `width`: resized to the height, the rest zero.
#[must_use]
pub fn preprocess(crop: &Image, width: u32, options: &RecognitionOptions) -> Vec<f32> {
    let size = (crop.width() as usize, crop.height() as usize);
    let own = if options.group == 0 { width } else { own_width(size, options) };
    let resized = natural_width(size).min(f64::from(own.min(width))).max(1.0) as usize;
    let mut tensor = vec![0.0; 3 * HEIGHT * width as usize];
    normalise_into(&mut tensor, crop, resized, HEIGHT, width as usize);
    tensor
}

/// Writes the crop, resized to `width` x `height`, into the left of a zero tensor of 3 x `height` x `stride`, as (v / 255 - 0.5) / 0.5.
pub(crate) fn normalise_into(tensor: &mut [f32], crop: &Image, width: usize, height: usize, stride: usize) {
    let pixels = resize_bilinear(crop.pixels(), (crop.width() as usize, crop.height() as usize), (width, height));
    for (c, plane) in tensor.chunks_exact_mut(height * stride).enumerate() {
        for (target, source) in plane.chunks_exact_mut(stride).zip(pixels.chunks_exact(width * 3)) {
            for (value, pixel) in target.iter_mut().zip(source.chunks_exact(3)) {
                *value = (f32::from(pixel[c]) / 255.0 - 0.5) / 0.5;
            }
        }
    }
}

/// The most probable class of every column of a `columns x classes` output and its probability; of equals the first.
#[must_use]
pub fn best_classes(output: &[f32], classes: usize) -> Vec<(u32, f32)> {
    output.chunks_exact(classes.max(1)).map(best_class).collect()
}

/// Two passes, each of which the compiler vectorises, are faster over 18,710 classes than one that carries an index.
fn best_class(column: &[f32]) -> (u32, f32) {
    let mut lanes = [f32::MIN; 16];
    let chunks = column.chunks_exact(16);
    let rest = chunks.remainder().iter().copied().fold(f32::MIN, f32::max);
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let best = lanes.into_iter().fold(rest, f32::max);
    let index = column.iter().position(|&value| value >= best).unwrap_or(0);
    (index as u32, best)
}

/// The text of the columns' best classes and its score: repeats and blanks (class 0) fall out, the score is the mean of what is left.
/// `dictionary[i]` is the text of class `i`.
#[must_use]
pub fn ctc_decode(best: &[(u32, f32)], dictionary: &[String]) -> (String, f32) {
    let mut text = String::new();
    let (mut sum, mut count) = (0.0f32, 0);
    let mut previous = 0;
    for &(class, score) in best {
        if class != previous && class != 0 {
            text.push_str(dictionary.get(class as usize).map_or("", String::as_str));
            sum += score;
            count += 1;
        }
        previous = class;
    }
    (text, if count == 0 { 0.0 } else { sum / count as f32 })
}
