//! Which lines are upside down: the input of the classifier `ch_ppocr_mobile_v2.0_cls`, and what its opinions come to.
//!
//! Line by line, as `PaddleOCR` 2.x uses it, the classifier is wrong about 1 % of upright lines and 30 % of turned ones. The lines of a page
//! mostly run one way, so they vote; where the vote is close, a line objects, or a line reads badly, the other way is read too, and what
//! reads better counts. Against PaddleOCR's rule the page CER falls from 0.039 to 0.007 on upright English pages, from 0.077 to 0.019 on
//! turned ones (75 pages of nine kinds, 5,500 lines; the constants below come from them).

use crate::image::Image;
use crate::line::{self, HEIGHT};
use crate::resample::resize_bilinear;

/// Width of the model's input, pixels.
pub const WIDTH: usize = 192;

/// The model's input for one crop: 3 x 48 x 192, f32, BGR.
///
/// The crop keeps its ratio, at most 192 wide, with zeros to its right, as `resize_norm_img` of `PaddleOCR` 2.x.
#[must_use]
pub fn preprocess(crop: &Image) -> Vec<f32> {
    line::tensor(crop, resized_width(crop), WIDTH, resize_bilinear)
}

/// The part of the input that a crop fills.
pub(crate) fn resized_width(crop: &Image) -> usize {
    let ratio = f64::from(crop.width()) / f64::from(crop.height().max(1));
    let natural = (HEIGHT as f64 * ratio).ceil() as usize;
    natural.min(WIDTH)
}

/// What the classifier says of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opinion {
    /// The crop was so tall that it was turned left first: such lines vote among themselves.
    pub sideways: bool,
    /// Probability that the crop is upside down; not a number where nobody looked.
    pub turned: f32,
}

/// How a line is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Verdict {
    /// Turned by 180 degrees.
    pub turned: bool,
    /// Why it is to be read the other way too.
    pub doubt: Option<Doubt>,
}

/// Why a line is to be read both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The vote of the lines that are, or are not, sideways was close: they stay together.
    CloseVote {
        /// Which of them.
        sideways: bool,
    },
    /// The classifier objects to the vote, or the line reads badly.
    Line,
    /// The classifier is sure of a line that has no page to confirm it.
    Alone,
}

/// A line that was read the other way too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SecondReading {
    /// Why.
    pub doubt: Doubt,
    /// Its score less that of the first reading.
    pub gain: f32,
    /// Characters in it.
    pub length: usize,
}

/// A vote's sum of log-odds below this is close: of pages cut down to one to three lines, 3 % are voted the wrong way without, 0.5 % with.
const CLOSE: f32 = 8.0;
/// Lines that vote, where a page has more. On the 75 pages of nine sets every answer is the same with 8 as with all, and every text on 70 of them
/// upside down as with 16; of all the classifier took 7 % of `v6-cascade`'s CPU time and 4 % of `v6-small`'s.
const ASKED: usize = 8;
/// A first reading below this score is bad: 3 % of lines on upright pages, and 95 % of the lines of 6 characters or more on turned ones.
const BAD: f32 = 0.8;
/// The second reading's score must be higher by this. A sound line's is in 34 of 5,465, all of them shorter than [`LONG`].
const MARGIN: f32 = 0.15;
/// Characters: many shorter texts read as well upside down ("0", "8", "x").
const LONG: usize = 4;

/// Which lines of a page are asked for their opinions first: at most [`ASKED`] of those that are sideways, and of those that are not.
#[must_use]
pub fn sample(sideways: &[bool]) -> Vec<bool> {
    let counts = [false, true].map(|way| sideways.iter().filter(|&&other| other == way).count());
    let mut seen = [0; 2];
    let is_asked = |&way: &bool| {
        let (count, place) = (counts[usize::from(way)], &mut seen[usize::from(way)]);
        *place += 1;
        count <= ASKED || *place * ASKED / count > (*place - 1) * ASKED / count
    };
    sideways.iter().map(is_asked).collect()
}

/// Whether the vote is too close for those that were asked, of lines that are not sideways, and of those that are.
#[must_use]
pub fn is_close(opinions: &[Opinion]) -> [bool; 2] {
    votes(opinions).map(|vote| vote.abs() < CLOSE)
}

