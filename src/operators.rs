//! What ONNX Runtime's graphs leave to the package, see [`crate::blocks`]: operators as loops over numbers.
//!
//! Maps are in the blocks of its convolutions: of 8 or 16 channels all pixels, of each pixel a number a channel, then of the next channels. So
//! a map is as many vectors as it has pixels, block by block, and what goes element by element need not know.

// What is not inlined is not compiled for the processor.
#![allow(clippy::inline_always)]

use crate::vectors::{self, Loop, ROUND, multiply_add};

/// Gelu, the activation between the layers of PP-OCRv6's networks: `x` times the probability that a normal variable is below `x`, of each
/// value. ONNX Runtime's goes over them three times and takes two and a half times as long: a tenth of a page.
pub fn gelu(values: &[f32], results: &mut [f32]) {
    vectors::run(Gelu { values, results });
}

struct Gelu<'a> {
    values: &'a [f32],
    results: &'a mut [f32],
}

impl Loop for Gelu<'_> {
    type Result = ();

    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(self) {
        gelu_of::<FUSED, WIDE>(self.values, self.results);
    }
}

/// [`gelu`], to be inlined.
#[inline(always)]
pub(crate) fn gelu_of<const FUSED: bool, const WIDE: bool>(values: &[f32], results: &mut [f32]) {
    let (values, results) =
        if WIDE { gelu_in::<FUSED, 64>(values, results) } else { gelu_in::<FUSED, 32>(values, results) };
    let (values, results) = gelu_in::<FUSED, 16>(values, results);
    gelu_in::<FUSED, 1>(values, results);
}

/// So many at once; those that are left.
#[inline(always)]
fn gelu_in<'v, 'r, const FUSED: bool, const COUNT: usize>(
    values: &'v [f32],
    results: &'r mut [f32],
) -> (&'v [f32], &'r mut [f32]) {
    let ((values, rest), (results, last)) = (values.as_chunks(), results.as_chunks_mut());
    for (values, results) in values.iter().zip(results) {
        gelu_at_once::<FUSED, COUNT>(values, results);
    }
    (rest, last)
}

/// Half of x and half of x times erf(x / √2), which is `x P(x²)`, off by 3e-7 at most, up to 5.18, and 1 from there on (less 1e-7 where multiplication
/// is not fused). P is the polynomial whose largest error is the least (by Lawson's weights), in a variable from -1 to 1: in x² its terms would cancel
/// out.
///
/// Every step waits four cycles for the one before; those of the other vectors of so many fill them. No closure: what of them the compiler does not
/// inline it does not compile for the processor either.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn gelu_at_once<const FUSED: bool, const COUNT: usize>(values: &[f32; COUNT], results: &mut [f32; COUNT]) {
    const END: f32 = 5.180_084_7;
    /// Twice 1 / 5.22².
    const SCALE: f32 = 0.073_398_806;
    /// The highest power first.
    const TERMS: [f32; 14] = [
        -0.001_023_725_4,
        0.002_682_121_5,
        -0.002_526_193_4,
        0.003_658_560_6,
        -0.009_839_945,
        0.017_523_741,
        -0.025_371_25,
        0.036_211_89,
        -0.049_669_906,
        0.064_044_34,
        -0.079_733_804,
        0.099_744_95,
        -0.134_991_65,
        0.270_861_7,
    ];
    let (mut inside, mut places, mut sums) = ([0.0; COUNT], [0.0; COUNT], [TERMS[0]; COUNT]);
    for k in 0..COUNT {
        inside[k] = values[k].clamp(-END, END);
        places[k] = multiply_add::<FUSED>(inside[k] * inside[k], SCALE, -1.0);
    }
    for term in &TERMS[1..] {
        for k in 0..COUNT {
            sums[k] = multiply_add::<FUSED>(sums[k], places[k], *term);
        }
    }
    for k in 0..COUNT {
        let half = 0.5 * values[k];
        results[k] = multiply_add::<FUSED>(half, inside[k] * sums[k], half);
    }
}

