//! Runs the pages' own steps, between the nets, on as many threads as cores. A page that waits for a worker holds no thread.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_task::{Runnable, Task};

use super::policy::PageId;
use crate::error::{Error, Result};

/// What the executor knows of a page; the page keeps it up to date.
#[derive(Debug)]
pub struct Progress {
    /// Which page.
    pub page: PageId,
    work_left: AtomicU64,
    begun: AtomicBool,
    cancelled: AtomicBool,
}

impl Progress {
    /// A page that has not begun, with its estimated work.
    #[must_use]
    pub fn new(page: PageId, work_left: f64) -> Self {
        Self {
            page,
            work_left: AtomicU64::new(work_left.to_bits()),
            begun: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        }
    }

    /// The page has been decoded and has this much work left.
    pub fn set_work_left(&self, work_left: f64) {
        self.begun.store(true, Ordering::Relaxed);
        self.work_left.store(work_left.to_bits(), Ordering::Relaxed);
    }

    /// The page's memory is to be freed before anything else is done.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Smaller goes first: pages to be freed, then steps after a net, then decodes, each by work left.
    fn rank(&self) -> (u8, f64, PageId) {
        let class = match (self.cancelled.load(Ordering::Relaxed), self.begun.load(Ordering::Relaxed)) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        (class, f64::from_bits(self.work_left.load(Ordering::Relaxed)), self.page)
    }
}

type Step = Runnable<Arc<Progress>>;

/// The threads and their list of ready pages. A cheap handle; the threads end with [`Executor::shut_down`].
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

struct Shared {
    ready: Mutex<Ready>,
    wake: Condvar,
}

#[derive(Default)]
struct Ready {
    steps: Vec<Step>,
    polls: u64,
    ended: bool,
    threads: Vec<JoinHandle<()>>,
}

/// One poll in this many goes to the oldest ready page, so that no page waits for ever.
const POLLS_PER_OLDEST: u64 = 8;

impl Executor {
    /// `threads` threads named `ocr-page-k`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the system gives no thread.
    pub fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared { ready: Mutex::default(), wake: Condvar::new() });
        let executor = Self(Arc::clone(&shared));
        for k in 0..threads {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("ocr-page-{k}"))
                .spawn(move || shared.work())
                .map_err(|e| Error::Unavailable(format!("the system gives no thread for ocr-page-{k}: {e}")))?;
            executor.0.lock().threads.push(thread);
        }
        Ok(executor)
    }

    /// Starts a page. Dropping the task frees the page's memory at its next step, before anything else is run.
    pub fn spawn(
        &self,
        progress: &Arc<Progress>,
        page: impl Future<Output = ()> + Send + 'static,
    ) -> Task<(), Arc<Progress>> {
        let shared = Arc::clone(&self.0);
        let (step, task) = async_task::Builder::new()
            .metadata(Arc::clone(progress))
            .spawn(|_| page, move |step| shared.schedule(step));
        step.schedule();
        task
    }

    /// Ends the threads after their current step; waiting pages are freed. Returns the threads, for those who may join them.
    #[must_use]
    pub fn shut_down(&self) -> Vec<JoinHandle<()>> {
        let mut ready = self.0.lock();
        ready.ended = true;
        let steps = std::mem::take(&mut ready.steps);
        let threads = std::mem::take(&mut ready.threads);
        drop(ready);
        self.0.wake.notify_all();
        drop(steps);
        threads
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schedule(&self, step: Step) {
        let mut ready = self.lock();
        if ready.ended {
            drop(ready);
            drop(step);
            return;
        }
        ready.steps.push(step);
        drop(ready);
        self.wake.notify_one();
    }

    fn work(&self) {
        let mut ready = self.lock();
        loop {
            if ready.ended {
                return;
            }
            let Some(step) = ready.take_next() else {
                ready = self.wake.wait(ready).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(ready);
            step.run();
            ready = self.lock();
        }
    }
}

impl Ready {
    fn take_next(&mut self) -> Option<Step> {
        let oldest_is_due = (self.polls + 1).is_multiple_of(POLLS_PER_OLDEST);
        let page = |step: &Step| step.metadata().page;
        let rank = |step: &Step| step.metadata().rank();
        let ranked = self.steps.iter().enumerate();
        let next = if oldest_is_due {
            ranked.min_by_key(|(_, step)| page(step))
        } else {
            ranked.min_by(|(_, a), (_, b)| {
                let (a, b) = (rank(a), rank(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2))
            })
        };
        let index = next.map(|(index, _)| index)?;
        self.polls += 1;
        Some(self.steps.swap_remove(index))
    }
}
