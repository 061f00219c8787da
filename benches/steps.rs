//! Where a page's time goes: its steps one after the other, each alone on one thread, over PAGES or those of tests/data/pages.
//!
//!     ORT_DYLIB_PATH=PATH/libonnxruntime.so cargo bench --bench steps -- [PAGE...]
//!
//! The same calls as `pipeline` makes for a lone page with the default settings, without the second readings of doubtful lines.

use std::path::{Path, PathBuf};
use std::time::Instant;

use threadsafe_ocr::config::Options;
use threadsafe_ocr::models::{self, ModelSet, ModelSpec};
use threadsafe_ocr::orientation::{self, Opinion};
use threadsafe_ocr::runtime::{self, Input, Session, Target};
use threadsafe_ocr::schedule::Place;
use threadsafe_ocr::{Result, detection, geometry, image, line, recognition, resample};

const ROUNDS: usize = 2;

/// Seconds of every step, in the order of their first use.
#[derive(Default)]
struct Clock(Vec<(&'static str, f64)>);

impl Clock {
    fn time<T>(&mut self, step: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.add(step, start.elapsed().as_secs_f64());
        done
    }

    fn add(&mut self, step: &'static str, seconds: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == step) {
            Some((_, sum)) => *sum += seconds,
            None => self.0.push((step, seconds)),
        }
    }
}

struct Nets {
    det: Session,
    cls: Session,
    rec: Session,
    dictionary: Vec<String>,
    detection_bytes: usize,
}

impl Nets {
    fn load(root: &Path) -> Result<Self> {
        runtime::init(&std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).unwrap_or_default(), &[])?;
        let set = ModelSet::find(&ModelSpec::Named("v6-small".into()), &root.join("models"))?;
        let load = |path: &Path| Session::load(path, &Target::default(), false);
        let rec = load(&set.rec.file)?;
        let classes = rec.classes().unwrap_or_default();
        let dictionary = models::dictionary(&set.rec.characters, classes, &set.rec.file)?;
        let cls = load(set.cls.as_deref().unwrap_or(&set.det))?;
        Ok(Self { det: load(&set.det)?, cls, rec, dictionary, detection_bytes: set.costs.detection_bytes_per_pixel })
    }

    fn look(
        &self,
        clock: &mut Clock,
        page: &image::Image,
        size: (u32, u32),
        o: &Options,
    ) -> Result<Vec<detection::Detected>> {
        let (width, height) = (size.0 as usize, size.1 as usize);
        let begin = Instant::now();
        let pixels = (page.width() as usize, page.height() as usize);
        std::hint::black_box(resample::resize_bilinear(page.pixels(), pixels.0, pixels.1, width, height));
        let resize = begin.elapsed().as_secs_f64();
        clock.add("resize", resize);
        let begin = Instant::now();
        let tensor = detection::preprocess(page, size, o.numerics);
        clock.add("normalise", (begin.elapsed().as_secs_f64() - resize).max(0.0));
        let mut map = vec![0.0; width * height];
        let bytes = width * height * self.detection_bytes;
        let (input, output) = (Input::Planes(&tensor, [1, 3, height, width]), (&mut *map, [1, 1, height, width]));
        clock.time("detection: the network", || {
            self.det.run_into("detection", input, output, bytes, &Place::default())
        })?;
        let size_of_page = (page.width(), page.height());
        Ok(clock
            .time("contours and boxes", || detection::postprocess(&map, size, size_of_page, &o.detection, o.numerics)))
    }

    /// Lines read.
    fn read(&self, clock: &mut Clock, encoded: &[u8], o: &Options) -> Result<usize> {
        let page = clock.time("decode", || image::decode(encoded, u64::MAX))?;
        let size = (page.width(), page.height());
        let first = detection::input_size(size.0, size.1, &o.detection);
        let mut boxes = self.look(clock, &page, first, o)?;
        if let Some(second) = detection::second_look(&boxes, first, size, &o.detection) {
            boxes = self.look(clock, &page, second, o)?;
        }
        let quads: Vec<_> = boxes.iter().map(|found| geometry::crop_quad(&found.quad)).collect();
        let mut opinions = Vec::new();
        let sideways: Vec<bool> = quads.iter().map(|quad| geometry::crop_size(quad).2).collect();
        for (quad, asked) in quads.iter().zip(orientation::sample(&sideways)) {
            if !asked {
                opinions.push((quad, Opinion { sideways: geometry::crop_size(quad).2, turned: f32::NAN }));
                continue;
            }
            let Some(crop) = clock.time("crops", || geometry::crop(&page, quad, false)) else { continue };
            let tensor = clock.time("a line's input", || orientation::preprocess(&crop));
            let shape = [1, 3, line::HEIGHT, orientation::WIDTH];
            let turned = clock.time("orientation: the network", || {
                self.cls.run("orientation", Input::Planes(&tensor, shape), &Place::default(), |scores, _| scores[1])
            })?;
            opinions.push((quad, Opinion { sideways: geometry::crop_size(quad).2, turned }));
        }
        let said: Vec<_> = opinions.iter().map(|(_, opinion)| *opinion).collect();
        let verdicts = orientation::decide_page(&said, o.orientation.thresh);
        for ((quad, _), verdict) in opinions.iter().zip(verdicts) {
            let Some(crop) = clock.time("crops", || geometry::crop(&page, quad, verdict.turned)) else { continue };
            let size = (crop.width() as usize, crop.height() as usize);
            let width = recognition::widths(&[size], &o.recognition)[0].pixels;
            let tensor =
                clock.time("a line's input", || recognition::preprocess(&crop, width, &o.recognition, o.numerics));
            let shape = [1, 3, line::HEIGHT, width as usize];
            let mut reduction = 0.0;
            let start = Instant::now();
            let best =
                self.rec.run("recognition", Input::Planes(&tensor, shape), &Place::default(), |columns, _| {
                    let start = Instant::now();
                    let best = self.rec.head().map(|head| head.best_classes(columns)).unwrap_or_default();
                    reduction = start.elapsed().as_secs_f64();
                    best
                })?;
            clock.add("recognition: the network", start.elapsed().as_secs_f64() - reduction);
            clock.add("recognition: the last layer", reduction);
            std::hint::black_box(clock.time("CTC", || recognition::ctc_decode(&best, &self.dictionary)));
        }
        Ok(opinions.len())
    }
}

#[allow(clippy::print_stdout)] // its answer
fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").map(PathBuf::from).collect();
    if files.is_empty() {
        for folder in ["docs_en", "docs_zh", "derived", "scans_en"] {
            let entries = std::fs::read_dir(root.join("tests/data/pages").join(folder))?;
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    let nets = Nets::load(root)?;
    let (mut clock, mut lines) = (Clock::default(), 0);
    for round in 0..=ROUNDS {
        if round == 1 {
            // The first one warmed up.
            (clock, lines) = (Clock::default(), 0);
        }
        for file in &files {
            lines += nets.read(&mut clock, &std::fs::read(file)?, &Options::default())?;
        }
    }
    let count = (files.len() * ROUNDS) as f64;
    println!("{} pages, {:.1} lines a page\n\n| step | ms a page |\n| --- | --- |", files.len(), lines as f64 / count);
    for (step, seconds) in &clock.0 {
        println!("| {step} | {:.1} |", seconds / count * 1e3);
    }
    println!("| all | {:.1} |", clock.0.iter().map(|(_, seconds)| seconds).sum::<f64>() / count * 1e3);
    Ok(())
}
