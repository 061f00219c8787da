//! Requests that need no net: lines that are cut out, not turned and not read. So every edge of a request's life is seen without models.

use std::sync::MutexGuard;
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::image::Image;
use crate::models::Costs;
use crate::net::Net;
use crate::pipeline::Reader;
use crate::runtime::Target;

const SOON: Duration = Duration::from_secs(20);
const MB: usize = 1 << 20;
const SIDE: u32 = 10;

/// An engine whose models cannot be loaded.
struct Fake {
    engine: Engine,
    _nets: Arc<Nets>,
}

impl std::ops::Deref for Fake {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

fn engine(max_queue_size: usize, max_queue_bytes: usize) -> Fake {
    let net = |id| Arc::new(Net::new(id, Path::new("none.onnx"), Target::default()));
    let costs = Costs {
        detection_ms_per_megapixel: 100.0,
        detection_bytes_per_pixel: 100,
        orientation_ms: 1.0,
        recognition_to_detection: 2.0,
    };
    let nets = Arc::new(Nets {
        det: net(0),
        rec: Reader { net: net(1), group: 0, dictionary: Arc::new([]), ms_per_pixel: 0.1, bytes_per_pixel: 100 },
        rec_first: None,
        cls: None,
        costs,
        groups: [0; 2],
        run_size: 1,
        take_pixels: false,
        ratio: parking_lot::Mutex::new(costs.usual()),
    });
    let (process, device) = Process::open(Device::Cpu, &DeviceConfig::default()).unwrap();
    let config = EngineConfig { max_queue_size, max_queue_bytes, ..EngineConfig::default() };
    Fake { engine: Engine::on(process, device, &nets, config), _nets: nets }
}

impl Fake {
    fn open(&self, bytes: usize, timeout: Option<Duration>) -> Pending {
        let pixels = u64::from(SIDE * SIDE);
        self.engine.open(Size { bytes, copied: bytes, pixels, largest: pixels }, self.deadline(timeout))
    }

    /// Nothing of any request is left.
    fn is_idle(&self) -> bool {
        let shared = &self.shared;
        let jobs = lock(&shared.jobs).len();
        (shared.permits.usage(), shared.room.waiting(), jobs) == ((0, 0, 0), 0, 0)
    }

