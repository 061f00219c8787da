//! One page, as an `async fn` in straight-line code: decode, detect, cut out, orient, recognise, filter.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{Options, RecognitionOptions};
use crate::error::{Error, Result};
use crate::geometry::{self, Point, Quad};
use crate::image::{self, Image};
use crate::models::Costs;
use crate::permits::Permit;
use crate::runtime::Net;
use crate::schedule::executor::Progress;
use crate::schedule::policy::Lane;
use crate::schedule::worker::Pool;
use crate::schedule::{Model, Place};
use crate::{detection, orientation, recognition};

/// What is to be read.
#[derive(Debug)]
pub enum Input {
    /// Pixels.
    Pixels(Image),
    /// A JPEG, PNG, WebP, TIFF, BMP or GIF.
    Encoded(Vec<u8>),
    /// A file of one of these.
    Path(PathBuf),
}

/// What to do with the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Find the lines of one page; else every input is a line.
    pub detect: bool,
    /// Read them.
    pub recognize: bool,
}

/// A line of text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextLine {
    /// What it says; empty where it was not read.
    pub text: String,
    /// How sure recognition is of it, 0 to 1; where it was not read, how sure detection is.
    pub score: f32,
    /// Where it is, in the page's pixels, clockwise from the text's top left.
    pub quad: Quad,
    /// Whether it was turned by 180 degrees, and the probability of that; none where nobody looked.
    pub upside_down: Option<(bool, f32)>,
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct OcrResult {
    /// The page's pixels across; of several lines, the first one's.
    pub width: u32,
    /// The page's pixels down.
    pub height: u32,
    /// In reading order; of several inputs, in theirs.
    pub lines: Vec<TextLine>,
}

/// The nets of a set on a device, and what their runs cost.
#[derive(Debug)]
pub struct Nets {
    pub(crate) det: Arc<Net>,
    pub(crate) rec: Arc<Net>,
    pub(crate) cls: Option<Arc<Net>>,
    /// The text of every class.
    pub(crate) dictionary: Arc<[String]>,
    pub(crate) costs: Costs,
    /// Groups of workers that run detection, orientation and recognition.
    pub(crate) groups: [usize; 3],
    /// Items in a run of orientation or recognition.
    pub(crate) run_size: usize,
    /// Recognition's and detection's cost so far, decaying: the work to expect of a page not yet detected.
    pub(crate) ratio: Mutex<(f64, f64)>,
}

impl Nets {
    fn expected_ratio(&self) -> f64 {
        let (recognition, detection) = *self.ratio.lock();
        recognition / detection
    }

    fn learn(&self, recognition: f64, detection: f64) {
        let mut ratio = self.ratio.lock();
        *ratio = (ratio.0 * 0.95 + recognition, ratio.1 * 0.95 + detection);
    }

    /// The work of a page before its detection: twice the expected recognition, so that of two like pages the started one goes first.
    pub(crate) fn expected_work(&self, detection_cost: f64) -> f64 {
        detection_cost * (1.0 + 2.0 * self.expected_ratio())
    }

    pub(crate) fn detection_cost(&self, pixels: f64) -> f64 {
        pixels / 1e6 * self.costs.detection_ms_per_megapixel
    }
}

/// One item of work for a worker.
#[derive(Debug)]
pub struct Item {
    net: Arc<Net>,
    image: Arc<Image>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Detect { size: (u32, u32) },
    Orient { quad: Quad },
    Recognize { quad: Quad, upside_down: bool, width: u32, options: RecognitionOptions, run_size: usize },
}

/// What a worker sends back, reduced: a class score is 18,710 numbers a column.
#[derive(Debug)]
pub enum Output {
    /// The probability map, row by row.
    Map(Vec<f32>),
    /// Probabilities of 0 and 180 degrees.
    Orientation([f32; 2]),
    /// The best class of every column, and its probability.
    Classes(Vec<(u32, f32)>),
}

