//! What a process has once: the page threads, the clock, and for every device its workers and loaded models.
//!
//! It is one value behind one pointer. A forked child finds that the value belongs to another process, leaks it without touching a lock
//! that a vanished thread may hold, and makes its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use crate::config::DeviceConfig;
use crate::error::{Error, Result};
use crate::models::{ModelSet, dictionary};
use crate::pipeline::{Nets, Stages};
use crate::runtime::{Device, Net};
use crate::schedule::Stop;
use crate::schedule::executor::Executor;
use crate::schedule::policy::PageId;
use crate::schedule::worker::Pool;

static PROCESS: ArcSwapOption<Process> = ArcSwapOption::const_empty();
/// Set by the exit hook: from then on nothing is started.
static ENDED: AtomicBool = AtomicBool::new(false);

/// See the module.
pub struct Process {
    pid: u32,
    pub(crate) executor: Executor,
    pub(crate) clock: Arc<Clock>,
    devices: Mutex<HashMap<Device, Arc<DeviceState>>>,
    pages: AtomicU64,
    /// Open engines.
    pub(crate) engines: AtomicU64,
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
}

#[derive(Default)]
struct Loaded {
    nets: HashMap<PathBuf, (Arc<Net>, usize)>,
    sets: Vec<(ModelSet, Arc<Nets>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            if ENDED.load(Ordering::SeqCst) {
                return Err(Error::Closed);
            }
            let current = PROCESS.load_full();
            if let Some(process) = current.as_ref().filter(|process| process.pid == std::process::id()) {
                return Ok(Arc::clone(process));
            }
            let made = Arc::new(Self {
                pid: std::process::id(),
                executor: Executor::new(cores())?,
                clock: Clock::start()?,
                devices: Mutex::default(),
                pages: AtomicU64::new(0),
                engines: AtomicU64::new(0),
            });
            let previous = PROCESS.compare_and_swap(&current, Some(Arc::clone(&made)));
            let won = match (previous.as_ref(), &current) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            };
            if won {
                // The parent's value: its threads are not here, its locks may be held for ever.
                std::mem::forget(current);
                return Ok(made);
            }
            made.stop();
        }
    }

    /// Whether it was made by this process, and not by the one it forked from.
    pub(crate) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn next_page(&self) -> PageId {
        PageId(self.pages.fetch_add(1, Ordering::Relaxed))
    }

    /// Every device in use, with its pool.
    pub(crate) fn device(&self, device: Device, wanted: &DeviceConfig) -> Result<Arc<DeviceState>> {
        let mut devices = lock(&self.devices);
        if let Some(state) = devices.get(&device) {
            state.agrees(wanted)?;
            return Ok(Arc::clone(state));
        }
        let state = Arc::new(DeviceState::new(device, wanted)?);
        devices.insert(device, Arc::clone(&state));
        Ok(state)
    }

    fn stop(&self) -> Vec<JoinHandle<()>> {
        let mut threads = Vec::new();
        for (_, state) in lock(&self.devices).drain() {
            threads.extend(state.pool.shut_down(&Error::Closed));
        }
        threads.extend(self.executor.shut_down());
        threads.extend(self.clock.shut_down());
        threads
    }
}

/// A GPU's activations, together.
const CUDA_ACTIVATION_BYTES: usize = 4 << 30;
const CPU_ACTIVATION_BYTES: usize = 512 << 20;
/// Crops in a GPU's run of recognition: enough to fill the card, few enough that a lone page does not pay for blanks.
const CUDA_RUN_SIZE: usize = 8;
/// Workers, and so streams, of a model on a GPU: one's copies and host work overlap the other's compute.
const CUDA_WORKERS: usize = 2;

