//! The last layer of a recogniser: from a column's features to its most probable class.
//!
//! PP-OCR's recognisers end in a product with a matrix of 6,000 to 19,000 columns, a bias and a softmax over all of it, of which CTC needs the
//! place of the maximum and its probability. As nodes of the graph they write and read 75 kB four times for each column of 8 pixels. Here a
//! class is compared as soon as it is computed, its exponential added where it counts, and nothing is stored: 4 % less of recognition's time. Where the
//! processor has a matrix unit that computes the products, see [`crate::tiles`].

// Where there is no such unit nothing after it is reached.
#![cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(unreachable_code, unused))]
// Loops over lanes by their number, all in one place, are what the compiler makes vectors of.
#![allow(clippy::inline_always, clippy::needless_bitwise_bool, clippy::needless_range_loop)]

use crate::tiles::{self, BLOCK, Granted, Looks, PLACES, Piece, Products, Sums};
use crate::vectors::{self, Loop, exp, multiply_add};

/// Classes that are computed at once: two vectors of AVX2, or one of AVX-512.
const CLASSES: usize = 16;

/// So far below the largest value a class does not count: a million of them would have a probability of 0.0003, and columns of print have
/// one tile in twenty that is nearer.
const NEGLIGIBLE: f32 = 22.0;

/// The sums of some columns with [`CLASSES`] classes.
type Tile<const COLUMNS: usize> = [[f32; CLASSES]; COLUMNS];

/// Weights and bias, laid out for the loops here.
#[derive(Debug)]
pub struct Head {
    features: usize,
    classes: usize,
    weights: Weights,
    /// Classes that fill up the last ones have minus infinity.
    bias: Vec<[f32; CLASSES]>,
}

#[derive(Debug)]
enum Weights {
    /// For every [`CLASSES`] classes: their weights of the first feature, of the second, and so on.
    Panels(Vec<[f32; CLASSES]>),
    /// For the matrix unit. Classes are its outputs.
    Tiles(Granted, Products, Vec<f32>),
}

/// Loads of what lies across two lines of the cache take twice as long.
const LINE: usize = 64;

/// So many numbers before the first one of which the address is that of a line.
fn before_line(numbers: &[f32]) -> usize {
    numbers.as_ptr().align_offset(LINE).min(LINE / 4 - 1)
}

/// `weights` for the vectors.
fn on_panels(weights: &[f32], features: usize, classes: usize) -> Vec<[f32; CLASSES]> {
    let mut laid = vec![[0.0; CLASSES]; classes.div_ceil(CLASSES) * features];
    for (feature, row) in weights.chunks_exact(classes).enumerate() {
        for (panel, values) in row.chunks(CLASSES).enumerate() {
            laid[panel * features + feature][..values.len()].copy_from_slice(values);
        }
    }
    laid
}

/// `weights` for the matrix unit: features and classes filled up with zeros.
fn on_tiles(weights: &[f32], features: usize, classes: usize, products: Products) -> Option<Vec<f32>> {
    let (of_features, of_classes) = (features.div_ceil(BLOCK), classes.div_ceil(BLOCK));
    let mut blocks = vec![[[0.0; BLOCK]; BLOCK]; of_features * of_classes];
    for (feature, row) in weights.chunks_exact(classes).enumerate() {
        for (panel, values) in row.chunks(BLOCK).enumerate() {
            let block = &mut blocks[panel * of_features + feature / BLOCK];
            block[feature % BLOCK][..values.len()].copy_from_slice(values);
        }
    }
    let numbers = blocks.as_flattened().as_flattened();
    let tiles = tiles::tiles(numbers, [of_classes * BLOCK, of_features * BLOCK, 1, 1], products)?;
    let mut aligned = vec![0.0; LINE / 4 - 1 + tiles.len()];
    let start = before_line(&aligned);
    aligned[start..].iter_mut().zip(tiles).for_each(|(number, bits)| *number = f32::from_bits(bits));
    Some(aligned)
}