/// Positive where lines are upside down: of those that are not sideways, and of those that are.
fn votes(opinions: &[Opinion]) -> [f32; 2] {
    [false, true].map(|sideways| {
        opinions.iter().filter(|opinion| opinion.sideways == sideways).map(|opinion| log_odds(opinion.turned)).sum()
    })
}

/// The verdicts on a page's lines: the way most go. `thresh` is the probability from which a line objects.
#[must_use]
pub fn decide_page(opinions: &[Opinion], thresh: f32) -> Vec<Verdict> {
    let votes = votes(opinions);
    let verdict = |&Opinion { sideways, turned: p }: &Opinion| {
        let vote = votes[usize::from(sideways)];
        let turned = vote > 0.0;
        let objects = if turned { 1.0 - p } else { p } > thresh;
        let close = (vote.abs() < CLOSE).then_some(Doubt::CloseVote { sideways });
        Verdict { turned, doubt: close.or(objects.then_some(Doubt::Line)) }
    };
    opinions.iter().map(verdict).collect()
}

/// The verdicts on lines without a page: each is turned where the classifier is sure, as `PaddleOCR` 2.x does, unless it reads worse then.
#[must_use]
pub fn decide_alone(opinions: &[Opinion], thresh: f32) -> Vec<Verdict> {
    let doubted = |verdict: Verdict| Verdict { doubt: verdict.turned.then_some(Doubt::Alone), ..verdict };
    decide_each(opinions, thresh).into_iter().map(doubted).collect()
}

/// The verdicts of `PaddleOCR` 2.x: each line is turned where the classifier is sure.
#[must_use]
pub fn decide_each(opinions: &[Opinion], thresh: f32) -> Vec<Verdict> {
    opinions.iter().map(|opinion| Verdict { turned: opinion.turned > thresh, doubt: None }).collect()
}

/// Whether a reading is so bad that the line may be upside down.
#[must_use]
pub fn reads_badly(text: &str, score: f32) -> bool {
    score < BAD && text.chars().nth(LONG - 1).is_some()
}

/// Which second readings count instead of the first.
#[must_use]
pub fn overruling(readings: &[SecondReading]) -> Vec<bool> {
    let mean_gain = |of: Doubt| {
        let gains = readings.iter().filter(|reading| reading.doubt == of).map(|reading| reading.gain);
        gains.clone().sum::<f32>() / gains.count().max(1) as f32
    };
    let close = [false, true].map(|sideways| mean_gain(Doubt::CloseVote { sideways }) > MARGIN);
    let overrules = |reading: &SecondReading| match reading.doubt {
        Doubt::CloseVote { sideways } => close[usize::from(sideways)],
        Doubt::Line => reading.gain > MARGIN && reading.length >= LONG,
        Doubt::Alone => reading.gain > 0.0,
    };
    readings.iter().map(overrules).collect()
}

