//! One page, as an `async fn` in straight-line code: decode, detect, cut out, orient, recognise, filter.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use parking_lot::Mutex;

use crate::buffer;
use crate::config::{Numerics, Options};
use crate::detection::{self, Detected};
use crate::error::{Error, Result};
use crate::frame::{self, Frame};
use crate::geometry::{self, Direction, Point, Quad};
use crate::image::{self, Image};
use crate::line;
use crate::models::{Costs, Trust};
use crate::net::Net;
use crate::orientation::{self, Doubt, Opinion, SecondReading, Verdict};
use crate::permits::Permit;
use crate::recognition::{self, Reading, Width};
use crate::resample::{Resize, resize_bilinear, resize_of};
use crate::runtime::Input as Feed;
use crate::schedule::executor::Progress;
use crate::schedule::policy::Lane;
use crate::schedule::worker::Pool;
use crate::schedule::{Model, Place};
use crate::shapes;

/// What is to be read.
#[derive(Debug)]
pub enum Input {
    /// Pixels.
    Pixels(Image),
    /// A JPEG, PNG, WebP, TIFF, BMP, GIF or PNM.
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
    /// Where it is, in the page's pixels, clockwise from the page's top left.
    pub quad: Quad,
    /// Whether it was turned by 180 degrees, and the probability of that, not a number where only others of its page were looked at; none
    /// where nobody looked.
    pub upside_down: Option<(bool, f32)>,
    /// Where its text runs to.
    pub direction: Direction,
    /// The column of each code point of `text` and its probability; empty where it was not read.
    pub characters: Vec<(u32, f32)>,
    /// How many columns of recognition's output make up its length, the padding beyond its end left out; 0 where it was not read.
    pub columns: f64,
}

/// What each step of a page took, one after the other: with its waits for workers, without the request's own for its permit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seconds {
    /// Decoding, and what is done to a page before it is read.
    pub decode: f64,
    /// Finding lines, with a second look where there was one.
    pub detection: f64,
    /// Which lines are upside down.
    pub orientation: f64,
    /// Reading them.
    pub recognition: f64,
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct OcrResult {
    /// The page's pixels across; of several lines, the first one's.
    pub width: u32,
    /// The page's pixels down.
    pub height: u32,
    /// Where most text runs to on the page as it was given.
    pub direction: Direction,
    /// In the reading order of that direction; of several inputs, in theirs.
    pub lines: Vec<TextLine>,
    /// What it took.
    pub seconds: Seconds,
}

impl OcrResult {
    /// The same as of the page turned upright.
    fn upright(mut self) -> Self {
        for _ in 0..self.direction as usize {
            let width = self.width as f32;
            for line in &mut self.lines {
                let Quad([a, b, c, d]) = line.quad;
                line.quad = Quad([b, c, d, a].map(|point| Point { x: point.y, y: width - point.x }));
                line.direction = line.direction.turned_left();
            }
            (self.width, self.height) = (self.height, self.width);
        }
        self
    }
}

/// A recogniser on a device.
#[derive(Debug)]
pub(crate) struct Reader {
    pub net: Arc<Net>,
    /// The group of workers that runs it.
    pub group: usize,
    /// The text of every class.
    pub dictionary: Arc<[String]>,
    pub ms_per_pixel: f64,
    pub bytes_per_pixel: usize,
}

impl Reader {
    fn cost(&self, line: &Found) -> f64 {
        f64::from(line.width.pixels) * self.ms_per_pixel
    }
}

/// The recogniser that goes first.
#[derive(Debug)]
pub(crate) struct FirstReader {
    pub reader: Reader,
    /// When its reading counts.
    pub trust: Trust,
    /// What it knows.
    pub alphabet: HashSet<char>,
}

/// The nets of a set on a device, and what their runs cost.
#[derive(Debug)]
pub struct Nets {
    pub(crate) det: Arc<Net>,
    pub(crate) rec: Reader,
    /// A cascade's first reader.
    pub(crate) rec_first: Option<FirstReader>,
    pub(crate) cls: Option<Arc<Net>>,
    pub(crate) costs: Costs,
    /// Groups of workers that run detection and orientation.
    pub(crate) groups: [usize; 2],
    /// Items in a run of recognition.
    pub(crate) run_size: usize,
    /// The nets take pixels, in few shapes: the form for a GPU. What a run takes in is then made by the page's thread, since a card that
    /// waits for resizing idles.
    pub(crate) take_pixels: bool,
    /// What recognition cost so far, and what detection of these pages costs at their own size, decaying: the work to expect of a page not
    /// yet detected.
    pub(crate) ratio: Mutex<(f64, f64)>,
}