impl Head {
    /// `weights` is features x classes, row by row; `bias` has a value for each class. `None` where the sizes do not fit. `products` are those of a
    /// matrix unit, where there is one.
    #[must_use]
    pub fn new(weights: &[f32], bias: &[f32], products: Products) -> Option<Self> {
        Self::on(tiles::granted().map(|unit| (unit, products)), weights, bias)
    }

    fn on(unit: Option<(Granted, Products)>, weights: &[f32], bias: &[f32]) -> Option<Self> {
        let classes = bias.len();
        if classes == 0 || weights.is_empty() || !weights.len().is_multiple_of(classes) {
            return None;
        }
        let (features, panels) = (weights.len() / classes, classes.div_ceil(CLASSES));
        let mut biases = vec![[f32::NEG_INFINITY; CLASSES]; panels];
        for (panel, values) in biases.iter_mut().zip(bias.chunks(CLASSES)) {
            panel[..values.len()].copy_from_slice(values);
        }
        // Few features would be filled up to many, and what rounds to infinity is no number times the next bits.
        let is_tiled = features >= 2 * BLOCK && weights.iter().all(|weight| weight.abs() < 1e30);
        let tiled = unit.filter(|_| is_tiled).and_then(|(unit, products)| {
            Some(Weights::Tiles(unit, products, on_tiles(weights, features, classes, products)?))
        });
        let weights = match tiled {
            Some(tiles) => tiles,
            None => Weights::Panels(on_panels(weights, features, classes)),
        };
        Some(Self { features, classes, weights, bias: biases })
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of features of a column.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features
    }

    /// The most probable class of every column, the first of equals, and its probability, the softmax's.
    ///
    /// `columns` is T x [`Head::features`]. A value that is not a number is never the maximum; a column without any other, or with an infinite
    /// one, gives class 0 at probability 0.
    #[must_use]
    pub fn best_classes(&self, columns: &[f32]) -> Vec<(u32, f32)> {
        let mut best = vectors::run(Best { head: self, columns });
        best.truncate(columns.len() / self.features);
        best
    }
}

/// The columns in groups: of each group all columns' first feature, their second, and so on. Blank columns fill up the last group.
fn grouped<const COLUMNS: usize>(columns: &[f32], features: usize) -> Vec<[f32; COLUMNS]> {
    let columns = columns.chunks_exact(features);
    let mut all = vec![[0.0; COLUMNS]; columns.len().div_ceil(COLUMNS) * features];
    for (at, column) in columns.enumerate() {
        for (place, value) in all[at / COLUMNS * features..].iter_mut().zip(column) {
            place[at % COLUMNS] = *value;
        }
    }
    all
}

/// The product of one tile, as a function. Column by column in its own variable: a loop over them would not be unrolled, and its sums not be in
/// registers.
macro_rules! multiply {
    ($name:ident, $columns:literal, $($sum:ident $at:literal),+) => {
        #[inline(always)]
        fn $name<const FUSED: bool>(weights: &[[f32; CLASSES]], columns: &[[f32; $columns]]) -> Tile<$columns> {
            let [$(mut $sum),+]: Tile<$columns> = [[0.0; CLASSES]; $columns];
            for (weights, values) in weights.iter().zip(columns) {
                let add = |sums: &mut [f32; CLASSES], value: f32| {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = multiply_add::<FUSED>(*weight, value, *sum);
                    }
                };
                $(add(&mut $sum, values[$at]);)+
            }
            [$($sum),+]
        }
    };
}

// The sums fill 12 of the 16 registers of AVX2, or of the 32 of AVX-512.
multiply!(multiply_6, 6, a 0, b 1, c 2, d 3, e 4, f 5);
multiply!(multiply_12, 12, a 0, b 1, c 2, d 3, e 4, f 5, g 6, h 7, i 8, j 9, k 10, l 11);

/// What is known of a column so far. Lane by lane, so that no step waits for the one before.
#[derive(Clone, Copy)]
struct Seen {
    /// Values that are not above it do not count.
    floor: f32,
    /// The largest value,
    largest: [f32; CLASSES],
    /// the first class of its tile,
    first: [u32; CLASSES],
    /// and the sum of the exponentials of all other values less the largest. Its own would be 1, beside which small ones get lost.
    others: [f32; CLASSES],
}

