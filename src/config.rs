//! Every setting, its default, and the figure behind the default. Written once, here.
//!
//! Later wins: these defaults, the constructor's keywords, a call's own options. Options travel with their request; nothing here is shared
//! or changed after construction. What a model set's runs cost is in its manifest entry.

use std::time::Duration;

use crate::error::{Error, Result};

/// How `limit_side_len` bounds detection's input, as PaddleOCR names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitType {
    /// The shorter side is enlarged to the limit.
    Min,
    /// The longer side is reduced to the limit.
    Max,
    /// The longer side becomes the limit, larger or smaller.
    ResizeLong,
    /// The longer side is reduced to the limit; where letters are small there, the page is looked at again at its own size.
    Auto,
}

/// Which pixels vote on a box's score, as PaddleOCR's `score_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreMode {
    /// All pixels of the rectangle.
    Fast,
    /// The pixels inside the contour.
    Slow,
}

/// Whose steps between the nets, where PaddleOCR's generations and its descendants differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numerics {
    /// 2.10: corners ordered by their sums and inside the page, crops along the box itself, each line turned as the classifier says.
    Paddle2,
    /// 3.x: crops along the smallest rectangle around the box. Orientation is our own, see `orientation`.
    #[default]
    Paddle3,
    /// `RapidOCR` 3.10: as 2.10, but corners ordered by x, a page's bytes around 0.5 and not `ImageNet`'s means, and its own order of lines.
    RapidOcr,
    /// `magic-pdf` 1.3, `MinerU` 2 and 3: corners as `RapidOCR`'s, boxes in the order they are found; it sorts, joins and cuts them out itself.
    MinerU,
    /// `MinerU` 4: the same, resized and in rectangles as by `docvortex` 0.6.
    MinerU4,
}

/// What is done to a page before lines are looked for on it, as `RapidOCR` does; 0: not done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PageOptions {
    /// A page whose longer side is more is reduced to this, pixels.
    pub max_side: u32,
    /// A page whose shorter side is less is enlarged to this, pixels.
    pub min_side: u32,
    /// A page more than this many times as wide as high gets black above and below.
    pub pad_ratio: f32,
    /// So does a page of at most this height, pixels.
    pub pad_height: u32,
}

/// How lines are found on a page.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectionOptions {
    /// Bound on the input's side, pixels.
    pub limit_side_len: u32,
    /// Which side `limit_side_len` bounds.
    pub limit_type: LimitType,
    /// The input's longer side is reduced to this, pixels, before it becomes a multiple of 32.
    pub max_side: u32,
    /// A pixel is text above this probability.
    pub thresh: f32,
    /// A box is kept at this mean probability or more.
    pub box_thresh: f32,
    /// A box grows by `area * ratio / perimeter` on every side.
    pub unclip_ratio: f32,
    /// Dilate the text mask by a 2x2 square first.
    pub use_dilation: bool,
    /// Which pixels vote on a box's score.
    pub score_mode: ScoreMode,
    /// Contours looked at, at most.
    pub max_candidates: u32,
}

impl Default for DetectionOptions {
    /// A first look at a long side of 1120, and a second one at the page's own size, as `PaddleOCR` 3.7 has it, where letters are small:
    /// two thirds of the CPU time of always the latter on 56 pages of eight sets, and 495 wrong characters of 49,450 instead of 475. 960 first:
    /// another 7 % less, 495 too, and 98 instead of 53 of 4,864 on one page in 19 formats. 1120 alone loses small print (page CER of dense PDF
    /// pages 0.09). Thresholds by page CER on the nine measured sets, at the page's own size: against Paddle's 0.6 and 1.5, `box_thresh` 0.5 and
    /// `unclip_ratio` 1.6 give 0.0069 for 0.0074 on English pages, 0.0123 for 0.0133 on Chinese ones, 0.0071 for 0.0112 on photos, 0.0345 for
    /// 0.0345 on receipts, 0.0067 for 0.0066 on dense PDF pages, 0.0109 for 0.0101 on one page in 19 formats. Dilation and a ratio of 1.7 win on
    /// English and lose on the others. `thresh` 0.3 and `max_side` 4000 are `PaddleOCR` 3.7's; 3,000 candidates are those of PP-OCRv6's own file.
    fn default() -> Self {
        Self {
            limit_side_len: 1120,
            limit_type: LimitType::Auto,
            max_side: 4000,
            thresh: 0.3,
            box_thresh: 0.5,
            unclip_ratio: 1.6,
            use_dilation: false,
            score_mode: ScoreMode::Fast,
            max_candidates: 3000,
        }
    }
}

/// Whether turned pages and upside-down lines are read upright.
#[derive(Debug, Clone, PartialEq)]
pub struct OrientationOptions {
    /// Look at all.
    pub enabled: bool,
    /// A line is read both ways when the classifier contradicts the vote of its page with more than this probability; a line without a page
    /// is turned above it.
    pub thresh: f32,
    /// Lines of a page that was turned are told as on the upright page, as `PaddleOCR` 3.x does with `use_doc_orientation_classify`.
    pub upright: bool,
}

impl Default for OrientationOptions {
    fn default() -> Self {
        Self { enabled: true, thresh: 0.9, upright: false }
    }
}