/// All stages, as the schedule sees them.
#[derive(Debug)]
pub struct Stages;

/// Recognitions whose activations are larger than this reserve them.
const UNUSUAL_BYTES: usize = 64 << 20;

impl Model for Stages {
    type Item = Item;
    type Output = Output;

    fn run(&self, items: &[&Item], place: &Place) -> Result<Vec<Output>> {
        match items {
            [Item { net, image, work: Work::Detect { size } }] => Ok(vec![detect(net, image, *size, place)?]),
            [Item { net, work: Work::Orient { .. }, .. }, ..] => orient(net, items, place),
            [Item { net, work: Work::Recognize { width, run_size, .. }, .. }, ..] => {
                recognize(net, items, *width, *run_size, place)
            }
            _ => Err(Error::inference("run", "a run of several detections")),
        }
    }
}

fn detect(net: &Net, image: &Image, size: (u32, u32), place: &Place) -> Result<Output> {
    let tensor = detection::preprocess(image, size);
    let shape = [1, 3, size.1 as usize, size.0 as usize];
    let session = net.session(place.worker, place.alone)?;
    let map = session.run("detection", &tensor, shape, true, &place.stop, |map, _| map.to_vec())?;
    let pixels = shape[2] * shape[3];
    if map.len() != pixels {
        let message = format!("the model gave {} values for {pixels} pixels; is it a detection model?", map.len());
        return Err(Error::inference("detection", message));
    }
    Ok(Output::Map(map))
}

fn orient(net: &Net, items: &[&Item], place: &Place) -> Result<Vec<Output>> {
    let mut tensor = Vec::with_capacity(items.len() * 3 * orientation::HEIGHT * orientation::WIDTH);
    for item in items {
        if let Work::Orient { quad } = &item.work {
            let crop = cut(&item.image, quad, false)?;
            tensor.extend(orientation::preprocess(&crop));
        }
    }
    let shape = [items.len(), 3, orientation::HEIGHT, orientation::WIDTH];
    let read = |scores: &[f32], _: &[i64]| {
        scores.chunks_exact(2).map(|pair| Output::Orientation([pair[0], pair[1]])).collect()
    };
    net.session(place.worker, false)?.run("orientation", &tensor, shape, false, &place.stop, read)
}

fn recognize(net: &Net, items: &[&Item], width: u32, run_size: usize, place: &Place) -> Result<Vec<Output>> {
    // A short run is filled with blank crops: the last bits of a result depend on the size of its run.
    let mut tensor = vec![0.0; run_size * 3 * recognition::HEIGHT * width as usize];
    for (item, input) in items.iter().zip(tensor.chunks_exact_mut(3 * recognition::HEIGHT * width as usize)) {
        if let Work::Recognize { quad, upside_down, options, .. } = &item.work {
            let crop = cut(&item.image, quad, *upside_down)?;
            input.copy_from_slice(&recognition::preprocess(&crop, width, options));
        }
    }
    let shape = [run_size, 3, recognition::HEIGHT, width as usize];
    let shrink = width > 1280;
    let read = |scores: &[f32], dimensions: &[i64]| -> Vec<Output> {
        let [_, columns, classes] = *dimensions else { return Vec::new() };
        let line = (columns * classes).max(1) as usize;
        let best = |line: &[f32]| Output::Classes(recognition::best_classes(line, classes.max(1) as usize));
        scores.chunks_exact(line).take(items.len()).map(best).collect()
    };
    net.session(place.worker, false)?.run("recognition", &tensor, shape, shrink, &place.stop, read)
}

fn cut(image: &Image, quad: &Quad, upside_down: bool) -> Result<Image> {
    geometry::crop(image, quad, upside_down).ok_or_else(|| Error::inference("crop", "an empty box"))
}

/// What a page needs while it is read.
pub(crate) struct Page {
    pub nets: Arc<Nets>,
    pub pool: Pool<Stages>,
    pub progress: Arc<Progress>,
    pub options: Options,
    pub steps: Steps,
    pub max_pixels: u64,
}

