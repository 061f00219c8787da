//! The engine: a light handle with its own permits, limits and counters on the process's workers.
//!
//! A request is opened, which starts its time; gets a permit, in hand or in line; and is started with what was copied under it. Whatever ends
//! it early (its deadline, its caller, the engine's end) answers it first, and what it holds goes then.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use async_task::Task;

use crate::clock::Expires;
use crate::config::{DeviceConfig, EngineConfig, OnFork, Options};
use crate::error::{Error, Result};
use crate::image;
use crate::lock::lock;
use crate::models::{ModelSet, ModelSpec};
use crate::permits::{Permit, Permits, Place, Room, Taken, Ticket, Wake};
use crate::pipeline::{self, Input, Nets, OcrResult, Page, Steps};
use crate::process::{self, DeviceState, Process};
use crate::runtime::{Device, Precision};
use crate::schedule::executor::Progress;
use crate::schedule::policy::PageId;
use crate::schedule::worker::{PoolStats, panic_message};
use crate::tiles;

/// What an engine is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// Which models.
    pub models: ModelSpec,
    /// The folder of the manifest.
    pub model_folder: std::path::PathBuf,
    /// Files to load in place of networks' own: their form for a GPU.
    pub replaced: HashMap<std::path::PathBuf, std::path::PathBuf>,
    /// Where they run.
    pub device: Device,
    /// In which numbers, on a CPU.
    pub precision: Precision,
    /// Its limits.
    pub config: EngineConfig,
    /// The device's knobs.
    pub device_config: DeviceConfig,
}

/// What a call asks for.
#[derive(Debug)]
pub struct Request {
    /// One page, or lines.
    pub inputs: Vec<Input>,
    /// What to do with them.
    pub steps: Steps,
    /// How.
    pub options: Options,
}

/// What inputs take, told from their shapes and headers alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of a permit: all that is held at the peak, from the copy to the decoded pixels.
    pub bytes: usize,
    /// Bytes that the copy of the caller's memory leaves behind; none for a file.
    pub copied: usize,
    /// Pixels of all inputs.
    pub pixels: u64,
    /// Pixels of the largest input. No decode gives more.
    pub largest: u64,
}

impl Size {
    /// Of raw pixels that take `bytes_per_pixel` while they are copied.
    ///
    /// # Errors
    /// [`Error::InvalidImage`] when there are more than `max_pixels`.
    pub fn of_pixels(width: u32, height: u32, bytes_per_pixel: usize, max_pixels: u64) -> Result<Self> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels > max_pixels {
            return Err(Error::InvalidImage(format!(
                "the image is {width}x{height}: {pixels} pixels, and max_pixels is {max_pixels}; shrink it, or raise max_pixels"
            )));
        }
        let count = usize::try_from(pixels).unwrap_or(usize::MAX);
        let (bytes, copied) = (count.saturating_mul(bytes_per_pixel), count.saturating_mul(3));
        Ok(Self { bytes, copied, pixels, largest: pixels })
    }

    /// Of the bytes of an image file.
    ///
    /// # Errors
    /// As [`image::probe`].
    pub fn of_encoded(encoded: &[u8], max_pixels: u64) -> Result<Self> {
        Ok(Self::of_header(image::probe(encoded, max_pixels)?, encoded.len(), encoded.len()))
    }

    /// Of an image file.
    ///
    /// # Errors
    /// As [`image::probe_file`].
    pub fn of_file(path: &Path, max_pixels: u64) -> Result<Self> {
        let (header, length) = image::probe_file(path, max_pixels)?;
        Ok(Self::of_header(header, usize::try_from(length).unwrap_or(usize::MAX), 0))
    }

    fn of_header(header: image::Header, length: usize, copied: usize) -> Self {
        let pixels = u64::from(header.width) * u64::from(header.height);
        Self { bytes: header.decode_bytes.saturating_add(length), copied, pixels, largest: pixels }
    }

    /// What is held once `request` is copied: of pixels their own bytes, of a file all that its decoding takes.
    fn left_by(&self, request: &Request) -> usize {
        let pixels = request.inputs.iter().map(|input| match input {
            Input::Pixels(image) => Some(image.pixels().len()),
            Input::Encoded(_) | Input::Path(_) => None,
        });
        pixels.sum::<Option<usize>>().unwrap_or(self.bytes)
    }
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), |all, one| Self {
            bytes: all.bytes.saturating_add(one.bytes),
            copied: all.copied.saturating_add(one.copied),
            pixels: all.pixels.saturating_add(one.pixels),
            largest: all.largest.max(one.largest),
        })
    }
}

