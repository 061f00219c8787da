//! What a process has once: the page threads, the clock, and for every device its workers and loaded models.
//!
//! It is one value behind one pointer. A forked child finds that the value belongs to another process, leaks it without touching a lock
//! that a vanished thread may hold, and makes its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::clock::Clock;
use crate::config::DeviceConfig;
use crate::error::{Error, Result};
use crate::fork;
pub(crate) use crate::fork::has_ended;
use crate::line;
use crate::lock::lock;
use crate::models::{ModelSet, Recogniser, dictionary};
use crate::net::Net;
use crate::orientation;
use crate::pipeline::{FirstReader, Nets, Reader, Stages};
use crate::runtime::{self, Device, Input, Precision, Target};
use crate::schedule::Place;
use crate::schedule::executor::Executor;
use crate::schedule::policy::PageId;
use crate::schedule::worker::Pool;

static PROCESS: ArcSwapOption<Process> = ArcSwapOption::const_empty();

/// See the module.
pub struct Process {
    pid: u32,
    pub(crate) executor: Executor,
    pub(crate) clock: Arc<Clock>,
    devices: Mutex<Devices>,
    pages: AtomicU64,
}

#[derive(Default)]
struct Devices {
    in_use: HashMap<Device, Arc<DeviceState>>,
    /// Unloaded: whoever comes makes a new process value.
    ended: bool,
}

/// The workers of a device and the models loaded on it.
pub(crate) struct DeviceState {
    pub pool: Pool<Stages>,
    device: Device,
    config: DeviceConfig,
    /// The CPU's one group; a GPU makes a group for every model.
    group: Option<usize>,
    pool_threads: usize,
    run_size: usize,
    loaded: Mutex<Loaded>,
    /// Open ones on it; changed and summed up under the lock of [`Devices`].
    engines: AtomicUsize,
}

#[derive(Default)]
struct Loaded {
    nets: HashMap<(PathBuf, Precision), (Arc<Net>, usize)>,
    sets: Vec<(ModelSet, Precision, Arc<Nets>)>,
}

