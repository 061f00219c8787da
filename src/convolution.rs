//! A convolution of a map in blocks of 16 channels, on the processor's matrix unit: see [`crate::tiles`].
//!
//! A band of some rows and columns is made the unit's numbers, then every two blocks of outputs are computed from it, 32 pixels at once, and finished
//! while they are in the nearest cache.

// Where there is no such unit nothing after it is reached.
#![cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(unreachable_code, unused))]
// What is not inlined is not compiled for the processor.
#![allow(clippy::inline_always)]

use crate::operators::gelu_of;
use crate::tiles::{self, BLOCK, Granted, Looks, PLACES, Piece, Products, Sums, Unit};
use crate::vectors::{self, Loop};

/// Where a convolution looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Rows and columns from one to the next.
    pub strides: [usize; 2],
    /// Rows and columns of zeros around the map: above, left, below, right.
    pub pads: [usize; 4],
}

/// Windows, and steps between them, are no larger. Others would need absurd bands.
const LARGEST: usize = 32;

impl Window {
    /// Whether it is of a size that networks have.
    pub(crate) fn is_usual(&self) -> bool {
        let is_usual =
            |at: usize| (1..=LARGEST).contains(&self.kernel[at]) && (1..=LARGEST).contains(&self.strides[at]);
        let is_inside = |side: usize| self.pads[side] < self.kernel[side % 2];
        is_usual(0) && is_usual(1) && (0..4).all(is_inside)
    }

    /// Height and width of what it makes of a map of these; `None` where it does not fit in, or is none.
    #[must_use]
    pub fn over(&self, sides: [usize; 2]) -> Option<[usize; 2]> {
        let of = |at: usize| {
            let padded = sides[at].checked_add(self.pads[at])?.checked_add(self.pads[at + 2])?;
            let (kernel, stride) = (self.kernel[at], self.strides[at]);
            (sides[at] > 0 && kernel > 0 && stride > 0)
                .then(|| padded.checked_sub(kernel))?
                .map(|rest| rest / stride + 1)
        };
        Some([of(0)?, of(1)?])
    }

    /// Whether a pixel becomes one, so that all of a map can be one row.
    fn is_one_pixel(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0; 4]
    }
}

/// What becomes of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// It stays.
    None,
    /// It is 0 where it is less.
    Relu,
    /// [`crate::operators::gelu`].
    Gelu,
}

/// All of a convolution but its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Where it looks.
    pub window: Window,
    /// What becomes of its sums.
    pub activation: Activation,
    /// Blocks of inputs.
    pub inputs: usize,
    /// How its numbers are multiplied.
    pub products: Products,
}

impl Plan {
    /// As numbers.
    #[must_use]
    pub fn numbers(self) -> [f32; 11] {
        let Window { kernel, strides, pads } = self.window;
        let mut numbers = [0.0; 11];
        let sides = kernel.into_iter().chain(strides).chain(pads);
        numbers.iter_mut().zip(sides).for_each(|(number, side)| *number = side as f32);
        numbers[8] = f32::from(self.activation as u8);
        numbers[9] = self.inputs as f32;
        numbers[10] = if self.products == Products::One { 1.0 } else { 3.0 };
        numbers
    }

    /// The way back; `None` where no plan has these.
    #[must_use]
    pub fn of_numbers(numbers: &[f32]) -> Option<Self> {
        let &[height, width, down, right, above, left, below, after, activation, inputs, products] = numbers else {
            return None;
        };
        let side = |side: f32| side as usize;
        let window = Window {
            kernel: [side(height), side(width)],
            strides: [side(down), side(right)],
            pads: [side(above), side(left), side(below), side(after)],
        };
        let all = [Activation::None, Activation::Relu, Activation::Gelu];
        let activation = all.into_iter().find(|&kind| (f32::from(kind as u8) - activation).abs() < 0.5)?;
        let products = if products < 2.0 { Products::One } else { Products::Three };
        window.is_usual().then_some(Self { window, activation, inputs: side(inputs), products })
    }
}