/// Reads pages from any number of threads. Cheap to make: models and workers are shared by all engines of a process.
pub struct Engine {
    pid: u32,
    shared: Arc<Shared>,
}

struct Shared {
    process: Arc<Process>,
    device: Arc<DeviceState>,
    /// The device has them until they are unloaded.
    nets: Weak<Nets>,
    config: EngineConfig,
    permits: Permits,
    room: Room,
    jobs: Mutex<HashMap<PageId, Weak<Job>>>,
    closed: AtomicBool,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    answered: AtomicU64,
    lines: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    cancelled: AtomicU64,
    timed_out: AtomicU64,
}

/// A snapshot of an engine's counters and of its device's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Requests answered with a result.
    pub answered: u64,
    /// Lines in these results.
    pub lines: u64,
    /// Requests answered with an error.
    pub failed: u64,
    /// Requests refused with [`Error::Overloaded`].
    pub rejected: u64,
    /// Requests whose caller left.
    pub cancelled: u64,
    /// Requests that passed their deadline.
    pub timed_out: u64,
    /// Requests that hold a permit, the bytes they hold, and requests that wait for one.
    pub queue: (usize, usize, usize),
    /// Requests of event loops that wait for room for a copy of their pixels.
    pub waiting_for_room: usize,
    /// The device's workers, shared with other engines.
    pub device: PoolStats,
}

impl Engine {
    /// Loads the models, where no other engine has, and starts the workers.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::ModelNotFound`], [`Error::ModelLoad`], [`Error::Unavailable`].
    pub fn new(setup: &Setup) -> Result<Self> {
        setup.config.validate()?;
        setup.device_config.validate()?;
        if setup.precision == Precision::Bf16 && !tiles::is_there() {
            return Err(Error::Unavailable(
                "precision=\"bf16\" needs AMX, on Linux on x86-64: this processor has none, or THREADSAFE_OCR_AMX=0 hides it; use \"f32\""
                    .into(),
            ));
        }
        let set = ModelSet::find(&setup.models, &setup.model_folder)?.with(&setup.replaced);
        let (process, device) = Process::open(setup.device, &setup.device_config)?;
        let nets = device.nets(&set, setup.precision).inspect_err(|_| process.give_up(&device))?;
        Ok(Self::on(process, device, &nets, setup.config.clone()))
    }

    fn on(process: Arc<Process>, device: Arc<DeviceState>, nets: &Arc<Nets>, config: EngineConfig) -> Self {
        let shared = Shared {
            process,
            device,
            nets: Arc::downgrade(nets),
            permits: Permits::new(config.max_queue_size, config.max_queue_bytes),
            room: Room::new(config.max_queue_bytes),
            config,
            jobs: Mutex::default(),
            closed: AtomicBool::new(false),
            counters: Counters::default(),
        };
        Self { pid: std::process::id(), shared: Arc::new(shared) }
    }

    /// Whether it was made by this process; if not, nothing of it may be used or dropped.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Pages of more pixels are refused.
    #[must_use]
    pub fn max_pixels(&self) -> u64 {
        self.shared.config.max_pixels
    }

    /// The deadline of a call that begins now; none: wait for ever.
    #[must_use]
    pub fn deadline(&self, timeout: Option<Duration>) -> Option<Deadline> {
        let timeout = timeout.or(self.shared.config.timeout)?;
        Instant::now().checked_add(timeout).map(|when| Deadline { when, timeout })
    }

    /// A request whose time runs and which holds nothing yet.
    #[must_use]
    pub fn open(&self, size: Size, deadline: Option<Deadline>) -> Pending {
        let shared = &self.shared;
        let page = shared.process.next_page();
        let work = shared.nets.upgrade().map_or(0.0, |nets| nets.work(size.pixels as f64));
        let job = Arc::new(Job {
            engine: Arc::clone(shared),
            progress: Arc::new(Progress::new(page, work)),
            size,
            deadline,
            state: Mutex::new(State::Open { permit: None, notify: None }),
            changed: Condvar::new(),
            held: Mutex::default(),
        });
        // Under one lock, which an answer takes too, so that it removes both.
        let mut jobs = lock(&shared.jobs);
        jobs.insert(page, Arc::downgrade(&job));
        if let Some(deadline) = deadline {
            let job: Arc<dyn Expires> = job.clone();
            shared.process.clock.add(deadline.when, page, Arc::downgrade(&job));
        }
        drop(jobs);
        Pending(job)
    }

