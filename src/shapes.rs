//! The few widths of recognition's runs on a GPU, where every new shape has its price.

/// Pixels: cuDNN plans every convolution anew for a shape that it has not seen, 2 seconds a width and worker on an H200 (the
/// depthwise ones most, 0.14 s each), and keeps memory for each. Padding beyond a line changes what is read now and then: of 3,960 lines of 40
/// pages of all sets 3,946 have the text that steps of 32 give, with 14 widths 3,947.
pub const GPU: [u32; 11] = [160, 240, 320, 480, 640, 800, 960, 1280, 1600, 2080, 3200];

/// The least of them that holds a line of `width` pixels; beyond the last one, where a caller's own limit leads, multiples of its half.
#[must_use]
pub fn line(width: u32) -> u32 {
    let half = GPU[GPU.len() - 1] / 2;
    GPU.iter().copied().find(|&step| step >= width).unwrap_or_else(|| width.div_ceil(half) * half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_into_one_of_few_widths() {
        assert_eq!([1, 160, 161, 3200, 3201].map(line), [160, 160, 240, 3200, 4800]);
    }
}