impl Nets {
    fn learn(&self, recognition: f64, detection: f64) {
        let mut ratio = self.ratio.lock();
        *ratio = (ratio.0 * 0.95 + recognition, ratio.1 * 0.95 + detection);
    }

    /// The work after detection to expect of a page of so many pixels: twice the likely one, so that of two like pages the started one goes
    /// first.
    fn expected_work(&self, pixels: f64) -> f64 {
        let (recognition, detection) = *self.ratio.lock();
        2.0 * recognition / detection * self.detection_cost(pixels)
    }

    /// All work to expect of a page of which nothing but its pixels is known.
    pub(crate) fn work(&self, pixels: f64) -> f64 {
        self.detection_cost(pixels) + self.expected_work(pixels)
    }

    /// Reading a line of this input width. Of a cascade's lines about a third are read twice.
    fn reading_cost(&self, width: u32) -> f64 {
        let (rec, width) = (self.rec.ms_per_pixel, f64::from(width));
        self.rec_first.as_ref().map_or(width * rec, |first| width * (first.reader.ms_per_pixel + rec / 3.0))
    }

    fn detection_cost(&self, pixels: f64) -> f64 {
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
    Detect { size: (u32, u32), numerics: Numerics, bytes: usize },
    Orient { cut_out: Option<Quad>, run_size: usize },
    Recognize { cut_out: Option<Quad>, upside_down: bool, width: u32, options: Arc<Options>, run_size: usize },
}

impl Item {
    /// Places in its run.
    fn run_size(&self) -> usize {
        match self.work {
            Work::Detect { .. } => 1,
            Work::Orient { run_size, .. } | Work::Recognize { run_size, .. } => run_size,
        }
    }
}

/// What a worker sends back, reduced.
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

/// Runs whose activations are larger than this reserve them. The number of workers bounds the others, so that the detection of a receipt
/// never waits for the memory of a large page's.
const UNUSUAL_BYTES: usize = 96 << 20;

fn to_reserve(bytes: usize) -> usize {
    if bytes > UNUSUAL_BYTES { bytes } else { 0 }
}

impl Model for Stages {
    type Item = Item;
    type Output = Output;

    fn run(&self, items: &[&Item], place: &Place) -> Result<Vec<Output>> {
        match items {
            [Item { net, image, work: Work::Detect { size, numerics, bytes } }] => {
                Ok(vec![detect(net, image, *size, *numerics, *bytes, place)?])
            }
            [Item { net, work: Work::Orient { .. }, .. }, ..] => orient(net, items, place),
            [Item { net, work: Work::Recognize { width, run_size, .. }, .. }, ..] => {
                recognize(net, items, *width, *run_size, place)
            }
            _ => Err(Error::inference("run", "a run of several detections")),
        }
    }