/// Reads a page, or lines.
pub(crate) async fn read(page: &Page, inputs: Vec<Input>, permit: &mut Permit) -> Result<OcrResult> {
    // Whatever happens to this future, what it queued goes with it.
    let _presence = page.pool.enter(page.progress.page);
    let mut images = Vec::with_capacity(inputs.len());
    for input in inputs {
        images.push(Arc::new(decode(input, page.max_pixels)?));
    }
    permit.shrink(images.iter().map(|image| image.pixels().len()).sum());
    let Some(first) = images.first() else { return Ok(OcrResult { width: 0, height: 0, lines: Vec::new() }) };
    let (width, height) = (first.width(), first.height());
    let found = if page.steps.detect { find_lines(page, first).await? } else { whole_lines(&images) };
    let lines = read_lines(page, found).await?;
    Ok(OcrResult { width, height, lines })
}

fn decode(input: Input, max_pixels: u64) -> Result<Image> {
    match input {
        Input::Pixels(image) => Ok(image),
        Input::Encoded(bytes) => image::decode(&bytes, max_pixels),
        Input::Path(path) => {
            let bytes = std::fs::read(&path).map_err(|e| Error::File { path: path.clone(), source: Arc::new(e) })?;
            image::decode(&bytes, max_pixels).map_err(|error| match error {
                Error::InvalidImage(message) => Error::InvalidImage(format!("{}: {message}", path.display())),
                other => other,
            })
        }
    }
}

/// A line that was found and not read yet.
struct Found {
    image: Arc<Image>,
    quad: Quad,
    score: f32,
}

async fn find_lines(page: &Page, image: &Arc<Image>) -> Result<Vec<Found>> {
    let nets = &page.nets;
    let options = &page.options.detection;
    let size = detection::input_size(image.width(), image.height(), options);
    let pixels = f64::from(size.0) * f64::from(size.1);
    let cost = nets.detection_cost(pixels);
    let expected = nets.expected_work(cost) - cost;
    page.progress.set_work_left(cost + expected);
    let lane = Lane { group: nets.groups[0], stage: 0, shape: [size.0, size.1], net: nets.det.id, run_size: 1 };
    let bytes = pixels as usize * nets.costs.detection_bytes_per_pixel;
    let item = Item { net: Arc::clone(&nets.det), image: Arc::clone(image), work: Work::Detect { size } };
    let answers = page.pool.submit(page.progress.page, vec![(lane, cost, bytes, item)], expected).await?;
    let Some(Output::Map(map)) = answers.into_iter().next() else { return Err(unexpected("detection")) };
    let boxes = detection::postprocess(&map, size, (image.width(), image.height()), options);
    drop(map);
    let quads: Vec<Quad> = boxes.iter().map(|detected| detected.quad).collect();
    let found = geometry::sort_reading_order(&quads).into_iter().map(|i| Found {
        image: Arc::clone(image),
        quad: quads[i],
        score: boxes[i].score,
    });
    // Boxes without a crop are dropped, as PaddleOCR 3.x does.
    let found: Vec<Found> = found.filter(|line| min_side(line) > 0).collect();
    nets.learn(widths(page, &found).1, cost);
    Ok(found)
}

fn min_side(line: &Found) -> usize {
    let (w, h) = crop_size(line);
    w.min(h)
}

fn crop_size(line: &Found) -> (usize, usize) {
    let (w, h, _) = geometry::crop_size(&line.quad);
    (w, h)
}

fn whole_lines(images: &[Arc<Image>]) -> Vec<Found> {
    let whole = |image: &Arc<Image>| {
        let (w, h) = (image.width() as f32, image.height() as f32);
        let quad = Quad([(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)].map(|(x, y)| Point { x, y }));
        Found { image: Arc::clone(image), quad, score: 1.0 }
    };
    images.iter().map(whole).collect()
}