/// How a line is read.
#[derive(Debug, Clone, PartialEq)]
pub struct RecognitionOptions {
    /// A line is kept at this mean score or more.
    pub score_thresh: f32,
    /// A crop's input width is rounded up to a multiple of this, pixels at height 48.
    pub width_step: u32,
    /// Input width at least, pixels.
    pub min_width: u32,
    /// Input width at most, pixels; a longer line is squeezed.
    pub max_width: u32,
    /// 0: each crop by itself. n: a request's crops sorted by width to height ratio, groups of n padded to their widest, as PaddleOCR does.
    pub group: u32,
}

impl Default for RecognitionOptions {
    /// A least width of 160: against Paddle's 320 a quarter less CPU time on receipts and dense PDF pages, and 2 characters of 982 more
    /// wrong on photos, none elsewhere; 48 costs receipts another 0.003 of CER. Steps of 32 pixels let lines of like width share runs, and change
    /// no set's CER by more than 0.0001. 3,200 wide is `PaddleOCR` 3.7's limit. Below a score of 0.3 there is no text: no set's CER
    /// changes, and boxes around drawings give no empty lines.
    fn default() -> Self {
        Self { score_thresh: 0.3, width_step: 32, min_width: 160, max_width: 3200, group: 0 }
    }
}

/// Everything that may differ from one request to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Steps between the nets.
    pub numerics: Numerics,
    /// The page itself.
    pub page: PageOptions,
    /// Detection.
    pub detection: DetectionOptions,
    /// Orientation.
    pub orientation: OrientationOptions,
    /// Recognition.
    pub recognition: RecognitionOptions,
}

impl Options {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first setting that cannot work.
    pub fn validate(&self) -> Result<()> {
        let d = &self.detection;
        let r = &self.recognition;
        in_range("page_max_side", self.page.max_side, 0, 65_536)?;
        in_range("page_min_side", self.page.min_side, 0, 65_536)?;
        in_range("page_pad_ratio", self.page.pad_ratio, 0.0, 65_536.0)?;
        in_range("page_pad_height", self.page.pad_height, 0, 65_536)?;
        in_range("det_limit_side_len", d.limit_side_len, 1, 65_536)?;
        in_range("det_max_side", d.max_side, 32, 65_536)?;
        probability("det_thresh", d.thresh)?;
        probability("det_box_thresh", d.box_thresh)?;
        if !(d.unclip_ratio.is_finite() && (0.0..=100.0).contains(&d.unclip_ratio)) {
            return Err(Error::Config(format!("det_unclip_ratio={} is not between 0 and 100", d.unclip_ratio)));
        }
        in_range("det_max_candidates", d.max_candidates, 1, 1_000_000)?;
        probability("cls_thresh", self.orientation.thresh)?;
        probability("rec_score_thresh", r.score_thresh)?;
        in_range("rec_width_step", r.width_step, 1, 4096)?;
        in_range("rec_min_width", r.min_width, 8, 65_536)?;
        in_range("rec_max_width", r.max_width, 8, 65_536)?;
        in_range("rec_group", r.group, 0, 1024)?;
        if r.min_width > r.max_width {
            return Err(Error::Config(format!(
                "rec_min_width={} is larger than rec_max_width={}",
                r.min_width, r.max_width
            )));
        }
        Ok(())
    }
}

/// What to do in a forked child that uses an engine of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFork {
    /// Build sessions and workers anew on first use.
    Rebuild,
    /// Refuse with [`Error::Forked`].
    Error,
}

/// The limits of one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Pages of more pixels are refused before any is allocated.
    pub max_pixels: u64,
    /// Requests that hold a permit at once.
    pub max_queue_size: usize,
    /// Bytes they hold at once.
    pub max_queue_bytes: usize,
    /// Deadline of a call that gives none.
    pub timeout: Option<Duration>,
    /// In a forked child.
    pub on_fork: OnFork,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_pixels: 100_000_000,
            max_queue_size: 1024,
            max_queue_bytes: 512 << 20,
            timeout: None,
            on_fork: OnFork::Rebuild,
        }
    }
}

impl EngineConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first setting that cannot work.
    pub fn validate(&self) -> Result<()> {
        in_range("max_pixels", self.max_pixels, 1, 1 << 40)?;
        in_range("max_queue_size", self.max_queue_size, 1, 1 << 24)?;
        in_range("max_queue_bytes", self.max_queue_bytes, 1 << 20, 1 << 48)
    }
}

/// Knobs of a device, shared by all its engines; `None` means the device's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceConfig {
    /// Items in one run of the runtime.
    pub run_size: Option<usize>,
    /// Threads of the pool for a detection beside which little else could run; 1: no pool.
    pub intra_op_num_threads: Option<usize>,
    /// Estimated bytes of activations that may be in use at once.
    pub activation_bytes: Option<usize>,
}

impl DeviceConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first setting that cannot work.
    pub fn validate(&self) -> Result<()> {
        in_range("run_size", self.run_size.unwrap_or(1), 1, 256)?;
        in_range("intra_op_num_threads", self.intra_op_num_threads.unwrap_or(1), 1, 1024)?;
        in_range("activation_bytes", self.activation_bytes.unwrap_or(1 << 20), 1 << 20, 1 << 48)
    }
}

fn in_range<T: PartialOrd + std::fmt::Display + Copy>(name: &str, value: T, low: T, high: T) -> Result<()> {
    if value < low || value > high {
        return Err(Error::Config(format!("{name}={value} is not between {low} and {high}")));
    }
    Ok(())
}

fn probability(name: &str, value: f32) -> Result<()> {
    if !(0.0..=1.0).contains(&value) {
        return Err(Error::Config(format!("{name}={value} is not between 0 and 1")));
    }
    Ok(())
}