    /// The smallest run there is, since a run's end is where the runtime gives memory back.
    fn tidy(&self, last: &Item) {
        let (height, width) = match last.work {
            Work::Detect { .. } => (32, 32),
            Work::Orient { .. } => (line::HEIGHT, orientation::WIDTH),
            // Lines are seldom narrower.
            Work::Recognize { .. } => (line::HEIGHT, 160),
        };
        // What is not given back now will be by the next run.
        if let Ok(session) = last.net.session(0, false)
            && !session.takes_pixels()
        {
            let planes = vec![0.0; 3 * height * width];
            let _ = session.run("tidying", Feed::Planes(&planes, [1, 3, height, width]), &Place::default(), |_, _| ());
        }
    }
}

fn detect(
    net: &Net,
    image: &Image,
    size: (u32, u32),
    numerics: Numerics,
    bytes: usize,
    place: &Place,
) -> Result<Output> {
    let (width, height) = (size.0 as usize, size.1 as usize);
    let mut map = buffer::filled(0.0, width * height);
    let session = net.session(place.worker, place.alone)?;
    let output = (&mut *map, [1, 1, height, width]);
    if session.takes_pixels() {
        let input = Feed::Pixels(image.pixels(), [1, height, width, 3], &detection::normalisation(numerics));
        session.run_into("detection", input, output, bytes, place)?;
    } else {
        let tensor = detection::preprocess(image, size, numerics);
        session.run_into("detection", Feed::Planes(&tensor, [1, 3, height, width]), output, bytes, place)?;
    }
    Ok(Output::Map(map))
}

fn orient(net: &Net, items: &[&Item], place: &Place) -> Result<Vec<Output>> {
    let read = |scores: &[f32], _: &[i64]| {
        let pairs = scores.chunks_exact(2).take(items.len());
        pairs.map(|pair| Output::Orientation([pair[0], pair[1]])).collect()
    };
    let session = net.session(place.worker, false)?;
    if session.takes_pixels() {
        let run_size = items.first().map_or(1, |item| item.run_size());
        let (pixels, shape) = lay_lines(items, orientation::WIDTH, run_size);
        let input = Feed::Pixels(&pixels, shape, &line::NORMALISATION);
        return session.run("orientation", input, place, read);
    }
    let mut tensor = Vec::with_capacity(items.len() * 3 * line::HEIGHT * orientation::WIDTH);
    for item in items {
        if let Work::Orient { cut_out, .. } = &item.work {
            let crop = cut(&item.image, cut_out.as_ref(), false)?;
            tensor.extend(orientation::preprocess(&crop));
        }
    }
    let shape = [items.len(), 3, line::HEIGHT, orientation::WIDTH];
    session.run("orientation", Feed::Planes(&tensor, shape), place, read)
}

/// Lines that are resized already, one after the other; a short run is filled with blank ones.
fn lay_lines(items: &[&Item], width: usize, run_size: usize) -> (Vec<u8>, [usize; 4]) {
    let size = line::HEIGHT * width * 3;
    let mut pixels = vec![line::NOTHING; run_size * size];
    for (item, place) in items.iter().zip(pixels.chunks_exact_mut(size)) {
        line::lay(&item.image, place, width);
    }
    (pixels, [run_size, line::HEIGHT, width, 3])
}

fn recognize(net: &Net, items: &[&Item], width: u32, run_size: usize, place: &Place) -> Result<Vec<Output>> {
    let session = net.session(place.worker, false)?;
    if session.takes_pixels() {
        let (pixels, shape) = lay_lines(items, width as usize, run_size);
        let read = |told: &[f32], dimensions: &[i64]| -> Vec<Output> {
            let line = dimensions.get(1).map_or(1, |&columns| columns.max(1) as usize * 2);
            let classes = |line| Output::Classes(recognition::told_classes(line));
            told.chunks_exact(line).take(items.len()).map(classes).collect()
        };
        let input = Feed::Pixels(&pixels, shape, &line::NORMALISATION);
        return session.run("recognition", input, place, read);
    }
    // A short run is filled with blank crops: the last bits of a result depend on the size of its run.
    let mut tensor = vec![0.0; run_size * 3 * line::HEIGHT * width as usize];
    for (item, input) in items.iter().zip(tensor.chunks_exact_mut(3 * line::HEIGHT * width as usize)) {
        if let Work::Recognize { cut_out, upside_down, options, .. } = &item.work {
            let crop = cut(&item.image, cut_out.as_ref(), *upside_down)?;
            input.copy_from_slice(&recognition::preprocess(&crop, width, &options.recognition, options.numerics));
        }
    }
    let shape = [run_size, 3, line::HEIGHT, width as usize];
    let read = |values: &[f32], dimensions: &[i64]| -> Vec<Output> {
        let [_, columns, size] = *dimensions else { return Vec::new() };
        let best = |line: &[f32]| match session.head() {
            Some(head) if size as usize == head.features() => head.best_classes(line),
            Some(_) => Vec::new(),
            None => recognition::best_classes(line, size.max(1) as usize),
        };
        let lines = values.chunks_exact((columns * size).max(1) as usize).take(items.len());
        lines.map(|line| Output::Classes(best(line))).collect()
    };
    session.run("recognition", Feed::Planes(&tensor, shape), place, read)
}

/// A line's own pixels; none to cut out: the image is the line, as it is.
fn cut<'a>(image: &'a Image, cut_out: Option<&Quad>, upside_down: bool) -> Result<Cow<'a, Image>> {
    let crop = match cut_out {
        Some(quad) => geometry::crop(image, quad, upside_down).map(Cow::Owned),
        None => geometry::whole(image, upside_down),
    };
    crop.ok_or_else(|| Error::inference("crop", "an empty box"))
}

/// What a page needs while it is read.
pub(crate) struct Page {
    pub nets: Arc<Nets>,
    pub pool: Pool<Stages>,
    pub progress: Arc<Progress>,
    pub options: Arc<Options>,
    pub steps: Steps,
    pub max_pixels: u64,
}