/// A convolution of one map.
#[derive(Debug, Clone, Copy)]
pub struct Convolution<'a> {
    plan: Plan,
    map: &'a [[f32; BLOCK]],
    sides: [usize; 2],
    weights: &'a [f32],
    bias: &'a [[f32; BLOCK]],
    sum: Option<&'a [[f32; BLOCK]]>,
    unit: Granted,
    /// Height and width of the result.
    result: [usize; 2],
}

impl<'a> Convolution<'a> {
    /// `map` is of these `sides`; `weights` are [`tiles`](tiles::tiles()). A `sum` of the result's size is added before the activation. `None` where
    /// sizes do not fit, or [there is no unit](tiles::is_there).
    #[must_use]
    pub fn new(
        plan: Plan,
        (map, sides): (&'a [[f32; BLOCK]], [usize; 2]),
        weights: &'a [f32],
        bias: &'a [[f32; BLOCK]],
        sum: Option<&'a [[f32; BLOCK]]>,
    ) -> Option<Self> {
        let (window, unit) = (plan.window, tiles::granted()?);
        let mut result = window.over(sides)?;
        let area = sides[0].checked_mul(sides[1])?;
        let convolution = Self { plan, map, sides, weights, bias, sum, unit, result };
        let steps = plan.inputs.div_ceil(2).checked_mul(window.kernel[0])?.checked_mul(window.kernel[1])?;
        let fits = window.is_usual()
            && !bias.is_empty()
            && plan.inputs > 0
            && map.len() == plan.inputs.checked_mul(area)?
            && weights.len() == steps.checked_mul(bias.len())?.checked_mul(plan.products.of_step())?
            && sum.is_none_or(|sum| sum.len() == bias.len() * result[0] * result[1]);
        if !fits {
            return None;
        }
        let mut sides = sides;
        if window.is_one_pixel() {
            (sides, result) = ([1, area], [1, area]);
        }
        Some(Self { sides, result, ..convolution })
    }

    /// The result in parts that are worth a thread each: whole rows, or of one row some pixels. `None` where it has another size.
    #[must_use]
    pub fn parts<'r>(&self, results: &'r mut [[f32; BLOCK]]) -> Option<Vec<Part<'r>>> {
        let area = self.result[0] * self.result[1];
        if results.len() != self.bias.len() * area {
            return None;
        }
        let pixels = PRODUCTS.div_ceil(self.weights.len());
        let share = pixels.next_multiple_of(if self.result[0] == 1 { PLACES } else { self.result[1] });
        let starts = (0..area).step_by(share);
        let mut parts: Vec<_> = starts.map(|start| Part { start, results: Vec::new() }).collect();
        for block in results.chunks_mut(area) {
            parts.iter_mut().zip(block.chunks_mut(share)).for_each(|(part, pixels)| part.results.push(pixels));
        }
        Some(parts)
    }

    /// Computes one part of the [`parts`](Self::parts) of this convolution.
    pub fn compute(&self, part: Part) {
        vectors::run(Compute { convolution: self, part });
    }

    /// One line of a step's inputs, from the column `x` of the row `y` on; those beyond the map are 0.
    fn split(&self, unit: &Unit, step: usize, y: usize, x: isize, line: &mut [Piece]) {
        let ([height, width], pieces) = (self.sides, self.plan.products.pieces());
        let columns = line.len() / pieces;
        let (before, start) = (x.min(0).unsigned_abs().min(columns), x.max(0).unsigned_abs());
        let count = if y < height { width.saturating_sub(start).min(columns - before) } else { 0 };
        let (before, after) = (before * pieces, (before + count) * pieces);
        line[..before].fill(Piece::ZERO);
        line[after..].fill(Piece::ZERO);
        if count > 0 {
            let of_block = |block: usize| &self.map[(block * height + y) * width + start..][..count];
            let second = (2 * step + 1 < self.plan.inputs).then(|| of_block(2 * step + 1));
            unit.split(self.plan.products, of_block(2 * step), second, &mut line[before..after]);
        }
    }
}