impl DeviceState {
    fn new(device: Device, config: &DeviceConfig) -> Result<Self> {
        let (bytes, run_size) = match device {
            Device::Cpu => (CPU_ACTIVATION_BYTES, 1),
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
    pub(crate) fn nets(&self, set: &ModelSet) -> Result<Arc<Nets>> {
        let mut loaded = lock(&self.loaded);
        if let Some((_, nets)) = loaded.sets.iter().find(|(known, _)| known == set) {
            return Ok(Arc::clone(nets));
        }
        let (det, det_group) = self.net(&mut loaded, &set.det, "det")?;
        let (rec, rec_group) = self.net(&mut loaded, &set.rec, "rec")?;
        let cls = set.cls.as_ref().map(|path| self.net(&mut loaded, path, "cls")).transpose()?;
        let cls_group = cls.as_ref().map_or(rec_group, |(_, group)| *group);
        let nets = Arc::new(Nets {
            dictionary: self.check(&det, &rec, set)?.into(),
            det,
            rec,
            cls: cls.map(|(net, _)| net),
            costs: set.costs,
            groups: [det_group, cls_group, rec_group],
            run_size: self.run_size,
            ratio: parking_lot::Mutex::new((set.costs.recognition_to_detection, 1.0)),
        });
        loaded.sets.push((set.clone(), Arc::clone(&nets)));
        Ok(nets)
    }

    fn net(&self, loaded: &mut Loaded, path: &Path, kind: &str) -> Result<(Arc<Net>, usize)> {
        if let Some((net, group)) = loaded.nets.get(path) {
            return Ok((Arc::clone(net), *group));
        }
        let count = loaded.nets.len();
        let net = Arc::new(Net::new(count as u64, path, self.device, self.pool_threads, kind == "det"));
        let group = match (self.group, self.device) {
            (Some(group), _) => group,
            (None, device) => {
                let Device::Cuda(index) = device else {
                    return Err(Error::Unavailable(format!("{device} has no workers")));
                };
                let names: Vec<String> = (0..CUDA_WORKERS).map(|k| format!("ocr-cuda{index}-{kind}{k}")).collect();
                self.pool.add_group(&names)?
            }
        };
        loaded.nets.insert(path.to_owned(), (Arc::clone(&net), group));
        Ok((net, group))
    }

    /// Loads the models where that may be done here, and checks that they are what they are said to be.
    fn check(&self, det: &Net, rec: &Net, set: &ModelSet) -> Result<Vec<String>> {
        // On a GPU sessions are made on their workers' threads only; the files are checked on the CPU.
        let on_cpu = |net: &Net, path: &Path| match self.device {
            Device::Cpu => net.session(0, false),
            Device::Cuda(_) => Ok(Arc::new(crate::runtime::Session::load(path, Device::Cpu, 1, false)?)),
        };
        let det = on_cpu(det, &set.det)?;
        let rec = on_cpu(rec, &set.rec)?;
        if !matches!(det.input_shape(), [_, 3 | -1, _, _]) || det.output_shape().len() != 4 {
            let shapes = format!("{:?} to {:?}", det.input_shape(), det.output_shape());
            return Err(Error::ModelLoad(format!(
                "{}: its shapes are {shapes}; is it a detection model?",
                set.det.display()
            )));
        }
        // A first small run: it finds out whether the output has the input's size, and the arena's growth begins with it.
        let (input, mut output) = (vec![0.0; 3 * 32 * 32], vec![0.0; 32 * 32]);
        let (input, output) = ((&*input, [1, 3, 32, 32]), (&mut *output, [1, 1, 32, 32]));
        det.run_into("detection", input, output, &Stop::default()).map_err(|e| {
            Error::ModelLoad(format!("{}: a trial run failed ({e}); is it a detection model?", set.det.display()))
        })?;
        let [_, _, classes] = *rec.output_shape() else {
            let shape = rec.output_shape();
            return Err(Error::ModelLoad(format!(
                "{}: its output is {shape:?}; is it a recognition model?",
                set.rec.display()
            )));
        };
        let classes = if classes > 0 { classes as usize } else { set.characters.len() + 2 };
        dictionary(&set.characters, classes, &set.rec)
    }
}

/// Ends everything: intake stops, runs are terminated, threads are joined. For the interpreter's exit hook; idempotent.
pub fn end() {
    ENDED.store(true, Ordering::SeqCst);
    stop_current();
}

/// Unloads every model and ends the workers; the next engine starts anew.
///
/// # Errors
/// [`Error::Config`] while an engine is open.
pub fn unload() -> Result<()> {
    let current = PROCESS.load_full().filter(|process| process.pid == std::process::id());
    let open = current.map_or(0, |process| process.engines.load(Ordering::SeqCst));
    if open > 0 {
        return Err(Error::Config(format!("{open} engines are open; close() them before unload()")));
    }
    stop_current();
    Ok(())
}

fn stop_current() {
    let current = PROCESS.load_full();
    let Some(process) = current.filter(|process| process.pid == std::process::id()) else { return };
    for thread in process.stop() {
        // A worker's panic was fenced and answered; nothing more is to be told.
        let _ = thread.join();
    }
    PROCESS.store(None);
}

/// Something that has a deadline.
pub(crate) trait Expires: Send + Sync {
    /// The deadline passed.
    fn expire(&self);
}

/// One thread that sleeps until the earliest deadline of all requests.
pub(crate) struct Clock {
    state: Mutex<ClockState>,
    changed: Condvar,
}

#[derive(Default)]
struct ClockState {
    due: Vec<(Instant, Weak<dyn Expires>)>,
    ended: bool,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    fn start() -> Result<Arc<Self>> {
        let clock = Arc::new(Self { state: Mutex::default(), changed: Condvar::new() });
        let own = Arc::clone(&clock);
        let thread = std::thread::Builder::new().name("ocr-clock".into()).spawn(move || own.work());
        let thread =
            thread.map_err(|e| Error::Unavailable(format!("the system gives no thread for ocr-clock: {e}")))?;
        lock(&clock.state).thread = Some(thread);
        Ok(clock)
    }

    /// `request` expires at `when`, unless it is gone by then.
    pub(crate) fn add(&self, when: Instant, request: Weak<dyn Expires>) {
        lock(&self.state).due.push((when, request));
        self.changed.notify_one();
    }

    fn shut_down(&self) -> Option<JoinHandle<()>> {
        let mut state = lock(&self.state);
        state.ended = true;
        self.changed.notify_one();
        state.thread.take()
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        while !state.ended {
            let now = Instant::now();
            state.due.retain(|(_, request)| request.strong_count() > 0);
            let (expired, left): (Vec<_>, Vec<_>) =
                std::mem::take(&mut state.due).into_iter().partition(|(when, _)| *when <= now);
            state.due = left;
            if !expired.is_empty() {
                drop(state);
                expired.iter().filter_map(|(_, request)| request.upgrade()).for_each(|request| request.expire());
                state = lock(&self.state);
                continue;
            }
            let next = state.due.iter().map(|(when, _)| *when).min();
            state = match next {
                Some(when) => {
                    let waited = self.changed.wait_timeout(state, when.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
