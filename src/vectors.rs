//! Loops that are compiled for several processors, of which the one at hand is taken.

// What is not inlined is not compiled for the processor.
#![allow(clippy::inline_always)]

/// A loop over numbers, to be run by [`run`]. What it calls has to be inlined into it, or stays compiled for every processor.
pub(crate) trait Loop {
    /// What it gives.
    type Result;

    /// `FUSED`: this processor multiplies and adds in one instruction, so `f32::mul_add` is one; elsewhere it is a slow call. `WIDE`: it has 32
    /// registers of 16 numbers. Needs `#[inline(always)]`.
    fn run<const FUSED: bool, const WIDE: bool>(self) -> Self::Result;
}

/// Runs a loop in vectors of sixteen where the processor has AVX-512, of eight where it has AVX2, and with fused multiplication; Arm's always
/// fuse.
#[allow(unsafe_code)]
pub(crate) fn run<L: Loop>(work: L) -> L::Result {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the processor has these features, as was just asked.
            return unsafe { run_avx512(work) };
        }
        if has!("avx2") && has!("fma") {
            // SAFETY: the processor has both features, as was just asked.
            return unsafe { run_avx2(work) };
        }
    }
    if cfg!(target_arch = "aarch64") { work.run::<true, false>() } else { work.run::<false, false>() }
}

/// All that server processors with AVX-512 have since 2017; with the first one alone comparisons are not vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<L: Loop>(work: L) -> L::Result {
    work.run::<true, true>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<L: Loop>(work: L) -> L::Result {
    work.run::<true, false>()
}

/// Has the processor fetch what will soon be read; elsewhere than on x86 it sees for itself.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn prefetch<T>(soon: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, which reads nothing; the address is a reference's.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(soon).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = soon;
}

/// Numbers from -1 to 1 in no order, always the same ones (the generator of "Numerical Recipes", its upper 24 bits).
pub(crate) fn noise() -> impl FnMut() -> f32 {
    let mut state = 1_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// `a * b + c`, rounded once or twice.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Adding it to a number of at most 2^22 rounds that to the nearest integer, the even one of two, which then is in the last bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The exponential of a number from -87 to 0, by the polynomial of Cephes' `expf`. Its relative error grows with the number, to 1e-5: in a sum
/// of them the small ones hardly count. What is below -87, or no number, counts as that.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    const TERMS: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let power = shifted - ROUND;
    let rest = multiply_add::<FUSED>(power, -std::f32::consts::LN_2, x);
    let mut sum = TERMS[0];
    for term in &TERMS[1..] {
        sum = multiply_add::<FUSED>(sum, rest, *term);
    }
    let fraction = multiply_add::<FUSED>(sum * rest, rest, rest) + 1.0;
    // 2 to the power, by its exponent's bits.
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exponentials<'a>(&'a [f32]);

    impl Loop for Exponentials<'_> {
        type Result = Vec<f32>;

        #[inline(always)]
        fn run<const FUSED: bool, const WIDE: bool>(self) -> Vec<f32> {
            self.0.iter().map(|&x| exp::<FUSED>(x)).collect()
        }
    }

    #[test]
    fn exponentials_are_those_of_the_standard_library() {
        let numbers: Vec<f32> = (0..=87_000).map(|k| -(k as f32) / 1000.0).collect();
        for got in [run(Exponentials(&numbers)), Exponentials(&numbers).run::<false, false>()] {
            for (x, got) in numbers.iter().zip(got) {
                let wanted = x.exp();
                assert!((got - wanted).abs() <= wanted * (3e-7 - 1e-7 * x), "exp({x}) is {wanted}, not {got}");
            }
        }
        assert!(run(Exponentials(&[-1e9, f32::NAN, f32::NEG_INFINITY])).iter().all(|&tiny| tiny < 1e-37));
    }
}
