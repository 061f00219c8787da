//! Runs the pages' own steps, between the nets, on as many threads as cores. A page that waits for a worker holds no thread.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_task::{Runnable, Task};

use super::policy::PageId;
use crate::error::{Error, Result};
use crate::lock::lock;

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

    /// Estimated work that is left.
    #[must_use]
    pub fn work_left(&self) -> f64 {
        f64::from_bits(self.work_left.load(Ordering::Relaxed))
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
        (class, self.work_left(), self.page)
    }
}

type Step = Runnable<Arc<Progress>>;

/// The threads and their list of ready pages. A cheap handle; the threads end with [`Executor::shut_down`].
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
            let spawned = std::thread::Builder::new().name(format!("ocr-page-{k}")).spawn(move || shared.work());
            let thread = spawned.map_err(|e| {
                // They end by themselves.
                drop(executor.shut_down());
                Error::Unavailable(format!("the system gives no thread for ocr-page-{k}: {e}"))
            })?;
            executor.0.lock().threads.push(thread);
        }
        Ok(executor)
    }

    /// Starts a page. Dropping the task frees the page's memory at its next step, before anything else is run; [`Executor::discard`] frees
    /// that of a page which waits for a thread.
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

    /// Frees, here and now, a page whose task was dropped, unless a thread is in one of its steps.
    pub fn discard(&self, page: PageId) {
        let mut ready = self.0.lock();
        let steps: Vec<Step> = ready.steps.extract_if(.., |step| step.metadata().page == page).collect();
        drop(ready);
        drop(steps);
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
        lock(&self.ready)
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
            // A page answers for its own panic; this keeps the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| step.run()));
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// One thread, kept busy until the sender is dropped, so that what is spawned meanwhile is ordered.
    fn busy() -> (Executor, Sender<()>) {
        let executor = Executor::new(1).unwrap();
        let (free, wait) = channel::<()>();
        let (begun, has_begun) = channel();
        let page = async move {
            begun.send(()).unwrap();
            let _ = wait.recv();
        };
        executor.spawn(&Arc::new(Progress::new(PageId(0), 0.0)), page).detach();
        has_begun.recv_timeout(SOON).unwrap();
        (executor, free)
    }

    fn spawn(executor: &Executor, page: u64, work: f64, log: &Sender<u64>) -> (Arc<Progress>, Task<(), Arc<Progress>>) {
        let progress = Arc::new(Progress::new(PageId(page), work));
        let log = log.clone();
        let task = executor.spawn(&progress, async move { log.send(page).unwrap() });
        (progress, task)
    }

    fn order(log: &Receiver<u64>, count: usize) -> Vec<u64> {
        (0..count).map(|_| log.recv_timeout(SOON).unwrap()).collect()
    }

    #[test]
    fn pages_with_less_work_go_first_and_steps_after_a_net_before_decodes() {
        let (executor, free) = busy();
        let (sender, log) = channel();
        let tasks: Vec<_> = [(1, 50.0), (2, 10.0), (3, 900.0), (4, 30.0)]
            .map(|(page, work)| spawn(&executor, page, work, &sender))
            .into();
        // Its decode is over.
        tasks[2].0.set_work_left(800.0);
        drop(free);
        assert_eq!(order(&log, 4), [3, 2, 4, 1]);
    }

    #[test]
    fn the_oldest_page_gets_an_eighth_of_the_polls() {
        let (executor, free) = busy();
        let (sender, log) = channel();
        // The older, the more work.
        let _tasks: Vec<_> = (1..=20).map(|page| spawn(&executor, page, 100.0 - page as f64, &sender)).collect();
        drop(free);
        // The busy page was the first poll.
        assert_eq!(order(&log, 20), [20, 19, 18, 17, 16, 15, 1, 14, 13, 12, 11, 10, 9, 8, 2, 7, 6, 5, 4, 3]);
    }

    #[test]
    fn a_page_that_panics_costs_no_thread() {
        let executor = Executor::new(1).unwrap();
        let (sender, log) = channel();
        for page in 0..3 {
            executor.spawn(&Arc::new(Progress::new(PageId(page), 0.0)), async { panic!("a bad page") }).detach();
        }
        let _task = spawn(&executor, 9, 0.0, &sender);
        assert_eq!(order(&log, 1), [9]);
    }

    /// Tells when it is dropped.
    struct Memory(Sender<&'static str>);

    impl Drop for Memory {
        fn drop(&mut self) {
            let _ = self.0.send("freed");
        }
    }

    #[test]
    fn a_page_that_is_discarded_is_freed_at_once_while_every_thread_is_busy() {
        let (executor, _free) = busy();
        let (sender, freed) = channel();
        let memory = Memory(sender);
        let page = async move { memory.0.send("read").unwrap() };
        let task = executor.spawn(&Arc::new(Progress::new(PageId(1), 0.0)), page);
        drop(task);
        assert!(freed.try_recv().is_err(), "it waits for a thread");
        executor.discard(PageId(1));
        assert_eq!(freed.try_recv(), Ok("freed"));
    }

    #[test]
    fn at_the_end_waiting_pages_are_freed_and_the_threads_end() {
        let (executor, free) = busy();
        let (sender, freed) = channel();
        let memory = Memory(sender);
        executor.spawn(&Arc::new(Progress::new(PageId(1), 0.0)), async move { drop(memory) }).detach();
        let threads = executor.shut_down();
        assert_eq!(freed.try_recv(), Ok("freed"));
        let (sender, freed) = channel();
        let memory = Memory(sender);
        executor.spawn(&Arc::new(Progress::new(PageId(2), 0.0)), async move { drop(memory) }).detach();
        assert_eq!(freed.try_recv(), Ok("freed"), "whoever comes later is not kept");
        drop(free);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