    /// Where memory is freed by a page thread.
    fn becomes_idle(&self) -> bool {
        let late = Instant::now() + SOON;
        while !self.is_idle() && Instant::now() < late {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.is_idle()
    }
}

fn request(inputs: Vec<Input>) -> Request {
    let mut options = Options::default();
    options.orientation.enabled = false;
    Request { inputs, steps: Steps { detect: false, recognize: false }, options }
}

fn pixels() -> Request {
    request(vec![Input::Pixels(Image::new(SIDE, SIDE, vec![0; (SIDE * SIDE * 3) as usize]).unwrap())])
}

fn start(pending: &Pending) {
    pending.reserve();
    pending.reserved(SOON).unwrap().unwrap();
    pending.start(pixels(), pending.take_permit().unwrap());
}

fn answer(pending: &Pending) -> Result<OcrResult> {
    pending.wait_for(SOON).unwrap()
}

/// Keeps every page thread busy until it is dropped.
struct BusyThreads {
    _free: Vec<Sender<()>>,
    /// One test at a time: the threads are the process's.
    _alone: MutexGuard<'static, ()>,
}

fn busy_threads(engine: &Fake) -> BusyThreads {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = lock(&ALONE);
    let free = (0..process::cores()).map(|_| {
        let (free, wait) = channel::<()>();
        let (begun, has_begun) = channel();
        let page = async move {
            begun.send(()).unwrap();
            let _ = wait.recv();
        };
        let process = &engine.shared.process;
        process.executor.spawn(&Arc::new(Progress::new(process.next_page(), 0.0)), page).detach();
        has_begun.recv_timeout(SOON).unwrap();
        free
    });
    BusyThreads { _free: free.collect(), _alone: alone }
}

#[test]
fn a_request_that_is_answered_leaves_nothing() {
    let engine = engine(8, 64 * MB);
    let pending = engine.open(300, Some(SOON));
    start(&pending);
    let result = answer(&pending).unwrap();
    assert_eq!((result.width, result.height, result.lines.len()), (SIDE, SIDE, 1));
    assert_eq!(answer(&pending).unwrap(), result, "whoever asks gets it");
    assert_eq!(engine.stats().queue, (0, 0, 0), "the permit returns before the answer goes out");
    assert!(engine.becomes_idle());
    assert_eq!(engine.stats().answered, 1);
}

#[test]
fn whatever_ends_a_request_before_it_is_started_leaves_nothing() {
    let (early, late) = (Some(Duration::from_millis(30)), Some(SOON));
    // How far it gets: opened, in line, granted, waiting for room, in line with its copy.
    for stage in 0..5 {
        for end in ["caller leaves", "cancelled", "deadline", "engine closes"] {
            let engine = engine(1, 64 * MB);
            let held = (stage != 2).then(|| engine.shared.permits.try_reserve(MB).unwrap());
            let room = (stage == 3).then(|| engine.shared.room.enter(9, 64 * MB, Arc::new(|| ())).take().unwrap());
            let pending = engine.open(2 * MB, if end == "deadline" { early } else { late });
            match stage {
                0 => {}
                1 | 2 => pending.reserve(),
                3 => assert!(!pending.take_room(1).unwrap()),
                _ => {
                    assert!(pending.take_room(1).unwrap());
                    pending.start_in_line(pixels());
                }
            }
            match end {
                "caller leaves" => drop(pending),
                "cancelled" => {
                    pending.cancel();
                    assert!(matches!(answer(&pending), Err(Error::Closed)));
                }
                "deadline" => assert!(matches!(answer(&pending), Err(Error::Timeout(time)) if Some(time) == early)),
                _ => {
                    engine.close(true);
                    assert!(matches!(answer(&pending), Err(Error::Closed)));
                }
            }
            drop((held, room));
            assert!(engine.becomes_idle(), "{end} in stage {stage}");
        }
    }
}

#[test]
fn a_page_that_has_not_begun_is_freed_the_moment_its_caller_leaves() {
    let engine = engine(8, 64 * MB);
    let threads = busy_threads(&engine);
    let pages: Vec<Pending> = (0..3).map(|_| engine.open(300, None)).collect();
    pages.iter().for_each(start);
    assert_eq!(engine.stats().queue, (3, 900, 0));
    drop(pages);
    assert!(engine.is_idle(), "no thread was free to do it");
    drop(threads);
}

#[test]
fn a_permit_that_a_leaving_caller_returns_goes_to_the_next_in_line() {
    let engine = engine(1, 64 * MB);
    let threads = busy_threads(&engine);
    let (first, second) = (engine.open(300, None), engine.open(300, None));
    start(&first);
    second.start_in_line(pixels());
    assert_eq!(engine.stats().queue, (1, 300, 1));
    drop(first);
    assert_eq!(engine.stats().queue, (1, 300, 0));
    drop(threads);
    assert!(answer(&second).is_ok());
}

#[test]
fn closing_lets_those_with_a_permit_finish_and_answers_the_others() {
    let engine = engine(2, 64 * MB);
    let threads = busy_threads(&engine);
    let running = engine.open(300, None);
    start(&running);
    let granted = engine.open(300, None);
    granted.reserve();
    let in_line = engine.open(300, None);
    in_line.start_in_line(pixels());
    let for_room = engine.open(64 * MB, None);
    let taken = engine.shared.room.enter(9, 64 * MB, Arc::new(|| ())).take().unwrap();
    assert!(!for_room.take_room(1).unwrap());
    engine.close(false);
    engine.close(false);
    assert!(matches!(answer(&in_line), Err(Error::Closed)));
    assert!(matches!(for_room.take_room(1), Err(Error::Closed)));
    granted.start(pixels(), granted.take_permit().unwrap());
    drop(threads);
    assert!(answer(&running).is_ok() && answer(&granted).is_ok());
    let late = engine.open(300, None);
    late.reserve();
    assert!(matches!(late.reserved(SOON), Some(Err(Error::Closed))));
    drop((for_room, taken, late));
    assert!(engine.becomes_idle());
}

#[test]
fn a_refusal_is_an_answer() {
    let engine = engine(1, 64 * MB);
    let held = engine.open(300, None);
    held.try_reserve();
    let refused = engine.open(300, None);
    refused.try_reserve();
    assert!(matches!(refused.reserved(Duration::ZERO), Some(Err(Error::Overloaded { requests: 1, bytes: 300 }))));
    assert!(refused.take_permit().is_none());
    assert_eq!(engine.stats().rejected, 1);
}

#[test]
fn who_waits_for_room_is_told_when_there_is_some_and_when_time_is_up() {
    let engine = engine(1, 64 * MB);
    let held = engine.open(300, None);
    held.try_reserve();
    let first = engine.open(40 * MB, None);
    let second = engine.open(40 * MB, Some(Duration::from_millis(500)));
    let (woken, news) = channel();
    second.notify(Arc::new(move || woken.send(()).unwrap()));
    assert!(first.take_room(1).unwrap() && !second.take_room(1).unwrap());
    first.start_in_line(pixels());
    assert!(news.try_recv().is_err(), "the copy still waits for its permit");
    drop(held);
    news.recv_timeout(SOON).unwrap();
    assert!(second.take_room(1).unwrap(), "the permit holds the copy now");
    news.recv_timeout(SOON).unwrap();
    assert!(matches!(answer(&second), Err(Error::Timeout(_))));
    assert!(answer(&first).is_ok());
    assert!(engine.becomes_idle(), "it took room, and its time was up before it was started");
}

#[test]
fn a_permit_keeps_only_what_the_copy_left() {
    let engine = engine(8, 64 * MB);
    let threads = busy_threads(&engine);
    let pending = engine.open(5000, None);
    pending.reserve();
    assert_eq!(engine.stats().queue, (1, 5000, 0));
    pending.start(pixels(), pending.take_permit().unwrap());
    assert_eq!(engine.stats().queue, (1, 300, 0));
    drop(threads);
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pages/formats").join(name)
}

const MAX_PIXELS: u64 = 100_000_000;

#[test]
fn a_size_is_the_encoded_bytes_and_all_that_the_decoder_allocates() {
    for (name, bytes_per_pixel) in
        [("q30.jpg", 3), ("exif3.jpg", 3), ("exif6.jpg", 6), ("exif8.jpg", 6), ("rgb.png", 3)]
    {
        let encoded = std::fs::read(data(name)).unwrap();
        let header = image::probe(&encoded, MAX_PIXELS).unwrap();
        let pixels = u64::from(header.width) * u64::from(header.height);
        let size = Size::of_encoded(&encoded, MAX_PIXELS).unwrap();
        assert_eq!((size.pixels, size.copied), (pixels, encoded.len()), "{name}");
        assert_eq!(size.bytes, encoded.len() + header.decode_bytes, "{name}");
        assert!(size.bytes >= encoded.len() + bytes_per_pixel * pixels as usize, "{name}");
        let file = Size::of_file(&data(name), MAX_PIXELS).unwrap();
        assert_eq!(file, Size { copied: 0, ..size }, "a file is not copied: {name}");
    }
}

#[test]
fn sizes_are_judged_before_anything_is_copied_and_never_overflow() {
    assert!(matches!(Size::of_pixels(10_001, 10_000, 3, MAX_PIXELS), Err(Error::InvalidImage(_))));
    assert!(matches!(Size::of_file(&data("rgb.png"), 1000), Err(Error::InvalidImage(_))));
    let largest = Size::of_pixels(u32::MAX, u32::MAX, 4, u64::MAX).unwrap();
    let all: Size = [largest, largest].into_iter().sum();
    assert_eq!((all.bytes, all.pixels), (usize::MAX, u64::MAX));
}

#[test]
fn work_before_decoding_comes_from_the_pixels_of_the_header() {
    let engine = engine(8, 64 * MB);
    let small = Size { bytes: 50 * MB, pixels: 1_000_000, ..Size::default() };
    let large = Size { bytes: MB, pixels: 2_000_000, ..Size::default() };
    // 100 ms a megapixel, and twice two detections' worth of recognition to come.
    let expected = |size| engine.engine.open(size, None).0.progress.work_left();
    assert_eq!((expected(small), expected(large)), (500.0, 1000.0));
}

#[test]
fn a_file_that_grew_while_its_request_waited_is_refused() {
    let engine = engine(1, 64 * MB);
    let path = std::env::temp_dir().join(format!("threadsafe-ocr-{}.img", std::process::id()));
    std::fs::copy(data("rgb.png"), &path).unwrap();
    let size = Size::of_file(&path, MAX_PIXELS).unwrap();
    let read = |size| {
        let pending = engine.engine.open(size, None);
        pending.start_in_line(request(vec![Input::Path(path.clone())]));
        answer(&pending)
    };
    assert!(read(size).is_ok());
    let smaller = Size { pixels: size.pixels - 1, largest: size.largest - 1, ..size };
    assert!(matches!(read(smaller), Err(Error::InvalidImage(_))), "the permit was for fewer pixels");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read(size), Err(Error::File { .. })));
}

#[test]
fn a_page_that_panics_is_answered_with_an_error() {
    let mut page = std::pin::pin!(fenced(async { panic!("a bad page") }));
    let poll = page.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let Poll::Ready(Err(Error::Inference { stage: "page", message })) = poll else { panic!("{poll:?}") };
    assert!(message.contains("a bad page"));
}

#[test]
fn engines_are_counted_while_they_are_open() {
    let first = engine(1, MB);
    let second = engine(1, MB);
    let is_refused = || matches!(process::unload(), Err(Error::Config(_)));
    assert!(is_refused());
    first.close(false);
    first.close(false);
    assert!(is_refused(), "closing one twice does not close the other");
    drop(second);
}