impl Seen {
    const NOTHING: Self = Self {
        floor: f32::NEG_INFINITY,
        largest: [f32::NEG_INFINITY; CLASSES],
        first: [0; CLASSES],
        others: [0.0; CLASSES],
    };

    #[inline(always)]
    fn add<const FUSED: bool>(&mut self, class: u32, values: &[f32; CLASSES]) {
        // With `any` every value would be a branch.
        if values.iter().fold(false, |is_near, &value| is_near | (value > self.floor)) {
            self.add_near::<FUSED>(class, values);
        }
    }

    #[inline(always)]
    fn add_near<const FUSED: bool>(&mut self, class: u32, values: &[f32; CLASSES]) {
        for lane in 0..CLASSES {
            let (value, before) = (values[lane], self.largest[lane]);
            let is_larger = value > before;
            let less = exp::<FUSED>(if is_larger { before - value } else { value - before });
            let others = self.others[lane];
            self.others[lane] = if is_larger { (others + 1.0) * less } else { others + less };
            self.largest[lane] = if is_larger { value } else { before };
            self.first[lane] = if is_larger { class } else { self.first[lane] };
        }
        let larger = |a: f32, &b: &f32| if b > a { b } else { a };
        self.floor = self.largest.iter().fold(f32::NEG_INFINITY, larger) - NEGLIGIBLE;
    }

    /// The class of the largest value, and its probability.
    fn best(&self) -> (u32, f32) {
        let (mut class, mut largest, mut best) = (0, f32::NEG_INFINITY, 0);
        for lane in 0..CLASSES {
            let (at, value) = (self.first[lane] + lane as u32, self.largest[lane]);
            if value > largest || (value >= largest && at < class) {
                (class, largest, best) = (at, value, lane);
            }
        }
        if !largest.is_finite() {
            return (0, 0.0);
        }
        let lanes = (0..CLASSES).filter(|&lane| lane != best);
        let rest: f32 = lanes.map(|lane| (1.0 + self.others[lane]) * (self.largest[lane] - largest).exp()).sum();
        (class, 1.0 / (1.0 + (self.others[best] + rest)))
    }
}

/// The best class of every column.
struct Best<'a> {
    head: &'a Head,
    columns: &'a [f32],
}