    /// Ends the engine: requests that hold a permit finish, or are cancelled; the others get [`Error::Closed`]. Waits for nothing; idempotent. A
    /// forked child's copy stays as it is.
    pub fn close(&self, cancel: bool) {
        if !self.is_own() {
            return;
        }
        self.shared.permits.close();
        self.shared.room.close();
        if cancel {
            let jobs: Vec<_> = lock(&self.shared.jobs).values().filter_map(Weak::upgrade).collect();
            for job in jobs {
                job.cancel(Error::Closed);
            }
        }
        if !self.shared.closed.swap(true, Ordering::SeqCst) {
            self.shared.process.close(&self.shared.device);
        }
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            answered: read(&counters.answered),
            lines: read(&counters.lines),
            failed: read(&counters.failed),
            rejected: read(&counters.rejected),
            cancelled: read(&counters.cancelled),
            timed_out: read(&counters.timed_out),
            queue: self.shared.permits.usage(),
            waiting_for_room: self.shared.room.waiting(),
            device: self.shared.device.pool.stats(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.is_own() {
            self.close(true);
            return;
        }
        // The parent's: its locks may be held by threads that are not here. Leaked.
        std::mem::forget(Arc::clone(&self.shared));
    }
}

/// Makes engines of one setup: one for the process, another one in a forked child.
pub struct Handle {
    setup: Setup,
    engine: arc_swap::ArcSwap<Engine>,
    closed: AtomicBool,
}

impl Handle {
    /// See [`Engine::new`].
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn new(setup: Setup) -> Result<Self> {
        let engine = arc_swap::ArcSwap::from_pointee(Engine::new(&setup)?);
        Ok(Self { setup, engine, closed: AtomicBool::new(false) })
    }

    /// See [`Engine::close`]. In a forked child that has not used it nothing is built for that.
    pub fn close(&self, cancel: bool) {
        // First, for `engine`, which may be about to put another one in this one's place.
        self.closed.store(true, Ordering::SeqCst);
        self.engine.load().close(cancel);
    }

    /// Whether requests are refused.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        process::has_ended() || self.closed.load(Ordering::SeqCst)
    }

    /// See [`Engine::stats`]; of a closed one a forked child has none to count.
    ///
    /// # Errors
    /// As [`Handle::engine`].
    pub fn stats(&self) -> Result<Stats> {
        match self.own() {
            None if self.is_closed() => Ok(Stats::default()),
            _ => Ok(self.engine()?.stats()),
        }
    }

    /// This process's engine, where it has one already.
    #[must_use]
    pub fn own(&self) -> Option<Arc<Engine>> {
        let engine = self.engine.load_full();
        (engine.is_own() && !process::has_ended()).then_some(engine)
    }

    /// This process's engine.
    ///
    /// # Errors
    /// As [`Engine::new`], in a forked child; [`Error::Forked`] there with [`OnFork::Error`]; [`Error::Closed`] after [`process::end`].
    pub fn engine(&self) -> Result<Arc<Engine>> {
        loop {
            let engine = self.engine.load_full();
            if process::has_ended() {
                return Err(Error::Closed);
            }
            if engine.is_own() {
                return Ok(engine);
            }
            if self.setup.config.on_fork == OnFork::Error {
                return Err(Error::Forked(engine.pid));
            }
            if self.closed.load(Ordering::SeqCst) {
                return Err(Error::Closed);
            }
            let made = Arc::new(Engine::new(&self.setup)?);
            let previous = self.engine.compare_and_swap(&engine, Arc::clone(&made));
            if Arc::ptr_eq(&previous, &engine) {
                // Or `close` has found the parent's.
                if self.closed.load(Ordering::SeqCst) {
                    made.close(false);
                }
                std::mem::forget(engine);
            }
        }
    }
}

/// When a request ends without an answer, and the timeout that its caller gave.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    when: Instant,
    timeout: Duration,
}

/// An answer that has not arrived yet. Dropping it cancels the request.
pub struct Pending(Arc<Job>);

impl Pending {
    /// A permit now, or an answer: [`Error::Overloaded`].
    pub fn try_reserve(&self) {
        self.0.granted(self.0.engine.permits.try_reserve(self.0.size.bytes));
    }

    /// Stands in line for a permit; see [`Pending::reserved`].
    pub fn reserve(&self) {
        let job = Arc::clone(&self.0);
        let ticket = self.0.engine.permits.reserve(self.0.size.bytes, move |permit| job.granted(permit));
        self.0.hold(|held| held.ticket = Some(ticket));
    }

