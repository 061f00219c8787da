//! Products in f32 on the matrix unit of Intel's server processors since 2023 (AMX).
//!
//! The unit multiplies tiles of 16 x 32 numbers of bf16, which have 8 bits of f32's 24, and adds up in f32, sixteen times as many products in a cycle
//! as the vectors do. Here a number is two of bf16, its first 8 bits and the next 8, and a product three: first by first, first by next and next by
//! first. What is left out is 2^-15 of a product at most and mostly 2^-18, so sums of hundreds are off by 3e-6 of the largest one. (Intel's oneMKL has the
//! same as `float_to_bf16x3`.) Where 8 bits are enough, [`Products::One`], there are no next ones.

// Where there is no such unit, nothing of it is used.
#![cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(unused))]

/// Numbers of a block, and rows of a tile.
pub const BLOCK: usize = 16;

/// What is multiplied at once: two tiles of places, as pixels or columns, by one or two blocks of outputs.
pub const PLACES: usize = 2 * BLOCK;

/// Input channels of a step: two blocks, the second one of zeros where there is none.
const STEP: usize = 2 * BLOCK;

/// As many numbers of f32 have a tile's bytes.
const TILE: usize = 256;

/// How many products of bf16 stand for one of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// First bits by first ones, 8 of f32's 24.
    One,
    /// All but next by next: 16 bits.
    Three,
}

impl Products {
    /// Of how many numbers of bf16 one of f32 is made.
    pub(crate) const fn pieces(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 2,
        }
    }

    /// Numbers that [`tiles`] have of a step and a block of outputs.
    pub(crate) const fn of_step(self) -> usize {
        self.pieces() * TILE
    }
}

/// Weights for [`Unit::multiply`], of weights as ONNX Runtime has them in blocks: for every block of outputs, block of inputs, row and column of the
/// window 16 inputs x 16 outputs. `sides`: outputs, inputs, height and width. `None` where that is something else.
///
/// For every two blocks of outputs, step of inputs, row and column there are the tiles of both blocks' first bits, then for three products those of
/// their next ones, which makes as many bytes as in f32. A missing block of inputs is of zeros. A tile has 16 rows, of two inputs, for each output.
#[must_use]
pub fn tiles(weights: &[f32], sides: [usize; 4], products: Products) -> Option<Vec<u32>> {
    let [outputs, inputs, height, width] = sides;
    let size = sides.iter().try_fold(1_usize, |size, &side| size.checked_mul(side)).filter(|&size| size > 0)?;
    if size != weights.len() || !outputs.is_multiple_of(BLOCK) || !inputs.is_multiple_of(BLOCK) {
        return None;
    }
    let (window, of_inputs) = (height * width, inputs / BLOCK);
    let (blocks, _) = weights.as_chunks::<BLOCK>().0.as_chunks::<BLOCK>();
    let mut tiles = Vec::with_capacity(outputs / BLOCK * of_inputs.div_ceil(2) * window * products.of_step());
    let groups: Vec<usize> = (0..outputs / BLOCK).collect();
    for group in groups.chunks(2) {
        for step in 0..of_inputs.div_ceil(2) {
            for at in 0..window {
                for part in &[first, next][..products.pieces()] {
                    for output in group {
                        for row in 0..BLOCK {
                            let block = 2 * step + row / 8;
                            // The place of two inputs.
                            let pair = (block < of_inputs).then(|| {
                                let block = &blocks[(output * of_inputs + block) * window + at];
                                (block[row % 8 * 2], block[row % 8 * 2 + 1])
                            });
                            let (a, b) = pair.unwrap_or_default();
                            tiles.extend(a.iter().zip(b).map(|(&a, b)| part(a) >> 16 | part(b)));
                        }
                    }
                }
            }
        }
    }
    Some(tiles)
}

/// A number's first 8 bits, in the upper half.
fn first(number: f32) -> u32 {
    let bits = number.to_bits();
    // To the nearest, the even one of two.
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
}

/// The next 8.
fn next(number: f32) -> u32 {
    first(number - f32::from_bits(first(number)))
}

/// The first bits of a place's inputs of a step, or their next ones, which come right after these: as many pieces as [`Products::pieces`].
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Piece([u16; STEP]);

impl Piece {
    pub(crate) const ZERO: Self = Self([0; STEP]);
}

/// Of one or two blocks of outputs, [`PLACES`] sums.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [[[f32; BLOCK]; PLACES]; 2]);

impl Sums {
    pub(crate) const ZERO: Self = Self([[[0.0; BLOCK]; PLACES]; 2]);
}