impl Best<'_> {
    #[inline(always)]
    fn by<const FUSED: bool, const COLUMNS: usize>(
        self,
        weights: &[[f32; CLASSES]],
        multiply: impl Fn(&[[f32; CLASSES]], &[[f32; COLUMNS]]) -> Tile<COLUMNS>,
    ) -> Vec<(u32, f32)> {
        let Head { features, bias, .. } = self.head;
        let columns = grouped::<COLUMNS>(self.columns, *features);
        let mut seen = vec![[Seen::NOTHING; COLUMNS]; columns.len() / features];
        let share = features.div_ceil(seen.len().max(1));
        for (panel, bias) in bias.iter().enumerate() {
            let (weights, later) = weights[panel * features..].split_at(*features);
            // The weights are larger than the caches near the core: while these are multiplied the next ones come.
            let mut next = later.iter().take(*features);
            for (columns, seen) in columns.chunks_exact(*features).zip(&mut seen) {
                next.by_ref().take(share).for_each(vectors::prefetch);
                let tile = multiply(weights, columns);
                for (values, seen) in tile.iter().zip(seen) {
                    let mut values = *values;
                    for (value, bias) in values.iter_mut().zip(bias) {
                        *value += bias;
                    }
                    seen.add::<FUSED>((panel * CLASSES) as u32, &values);
                }
            }
        }
        seen.iter().flatten().map(Seen::best).collect()
    }

    #[inline(always)]
    fn on_tiles<const FUSED: bool>(self, unit: Granted, products: Products, tiles: &[f32]) -> Vec<(u32, f32)> {
        let Head { features, bias, .. } = self.head;
        let mut unit = unit.take();
        // For every `PLACES` columns: their first features, their next ones, and so on. Blank columns fill up the last ones.
        let steps = features.div_ceil(2 * BLOCK);
        let looks = Looks::new(products, (0..steps).map(|step| step * PLACES), 1);
        let count = self.columns.len() / features;
        let pieces = products.pieces();
        let mut inputs = vec![Piece::ZERO; count.div_ceil(PLACES) * steps * PLACES * pieces];
        let mut filled = vec![[0.0; BLOCK]; 2 * steps];
        for (at, column) in self.columns.chunks_exact(*features).enumerate() {
            filled.as_flattened_mut()[..*features].copy_from_slice(column);
            for (step, two) in filled.chunks_exact(2).enumerate() {
                let place = (at / PLACES * steps + step) * PLACES + at % PLACES;
                unit.split(products, &two[..1], Some(&two[1..]), &mut inputs[place * pieces..][..pieces]);
            }
        }
        let mut seen = vec![Seen::NOTHING; count];
        let mut sums = Sums::ZERO;
        let mut later = &tiles[before_line(tiles)..];
        let share = 2 * looks.weights() / CLASSES / count.div_ceil(PLACES).max(1);
        for (pair, bias) in bias.chunks(2).enumerate() {
            let (weights, rest) = later.split_at(looks.weights() * bias.len());
            later = rest;
            // The weights are larger than the caches near the core: while these are multiplied the next ones come.
            let mut next = later.chunks(CLASSES);
            for (columns, seen) in inputs.chunks_exact(steps * PLACES * pieces).zip(seen.chunks_mut(PLACES)) {
                next.by_ref().take(share).for_each(|line| vectors::prefetch(&line[0]));
                unit.multiply((columns, seen.len()), &looks, weights, &mut sums);
                for (panel, (bias, sums)) in bias.iter().zip(&sums.0).enumerate() {
                    for (values, seen) in sums.iter().zip(&mut *seen) {
                        let mut values = *values;
                        for (value, bias) in values.iter_mut().zip(bias) {
                            *value += bias;
                        }
                        seen.add::<FUSED>(((2 * pair + panel) * CLASSES) as u32, &values);
                    }
                }
            }
        }
        seen.iter().map(Seen::best).collect()
    }
}