/// Some pixels of a result.
#[derive(Debug)]
pub struct Part<'r> {
    /// The first one.
    start: usize,
    /// Those of each block of outputs.
    results: Vec<&'r mut [[f32; BLOCK]]>,
}

/// So many products are worth a thread, 20 to 40 us; of first bits alone twice as many, which have half as many weights.
const PRODUCTS: usize = 1 << 22;

/// Rows of a band, so that what several of them look at is split once.
const ROWS: usize = 4;

/// One part.
struct Compute<'a, 'r> {
    convolution: &'a Convolution<'a>,
    part: Part<'r>,
}

impl Loop for Compute<'_, '_> {
    type Result = ();

    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(self) {
        let Self { convolution, part: Part { start, mut results } } = self;
        let mut unit = convolution.unit.take();
        let Convolution { plan, bias, sum, result: [height, width], .. } = *convolution;
        let Plan { window, activation, inputs, products } = plan;
        let pixels = results.first().map_or(0, |block| block.len());
        let (rows, columns) = if height == 1 {
            (0..1, start..start + pixels)
        } else {
            (start / width..(start + pixels) / width, 0..width)
        };
        let [kernel_height, kernel_width] = window.kernel;
        let [down, right] = window.strides;
        let steps = inputs.div_ceil(2);
        // As wide as it is still in the nearest cache. (Of first bits alone twice as wide is no faster.)
        let wide = PLACES * (8 / steps).clamp(1, 4);
        let of_rows = (ROWS.min(rows.len()) - 1) * down + kernel_height;
        let of_columns = (wide - 1) * right + kernel_width;
        let place = |step: usize, row: usize, column: usize| (step * of_rows + row) * of_columns + column;
        let looks = (0..steps * kernel_height * kernel_width).map(|look| {
            let (step, at) = (look / (kernel_height * kernel_width), look % (kernel_height * kernel_width));
            place(step, at / kernel_width, at % kernel_width)
        });
        let looks = Looks::new(products, looks, right);
        let pieces = products.pieces();
        let mut band = vec![Piece::ZERO; steps * of_rows * of_columns * pieces];
        let mut sums = Sums::ZERO;
        for first_row in rows.clone().step_by(ROWS) {
            let of_band = first_row..(first_row + ROWS).min(rows.end);
            for first_column in columns.clone().step_by(wide) {
                let looked_at = (of_band.len() - 1) * down + kernel_height;
                for (step, row) in (0..steps).flat_map(|step| (0..looked_at).map(move |row| (step, row))) {
                    let y = (first_row * down + row).wrapping_sub(window.pads[0]);
                    let x = (first_column * right).cast_signed() - window.pads[1].cast_signed();
                    let line = &mut band[place(step, row, 0) * pieces..][..of_columns * pieces];
                    convolution.split(&unit, step, y, x, line);
                }
                for pair in (0..bias.len()).step_by(2) {
                    let weights =
                        &convolution.weights[pair * looks.weights()..bias.len().min(pair + 2) * looks.weights()];
                    for row in of_band.clone() {
                        for column in (first_column..columns.end.min(first_column + wide)).step_by(PLACES) {
                            let count = PLACES.min(columns.end - column);
                            let inputs =
                                &band[place(0, (row - first_row) * down, (column - first_column) * right) * pieces..];
                            unit.multiply((inputs, count), &looks, weights, &mut sums);
                            let at = row * width + column;
                            let blocks = results.iter_mut().zip(bias).enumerate().skip(pair);
                            for ((block, (results, bias)), sums) in blocks.zip(&mut sums.0) {
                                let added = sum.map(|sum| &sum[block * height * width + at..][..count]);
                                let results = &mut results[at - start..][..count];
                                finish::<FUSED, WIDE>(&mut sums[..count], (bias, added), activation, results);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// From the sums of some pixels to results.
#[inline(always)]
fn finish<const FUSED: bool, const WIDE: bool>(
    sums: &mut [[f32; BLOCK]],
    (bias, added): (&[f32; BLOCK], Option<&[[f32; BLOCK]]>),
    activation: Activation,
    results: &mut [[f32; BLOCK]],
) {
    // Of a loop over pixels of sixteen numbers the compiler would make one over numbers that are apart.
    let bias = [*bias; PLACES];
    let (sums, bias, results) = (sums.as_flattened_mut(), bias.as_flattened(), results.as_flattened_mut());
    if let Some(added) = added {
        let added = added.as_flattened().iter();
        for (sum, added) in sums.iter_mut().zip(added) {
            *sum += added;
        }
    }
    if activation == Activation::Gelu {
        for (sum, bias) in sums.iter_mut().zip(bias) {
            *sum += bias;
        }
        gelu_of::<FUSED, WIDE>(sums, results);
        return;
    }
    let least = if activation == Activation::Relu { 0.0 } else { f32::NEG_INFINITY };
    for ((result, sum), bias) in results.iter_mut().zip(sums).zip(bias) {
        let sum = *sum + bias;
        *result = if sum < least { least } else { sum };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        std::iter::repeat_with(vectors::noise()).take(count).collect()
    }

    fn gelu_of_one(x: f64) -> f64 {
        let mut result = 0.0;
        gelu_of::<true, false>(&[x as f32], std::slice::from_mut(&mut result));
        f64::from(result)
    }

    struct Case {
        window: Window,
        sides: [usize; 2],
        /// Blocks of inputs and of outputs.
        blocks: [usize; 2],
    }

    /// The sums as they are defined, in f64.
    fn exact(case: &Case, map: &[[f32; BLOCK]], weights: &[f32], bias: &[[f32; BLOCK]]) -> Vec<f64> {
        let ([height, width], [inputs, _], Window { kernel, strides, pads }) = (case.sides, case.blocks, case.window);
        let [rows, columns] = case.window.over(case.sides).unwrap();
        let mut sums = Vec::new();
        for (output, bias) in bias.iter().enumerate() {
            for pixel in 0..rows * columns {
                for lane in 0..BLOCK {
                    let mut sum = f64::from(bias[lane]);
                    for look in 0..kernel[0] * kernel[1] {
                        let y = (pixel / columns * strides[0] + look / kernel[1]).wrapping_sub(pads[0]);
                        let x = (pixel % columns * strides[1] + look % kernel[1]).wrapping_sub(pads[1]);
                        if y >= height || x >= width {
                            continue;
                        }
                        for input in 0..inputs * BLOCK {
                            let (block, of_block) = (input / BLOCK, input % BLOCK);
                            let value = map[(block * height + y) * width + x][of_block];
                            let place = (output * inputs + block) * kernel[0] * kernel[1] + look;
                            sum += f64::from(value) * f64::from(weights[(place * BLOCK + of_block) * BLOCK + lane]);
                        }
                    }
                    sums.push(sum);
                }
            }
        }
        sums
    }

    #[test]
    fn windows_of_absurd_sizes_are_refused() {
        let window = Window { kernel: [1, 1], strides: [1, 1], pads: [0; 4] };
        let usual = Plan { window, activation: Activation::Relu, inputs: 3, products: Products::One };
        assert_eq!(Plan::of_numbers(&usual.numbers()), Some(usual));
        let far = Window { strides: [1, usize::MAX], ..window };
        let large = Window { kernel: [1, 1 << 20], ..window };
        let padded = Window { pads: [0, 1, 0, 0], ..window };
        let none = Window { strides: [0, 1], ..window };
        let map = [[0.0; BLOCK]; 3];
        let of = |plan, size| Convolution::new(plan, (&map, [1, 1]), &[0.0; 2048][..size], &map[..1], None);
        let size = 2 * Products::One.of_step();
        assert_eq!(of(usual, size).is_some(), tiles::is_there());
        for size in [size - 1, size + 1, 2 * Products::Three.of_step()] {
            assert!(of(usual, size).is_none());
        }
        for window in [far, large, padded, none] {
            let plan = Plan { window, ..usual };
            assert_eq!(Plan::of_numbers(&plan.numbers()), None);
            assert!(of(plan, size).is_none());
        }
    }

    #[test]
    fn sums_are_those_of_f32_to_a_few_millionths_of_the_largest() {
        // Where there is none nothing can be computed.
        if !tiles::is_there() {
            return;
        }
        let same = |kernel, strides, pads| Window { kernel, strides, pads };
        let one = same([1, 1], [1, 1], [0; 4]);
        let cases = [
            Case { window: one, sides: [6, 80], blocks: [12, 24] },
            Case { window: one, sides: [3, 37], blocks: [3, 5] },
            Case { window: one, sides: [1, 1], blocks: [1, 1] },
            Case { window: one, sides: [70, 111], blocks: [6, 2] },
            Case { window: same([1, 1], [2, 1], [0; 4]), sides: [9, 40], blocks: [2, 3] },
            Case { window: same([3, 3], [1, 1], [1; 4]), sides: [13, 75], blocks: [3, 2] },
            Case { window: same([3, 3], [2, 2], [1; 4]), sides: [11, 90], blocks: [2, 3] },
            Case { window: same([3, 3], [2, 1], [1; 4]), sides: [12, 33], blocks: [6, 3] },
            Case { window: same([2, 2], [1, 1], [0, 0, 1, 1]), sides: [24, 50], blocks: [1, 2] },
            Case { window: same([5, 1], [1, 1], [2, 0, 2, 0]), sides: [2, 16], blocks: [1, 1] },
        ];
        for case in cases {
            let Case { window, sides, blocks: [inputs, outputs] } = case;
            let map = numbers(inputs * BLOCK * sides[0] * sides[1]);
            let weights = numbers(inputs * outputs * BLOCK * BLOCK * window.kernel[0] * window.kernel[1]);
            let bias = numbers(outputs * BLOCK);
            let tiles = |products| -> Vec<f32> {
                let sides = [outputs * BLOCK, inputs * BLOCK, window.kernel[0], window.kernel[1]];
                tiles::tiles(&weights, sides, products).unwrap().into_iter().map(f32::from_bits).collect()
            };
            let (map, bias) = (map.as_chunks().0, bias.as_chunks().0);
            let wanted = exact(&case, map, &weights, bias);
            let sum = numbers(wanted.len());
            let largest = wanted.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
            for (added, activation, products) in [
                (false, Activation::None, Products::Three),
                (true, Activation::None, Products::Three),
                (true, Activation::Relu, Products::Three),
                (false, Activation::Gelu, Products::Three),
                (true, Activation::None, Products::One),
            ] {
                let of_sum = added.then_some(sum.as_chunks().0);
                let plan = Plan { window, activation, inputs, products };
                let tiles = tiles(products);
                let convolution = Convolution::new(plan, (map, sides), &tiles, bias, of_sum).unwrap();
                let mut found = vec![[f32::NAN; BLOCK]; wanted.len() / BLOCK];
                for part in convolution.parts(&mut found).unwrap() {
                    convolution.compute(part);
                }
                let mut largest_error: f64 = 0.0;
                for ((wanted, found), sum) in wanted.iter().zip(found.as_flattened()).zip(&sum) {
                    let sum = wanted + if added { f64::from(*sum) } else { 0.0 };
                    let wanted = match activation {
                        Activation::None => sum,
                        Activation::Relu => sum.max(0.0),
                        Activation::Gelu => gelu_of_one(sum),
                    };
                    let error = (wanted - f64::from(*found)).abs() / largest;
                    largest_error = largest_error.max(error);
                    let most = if products == Products::One { 5e-3 } else { 6e-6 };
                    assert!(error < most, "{found} for {wanted}, {error} of the largest: {plan:?} {sides:?}");
                }
                assert_eq!(largest_error > 1e-5, products == Products::One, "{plan:?} {sides:?}");
            }
        }
    }
}