    /// Waits at most `time` until the request has its permit, or is answered without one; none: not yet.
    #[must_use]
    pub fn reserved(&self, time: Duration) -> Option<Result<()>> {
        self.0.wait(time, |state| match state {
            State::Open { permit, .. } => permit.as_ref().map(|_| Ok(())),
            State::Answered(result) => Some(result.as_ref().map(|_| ()).map_err(Error::clone)),
        })
    }

    /// The permit, once; none where the request was answered without one, or has not got it yet.
    #[must_use]
    pub fn take_permit(&self) -> Option<Permit> {
        match &mut *lock(&self.0.state) {
            State::Open { permit, .. } => permit.take(),
            State::Answered(_) => None,
        }
    }

    /// Starts a request whose memory was copied under `permit`.
    pub fn start(&self, request: Request, mut permit: Permit) {
        permit.shrink(self.0.size.left_by(&request));
        Job::start(&self.0, request, permit);
    }

    /// Takes room for a copy that stands in line, in the order of its event loop; false: not yet, and [`Pending::notify`] tells when to ask
    /// again.
    ///
    /// # Errors
    /// [`Error::Closed`], and the answer of a request that has one.
    pub fn take_room(&self, event_loop: u64) -> Result<bool> {
        let job = &self.0;
        if let State::Answered(Err(error)) = &*lock(&job.state) {
            return Err(error.clone());
        }
        if job.size.copied == 0 {
            return Ok(true);
        }
        let mut held = lock(&job.held);
        let place = held.place.get_or_insert_with(|| {
            let own = Arc::clone(job);
            job.engine.room.enter(event_loop, job.size.copied, Arc::new(move || own.wake()))
        });
        held.room = place.take()?;
        let has_room = held.room.is_some();
        drop(held);
        job.let_go_if_answered();
        Ok(has_room)
    }

    /// Starts a request that was copied into room, or names a file, as soon as there is a permit for it, without a thread that waits.
    pub fn start_in_line(&self, request: Request) {
        let job = Arc::clone(&self.0);
        let room = lock(&job.held).room.take();
        let bytes = job.size.left_by(&request);
        let ticket = self.0.engine.permits.reserve(bytes, move |permit| {
            drop(room);
            match permit {
                Ok(permit) => Job::start(&job, request, permit),
                Err(error) => job.answer(Err(error)),
            }
        });
        self.0.hold(|held| held.ticket = Some(ticket));
    }

    /// Waits at most `time`; none: not yet. Any number of threads may wait; each gets the answer.
    #[must_use]
    pub fn wait_for(&self, time: Duration) -> Option<Result<OcrResult>> {
        self.0.wait(time, |state| match state {
            State::Open { .. } => None,
            State::Answered(result) => Some(result.clone()),
        })
    }

    /// Calls `then` when the answer is there, at once where it is, and when [`Pending::take_room`] should be asked again. Called on any thread:
    /// it must be short and must not touch Python.
    pub fn notify(&self, then: Wake) {
        if let State::Open { notify, .. } = &mut *lock(&self.0.state) {
            *notify = Some(then);
            return;
        }
        then();
    }

    /// The request is not wanted any more.
    pub fn cancel(&self) {
        if self.0.engine.process.is_own() {
            self.0.cancel(Error::Closed);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.0.engine.process.is_own() {
            self.0.cancel(Error::Closed);
            return;
        }
        // The parent's, as in `Engine`.
        std::mem::forget(Arc::clone(&self.0));
    }
}

/// One request, from its call to its answer.
struct Job {
    engine: Arc<Shared>,
    progress: Arc<Progress>,
    size: Size,
    deadline: Option<Deadline>,
    state: Mutex<State>,
    changed: Condvar,
    held: Mutex<Held>,
}

enum State {
    Open {
        /// Granted, and not yet taken by the caller.
        permit: Option<Permit>,
        notify: Option<Wake>,
    },
    Answered(Result<OcrResult>),
}

/// What a request gives up when it is answered before its end.
#[derive(Default)]
struct Held {
    place: Option<Place>,
    room: Option<Taken>,
    ticket: Option<Ticket>,
    task: Option<Task<(), Arc<Progress>>>,
}

impl Job {
    fn start(job: &Arc<Self>, request: Request, mut permit: Permit) {
        // A permit that is granted to a caller who has left goes to the next.
        if job.is_answered() {
            return;
        }
        let Some(nets) = job.engine.nets.upgrade() else { return job.answer(Err(Error::Closed)) };
        let page = Page {
            nets,
            pool: job.engine.device.pool.clone(),
            progress: Arc::clone(&job.progress),
            options: Arc::new(request.options),
            steps: request.steps,
            // A file may have changed since its header was read, and the permit is for what it said.
            max_pixels: job.size.largest,
        };
        let owner = AnswerOnDrop(Arc::clone(job));
        let future = async move {
            let result = fenced(pipeline::read(&page, request.inputs, &mut permit)).await;
            drop(permit);
            owner.0.answer(result);
        };
        let task = job.engine.process.executor.spawn(&job.progress, future);
        job.hold(|held| held.task = Some(task));
    }