/// Cores that this process may use: affinity and the container's quota, not the host's count.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Process {
    /// This process's own; made on first use.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`end`]; [`Error::Unavailable`] where the system gives no thread.
    pub fn current() -> Result<Arc<Self>> {
        loop {
            if has_ended() {
                return Err(Error::Closed);
            }
            let current = PROCESS.load_full();
            if let Some(process) = current.as_ref().filter(|process| process.is_own()) {
                return Ok(Arc::clone(process));
            }
            let made = Self::start()?;
            let previous = PROCESS.compare_and_swap(&current, Some(Arc::clone(&made)));
            let won = match (previous.as_ref(), &current) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            };
            if !won {
                made.stop();
                continue;
            }
            // The parent's value: its threads are not here, its locks may be held for ever.
            std::mem::forget(current);
            if has_ended() {
                // The exit hook looked before there was anything to end.
                made.stop();
            }
        }
    }

    fn start() -> Result<Arc<Self>> {
        let clock = Clock::start()?;
        let executor = Executor::new(cores()).inspect_err(|_| drop(clock.shut_down()))?;
        let (devices, pages) = (Mutex::default(), AtomicU64::new(0));
        Ok(Arc::new(Self { pid: std::process::id(), executor, clock, devices, pages }))
    }

    /// Whether it was made by this process, and not by the one it forked from.
    pub(crate) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn next_page(&self) -> PageId {
        PageId(self.pages.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens an engine on a device: this process's value, and the device with its workers. [`Process::close`] ends it.
    pub(crate) fn open(device: Device, wanted: &DeviceConfig) -> Result<(Arc<Self>, Arc<DeviceState>)> {
        loop {
            let process = Self::current()?;
            let mut devices = lock(&process.devices);
            if devices.ended {
                drop(devices);
                // `unload` is at work.
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let state = match devices.in_use.get(&device) {
                Some(state) => {
                    state.agrees(wanted)?;
                    Arc::clone(state)
                }
                None => Arc::new(DeviceState::new(device, wanted)?),
            };
            devices.in_use.insert(device, Arc::clone(&state));
            state.engines.fetch_add(1, Ordering::Relaxed);
            drop(devices);
            return Ok((process, state));
        }
    }

    /// An engine on `device` ends.
    pub(crate) fn close(&self, device: &DeviceState) {
        let _devices = lock(&self.devices);
        device.engines.fetch_sub(1, Ordering::Relaxed);
    }

    /// An engine could not be made. The processor's workers end where there is nothing else for them, and its knobs are free again; a card's may
    /// be inside CUDA still, and stay.
    pub(crate) fn give_up(&self, device: &DeviceState) {
        let mut devices = lock(&self.devices);
        let others = device.engines.fetch_sub(1, Ordering::Relaxed) - 1;
        if device.device != Device::Cpu || others > 0 || !lock(&device.loaded).sets.is_empty() {
            return;
        }
        devices.in_use.remove(&device.device);
        drop(devices);
        for thread in device.pool.shut_down(&Error::Closed) {
            // See `stop`.
            let _ = thread.join();
        }
        *lock(&device.loaded) = Loaded::default();
        runtime::give_back_memory();
    }

    /// Ends every thread and waits for it. Returns the devices, with what is loaded on them.
    fn stop(&self) -> Vec<Arc<DeviceState>> {
        let mut devices = lock(&self.devices);
        devices.ended = true;
        let in_use: Vec<_> = devices.in_use.drain().map(|(_, state)| state).collect();
        drop(devices);
        let mut threads: Vec<_> = in_use.iter().flat_map(|state| state.pool.shut_down(&Error::Closed)).collect();
        threads.extend(self.executor.shut_down());
        threads.extend(self.clock.shut_down());
        for thread in threads {
            // A worker's panic was fenced and answered; nothing more is to be told.
            let _ = thread.join();
        }
        in_use
    }
}

/// A GPU's activations, together: two detections of 4000x2816 pixels, and no more than two run at once. A quarter of the free memory would fit
/// a card better, but ONNX Runtime does not tell it, and asking CUDA takes unsafe calls.
const CUDA_ACTIVATION_BYTES: usize = 4 << 30;
/// Of each core: a first look of detection beside others, at `PaddleOCR`'s or `RapidOCR`'s size every second one. Two cores' at least, since a
/// larger run goes alone.
const CPU_ACTIVATION_BYTES: usize = 256 << 20;
/// Crops in a GPU's run of recognition. On an H200 (fp16, onnxruntime 1.31, two workers) runs of 16 read 3,440 crops of 640 pixels a second,
/// runs of 64 3,930, but few pages fill them, and a lone page waits for blank places. On a core it is 1: runs of 4 read 47.9 crops a second,
/// single ones 51.8 (AVX2, onnxruntime 1.32, two threads).
const CUDA_RUN_SIZE: usize = 16;
/// Workers, and so streams, of a model on a GPU: one's copies and host work overlap the other's compute.
const CUDA_WORKERS: usize = 2;

impl DeviceState {
    fn new(device: Device, config: &DeviceConfig) -> Result<Self> {
        let (bytes, run_size) = match device {
            Device::Cpu => (cores().max(2) * CPU_ACTIVATION_BYTES, 1),
            Device::Cuda(_) => (CUDA_ACTIVATION_BYTES, CUDA_RUN_SIZE),
        };
        let pool = Pool::new(Stages, config.activation_bytes.unwrap_or(bytes));
        let names: Vec<String> = (0..cores()).map(|k| format!("ocr-cpu-{k}")).collect();
        let group = (device == Device::Cpu).then(|| pool.add_group(&names)).transpose()?;
        Ok(Self {
            pool,
            device,
            config: config.clone(),
            group,
            pool_threads: config.intra_op_num_threads.unwrap_or_else(cores),
            run_size: config.run_size.unwrap_or(run_size),
            loaded: Mutex::default(),
            engines: AtomicUsize::new(0),
        })
    }

    fn agrees(&self, wanted: &DeviceConfig) -> Result<()> {
        let has = &self.config;
        let knobs = [
            ("run_size", wanted.run_size, has.run_size),
            ("intra_op_num_threads", wanted.intra_op_num_threads, has.intra_op_num_threads),
            ("activation_bytes", wanted.activation_bytes, has.activation_bytes),
        ];
        for (name, wanted, has) in knobs {
            if let Some(value) = wanted.filter(|_| wanted != has) {
                let fixed = has.map_or("its default".into(), |has| has.to_string());
                return Err(Error::Config(format!(
                    "{name}={value}, but {} already runs with {fixed}: the first engine of a device fixes it; close all engines and call \
                     threadsafe_ocr.unload() first",
                    self.device
                )));
            }
        }
        Ok(())
    }

    /// The nets of a set; loaded once.
    pub(crate) fn nets(&self, set: &ModelSet, precision: Precision) -> Result<Arc<Nets>> {
        if let Some(error) = self.pool.ended() {
            return Err(error);
        }
        let mut loaded = lock(&self.loaded);
        if let Some((.., nets)) = loaded.sets.iter().find(|(known, at, _)| (known, *at) == (set, precision)) {
            return Ok(Arc::clone(nets));
        }
        if self.device == Device::Cpu {
            self.load_side_by_side(&mut loaded, set, precision)?;
        }
        let (det, det_group) = self.net(&mut loaded, &set.det, precision, "det")?;
        check_detection(&det, set)?;
        let take_pixels = det.session(0, false)?.takes_pixels();
        let rec = self.reader(&mut loaded, &set.rec, precision, "rec")?;
        let rec_first = match set.rec_first {
            Some((ref first, trust)) => {
                let reader = self.reader(&mut loaded, first, precision, "rec1")?;
                let alphabet = reader.dictionary.iter().flat_map(|entry| entry.chars()).collect();
                Some(FirstReader { reader, trust, alphabet })
            }
            None => None,
        };
        let cls = set.cls.as_ref().map(|path| self.net(&mut loaded, path, Precision::F32, "cls")).transpose()?;
        let cls_group = cls.as_ref().map_or(det_group, |(_, group)| *group);
        if let (Some((net, _)), Some(path)) = (&cls, &set.cls) {
            check_orientation(net, path)?;
        }
        if self.device == Device::Cpu {
            try_detection(&det, set)?;
            runtime::give_back_memory();
        }
        let nets = Arc::new(Nets {
            det,
            rec,
            rec_first,
            cls: cls.map(|(net, _)| net),
            costs: set.costs,
            groups: [det_group, cls_group],
            run_size: self.run_size,
            take_pixels,
            ratio: parking_lot::Mutex::new(set.costs.usual()),
        });
        loaded.sets.push((set.clone(), precision, Arc::clone(&nets)));
        Ok(nets)
    }

    /// Loads a set's sessions side by side: each takes a core for 0.1 to 0.2 s. Detection's of all cores too, which a process's first page needs at
    /// once. What fails here is tried again, and told, by the checks that follow and by the first run.
    fn load_side_by_side(&self, loaded: &mut Loaded, set: &ModelSet, precision: Precision) -> Result<()> {
        // The longest first.
        let mut sessions = Vec::new();
        for model in std::iter::once(&set.rec).chain(set.rec_first.as_ref().map(|(first, _)| first)) {
            sessions.push((self.net(loaded, &model.file, precision, "rec")?.0, false));
        }
        let (det, _) = self.net(loaded, &set.det, precision, "det")?;
        if self.pool_threads > 1 {
            sessions.push((Arc::clone(&det), true));
        }
        sessions.push((det, false));
        if let Some(cls) = &set.cls {
            sessions.push((self.net(loaded, cls, Precision::F32, "cls")?.0, false));
        }
        let count = cores().min(sessions.len());
        let sessions = Mutex::new(sessions.into_iter());
        let load = || {
            while let Some((net, alone)) = { lock(&sessions).next() } {
                let _ = net.session(0, alone);
            }
        };
        std::thread::scope(|scope| {
            // A session's own threads, which stay, have the name of the one that makes it.
            let loader = || std::thread::Builder::new().name("ocr-pool".into());
            let loaders: Vec<_> = (0..count).map_while(|_| loader().spawn_scoped(scope, load).ok()).collect();
            for loader in loaders {
                // A panic comes again where the session is asked for.
                let _ = loader.join();
            }
        });
        Ok(())
    }

    fn reader(&self, loaded: &mut Loaded, model: &Recogniser, precision: Precision, kind: &str) -> Result<Reader> {
        let (net, group) = self.net(loaded, &model.file, precision, kind)?;
        let dictionary = check_recognition(&net, model)?.into();
        let Recogniser { ms_per_pixel, bytes_per_pixel, .. } = *model;
        Ok(Reader { net, group, dictionary, ms_per_pixel, bytes_per_pixel })
    }

    fn net(&self, loaded: &mut Loaded, path: &Path, precision: Precision, kind: &str) -> Result<(Arc<Net>, usize)> {
        let key = (path.to_owned(), precision);
        if let Some((net, group)) = loaded.nets.get(&key) {
            return Ok((Arc::clone(net), *group));
        }
        let count = loaded.nets.len();
        let target = Target { device: self.device, precision, pool_threads: self.pool_threads };
        let net = Arc::new(Net::new(count as u64, path, target));
        let group = match (self.group, self.device) {
            (Some(group), _) => group,
            (None, device) => {
                let Device::Cuda(index) = device else {
                    return Err(Error::Unavailable(format!("{device} has no workers")));
                };
                let names: Vec<String> = (0..CUDA_WORKERS).map(|k| format!("ocr-cuda{index}-{kind}{k}")).collect();
                let own = Arc::clone(&net);
                self.pool.add_group_with(&names, move |worker| own.session(worker, false).map(drop))?
            }
        };
        loaded.nets.insert(key, (Arc::clone(&net), group));
        Ok((net, group))
    }
}

/// Checks that a model is what it is said to be; loads it, where [`DeviceState::load_side_by_side`] has not.
fn check_detection(det: &Net, set: &ModelSet) -> Result<()> {
    let det = det.session(0, false)?;
    let is_page = match det.input_shape() {
        [_, channels, _, _] if !det.takes_pixels() => matches!(channels, 3 | -1),
        shape => shape.len() == 4,
    };
    if is_page && det.output_shape().len() == 4 {
        return Ok(());
    }
    let shapes = format!("{:?} to {:?}", det.input_shape(), det.output_shape());
    Err(Error::ModelLoad(format!("{}: its shapes are {shapes}; is it a detection model?", set.det.display())))
}

/// The text of every class.
fn check_recognition(rec: &Net, model: &Recogniser) -> Result<Vec<String>> {
    let rec = rec.session(0, false)?;
    let [_, _, classes] = *rec.output_shape() else {
        let shape = rec.output_shape();
        return Err(Error::ModelLoad(format!(
            "{}: its output is {shape:?}; is it a recognition model?",
            model.file.display()
        )));
    };
    let last = usize::try_from(classes).ok().filter(|&count| count > 0 && !rec.takes_pixels());
    let told = rec.classes().or(last);
    let classes = told.unwrap_or(model.characters.len() + 2);
    dictionary(&model.characters, classes, &model.file)
}

fn check_orientation(cls: &Net, path: &Path) -> Result<()> {
    let session = cls.session(0, false)?;
    let [input, output] = [session.input_shape(), session.output_shape()];
    if !matches!(output, [_, 2 | -1]) {
        let why = format!("its output is {output:?}; is it a 0/180 orientation model?");
        return Err(Error::ModelLoad(format!("{}: {why}", path.display())));
    }
    let (height, width) = (line::HEIGHT as i64, orientation::WIDTH as i64);
    let given = if session.takes_pixels() { [-1, height, width, 3] } else { [-1, 3, height, width] };
    if input.len() == 4 && input.iter().zip(given).all(|(&size, given)| size == given || size == -1 || given == -1) {
        return Ok(());
    }
    let why =
        format!("its input is {input:?}; the classifier of lines here gets {given:?}, as ch_ppocr_mobile_v2.0_cls");
    Err(Error::ModelLoad(format!("{}: {why}", path.display())))
}

/// A first small run: it finds out whether the output has the input's size.
fn try_detection(det: &Net, set: &ModelSet) -> Result<()> {
    let session = det.session(0, false)?;
    let (planes, pixels, mut output) = (vec![0.0; 3 * 32 * 32], vec![0; 32 * 32 * 3], vec![0.0; 32 * 32]);
    let input = if session.takes_pixels() {
        Input::Pixels(&pixels, [1, 32, 32, 3], &line::NORMALISATION)
    } else {
        Input::Planes(&planes, [1, 3, 32, 32])
    };
    session.run_into("detection", input, (&mut output, [1, 1, 32, 32]), 0, &Place::default()).map_err(|e| {
        Error::ModelLoad(format!("{}: a trial run failed ({e}); is it a detection model?", set.det.display()))
    })
}

/// Ends everything: intake stops, runs are terminated, threads are joined. For the interpreter's exit hook; idempotent.
pub fn end() {
    fork::end();
    if let Some(process) = own() {
        process.stop();
    }
    // Another thread may be loading the first models.
    fork::wait_until_outside(Duration::from_secs(10));
}

/// Unloads every model and ends the workers; the next engine starts anew.
///
/// # Errors
/// [`Error::Config`] while an engine is open.
pub fn unload() -> Result<()> {
    let Some(process) = own() else { return Ok(()) };
    let mut devices = lock(&process.devices);
    let engines: usize = devices.in_use.values().map(|device| device.engines.load(Ordering::Relaxed)).sum();
    if engines > 0 {
        return Err(Error::Config(format!("{engines} engines are open; close() them before unload()")));
    }
    devices.ended = true;
    drop(devices);
    for device in process.stop() {
        // Closed engines may still point here; the models go now.
        *lock(&device.loaded) = Loaded::default();
    }
    PROCESS.compare_and_swap(&process, None);
    runtime::give_back_memory();
    Ok(())
}

fn own() -> Option<Arc<Process>> {
    PROCESS.load_full().filter(|process| process.is_own())
}