/// As many pixels are gone over at once: of a loop over pixels of sixteen numbers the compiler would make one over numbers that are apart.
const PIXELS: usize = 64;

/// Multiplies every vector of one block with its channels' gates.
pub fn gate<const BLOCK: usize>(pixels: &[[f32; BLOCK]], gates: &[f32; BLOCK], results: &mut [[f32; BLOCK]]) {
    vectors::run(Gate { pixels, gates, results });
}

struct Gate<'a, const BLOCK: usize> {
    pixels: &'a [[f32; BLOCK]],
    gates: &'a [f32; BLOCK],
    results: &'a mut [[f32; BLOCK]],
}

impl<const BLOCK: usize> Loop for Gate<'_, BLOCK> {
    type Result = ();

    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(self) {
        let gates = [*self.gates; PIXELS];
        for (pixels, results) in self.pixels.chunks(PIXELS).zip(self.results.chunks_mut(PIXELS)) {
            let values = pixels.as_flattened().iter().zip(gates.as_flattened());
            for ((value, gate), result) in values.zip(results.as_flattened_mut()) {
                *result = value * gate;
            }
        }
    }
}

/// The mean of one block's vectors. Sums in f32 are of 256 of them at most: ONNX Runtime's mean in blocks, one sum, is off by 1e-4.
#[must_use]
pub fn mean<const BLOCK: usize>(pixels: &[[f32; BLOCK]]) -> [f32; BLOCK] {
    vectors::run(Mean { pixels })
}

struct Mean<'a, const BLOCK: usize> {
    pixels: &'a [[f32; BLOCK]],
}

impl<const BLOCK: usize> Loop for Mean<'_, BLOCK> {
    type Result = [f32; BLOCK];

    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(self) -> [f32; BLOCK] {
        let mut total = [0.0_f64; BLOCK];
        for some in self.pixels.chunks(1024) {
            // Four sums side by side: each has to wait for its last addition.
            let mut sums = [[0.0_f32; BLOCK]; 4];
            let (fours, rest) = some.as_chunks::<4>();
            for four in fours {
                for (sum, pixel) in sums.iter_mut().zip(four) {
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += value;
                    }
                }
            }
            for pixel in sums.iter().chain(rest) {
                for (total, &value) in total.iter_mut().zip(pixel) {
                    *total += f64::from(value);
                }
            }
        }
        total.map(|total| (total / self.pixels.len() as f64) as f32)
    }
}

/// One of the steps that [`chain`] takes a number through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// It is multiplied by the first and more by the second.
    Affine(f32, f32),
    /// It is at least the first and at most the second.
    Clamp(f32, f32),
    /// It is kept as it is now, beside.
    Keep,
    /// It is multiplied by the one kept.
    MultiplyKept,
}

impl Step {
    /// As three numbers.
    #[must_use]
    pub fn numbers(self) -> [f32; 3] {
        match self {
            Self::Affine(scale, shift) => [0.0, scale, shift],
            Self::Clamp(low, high) => [1.0, low, high],
            Self::Keep => [2.0, 0.0, 0.0],
            Self::MultiplyKept => [3.0, 0.0, 0.0],
        }
    }

    /// The way back; `None` where no step has these.
    #[must_use]
    pub fn of_numbers([step, a, b]: [f32; 3]) -> Option<Self> {
        let all = [Self::Affine(a, b), Self::Clamp(a, b), Self::Keep, Self::MultiplyKept];
        all.into_iter().find(|found| (found.numbers()[0] - step).abs() < 0.5)
    }
}

/// Takes every number through the steps, as many at once as stay in the nearest cache.
pub fn chain(values: &[f32], steps: &[Step], results: &mut [f32]) {
    vectors::run(Chain { values, steps, results });
}

struct Chain<'a> {
    values: &'a [f32],
    steps: &'a [Step],
    results: &'a mut [f32],
}