    fn is_answered(&self) -> bool {
        matches!(*lock(&self.state), State::Answered(_))
    }

    /// Waits at most `time` until `look` sees something.
    fn wait<T>(&self, time: Duration, look: impl Fn(&State) -> Option<Result<T>>) -> Option<Result<T>> {
        if !self.engine.process.is_own() {
            return Some(Err(Error::Forked(self.engine.process.pid())));
        }
        let mut seen = None;
        let is_missing = |state: &mut State| {
            seen = look(state);
            seen.is_none()
        };
        let waited = self.changed.wait_timeout_while(lock(&self.state), time, is_missing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        seen
    }

    fn granted(&self, permit: Result<Permit>) {
        let granted = match permit {
            Ok(permit) => permit,
            Err(error) => return self.answer(Err(error)),
        };
        let mut state = lock(&self.state);
        if let State::Open { permit, .. } = &mut *state {
            *permit = Some(granted);
            drop(state);
            self.changed.notify_all();
        }
    }

    fn wake(&self) {
        let notify = match &*lock(&self.state) {
            State::Open { notify, .. } => notify.clone(),
            State::Answered(_) => None,
        };
        if let Some(notify) = notify {
            notify();
        }
    }

    /// The first answer counts.
    fn answer(&self, result: Result<OcrResult>) {
        let mut state = lock(&self.state);
        if let State::Answered(_) = &*state {
            return;
        }
        let counters = &self.engine.counters;
        let counter = match &result {
            Ok(_) => &counters.answered,
            Err(Error::Timeout(_)) => &counters.timed_out,
            Err(Error::Overloaded { .. }) => &counters.rejected,
            Err(Error::Closed) => &counters.cancelled,
            Err(_) => &counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Ok(page) = &result {
            counters.lines.fetch_add(page.lines.len() as u64, Ordering::Relaxed);
        }
        let before = std::mem::replace(&mut *state, State::Answered(result));
        drop(state);
        self.changed.notify_all();
        let page = self.progress.page;
        lock(&self.engine.jobs).remove(&page);
        if let Some(deadline) = self.deadline {
            self.engine.process.clock.remove(deadline.when, page);
        }
        if let State::Open { notify: Some(notify), .. } = &before {
            notify();
        }
    }

    /// Answers with `error`, and stops whatever is still done for the request.
    fn cancel(&self, error: Error) {
        if !self.is_answered() {
            self.answer(Err(error));
            self.let_go();
        }
    }

    /// Adds to what the request gives up; at once, where it was answered meanwhile.
    fn hold(&self, put: impl FnOnce(&mut Held)) {
        put(&mut lock(&self.held));
        self.let_go_if_answered();
    }

    fn let_go_if_answered(&self) {
        if self.is_answered() {
            self.let_go();
        }
    }

    fn let_go(&self) {
        let page = self.progress.page;
        self.progress.cancel();
        let held = std::mem::take(&mut *lock(&self.held));
        drop(held);
        self.engine.process.executor.discard(page);
        self.engine.device.pool.cancel(page);
    }
}

impl Expires for Job {
    fn expire(&self) {
        self.cancel(Error::Timeout(self.deadline.map(|deadline| deadline.timeout).unwrap_or_default()));
    }
}

/// A page that is dropped before its end, at the process's end, is answered.
struct AnswerOnDrop(Arc<Job>);

impl Drop for AnswerOnDrop {
    fn drop(&mut self) {
        self.0.answer(Err(Error::Closed));
    }
}

/// A page that panics fails alone.
async fn fenced(page: impl Future<Output = Result<OcrResult>>) -> Result<OcrResult> {
    let mut page = std::pin::pin!(page);
    std::future::poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| page.as_mut().poll(context)))
            .unwrap_or_else(|panic| Poll::Ready(Err(Error::inference("page", panic_message(&*panic)))))
    })
    .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