/// Reads a page, or lines.
pub(crate) async fn read(page: &Page, inputs: Vec<Input>, permit: &mut Permit) -> Result<OcrResult> {
    // Whatever happens to this future, what it queued goes with it.
    let _presence = page.pool.enter(page.progress.page);
    let mut images = Vec::with_capacity(inputs.len());
    let mut frames = Vec::with_capacity(inputs.len());
    let (mut width, mut height) = (0, 0);
    let (mut seconds, mut since) = (Seconds::default(), Instant::now());
    for input in inputs {
        let image = decode(input, page.max_pixels)?;
        if images.is_empty() {
            (width, height) = (image.width(), image.height());
        }
        let (image, frame) = frame::prepare(image, &page.options.page, page.steps.detect, page.max_pixels)?;
        images.push(Arc::new(image));
        frames.push(frame);
        // Between two decodes a shorter page may go first, and a caller who left is noticed.
        give_way().await;
    }
    permit.shrink(images.iter().map(|image| image.pixels().len()).sum());
    let Some(first) = images.first() else {
        return Ok(OcrResult { width: 0, height: 0, direction: Direction::Right, lines: Vec::new(), seconds });
    };
    seconds.decode = lap(&mut since);
    let found = if page.steps.detect { find_lines(page, first).await? } else { whole_lines(page, &images) };
    seconds.detection = lap(&mut since);
    let opinions = opinions(page, &found).await?;
    seconds.orientation = lap(&mut since);
    let mut lines = read_lines(page, found, opinions).await?;
    seconds.recognition = lap(&mut since);
    // One page has lines of its own number, lines by themselves have a frame each.
    for (line, frame) in lines.iter_mut().zip(frames.iter().cycle()) {
        line.quad = frame.as_ref().map_or(line.quad, |frame: &Frame| frame.back(&line.quad));
    }
    let quads: Vec<Quad> = lines.iter().map(|line| line.quad).collect();
    let direction = if page.steps.detect {
        geometry::main_direction(&quads, lines.iter().map(|line| line.direction))
    } else {
        Direction::Right
    };
    let answer = OcrResult { width, height, direction, lines, seconds };
    Ok(if page.options.orientation.upright { answer.upright() } else { answer })
}

/// Seconds since then, and from here on since now.
fn lap(since: &mut Instant) -> f64 {
    let now = Instant::now();
    (now - std::mem::replace(since, now)).as_secs_f64()
}

/// Ready at the second poll.
async fn give_way() {
    let mut polled = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn decode(input: Input, max_pixels: u64) -> Result<Image> {
    match input {
        Input::Pixels(image) => Ok(image),
        Input::Encoded(bytes) => image::decode(&bytes, max_pixels),
        Input::Path(path) => {
            let bytes = read_file(&path).map_err(|e| Error::File { path: path.clone(), source: Arc::new(e) })?;
            image::decode(&bytes, max_pixels).map_err(|error| match error {
                Error::InvalidImage(message) => Error::InvalidImage(format!("{}: {message}", path.display())),
                other => other,
            })
        }
    }
}

/// The file as long as it says now: one that grows while it is read is cut, and then told to be broken.
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let length = file.metadata()?.len().min(image::LONGEST_FILE);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A line that was found and not read yet.
struct Found {
    image: Arc<Image>,
    quad: Quad,
    /// What a worker cuts out of the image; nothing where the image is the line.
    cut_out: Option<Quad>,
    score: f32,
    /// The crop's width and height.
    size: (usize, usize),
    /// The crop is so tall that it is turned left before it is read.
    sideways: bool,
    /// Of recognition's input; see [`lay_out`].
    width: Width,
}

impl Found {
    /// What is read, not turned.
    fn pixels(&self) -> Option<Cow<'_, Image>> {
        match &self.cut_out {
            Some(quad) => geometry::crop(&self.image, quad, false).map(Cow::Owned),
            None => Some(Cow::Borrowed(&self.image)),
        }
    }

    /// Once, for all that reads it; a core's worker cuts it out in each of its runs.
    fn cut_out(&mut self) {
        if let Some(crop) = self.cut_out.as_ref().and_then(|quad| geometry::crop(&self.image, quad, false)) {
            (self.image, self.cut_out) = (Arc::new(crop), None);
        }
    }

    /// What its worker takes: the pixels it cuts out itself, or the line as it goes in, turned and `resized_width` wide.
    fn fed(
        &self,
        page: &Page,
        upside_down: bool,
        resize: Resize,
        resized_width: impl FnOnce(&Image) -> usize,
    ) -> Result<Arc<Image>> {
        if !page.nets.take_pixels {
            return Ok(Arc::clone(&self.image));
        }
        let crop = cut(&self.image, self.cut_out.as_ref(), upside_down)?;
        line::resized(&crop, resized_width(&crop), resize).map(Arc::new)
    }

    /// Of the pixels around it, which tells most unlike lines apart without cutting them out; none where it does not stand upright.
    fn hash(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        match &self.cut_out {
            Some(quad) => geometry::rows_inside(&self.image, quad)?.for_each(|row| hasher.write(row)),
            None => hasher.write(self.image.pixels()),
        }
        Some(hasher.finish())
    }
}