/// Logarithm of the odds for a probability, bounded; 0 for what is not a number.
fn log_odds(p: f32) -> f32 {
    const EDGE: f32 = 1e-6;
    let p = if p.is_nan() { 0.5 } else { p.clamp(EDGE, 1.0 - EDGE) };
    (p / (1.0 - p)).ln()
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

    const UPRIGHT: Opinion = Opinion { sideways: false, turned: 0.001 };
    const TURNED: Opinion = Opinion { sideways: false, turned: 0.999 };

    fn turned(verdicts: &[Verdict]) -> Vec<bool> {
        verdicts.iter().map(|verdict| verdict.turned).collect()
    }

    #[test]
    fn a_page_goes_the_way_of_most_lines_and_a_sure_objection_is_heard() {
        let mut page = vec![UPRIGHT; 9];
        page.push(TURNED);
        let verdicts = decide_page(&page, 0.9);
        assert_eq!(turned(&verdicts), [false; 10]);
        assert_eq!(verdicts[9].doubt, Some(Doubt::Line));
        assert!(verdicts[..9].iter().all(|verdict| verdict.doubt.is_none()));
        for opinion in &mut page {
            opinion.turned = 1.0 - opinion.turned;
        }
        let verdicts = decide_page(&page, 0.9);
        assert_eq!(turned(&verdicts), [true; 10]);
        assert_eq!(verdicts[9].doubt, Some(Doubt::Line));
    }

    #[test]
    fn few_lines_of_a_long_page_are_asked_and_they_are_spread_over_it() {
        let asked = |sideways: &[bool]| -> Vec<usize> {
            sample(sideways).into_iter().enumerate().filter_map(|(i, asked)| asked.then_some(i)).collect()
        };
        assert_eq!(asked(&[false; ASKED]).len(), ASKED);
        for count in [17, 31, 100, 1000] {
            let places = asked(&vec![true; count]);
            assert_eq!(places.len(), ASKED);
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] <= count / ASKED + 1));
        }
        let mut mixed = vec![false; 100];
        mixed[50] = true;
        assert!(asked(&mixed).contains(&50));
        assert!(asked(&[]).is_empty());
    }

    #[test]
    fn lines_that_were_not_asked_go_the_way_of_the_others() {
        let silent = Opinion { sideways: false, turned: f32::NAN };
        let verdicts = decide_page(&[TURNED, TURNED, silent, TURNED], 0.9);
        assert_eq!(verdicts, [Verdict { turned: true, doubt: None }; 4]);
        assert_eq!(is_close(&[TURNED, silent]), [true, true]);
        assert_eq!(is_close(&[TURNED, TURNED, silent]), [false, true]);
    }

    #[test]
    fn sideways_lines_vote_among_themselves() {
        let sideways = Opinion { sideways: true, ..TURNED };
        assert_eq!(
            turned(&decide_page(&[UPRIGHT, UPRIGHT, UPRIGHT, sideways, sideways], 0.9)),
            [false, false, false, true, true]
        );
    }

    #[test]
    fn a_close_vote_is_settled_by_all_its_lines_together() {
        let verdicts = decide_page(&[Opinion { sideways: false, turned: 0.6 }, UPRIGHT, TURNED], 0.9);
        let close = Doubt::CloseVote { sideways: false };
        assert!(verdicts.iter().all(|verdict| verdict.doubt == Some(close)));
        let readings = |gains: [f32; 3]| gains.map(|gain| SecondReading { doubt: close, gain, length: 1 });
        assert_eq!(overruling(&readings([0.5, 0.4, -0.1])), [true; 3]);
        assert_eq!(overruling(&readings([0.5, 0.4, -0.6])), [false; 3]);
    }

    #[test]
    fn a_line_goes_against_its_page_where_it_clearly_reads_better() {
        let reading = |gain, length| SecondReading { doubt: Doubt::Line, gain, length };
        let readings = [reading(0.5, 4), reading(0.1, 4), reading(0.5, 3), reading(f32::NAN, 4)];
        assert_eq!(overruling(&readings), [true, false, false, false]);
        assert!(reads_badly("p]noʍ", 0.6) && !reads_badly("p]noʍ", 0.9) && !reads_badly("xox", 0.6));
    }

    #[test]
    fn a_line_alone_is_turned_when_the_classifier_is_sure_and_the_reading_agrees() {
        let verdicts = decide_alone(&[UPRIGHT, TURNED, Opinion { sideways: false, turned: 0.9 }], 0.9);
        assert_eq!(turned(&verdicts), [false, true, false]);
        assert_eq!(verdicts[1].doubt, Some(Doubt::Alone));
        let reading = |gain| SecondReading { doubt: Doubt::Alone, gain, length: 1 };
        assert_eq!(overruling(&[reading(0.01), reading(-0.5)]), [true, false]);
    }

    #[test]
    fn line_by_line_each_goes_its_own_way() {
        let verdicts = decide_each(&[UPRIGHT, UPRIGHT, TURNED], 0.9);
        assert_eq!(turned(&verdicts), [false, false, true]);
        assert!(verdicts.iter().all(|verdict| verdict.doubt.is_none()));
    }

    #[test]
    fn an_opinion_that_is_no_number_has_no_vote() {
        let none = Opinion { sideways: false, turned: f32::NAN };
        assert_eq!(turned(&decide_page(&[none, UPRIGHT, UPRIGHT], 0.9)), [false; 3]);
        assert_eq!(decide_page(&[], 0.9), []);
    }
}
