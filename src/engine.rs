//! The engine: a light handle with its own permits, limits and counters on the process's workers.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use async_task::Task;

use crate::config::{DeviceConfig, EngineConfig, OnFork, Options};
use crate::error::{Error, Result};
use crate::image;
use crate::models::{ModelSet, ModelSpec};
use crate::permits::{Permit, Permits, Ticket};
use crate::pipeline::{self, Input, Nets, OcrResult, Page, Steps};
use crate::process::{DeviceState, Expires, Process};
use crate::runtime::Device;
use crate::schedule::executor::Progress;
use crate::schedule::policy::PageId;
use crate::schedule::worker::{PoolStats, panic_message};

/// What an engine is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// Which models.
    pub models: ModelSpec,
    /// The folder of the manifest.
    pub model_folder: std::path::PathBuf,
    /// Where they run.
    pub device: Device,
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

/// Reads pages from any number of threads. Cheap to make: models and workers are shared by all engines of a process.
pub struct Engine {
    pid: u32,
    shared: Arc<Shared>,
}

struct Shared {
    process: Arc<Process>,
    device: Arc<DeviceState>,
    nets: Arc<Nets>,
    config: EngineConfig,
    permits: Permits,
    jobs: Mutex<HashMap<PageId, Weak<Job>>>,
    closed: AtomicBool,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    answered: AtomicU64,
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
    /// The device's workers, shared with other engines.
    pub device: PoolStats,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Loads the models, where no other engine has, and starts the workers.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::ModelNotFound`], [`Error::ModelLoad`], [`Error::Unavailable`].
    pub fn new(setup: &Setup) -> Result<Self> {
        setup.config.validate()?;
        setup.device_config.validate()?;
        let set = ModelSet::find(&setup.models, &setup.model_folder)?;
        let process = Process::current()?;
        let device = process.device(setup.device, &setup.device_config)?;
        let nets = device.nets(&set)?;
        process.engines.fetch_add(1, Ordering::SeqCst);
        let permits = Permits::new(setup.config.max_queue_size, setup.config.max_queue_bytes);
        let shared = Shared {
            process,
            device,
            nets,
            permits,
            config: setup.config.clone(),
            jobs: Mutex::default(),
            closed: AtomicBool::new(false),
            counters: Counters::default(),
        };
        Ok(Self { pid: std::process::id(), shared: Arc::new(shared) })
    }

    /// Whether it was made by this process; if not, nothing of it may be used or dropped.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Bytes of a permit for these inputs; checks the limits from headers alone, before pixels are allocated.
    ///
    /// # Errors
    /// [`Error::InvalidImage`], [`Error::File`].
    pub fn size_of(&self, inputs: &[Input]) -> Result<usize> {
        inputs.iter().map(|input| self.size_of_one(input)).sum()
    }

    fn size_of_one(&self, input: &Input) -> Result<usize> {
        let max_pixels = self.shared.config.max_pixels;
        match input {
            Input::Pixels(image) => {
                self.check_pixels(image.width(), image.height())?;
                Ok(image.pixels().len())
            }
            Input::Encoded(bytes) => Ok(bytes.len() + image::probe(bytes, max_pixels)?.decode_bytes),
            Input::Path(path) => {
                let (header, length) = image::probe_file(path, max_pixels)?;
                Ok(usize::try_from(length).unwrap_or(usize::MAX / 2) + header.decode_bytes)
            }
        }
    }

    /// Refuses a page of too many pixels.
    ///
    /// # Errors
    /// [`Error::InvalidImage`].
    pub fn check_pixels(&self, width: u32, height: u32) -> Result<()> {
        let (pixels, most) = (u64::from(width) * u64::from(height), self.shared.config.max_pixels);
        if pixels <= most {
            return Ok(());
        }
        Err(Error::InvalidImage(format!(
            "the image is {width}x{height}: {pixels} pixels, and max_pixels is {most}; shrink it, or raise max_pixels"
        )))
    }

    /// The deadline of a call that begins now; none: wait for ever.
    #[must_use]
    pub fn deadline(&self, timeout: Option<Duration>) -> Option<(Instant, Duration)> {
        let timeout = timeout.or(self.shared.config.timeout)?;
        Instant::now().checked_add(timeout).map(|when| (when, timeout))
    }

    /// A permit for `bytes` now, or [`Error::Overloaded`].
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Closed`].
    pub fn try_reserve(&self, bytes: usize) -> Result<Permit> {
        let permit = self.shared.permits.try_reserve(bytes);
        if matches!(permit, Err(Error::Overloaded { .. })) {
            self.shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// A place in line for a permit, to be waited for.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Reservation {
        let cell = Arc::new(Cell { permit: Mutex::new(None), changed: Condvar::new() });
        let put = Arc::clone(&cell);
        let ticket = self.shared.permits.reserve(bytes, move |permit| {
            *lock(&put.permit) = Some(permit);
            put.changed.notify_all();
        });
        Reservation { cell, ticket }
    }

    /// Starts a request that has its permit.
    #[must_use]
    pub fn submit(&self, request: Request, permit: Permit, deadline: Option<(Instant, Duration)>) -> Pending {
        let job = self.new_job(&request, deadline);
        Job::start(&job, request, permit);
        Pending(job)
    }

    /// Starts a request as soon as there is a permit of `bytes` for it, without a thread that waits.
    #[must_use]
    pub fn submit_in_line(&self, request: Request, bytes: usize, deadline: Option<(Instant, Duration)>) -> Pending {
        let job = self.new_job(&request, deadline);
        let granted = Arc::clone(&job);
        let ticket = self.shared.permits.reserve(bytes, move |permit| match permit {
            Ok(permit) => Job::start(&granted, request, permit),
            Err(error) => granted.answer(Err(error)),
        });
        *lock(&job.ticket) = Some(ticket);
        if job.is_answered() {
            drop(lock(&job.ticket).take());
        }
        Pending(job)
    }

    fn new_job(&self, request: &Request, deadline: Option<(Instant, Duration)>) -> Arc<Job> {
        let page = self.shared.process.next_page();
        let pixels = request.inputs.iter().map(|input| match input {
            Input::Pixels(image) => f64::from(image.width()) * f64::from(image.height()),
            // A page's pixels are not known here; files are compressed about tenfold.
            Input::Encoded(bytes) => bytes.len() as f64 * 10.0,
            Input::Path(path) => std::fs::metadata(path).map_or(0.0, |meta| meta.len() as f64 * 10.0),
        });
        let cost = self.shared.nets.detection_cost(pixels.sum());
        let progress = Arc::new(Progress::new(page, self.shared.nets.expected_work(cost)));
        let job = Arc::new(Job {
            engine: Arc::clone(&self.shared),
            progress,
            timeout: deadline.map(|(_, timeout)| timeout),
            state: Mutex::default(),
            changed: Condvar::new(),
            task: Mutex::default(),
            ticket: Mutex::default(),
        });
        lock(&self.shared.jobs).insert(page, Arc::downgrade(&job));
        if let Some((when, _)) = deadline {
            let job: Arc<dyn Expires> = job.clone();
            self.shared.process.clock.add(when, Arc::downgrade(&job));
        }
        job
    }

    /// Ends the engine: requests that hold a permit finish, or are cancelled; the others get [`Error::Closed`]. Waits for nothing; idempotent.
    pub fn close(&self, cancel: bool) {
        self.shared.permits.close();
        if cancel {
            let jobs: Vec<_> = lock(&self.shared.jobs).values().filter_map(Weak::upgrade).collect();
            for job in jobs {
                job.cancel(Error::Closed);
            }
        }
        if !self.shared.closed.swap(true, Ordering::SeqCst) {
            self.shared.process.engines.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether [`Engine::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            answered: read(&counters.answered),
            failed: read(&counters.failed),
            rejected: read(&counters.rejected),
            cancelled: read(&counters.cancelled),
            timed_out: read(&counters.timed_out),
            queue: self.shared.permits.usage(),
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
}

impl Handle {
    /// See [`Engine::new`].
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn new(setup: Setup) -> Result<Self> {
        let engine = arc_swap::ArcSwap::from_pointee(Engine::new(&setup)?);
        Ok(Self { setup, engine })
    }

    /// This process's engine.
    ///
    /// # Errors
    /// As [`Engine::new`], in a forked child; [`Error::Forked`] there with [`OnFork::Error`].
    pub fn engine(&self) -> Result<Arc<Engine>> {
        loop {
            let engine = self.engine.load_full();
            if engine.is_own() {
                return Ok(engine);
            }
            if self.setup.config.on_fork == OnFork::Error {
                return Err(Error::Forked(engine.pid));
            }
            let closed = engine.is_closed();
            let made = Arc::new(Engine::new(&self.setup)?);
            if closed {
                made.close(false);
            }
            let previous = self.engine.compare_and_swap(&engine, made);
            if Arc::ptr_eq(&previous, &engine) {
                std::mem::forget(engine);
            }
        }
    }
}

/// A place in line for a permit.
pub struct Reservation {
    cell: Arc<Cell>,
    ticket: Ticket,
}

struct Cell {
    permit: Mutex<Option<Result<Permit>>>,
    changed: Condvar,
}

impl Reservation {
    /// Waits at most `time`; none: not yet.
    #[must_use]
    pub fn wait_for(&self, time: Duration) -> Option<Result<Permit>> {
        let _ = &self.ticket;
        let permit = lock(&self.cell.permit);
        let (mut permit, _) = self
            .cell
            .changed
            .wait_timeout_while(permit, time, |permit| permit.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        permit.take()
    }
}

/// An answer that has not arrived yet. Dropping it cancels the request.
pub struct Pending(Arc<Job>);

impl Pending {
    /// Waits at most `time`; none: not yet. Any number of threads may wait; each gets the answer.
    #[must_use]
    pub fn wait_for(&self, time: Duration) -> Option<Result<OcrResult>> {
        let state = lock(&self.0.state);
        let waiting = |state: &mut Answer| matches!(state, Answer::Missing(_));
        let waited = self.0.changed.wait_timeout_while(state, time, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &*state {
            Answer::There(result) => Some(result.clone()),
            Answer::Missing(_) => None,
        }
    }

    /// Calls `then` when the answer is there; at once where it is. Called on a native thread: it must be short and must not touch Python.
    pub fn notify(&self, then: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.0.state);
        if let Answer::Missing(notify) = &mut *state {
            *notify = Some(Box::new(then));
            return;
        }
        drop(state);
        then();
    }

    /// The request is not wanted any more.
    pub fn cancel(&self) {
        self.0.cancel(Error::Closed);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.0.engine.process_is_own() {
            self.0.cancel(Error::Closed);
            return;
        }
        std::mem::forget(Arc::clone(&self.0));
    }
}

impl Shared {
    fn process_is_own(&self) -> bool {
        self.process.is_own()
    }
}

/// One request, from its call to its answer.
struct Job {
    engine: Arc<Shared>,
    progress: Arc<Progress>,
    timeout: Option<Duration>,
    state: Mutex<Answer>,
    changed: Condvar,
    task: Mutex<Option<Task<(), Arc<Progress>>>>,
    ticket: Mutex<Option<Ticket>>,
}

type Notify = Option<Box<dyn FnOnce() + Send>>;

enum Answer {
    Missing(Notify),
    There(Result<OcrResult>),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Missing(None)
    }
}

impl Job {
    fn start(job: &Arc<Self>, request: Request, mut permit: Permit) {
        // One granted to a caller who has left goes to the next.
        if job.is_answered() {
            return;
        }
        let page = Page {
            nets: Arc::clone(&job.engine.nets),
            pool: job.engine.device.pool.clone(),
            progress: Arc::clone(&job.progress),
            options: request.options,
            steps: request.steps,
            max_pixels: job.engine.config.max_pixels,
        };
        let owner = AnswerOnDrop(Arc::clone(job));
        let future = async move {
            let result = fenced(pipeline::read(&page, request.inputs, &mut permit)).await;
            drop(permit);
            owner.0.answer(result);
        };
        let task = job.engine.process.executor.spawn(&job.progress, future);
        *lock(&job.task) = Some(task);
        if job.is_answered() {
            drop(lock(&job.task).take());
        }
    }

    fn is_answered(&self) -> bool {
        !matches!(*lock(&self.state), Answer::Missing(_))
    }

    /// The first answer counts.
    fn answer(&self, result: Result<OcrResult>) {
        let mut state = lock(&self.state);
        let Answer::Missing(notify) = &mut *state else { return };
        let notify = notify.take();
        let counters = &self.engine.counters;
        let counter = match &result {
            Ok(_) => &counters.answered,
            Err(Error::Timeout(_)) => &counters.timed_out,
            Err(Error::Closed) => &counters.cancelled,
            Err(_) => &counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        *state = Answer::There(result);
        drop(state);
        self.changed.notify_all();
        if let Some(notify) = notify {
            notify();
        }
        lock(&self.engine.jobs).remove(&self.progress.page);
    }

    /// Answers with `error`, and stops whatever is still done for the request.
    fn cancel(&self, error: Error) {
        if self.is_answered() {
            return;
        }
        self.answer(Err(error));
        drop(lock(&self.ticket).take());
        self.progress.cancel();
        let task = lock(&self.task).take();
        drop(task);
        self.engine.device.pool.cancel(self.progress.page);
    }
}

impl Expires for Job {
    fn expire(&self) {
        self.cancel(Error::Timeout(self.timeout.unwrap_or_default()));
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