/// The input width of every line, and the cost of reading them all.
fn widths(page: &Page, found: &[Found]) -> (Vec<u32>, f64) {
    let sizes: Vec<_> = found.iter().map(crop_size).collect();
    let widths = recognition::widths(&sizes, &page.options.recognition);
    let cost = widths.iter().map(|&width| f64::from(width) * page.nets.costs.recognition_ms_per_pixel).sum();
    (widths, cost)
}

async fn read_lines(page: &Page, found: Vec<Found>) -> Result<Vec<TextLine>> {
    let (widths, cost) = widths(page, &found);
    let work = if page.steps.recognize { cost } else { 0.0 };
    page.progress.set_work_left(work);
    let turned = upside_down(page, &found, work).await?;
    if !page.steps.recognize {
        let line = |(line, upside_down): (Found, _)| TextLine {
            text: String::new(),
            score: line.score,
            quad: line.quad,
            upside_down,
        };
        return Ok(found.into_iter().zip(turned).map(line).collect());
    }
    let options = &page.options.recognition;
    let nets = &page.nets;
    let items = found.iter().zip(&turned).zip(widths).map(|((line, turned), width)| {
        let lane =
            Lane { group: nets.groups[2], stage: 2, shape: [width, 0], net: nets.rec.id, run_size: nets.run_size };
        let bytes = width as usize * nets.costs.recognition_bytes_per_pixel;
        let work = Work::Recognize {
            quad: line.quad,
            upside_down: turned.is_some_and(|(turned, _)| turned),
            width,
            options: options.clone(),
            run_size: nets.run_size,
        };
        let item = Item { net: Arc::clone(&nets.rec), image: Arc::clone(&line.image), work };
        (
            lane,
            f64::from(width) * nets.costs.recognition_ms_per_pixel,
            if bytes > UNUSUAL_BYTES { bytes } else { 0 },
            item,
        )
    });
    let answers = page.pool.submit(page.progress.page, items.collect(), 0.0).await?;
    page.progress.set_work_left(0.0);
    let mut lines = Vec::with_capacity(found.len());
    for ((line, upside_down), answer) in found.into_iter().zip(turned).zip(answers) {
        let Output::Classes(classes) = answer else { return Err(unexpected("recognition")) };
        let (text, score) = recognition::ctc_decode(&classes, &nets.dictionary);
        // Lines given by the caller are answered one for one.
        if score >= options.score_thresh || !page.steps.detect {
            lines.push(TextLine { text, score, quad: line.quad, upside_down });
        }
    }
    Ok(lines)
}

async fn upside_down(page: &Page, found: &[Found], work: f64) -> Result<Vec<Option<(bool, f32)>>> {
    let nets = &page.nets;
    let (true, Some(net)) = (page.options.orientation.enabled, &nets.cls) else { return Ok(vec![None; found.len()]) };
    let items = found.iter().map(|line| {
        let lane = Lane {
            group: nets.groups[1],
            stage: 1,
            shape: [orientation::WIDTH as u32, orientation::HEIGHT as u32],
            net: net.id,
            // The orientation of a crop never depends on its neighbours: a small net, run alone.
            run_size: 1,
        };
        let work = Work::Orient { quad: line.quad };
        (lane, nets.costs.orientation_ms, 0, Item { net: Arc::clone(net), image: Arc::clone(&line.image), work })
    });
    let answers = page.pool.submit(page.progress.page, items.collect(), work).await?;
    let thresh = page.options.orientation.thresh;
    let flag = |answer| match answer {
        Output::Orientation(scores) => Ok(Some((orientation::is_upside_down(&scores, thresh), scores[1]))),
        _ => Err(unexpected("orientation")),
    };
    answers.into_iter().map(flag).collect()
}

fn unexpected(stage: &'static str) -> Error {
    Error::inference(stage, "the answer of another stage")
}