fn area(image: &Image) -> f64 {
    f64::from(image.width()) * f64::from(image.height())
}

/// One run of detection at `size`.
async fn look(page: &Page, image: &Arc<Image>, size: (u32, u32)) -> Result<Vec<Detected>> {
    let (nets, options) = (&page.nets, &page.options);
    let pixels = f64::from(size.0) * f64::from(size.1);
    let (cost, expected) = (nets.detection_cost(pixels), nets.expected_work(area(image)));
    page.progress.set_work_left(cost + expected);
    let lane = Lane { group: nets.groups[0], stage: 0, shape: [size.0, size.1], net: nets.det.id, run_size: 1 };
    let bytes = pixels as usize * nets.costs.detection_bytes_per_pixel;
    let item = Item {
        net: Arc::clone(&nets.det),
        image: if nets.take_pixels {
            Arc::new(detection::pixels(image, size, options.numerics)?)
        } else {
            Arc::clone(image)
        },
        work: Work::Detect { size, numerics: options.numerics, bytes },
    };
    let answers = page.pool.submit(page.progress.page, vec![(lane, cost, to_reserve(bytes), item)], expected).await?;
    let Some(Output::Map(map)) = answers.into_iter().next() else { return Err(unexpected("detection")) };
    let page_size = (image.width(), image.height());
    Ok(detection::postprocess(&map, size, page_size, &options.detection, options.numerics))
}

async fn find_lines(page: &Page, image: &Arc<Image>) -> Result<Vec<Found>> {
    let nets = &page.nets;
    let numerics = page.options.numerics;
    let options = &page.options.detection;
    let page_size = (image.width(), image.height());
    let first = detection::input_size(page_size.0, page_size.1, options);
    let mut boxes = look(page, image, first).await?;
    if let Some(second) = detection::second_look(&boxes, first, page_size, options) {
        boxes = look(page, image, second).await?;
    }
    let quads: Vec<Quad> = boxes.iter().map(|detected| detected.quad).collect();
    let order = order(&quads, Direction::Right, numerics, page.steps);
    let line = |i: usize| {
        let (quad, score) = (quads[i], boxes[i].score);
        let cut_out = if numerics == Numerics::Paddle3 { geometry::crop_quad(&quad) } else { quad };
        let (w, h, sideways) = geometry::crop_size(&cut_out);
        let (image, cut_out) = (Arc::clone(image), Some(cut_out));
        Found { image, quad, cut_out, score, size: (w, h), sideways, width: Width::default() }
    };
    // Boxes without a crop are dropped, as PaddleOCR 3.x does.
    let mut found = lay_out(page, order.into_iter().map(line).filter(|line| line.size.0 > 0).collect());
    if nets.take_pixels {
        for (i, line) in found.iter_mut().enumerate() {
            line.cut_out();
            if i % 16 == 15 {
                give_way().await;
            }
        }
    }
    // A blank page, as the warm-up's, says nothing of those with text.
    if !found.is_empty() {
        nets.learn(recognition_cost(nets, &found), nets.detection_cost(area(image)));
    }
    Ok(found)
}

/// The order of a page's lines, text running `towards`. 2.x sorts boxes only to read them: detection alone gives them as they are found.
fn order(quads: &[Quad], towards: Direction, numerics: Numerics, steps: Steps) -> Vec<usize> {
    match numerics {
        Numerics::Paddle2 if !steps.recognize => (0..quads.len()).collect(),
        Numerics::Paddle2 | Numerics::Paddle3 => geometry::sort_reading_order(quads, towards),
        Numerics::RapidOcr => geometry::sort_rows(quads),
        Numerics::MinerU | Numerics::MinerU4 => (0..quads.len()).collect(),
    }
}

/// Lines given by the caller are read as they are, neither straightened nor turned left, as `PaddleOCR`'s recognition alone does.
fn whole_lines(page: &Page, images: &[Arc<Image>]) -> Vec<Found> {
    let line = |image: &Arc<Image>| {
        let (w, h) = (image.width() as f32, image.height() as f32);
        let quad = Quad([(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)].map(|(x, y)| Point { x, y }));
        let size = (image.width() as usize, image.height() as usize);
        let width = Width::default();
        Found { image: Arc::clone(image), quad, cut_out: None, score: 1.0, size, sideways: false, width }
    };
    lay_out(page, images.iter().map(line).collect())
}