/// 4 KB, and as much for those kept.
const AT_ONCE: usize = 1024;

impl Loop for Chain<'_> {
    type Result = ();

    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(self) {
        let mut kept = [0.0; AT_ONCE];
        for (values, results) in self.values.chunks(AT_ONCE).zip(self.results.chunks_mut(AT_ONCE)) {
            results.copy_from_slice(values);
            let kept = &mut kept[..results.len()];
            for step in self.steps {
                match *step {
                    Step::Affine(scale, shift) => {
                        for x in results.iter_mut() {
                            *x = multiply_add::<FUSED>(*x, scale, shift);
                        }
                    }
                    Step::Clamp(low, high) => {
                        for x in results.iter_mut() {
                            let above = if *x < low { low } else { *x };
                            *x = if above > high { high } else { above };
                        }
                    }
                    Step::Keep => kept.copy_from_slice(results),
                    Step::MultiplyKept => results.iter_mut().zip(&*kept).for_each(|(x, kept)| *x *= kept),
                }
            }
        }
    }
}

/// How 8-bit integers stand for numbers: `(integer - zero) * scale`.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// The difference between two integers.
    pub scale: f32,
    /// The integer that is 0.
    pub zero: u8,
}

impl Scale {
    #[inline(always)]
    fn number(self, integer: u8) -> f32 {
        f32::from(i16::from(integer) - i16::from(self.zero)) * self.scale
    }

    /// The nearest integer, the even one of two, as ONNX's `QuantizeLinear` has it.
    #[inline(always)]
    fn integer(self, number: f32) -> u8 {
        let zero = f32::from(self.zero);
        let shifted = (number / self.scale).clamp(-zero, 255.0 - zero) + ROUND;
        (shifted.to_bits() as u8).wrapping_add(self.zero)
    }
}

/// [`gelu`] from integers to integers: there are 256.
pub fn quantized_gelu(values: &[u8], from: Scale, to: Scale, results: &mut [u8]) {
    let numbers: [f32; 256] = std::array::from_fn(|value| from.number(value as u8));
    let mut table = [0.0; 256];
    gelu(&numbers, &mut table);
    let table = table.map(|number| to.integer(number));
    for (value, result) in values.iter().zip(results) {
        *result = table[usize::from(*value)];
    }
}

/// The integers of one image's map in blocks, of each pixel all channels. `area`: its pixels.
pub fn quantize<const BLOCK: usize>(map: &[[f32; BLOCK]], area: usize, to: Scale, results: &mut [u8]) {
    vectors::run(Quantize { map, area, to, results });
}

struct Quantize<'a, const BLOCK: usize> {
    map: &'a [[f32; BLOCK]],
    area: usize,
    to: Scale,
    results: &'a mut [u8],
}

impl<const BLOCK: usize> Loop for Quantize<'_, BLOCK> {
    type Result = ();

    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(self) {
        let (channels, to) = (self.map.len() / self.area * BLOCK, self.to);
        let mut integers = [[0; BLOCK]; PIXELS];
        for (at, block) in self.map.chunks_exact(self.area).enumerate() {
            let results = self.results.chunks_mut(PIXELS * channels);
            for (pixels, results) in block.chunks(PIXELS).zip(results) {
                for (number, integer) in pixels.as_flattened().iter().zip(integers.as_flattened_mut()) {
                    *integer = to.integer(*number);
                }
                for (integers, result) in integers.iter().zip(results.chunks_exact_mut(channels)) {
                    result[at * BLOCK..(at + 1) * BLOCK].copy_from_slice(integers);
                }
            }
        }
    }
}

/// One block of the map in blocks of one image's integers, of each pixel all channels; of two such maps, if there are two, the sum. `at`: which
/// block.
pub fn dequantize<const BLOCK: usize>(
    first: (&[u8], Scale),
    second: Option<(&[u8], Scale)>,
    (at, channels): (usize, usize),
    results: &mut [[f32; BLOCK]],
) {
    vectors::run(Dequantize { first, second, at: at * BLOCK, channels, results });
}