/// Where the inputs of [`PLACES`] sums lie.
#[derive(Debug)]
pub(crate) struct Looks {
    products: Products,
    /// Of every step the first place's, in bytes from the first one of all.
    offsets: Vec<usize>,
    /// Bytes from one place to the next.
    stride: usize,
    /// So many pieces are looked at or skipped.
    reach: usize,
}

impl Looks {
    /// `first`: of every step the first place's; `stride`: from one place to the next.
    pub(crate) fn new(products: Products, first: impl Iterator<Item = usize>, stride: usize) -> Self {
        let mut last = 0;
        let of_place = products.pieces() * size_of::<Piece>();
        let offsets = first.inspect(|&place| last = place.max(last)).map(|place| place * of_place).collect();
        // Too far for any inputs, rather than less than it is.
        let places = (PLACES - 1).saturating_mul(stride).saturating_add(last).saturating_add(1);
        Self { products, offsets, stride: stride * of_place, reach: places.saturating_mul(products.pieces()) }
    }

    /// How many numbers of [`tiles`] one block of outputs has.
    pub(crate) fn weights(&self) -> usize {
        self.offsets.len() * self.products.of_step()
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use unit::{Granted, Unit, granted};

/// Whether this process may use such a unit.
#[must_use]
pub fn is_there() -> bool {
    granted().is_some()
}

/// Elsewhere there is none.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod none {
    use super::{BLOCK, Looks, Piece, Sums};

    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Granted {}

    pub(crate) fn granted() -> Option<Granted> {
        None
    }

    impl Granted {
        pub(crate) fn take(self) -> Unit {
            match self {}
        }
    }

    pub(crate) enum Unit {}

    impl Unit {
        pub(crate) fn split(&self, _: Products, _: &[[f32; BLOCK]], _: Option<&[[f32; BLOCK]]>, _: &mut [Piece]) {
            match *self {}
        }

        pub(crate) fn multiply(&mut self, _: (&[Piece], usize), _: &Looks, _: &[f32], _: &mut Sums) {
            match *self {}
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) use none::{Granted, Unit, granted};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code)]
mod unit {
    use std::arch::x86_64::{
        __cpuid_count, __m256i, __m512, __m512bh, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
        _mm512_loadu_ps, _mm512_slli_epi32, _mm512_sub_ps,
    };
    use std::arch::{asm, is_x86_feature_detected as has};
    use std::cell::Cell;
    use std::marker::PhantomData;
    use std::mem::transmute;
    use std::sync::OnceLock;

    use super::{BLOCK, Looks, Piece, Products, Sums};

    /// That this process may use such a unit.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Granted {
        by: PhantomData<fn() -> bool>,
    }

    /// Linux grants it to those that ask. `None` where there is none, and with `THREADSAFE_OCR_AMX=0` in the environment.
    pub(crate) fn granted() -> Option<Granted> {
        static IS_GRANTED: OnceLock<bool> = OnceLock::new();
        let is_granted = *IS_GRANTED.get_or_init(|| {
            let has_vectors = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512bf16");
            let is_wanted = std::env::var_os("THREADSAFE_OCR_AMX").is_none_or(|wanted| wanted != "0");
            is_wanted && has_vectors && has_unit() && is_permitted()
        });
        is_granted.then_some(Granted { by: PhantomData })
    }

    /// `AMX-BF16` and `AMX-TILE`.
    fn has_unit() -> bool {
        // SAFETY: every processor with AVX-512 has this leaf.
        #[allow(unused_unsafe)]
        let features = unsafe { __cpuid_count(7, 0) }.edx;
        features >> 22 & features >> 24 & 1 == 1
    }