/// Gives every line the width of its input, which may depend on all lines of the request.
fn lay_out(page: &Page, mut found: Vec<Found>) -> Vec<Found> {
    let sizes: Vec<_> = found.iter().map(|line| line.size).collect();
    for (line, width) in found.iter_mut().zip(recognition::widths(&sizes, &page.options.recognition)) {
        line.width = if page.nets.take_pixels { width.at(shapes::line(width.pixels)) } else { width };
    }
    found
}

fn recognition_cost(nets: &Nets, lines: &[Found]) -> f64 {
    lines.iter().map(|line| nets.reading_cost(line.width.pixels)).sum()
}

async fn read_lines(page: &Page, found: Vec<Found>, opinions: Option<Vec<Opinion>>) -> Result<Vec<TextLine>> {
    let thresh = page.options.orientation.thresh;
    // The others take the classifier's word for each line; here lines vote, and are read again.
    let has_own_way = opinions.is_some() && page.options.numerics == Numerics::Paddle3;
    let mut verdicts = match &opinions {
        Some(opinions) if !has_own_way => orientation::decide_each(opinions, thresh),
        None => vec![Verdict::default(); found.len()],
        Some(opinions) if page.steps.detect => orientation::decide_page(opinions, thresh),
        Some(opinions) => orientation::decide_alone(opinions, thresh),
    };
    let mut read = Vec::new();
    if page.steps.recognize {
        read = recognize_lines(page, found.iter().zip(&verdicts).map(|(line, verdict)| (line, verdict.turned))).await?;
        if has_own_way {
            read_again(page, &found, &mut verdicts, &mut read).await?;
        }
    }
    page.progress.set_work_left(0.0);
    let line = |i: usize| {
        let unread = || (Reading { score: found[i].score, ..Reading::default() }, 0);
        let (Reading { text, score, characters, .. }, steps) = read.get_mut(i).map_or_else(unread, std::mem::take);
        let upside_down = opinions.as_ref().map(|opinions| (verdicts[i].turned, opinions[i].turned));
        let direction = Direction::of(found[i].sideways, verdicts[i].turned);
        let columns = steps as f64 * found[i].width.share;
        TextLine { text, score, quad: found[i].quad, upside_down, direction, characters, columns }
    };
    if !page.steps.detect {
        // Lines given by the caller are answered one for one.
        return Ok((0..found.len()).map(line).collect());
    }
    let quads: Vec<Quad> = found.iter().map(|line| line.quad).collect();
    let directions = found.iter().zip(&verdicts).map(|(line, verdict)| Direction::of(line.sideways, verdict.turned));
    let towards = if has_own_way { geometry::main_direction(&quads, directions) } else { Direction::Right };
    let lines = order(&quads, towards, page.options.numerics, page.steps).into_iter().map(line);
    Ok(lines.filter(|l| !page.steps.recognize || l.score >= page.options.recognition.score_thresh).collect())
}

/// Reads the lines that are in doubt, or read badly, the other way too; what reads better counts.
async fn read_again(page: &Page, found: &[Found], verdicts: &mut [Verdict], read: &mut [Read]) -> Result<()> {
    let doubt = |i: usize| {
        verdicts[i].doubt.or(orientation::reads_badly(&read[i].0.text, read[i].0.score).then_some(Doubt::Line))
    };
    let doubted: Vec<(usize, Doubt)> = (0..found.len()).filter_map(|i| Some((i, doubt(i)?))).collect();
    let others = recognize_lines(page, doubted.iter().map(|&(i, _)| (&found[i], !verdicts[i].turned))).await?;
    let readings = doubted.iter().zip(&others).map(|(&(i, doubt), (other, _))| SecondReading {
        doubt,
        gain: other.score - read[i].0.score,
        length: other.characters.len(),
    });
    let overruling = orientation::overruling(&readings.collect::<Vec<_>>());
    for (((i, _), other), overrules) in doubted.into_iter().zip(others).zip(overruling) {
        if overrules {
            verdicts[i].turned = !verdicts[i].turned;
            read[i] = other;
        }
    }
    Ok(())
}

/// A reading, and the time steps of the whole output.
type Read = (Reading, usize);

/// Lines, and whether to turn each. Those with the same pixels are read once: of eight dense PDF pages with tables
/// 785 lines of 3,387, and 14 % of the CPU time; of a book's pages 1 %.
async fn recognize_lines(page: &Page, lines: impl Iterator<Item = (&Found, bool)>) -> Result<Vec<Read>> {
    let (unlike, places) = unlike(lines);
    let read = read_unlike(page, &unlike).await?;
    Ok(places.into_iter().map(|place| read[place].clone()).collect())
}