struct Dequantize<'a, const BLOCK: usize> {
    first: (&'a [u8], Scale),
    second: Option<(&'a [u8], Scale)>,
    at: usize,
    channels: usize,
    results: &'a mut [[f32; BLOCK]],
}

impl<const BLOCK: usize> Loop for Dequantize<'_, BLOCK> {
    type Result = ();

    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(self) {
        let (at, channels) = (self.at, self.channels);
        let collect = |all: &[u8], integers: &mut [[u8; BLOCK]; PIXELS]| {
            for (all, integers) in all.chunks_exact(channels).zip(integers) {
                integers.copy_from_slice(&all[at..at + BLOCK]);
            }
        };
        let (mut integers, mut others) = ([[0; BLOCK]; PIXELS], [[0; BLOCK]; PIXELS]);
        let (first, from) = self.first;
        for (part, results) in self.results.chunks_mut(PIXELS).enumerate() {
            let start = part * PIXELS * channels;
            collect(&first[start..], &mut integers);
            let numbers = integers.as_flattened().iter();
            if let Some((second, of_second)) = self.second {
                collect(&second[start..], &mut others);
                for ((a, b), result) in numbers.zip(others.as_flattened()).zip(results.as_flattened_mut()) {
                    *result = from.number(*a) + of_second.number(*b);
                }
            } else {
                for (a, result) in numbers.zip(results.as_flattened_mut()) {
                    *result = from.number(*a);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Simpson's rule over the normal density.
    fn exact(x: f64) -> f64 {
        let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let step = x / 1000.0;
        let inner: f64 = (1..1000).map(|k| density(step * f64::from(k)) * if k % 2 == 1 { 4.0 } else { 2.0 }).sum();
        x * (0.5 + step / 3.0 * (density(0.0) + inner + density(x)))
    }

    #[test]
    fn values_are_those_of_the_definition_on_every_processor() {
        // Some are left over beside those at once: a vector, and single ones.
        let values: Vec<f32> = (-8018..=8000).map(|k| k as f32 / 1000.0).collect();
        for everywhere in [false, true] {
            let mut found = vec![0.0; values.len()];
            let work = Gelu { values: &values, results: &mut found };
            if everywhere {
                work.run::<false, false>();
            } else {
                vectors::run(work);
            }
            for (&x, found) in values.iter().zip(found) {
                let wanted = exact(f64::from(x));
                assert!((f64::from(found) - wanted).abs() < 1e-6, "gelu({x}) is {wanted}, not {found}");
            }
        }
    }

    #[test]
    fn large_values_stay_and_their_negatives_are_nearly_nothing() {
        let mut found = [0.0; 6];
        gelu(&[30.0, 1e30, f32::INFINITY, -30.0, 0.0, f32::NAN], &mut found);
        let [large, huge, infinite, below, nothing, no_number] = found;
        assert!((large - 30.0).abs() < 1e-5 && (huge / 1e30 - 1.0).abs() < 1e-6 && below.abs() < 1e-5);
        assert!(infinite.is_infinite() && nothing.abs() < 1e-30 && no_number.is_nan());
    }

    #[test]
    fn numbers_go_through_all_steps_of_a_chain() {
        let steps = [
            Step::Affine(1.5, 0.25),
            Step::Keep,
            Step::Affine(1.0, 3.0),
            Step::Clamp(0.0, 6.0),
            Step::MultiplyKept,
            Step::Affine(1.0 / 6.0, 0.0),
        ];
        assert!(steps.iter().all(|step| Step::of_numbers(step.numbers()) == Some(*step)));
        assert!(Step::of_numbers([4.0, 0.0, 0.0]).is_none() && Step::of_numbers([f32::NAN, 0.0, 0.0]).is_none());
        // The last ones fill no whole part.
        let mut values: Vec<f32> = (-2000..=2000).map(|k| k as f32 / 300.0).collect();
        values.extend([f32::INFINITY, f32::NAN]);
        let mut found = vec![0.0; values.len()];
        chain(&values, &steps, &mut found);
        for (x, found) in values.iter().zip(&found).take(4001) {
            let x = 1.5 * f64::from(*x) + 0.25;
            let wanted = x * (x + 3.0).clamp(0.0, 6.0) / 6.0;
            assert!((f64::from(*found) - wanted).abs() <= 1e-6 * (1.0 + wanted.abs()), "{found} for {wanted}");
        }
        assert!(found[4001].is_infinite() && found[4002].is_nan());
    }

    fn pixels<const BLOCK: usize>(count: usize) -> Vec<[f32; BLOCK]> {
        (0..count).map(|pixel| std::array::from_fn(|lane| ((pixel * 37 + lane * 11) % 101) as f32 / 7.0)).collect()
    }

    #[test]
    fn every_channel_has_its_own_gate_and_its_own_mean() {
        fn check<const BLOCK: usize>(count: usize) {
            let (pixels, gates) = (pixels::<BLOCK>(count), std::array::from_fn(|lane| lane as f32 - 3.5));
            let mut gated = vec![[0.0; BLOCK]; count];
            gate(&pixels, &gates, &mut gated);
            let means = mean(&pixels);
            for lane in 0..BLOCK {
                assert!(
                    pixels
                        .iter()
                        .zip(&gated)
                        .all(|(before, after)| (after[lane] - before[lane] * gates[lane]).abs() < 1e-30)
                );
                let exact = pixels.iter().map(|pixel| f64::from(pixel[lane])).sum::<f64>() / count as f64;
                assert!((f64::from(means[lane]) - exact).abs() <= exact * 1e-6, "{} for {exact}", means[lane]);
            }
        }
        for count in [1, 3, 1023, 100_000] {
            check::<8>(count);
            check::<16>(count);
        }
    }

    #[test]
    fn integers_are_those_of_the_definition_and_pixels_follow_each_other() {
        fn check<const BLOCK: usize>() {
            let (area, blocks) = (37, 3);
            let (from, to) = (Scale { scale: 0.05, zero: 100 }, Scale { scale: 0.03, zero: 7 });
            let channels = blocks * BLOCK;
            let map = pixels::<BLOCK>(area * blocks);
            let mut integers = vec![0; area * channels];
            quantize(&map, area, from, &mut integers);
            let mut back = vec![[0.0; BLOCK]; area];
            let mut twice = back.clone();
            for block in 0..blocks {
                dequantize((&integers, from), None, (block, channels), &mut back);
                dequantize((&integers, from), Some((&integers, to)), (block, channels), &mut twice);
                for pixel in 0..area {
                    for lane in 0..BLOCK {
                        let number = map[block * area + pixel][lane];
                        let integer = integers[pixel * channels + block * BLOCK + lane];
                        let wanted = ((number / 0.05).round_ties_even() + 100.0).clamp(0.0, 255.0);
                        assert_eq!(integer, wanted as u8);
                        assert!((back[pixel][lane] - (wanted - 100.0) * 0.05).abs() < 1e-5);
                        let sum = (wanted - 100.0) * 0.05 + (wanted - 7.0) * 0.03;
                        assert!((twice[pixel][lane] - sum).abs() < 1e-5);
                    }
                }
            }
        }
        check::<8>();
        check::<16>();
        let all: Vec<u8> = (0..=255).collect();
        let (from, to) = (Scale { scale: 0.05, zero: 100 }, Scale { scale: 0.03, zero: 7 });
        let mut found = vec![0; 256];
        quantized_gelu(&all, from, to, &mut found);
        for (value, found) in all.iter().zip(found) {
            let wanted = exact((f64::from(*value) - 100.0) * f64::from(0.05_f32)) / f64::from(0.03_f32) + 7.0;
            assert!((f64::from(found) - wanted.clamp(0.0, 255.0)).abs() < 0.501, "{found} for {wanted}");
        }
    }
}