impl Loop for Best<'_> {
    type Result = Vec<(u32, f32)>;

    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(self) -> Self::Result {
        match &self.head.weights {
            Weights::Tiles(unit, products, tiles) => self.on_tiles::<FUSED>(*unit, *products, tiles),
            Weights::Panels(weights) if WIDE => self.by::<FUSED, 12>(weights, multiply_12::<FUSED>),
            Weights::Panels(weights) => self.by::<FUSED, 6>(weights, multiply_6::<FUSED>),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Numbers from -0.5 to 0.5.
    fn numbers(count: usize) -> Vec<f32> {
        std::iter::repeat_with(vectors::noise()).take(count).map(|number| number / 2.0).collect()
    }

    /// The same in f64, as it is defined.
    fn softmax_maximum(column: &[f32], weights: &[f32], bias: &[f32]) -> (u32, f64) {
        let dot = |class: usize| {
            let row = weights.chunks_exact(bias.len()).map(|row| f64::from(row[class]));
            row.zip(column).map(|(weight, &value)| weight * f64::from(value)).sum::<f64>() + f64::from(bias[class])
        };
        let logits: Vec<f64> = (0..bias.len()).map(dot).collect();
        let maximum = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let class = logits.iter().position(|&logit| logit >= maximum).unwrap();
        (class as u32, 1.0 / logits.iter().map(|logit| (logit - maximum).exp()).sum::<f64>())
    }

    fn in_three(weights: &[f32], bias: &[f32]) -> Option<Head> {
        Head::new(weights, bias, Products::Three)
    }

    #[test]
    fn classes_and_probabilities_are_those_of_the_softmax_whatever_the_sizes() {
        for (count, features, classes) in [(1, 1, 1), (6, 8, 16), (7, 120, 33), (13, 5, 1000), (2, 80, 6906)] {
            let (weights, bias) = (numbers(features * classes), numbers(classes));
            let columns: Vec<f32> = numbers(count * features).iter().map(|value| value * 30.0).collect();
            let head = in_three(&weights, &bias).unwrap();
            let by_vectors = Head::on(None, &weights, &bias).unwrap();
            let best = || Best { head: &by_vectors, columns: &columns };
            let [all, wide] = [best().run::<false, false>(), best().run::<false, true>()];
            // Values are up to 80 here, of which tiles are off by some millionths.
            let of_tiles = if tiles::is_there() { 5e-4 } else { 1e-5 };
            let (at_hand, vectors) = (head.best_classes(&columns), by_vectors.best_classes(&columns));
            for (mut got, near) in [(at_hand, of_tiles), (vectors, 1e-5), (all, 1e-5), (wide, 1e-5)] {
                got.truncate(count);
                assert_eq!(got.len(), count);
                for (column, (class, probability)) in columns.chunks_exact(features).zip(got) {
                    let wanted = softmax_maximum(column, &weights, &bias);
                    assert_eq!(class, wanted.0);
                    assert!((f64::from(probability) / wanted.1 - 1.0).abs() < near, "{probability} {}", wanted.1);
                }
            }
        }
    }

    #[test]
    fn one_product_tells_classes_apart_that_are_not_near() {
        if !tiles::is_there() {
            return;
        }
        let (features, classes) = (120, 1000);
        let (weights, bias) = (numbers(features * classes), numbers(classes));
        let columns: Vec<f32> = numbers(20 * features).iter().map(|value| value * 6.0).collect();
        let found = Head::new(&weights, &bias, Products::One).unwrap().best_classes(&columns);
        let mut farthest: f64 = 0.0;
        for (column, (class, probability)) in columns.chunks_exact(features).zip(found) {
            let wanted = softmax_maximum(column, &weights, &bias);
            if wanted.1 > 0.6 {
                assert_eq!(class, wanted.0);
            }
            farthest = farthest.max((f64::from(probability) - wanted.1).abs());
        }
        // Fewer bits, and no fewer than that.
        assert!((1e-4..0.05).contains(&farthest), "{farthest}");
    }

    #[test]
    fn the_first_of_equal_classes_is_the_best_wherever_they_are() {
        for (first, second) in [(0, 1), (3, 40), (20, 35), (31, 32)] {
            let mut bias = vec![0.0; 50];
            (bias[first], bias[second]) = (5.0, 5.0);
            let head = in_three(&[0.0; 50], &bias).unwrap();
            assert_eq!(head.best_classes(&[1.0])[0].0, first as u32);
        }
    }

    #[test]
    fn what_is_not_a_number_is_never_the_best() {
        let head = in_three(&[f32::NAN, 1.0, 2.0, f32::NAN], &[0.0; 4]).unwrap();
        let (class, probability) = head.best_classes(&[1.0])[0];
        assert_eq!(class, 2);
        assert!((probability - 0.731_058_6).abs() < 1e-6);
        assert_eq!(head.best_classes(&[f32::NAN]), [(0, 0.0)]);
        let infinite = in_three(&[0.0, f32::MAX, f32::MAX], &[0.0; 3]).unwrap();
        assert_eq!(infinite.best_classes(&[10.0]), [(0, 0.0)]);
        let tiled = in_three(&[0.5; 64 * 3], &[0.0; 3]).unwrap();
        assert_eq!(tiled.best_classes(&[f32::INFINITY; 64]), [(0, 0.0)]);
        assert!(head.best_classes(&[]).is_empty());
    }

    #[test]
    fn sizes_that_do_not_fit_make_no_head() {
        assert!(in_three(&[1.0; 5], &[0.0; 2]).is_none());
        assert!(in_three(&[], &[0.0]).is_none());
        assert!(in_three(&[1.0], &[]).is_none());
    }
}