    /// `ARCH_REQ_XCOMP_PERM` for `XFEATURE_XTILEDATA`, for all threads that the process has and will have, and for its children.
    fn is_permitted() -> bool {
        // SAFETY: it touches no memory of the process.
        unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1023, 18) == 0 }
    }

    /// What `ldtilecfg` reads: of all eight tiles 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    static SHAPES: Shapes = {
        let (mut bytes, mut rows, mut tile) = ([0; 16], [0; 16], 0);
        while tile < 8 {
            (bytes[tile], rows[tile]) = (64, 16);
            tile += 1;
        }
        Shapes { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows }
    };

    thread_local! {
        /// How many units this thread has.
        static TAKEN: Cell<usize> = const { Cell::new(0) };
    }

    /// The unit of the core that this thread runs on, its tiles in shape. Between two calls nothing is in them. ONNX Runtime's kernels and oneDNN's use
    /// it too, and look at the shapes before.
    pub(crate) struct Unit {
        /// The shapes are this thread's.
        stays: PhantomData<*const ()>,
    }

    // Who has one of these may do what they stand for; no method looks at anything in them.
    #[allow(clippy::unused_self)]
    impl Granted {
        pub(crate) fn take(self) -> Unit {
            if TAKEN.replace(TAKEN.get() + 1) == 0 {
                // SAFETY: the processor has the instruction, and the shapes are valid.
                unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) };
            }
            Unit { stays: PhantomData }
        }
    }

    #[allow(clippy::unused_self)]
    impl Unit {
        /// Makes of a block of inputs and the next one, which is 0 where there is none, each place's pieces.
        pub(crate) fn split(
            &self,
            products: Products,
            a: &[[f32; BLOCK]],
            b: Option<&[[f32; BLOCK]]>,
            places: &mut [Piece],
        ) {
            let nothing = std::iter::repeat(&[0.0; BLOCK]);
            // SAFETY: the processor has what it needs, or nothing had been granted.
            unsafe {
                match (products, b) {
                    (Products::Three, Some(b)) => split_all::<2>(a.iter().zip(b), places),
                    (Products::Three, None) => split_all::<2>(a.iter().zip(nothing), places),
                    (Products::One, Some(b)) => split_all::<1>(a.iter().zip(b), places),
                    (Products::One, None) => split_all::<1>(a.iter().zip(nothing), places),
                }
            }
        }

        /// The sums of products of inputs and weights, which are those of one or two blocks of outputs. Of so many places only the first [`BLOCK`] are
        /// computed where `count` is no more.
        pub(crate) fn multiply(
            &mut self,
            (inputs, count): (&[Piece], usize),
            looks: &Looks,
            weights: &[f32],
            sums: &mut Sums,
        ) {
            let blocks = weights.len() / looks.weights();
            assert!(
                inputs.len() >= looks.reach && !looks.offsets.is_empty() && weights.len() == blocks * looks.weights()
            );
            let run = match (looks.products, count > BLOCK, blocks) {
                (Products::Three, true, 2) => two_by_two,
                (Products::Three, true, 1) => two_by_one,
                (Products::Three, false, 2) => one_by_two,
                (Products::Three, false, 1) => one_by_one,
                (Products::One, true, 2) => first_two_by_two,
                (Products::One, true, 1) => first_two_by_one,
                (Products::One, false, 2) => first_one_by_two,
                (Products::One, false, 1) => first_one_by_one,
                _ => unreachable!("one block of outputs, or two"),
            };
            // SAFETY: the tiles have their shapes. `inputs` reach as far as they are looked at, and `weights` are those of all steps.
            unsafe { run(inputs.as_ptr(), &looks.offsets, weights.as_ptr(), looks.stride, sums) };
        }
    }

    impl Drop for Unit {
        fn drop(&mut self) {
            TAKEN.set(TAKEN.get() - 1);
            if TAKEN.get() == 0 {
                // SAFETY: the processor has the instruction, and nobody needs the tiles' shapes any more.
                unsafe { asm!("tilerelease", options(nostack, nomem)) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn split_all<'a, const PIECES: usize>(
        inputs: impl Iterator<Item = (&'a [f32; BLOCK], &'a [f32; BLOCK])>,
        places: &mut [Piece],
    ) {
        // SAFETY: both are 512 bits.
        let piece = |all| unsafe { transmute::<__m512bh, Piece>(all) };
        for (place, (a, b)) in places.as_chunks_mut::<PIECES>().0.iter_mut().zip(inputs) {
            // SAFETY: sixteen numbers each.
            let (a, b) = unsafe { (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr())) };
            let first = _mm512_cvtne2ps_pbh(b, a);
            place[0] = piece(first);
            if let Some(next) = place.get_mut(1) {
                // SAFETY: both are 512 bits.
                let [of_a, of_b] = unsafe { transmute::<__m512bh, [__m256i; 2]>(first) };
                let number =
                    |bits| -> __m512 { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))) };
                *next = piece(_mm512_cvtne2ps_pbh(_mm512_sub_ps(b, number(of_b)), _mm512_sub_ps(a, number(of_a))));
            }
        }
    }

    /// The sums of one or two tiles of places and one or two blocks of outputs, as a function: bytes of a step's weights, what is done at the start, in
    /// each step and at the end.
    ///
    /// Ten instructions that do nothing (`nop`) follow each one on tiles. Where the core's other thread is busy these take half the time then: 165 ns
    /// a step of 20 for 300, and 75 both ways where it is idle (measured, a Xeon of 2023; 5 are too few, 20 no better, others that are as cheap do the same).
    macro_rules! kernel {
        ($name:ident, $bytes:literal, [$($start:literal),+], [$($step:literal),+], [$($end:literal),+]) => {
            /// # Safety
            ///
            /// The tiles have their shapes. At each offset from `map` lie [`super::PLACES`] places, of one piece or for three products of two, which are
            /// `stride` bytes apart, and at `weights` tiles for all offsets, of which there is one at least.
            unsafe fn $name(map: *const Piece, offsets: &[usize], weights: *const f32, stride: usize, sums: &mut Sums) {
                // SAFETY: the caller's; there is an offset.
                unsafe {
                    asm!(
                        $($start,)+
                        "2:",
                        "mov {first}, [{offset}]",
                        "add {first}, {map}",
                        "lea {second}, [{first} + {tile}]",
                        "add {offset}, 8",
                        $($step, ".fill 10, 1, 0x90",)+
                        "add {weights}, {bytes}",
                        "dec {steps}",
                        "jnz 2b",
                        $($end,)+
                        first = out(reg) _,
                        second = out(reg) _,
                        map = in(reg) map,
                        bytes = const $bytes,
                        tile = in(reg) BLOCK * stride,
                        offset = inout(reg) offsets.as_ptr() => _,
                        steps = inout(reg) offsets.len() => _,
                        weights = inout(reg) weights => _,
                        stride = in(reg) stride,
                        row = in(reg) 64_usize,
                        sums = in(reg) sums,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }
        };
    }

    /// Those of a shape, which differ in their steps and in what these take of the weights.
    macro_rules! kernels {
        ($start:tt, $end:tt, $($name:ident, $bytes:literal: $step:tt),+) => {
            $(kernel!($name, $bytes, $start, $step, $end);)+
        };
    }

    kernels!(
        ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
        [
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 3072], tmm3"
        ],
        two_by_two, 4096: [
            "tileloadd tmm4, [{first} + {stride} + 64]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{second} + {stride} + 64]",
            "tdpbf16ps tmm2, tmm4, tmm7",
            "tileloadd tmm4, [{first} + {stride}]",
            "tdpbf16ps tmm1, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [{second} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm4, tmm7",
            "tdpbf16ps tmm1, tmm5, tmm6",
            "tileloadd tmm6, [{weights} + {row} + 2048]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm7, [{weights} + {row} + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm6",
            "tdpbf16ps tmm2, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7"
        ],
        first_two_by_two, 2048: [
            "tileloadd tmm4, [{first} + {stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm4, tmm7",
            "tileloadd tmm5, [{second} + {stride}]",
            "tdpbf16ps tmm1, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7"
        ]
    );

    kernels!(
        ["tilezero tmm0", "tilezero tmm1"],
        ["tilestored [{sums} + {row}], tmm0", "tilestored [{sums} + {row} + 1024], tmm1"],
        two_by_one, 2048: [
            "tileloadd tmm4, [{first} + {stride}]",
            "tileloadd tmm5, [{second} + {stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm5, tmm6",
            "tdpbf16ps tmm0, tmm4, tmm7",
            "tileloadd tmm4, [{first} + {stride} + 64]",
            "tdpbf16ps tmm1, tmm5, tmm7",
            "tileloadd tmm5, [{second} + {stride} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm6"
        ],
        first_two_by_one, 1024: [
            "tileloadd tmm4, [{first} + {stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{second} + {stride}]",
            "tdpbf16ps tmm1, tmm5, tmm6"
        ]
    );

    kernels!(
        ["tilezero tmm0", "tilezero tmm2"],
        ["tilestored [{sums} + {row}], tmm0", "tilestored [{sums} + {row} + 2048], tmm2"],
        one_by_two, 4096: [
            "tileloadd tmm4, [{first} + {stride}]",
            "tileloadd tmm5, [{first} + {stride} + 64]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm4, tmm7",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tileloadd tmm6, [{weights} + {row} + 2048]",
            "tdpbf16ps tmm2, tmm5, tmm7",
            "tileloadd tmm7, [{weights} + {row} + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm4, tmm7"
        ],
        first_one_by_two, 2048: [
            "tileloadd tmm4, [{first} + {stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm4, tmm7"
        ]
    );

    kernels!(
        ["tilezero tmm0"],
        ["tilestored [{sums} + {row}], tmm0"],
        one_by_one, 2048: [
            "tileloadd tmm4, [{first} + {stride}]",
            "tileloadd tmm5, [{first} + {stride} + 64]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tdpbf16ps tmm0, tmm4, tmm7"
        ],
        first_one_by_one, 1024: ["tileloadd tmm4, [{first} + {stride}]", "tileloadd tmm6, [{weights} + {row}]", "tdpbf16ps tmm0, tmm4, tmm6"]
    );
}