/// Lines of which no two have the same pixels, and for every line given which of them it is like.
fn unlike<'a>(lines: impl Iterator<Item = (&'a Found, bool)>) -> (Vec<(&'a Found, bool)>, Vec<usize>) {
    let (mut unlike, mut seen) = (Vec::new(), HashMap::<_, Vec<usize>>::new());
    let places = lines.enumerate().map(|(i, (line, upside_down))| {
        let like = seen.entry((line.hash().ok_or(i), line.size, line.width.pixels, upside_down)).or_default();
        let is_like = |&&place: &&usize| {
            let (other, _): (&Found, bool) = unlike[place];
            matches!((other.pixels(), line.pixels()), (Some(a), Some(b)) if a.pixels() == b.pixels())
        };
        if let Some(&place) = like.iter().find(is_like) {
            return place;
        }
        like.push(unlike.len());
        unlike.push((line, upside_down));
        unlike.len() - 1
    });
    let places = places.collect();
    (unlike, places)
}

/// Of a cascade, the first reader's word counts where it is sure. It is sure of some lines that it misreads, too, and two things tell which
/// pages have them: its mean confidence is low there, as on many photographs, or the second reader finds a character there that the first does not
/// know, as in traditional Chinese. The second one then reads all lines of the page (`docs/models.md` has the figures). Lines that the caller
/// gives are judged one by one: what they have to do with each other is not known.
async fn read_unlike(page: &Page, lines: &[(&Found, bool)]) -> Result<Vec<Read>> {
    let nets = &page.nets;
    let Some(first) = &nets.rec_first else { return read_by(page, &nets.rec, lines).await };
    let mut read = read_by(page, &first.reader, lines).await?;
    let is_page = page.steps.detect;
    let is_lost = is_page && first.trust.is_lost(read.iter().map(|(read, _)| read));
    let (sure, unsure): (Vec<_>, Vec<_>) = (0..lines.len()).partition(|&i| !is_lost && first.trust.is_sure(&read[i].0));
    for again in [unsure, sure] {
        let chosen: Vec<_> = again.iter().map(|&i| lines[i]).collect();
        let better = read_by(page, &nets.rec, &chosen).await?;
        let is_known = better
            .iter()
            .flat_map(|(reading, _)| reading.text.chars())
            .all(|character| first.alphabet.contains(&character));
        for (i, better) in again.into_iter().zip(better) {
            read[i] = better;
        }
        if is_known || !is_page {
            break;
        }
    }
    Ok(read)
}

async fn read_by(page: &Page, reader: &Reader, lines: &[(&Found, bool)]) -> Result<Vec<Read>> {
    // For a card lines are made as they go in, 9 times as large as they were where print is small: not all of a page at once.
    let at_once = if page.nets.take_pixels { 8 * page.nets.run_size } else { lines.len().max(1) };
    let mut left: f64 = lines.iter().map(|(line, _)| reader.cost(line)).sum();
    let mut answers = Vec::with_capacity(lines.len());
    for lines in lines.chunks(at_once) {
        let items = lines.iter().map(|&(line, upside_down)| to_read(page, reader, line, upside_down));
        let items = items.collect::<Result<Vec<_>>>()?;
        left -= items.iter().map(|(_, cost, ..)| cost).sum::<f64>();
        answers.extend(page.pool.submit(page.progress.page, items, left.max(0.0)).await?);
    }
    let read = answers.into_iter().map(|answer| match answer {
        Output::Classes(classes) => Ok((recognition::ctc_decode(&classes, &reader.dictionary), classes.len())),
        _ => Err(unexpected("recognition")),
    });
    read.collect()
}

fn to_read(page: &Page, reader: &Reader, line: &Found, upside_down: bool) -> Result<(Lane, f64, usize, Item)> {
    let (width, run_size) = (line.width.pixels, page.nets.run_size);
    let lane = Lane { group: reader.group, stage: 2, shape: [width, 0], net: reader.net.id, run_size };
    // A run takes the memory of all its places, blank ones too.
    let bytes = to_reserve(width as usize * reader.bytes_per_pixel * run_size) / run_size;
    let options = Arc::clone(&page.options);
    let image = line.fed(page, upside_down, resize_of(options.numerics), |crop| {
        recognition::resized_width(crop, width, &options.recognition, options.numerics)
    })?;
    let work = Work::Recognize { cut_out: line.cut_out, upside_down, width, options, run_size };
    Ok((lane, reader.cost(line), bytes, Item { net: Arc::clone(&reader.net), image, work }))
}

/// What the classifier says of the lines; none where nobody is to look.
async fn opinions(page: &Page, found: &[Found]) -> Result<Option<Vec<Opinion>>> {
    let nets = &page.nets;
    let work = if page.steps.recognize { recognition_cost(nets, found) } else { 0.0 };
    page.progress.set_work_left(work);
    let (true, Some(net)) = (page.options.orientation.enabled, &nets.cls) else { return Ok(None) };
    let mut opinions: Vec<_> = found.iter().map(|line| Opinion { sideways: line.sideways, turned: f32::NAN }).collect();
    // Where lines vote, few of them tell.
    let votes = page.steps.detect && page.options.numerics == Numerics::Paddle3;
    let sideways: Vec<bool> = found.iter().map(|line| line.sideways).collect();
    let first = if votes { orientation::sample(&sideways) } else { vec![true; found.len()] };
    ask(page, net, found, &mut opinions, &first, work).await?;
    let is_close = orientation::is_close(&opinions);
    let rest: Vec<bool> =
        first.iter().zip(&sideways).map(|(&asked, &sideways)| !asked && is_close[usize::from(sideways)]).collect();
    if rest.contains(&true) {
        ask(page, net, found, &mut opinions, &rest, work).await?;
    }
    Ok(Some(opinions))
}

/// Has the classifier look at the lines that are `asked`.
async fn ask(
    page: &Page,
    net: &Arc<Net>,
    found: &[Found],
    opinions: &mut [Opinion],
    asked: &[bool],
    work: f64,
) -> Result<()> {
    let nets = &page.nets;
    let shape = [orientation::WIDTH as u32, line::HEIGHT as u32];
    // A small net: on a core larger runs win nothing.
    let run_size = if nets.take_pixels { nets.run_size } else { 1 };
    let places: Vec<usize> = (0..found.len()).filter(|&i| asked[i]).collect();
    let items = places.iter().map(|&i| {
        let line = &found[i];
        let lane = Lane { group: nets.groups[1], stage: 1, shape, net: net.id, run_size };
        let image = line.fed(page, false, resize_bilinear, orientation::resized_width)?;
        let work = Work::Orient { cut_out: line.cut_out, run_size };
        Ok((lane, nets.costs.orientation_ms, 0, Item { net: Arc::clone(net), image, work }))
    });
    let answers = page.pool.submit(page.progress.page, items.collect::<Result<_>>()?, work).await?;
    for (answer, i) in answers.into_iter().zip(places) {
        let Output::Orientation([_, turned]) = answer else { return Err(unexpected("orientation")) };
        opinions[i].turned = turned;
    }
    Ok(())
}

fn unexpected(stage: &'static str) -> Error {
    Error::inference(stage, "the answer of another stage")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_paddle2s_detection_alone_leaves_boxes_as_they_were_found() {
        let at = |y: f32| Quad([(0.0, y), (9.0, y), (9.0, y + 5.0), (0.0, y + 5.0)].map(|(x, y)| Point { x, y }));
        let quads = [at(40.0), at(0.0)];
        let order = |numerics, recognize| order(&quads, Direction::Right, numerics, Steps { detect: true, recognize });
        assert_eq!(order(Numerics::Paddle2, false), [0, 1]);
        assert_eq!(order(Numerics::Paddle2, true), [1, 0]);
        assert_eq!(order(Numerics::Paddle3, false), [1, 0]);
    }

    #[test]
    fn a_turned_page_comes_upright() {
        // 30 x 100, its text running down; upright it is 100 x 30 and the line begins at its top left.
        let corners = [(10.0, 20.0), (20.0, 20.0), (20.0, 80.0), (10.0, 80.0)];
        let line = TextLine {
            text: String::new(),
            score: 1.0,
            quad: Quad(corners.map(|(x, y)| Point { x, y })),
            upside_down: None,
            direction: Direction::Down,
            characters: Vec::new(),
            columns: 0.0,
        };
        let page = OcrResult {
            width: 30,
            height: 100,
            direction: Direction::Down,
            lines: vec![line],
            seconds: Seconds::default(),
        };
        let page = page.upright();
        assert_eq!((page.width, page.height, page.lines[0].direction), (100, 30, Direction::Right));
        let upright = [(20.0, 10.0), (80.0, 10.0), (80.0, 20.0), (20.0, 20.0)].map(|(x, y)| Point { x, y });
        assert_eq!(page.lines[0].quad, Quad(upright));
    }
}
