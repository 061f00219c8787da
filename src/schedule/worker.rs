//! The threads around the policy: a [`Pool`] of workers for one device.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Instant;

use super::policy::{Claim, Item, Lane, PageId, Policy, Run};
use super::{Model, Place, STAGES, Stop};
use crate::error::{Error, Result};
use crate::lock::lock;

/// Workers of one device and their queue. A cheap handle; the threads end with [`Pool::shut_down`].
pub struct Pool<M: Model>(Arc<Shared<M>>);

impl<M: Model> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<M: Model> {
    model: M,
    queue: Mutex<Queue<M>>,
    ready: Condvar,
    counters: [Counters; STAGES],
}

struct Queue<M: Model> {
    policy: Policy<Entry<M>>,
    /// Runs under way: the pages they serve, and how to end them.
    running: HashMap<u64, Running>,
    next_run: u64,
    /// Why no more work is taken.
    ended: Option<Error>,
    threads: Vec<JoinHandle<()>>,
    groups: usize,
}

struct Running {
    pages: HashSet<PageId>,
    stop: Arc<Stop>,
}

struct Entry<M: Model> {
    item: M::Item,
    index: usize,
    slots: Arc<Slots<M::Output>>,
    since: Instant,
}

/// What the workers did in one stage, for `stats()`. Times in microseconds.
#[derive(Debug, Default)]
struct Counters {
    runs: AtomicU64,
    items: AtomicU64,
    busy: AtomicU64,
    queued: AtomicU64,
}

/// What was done in one stage so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageStats {
    /// Runs.
    pub runs: u64,
    /// Items in them.
    pub items: u64,
    /// Seconds inside runs.
    pub inference_seconds: f64,
    /// Seconds that items waited before their run.
    pub queue_seconds: f64,
}

/// A snapshot of a pool's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PoolStats {
    /// By [`Lane::stage`].
    pub stages: [StageStats; STAGES],
    /// Items that wait now.
    pub waiting: usize,
    /// Runs under way now.
    pub running: usize,
    /// Bytes of activations reserved now.
    pub reserved_bytes: usize,
}

impl<M: Model> Pool<M> {
    /// A pool without workers; [`Pool::add_group`] brings them.
    pub fn new(model: M, activation_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            model,
            queue: Mutex::new(Queue {
                policy: Policy::new(activation_bytes),
                running: HashMap::new(),
                next_run: 0,
                ended: None,
                threads: Vec::new(),
                groups: 0,
            }),
            ready: Condvar::new(),
            counters: Default::default(),
        }))
    }

    /// Starts a group of workers, a thread for each name; returns the group's number, for [`Lane::group`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the system gives no thread; why the pool has ended.
    pub fn add_group(&self, names: &[String]) -> Result<usize> {
        self.add_group_with(names, |_| Ok(()))
    }

    /// As [`Pool::add_group`], once `prepare` went well on every one of the threads, called with the worker's number in its group: what
    /// belongs to a worker is made on its thread.
    ///
    /// # Errors
    /// As [`Pool::add_group`], and those of `prepare`; the threads then end.
    pub fn add_group_with(
        &self,
        names: &[String],
        prepare: impl Fn(usize) -> Result<()> + Send + Sync + 'static,
    ) -> Result<usize> {
        let prepare = Arc::new(prepare);
        let (prepared, results) = crossbeam_channel::unbounded();
        let (go, gone) = crossbeam_channel::unbounded::<()>();
        let mut queue = self.0.lock();
        if let Some(error) = &queue.ended {
            return Err(error.clone());
        }
        let group = queue.groups;
        queue.groups += 1;
        for (worker, name) in names.iter().enumerate() {
            let (shared, prepare, prepared, gone) =
                (Arc::clone(&self.0), Arc::clone(&prepare), prepared.clone(), gone.clone());
            let work = move || {
                let result = catch_unwind(AssertUnwindSafe(|| prepare(worker)))
                    .unwrap_or_else(|panic| Err(Error::Unavailable(panic_message(&*panic))));
                drop(prepare);
                // Nobody hears it where another worker could not start.
                let _ = prepared.send(result);
                if gone.recv().is_ok() {
                    shared.work(group, worker);
                }
            };
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(work)
                .map_err(|e| Error::Unavailable(format!("the system gives no thread for {name}: {e}")))?;
            queue.threads.push(thread);
        }
        drop(queue);
        results.iter().take(names.len()).collect::<Result<()>>()?;
        for _ in names {
            let _ = go.send(());
        }
        Ok(group)
    }

    /// Why the pool takes no more work, if it does not.
    #[must_use]
    pub fn ended(&self) -> Option<Error> {
        self.0.lock().ended.clone()
    }

    /// Queues items of `page`; the answers come together, in the items' order. `expected` is the page's work that will follow them.
    #[must_use]
    pub fn submit(&self, page: PageId, items: Vec<(Lane, f64, usize, M::Item)>, expected: f64) -> Answers<M::Output> {
        let slots = Arc::new(Slots::new(items.len()));
        let since = Instant::now();
        let entries = items.into_iter().enumerate().map(|(index, (lane, cost, bytes, item))| Item {
            lane,
            cost,
            bytes,
            payload: Entry { item, index, slots: Arc::clone(&slots), since },
        });
        let mut queue = self.0.lock();
        if let Some(error) = queue.ended.clone() {
            drop(queue);
            entries.for_each(|entry| entry.payload.answer(Err(error.clone())));
        } else {
            queue.policy.push(page, entries, expected);
            drop(queue);
            self.0.ready.notify_all();
        }
        Answers(slots)
    }

    /// A page's place in the schedule: when it is dropped, what the page had queued is taken out and its runs are ended.
    #[must_use]
    pub fn enter(&self, page: PageId) -> Presence<M> {
        Presence { pool: self.clone(), page }
    }

    /// Takes a page out; runs that serve nobody any more are ended.
    pub fn cancel(&self, page: PageId) {
        let mut queue = self.0.lock();
        let items = queue.policy.remove(page);
        let mut orphans = Vec::new();
        for running in queue.running.values_mut() {
            if running.pages.remove(&page) && running.pages.is_empty() {
                orphans.push(Arc::clone(&running.stop));
            }
        }
        drop(queue);
        // A turn or a place in the order may be free now.
        self.0.ready.notify_all();
        for stop in orphans {
            stop.stop();
        }
        drop(items);
    }

    /// Ends the pool: what waits is answered with `error`, what runs is stopped. Returns the threads, for those who may join them.
    #[must_use]
    pub fn shut_down(&self, error: &Error) -> Vec<JoinHandle<()>> {
        self.0.end(error);
        std::mem::take(&mut self.0.lock().threads)
    }

    /// What the workers did so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let queue = self.0.lock();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolStats {
            stages: self.0.counters.each_ref().map(|counters| StageStats {
                runs: read(&counters.runs),
                items: read(&counters.items),
                inference_seconds: read(&counters.busy) as f64 / 1e6,
                queue_seconds: read(&counters.queued) as f64 / 1e6,
            }),
            waiting: queue.policy.waiting(),
            running: queue.running.len(),
            reserved_bytes: queue.policy.reserved(),
        }
    }
}

/// See [`Pool::enter`].
pub struct Presence<M: Model> {
    pool: Pool<M>,
    page: PageId,
}

impl<M: Model> Drop for Presence<M> {
    fn drop(&mut self) {
        self.pool.cancel(self.page);
    }
}

impl<M: Model> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, Queue<M>> {
        lock(&self.queue)
    }

    fn end(&self, error: &Error) {
        let mut queue = self.lock();
        queue.ended.get_or_insert_with(|| error.clone());
        let waiting = queue.policy.clear();
        let stops: Vec<_> = queue.running.values().map(|running| Arc::clone(&running.stop)).collect();
        drop(queue);
        self.ready.notify_all();
        for stop in stops {
            stop.stop();
        }
        for item in waiting {
            item.payload.answer(Err(error.clone()));
        }
    }

    /// One worker's life.
    fn work(&self, group: usize, worker: usize) {
        while let Some((id, run, stop)) = self.next(group) {
            let claim = run.claim;
            let place = Place { worker, alone: run.alone, keep_memory: claim.keeps_memory, stop };
            let answers = self.serve(run, &place);
            // The reservation is returned before the answers go out: a page that is answered may at once want its next run.
            let (must_tidy, ended) = self.finish(id, claim);
            if must_tidy && let Some((last, _)) = answers.first() {
                let _ = catch_unwind(AssertUnwindSafe(|| self.model.tidy(&last.item)));
            }
            for (entry, answer) in answers {
                if let Err(error @ Error::Unavailable(_)) = &answer {
                    self.end(error);
                }
                // What was stopped because the device was lost beside it says so.
                entry.answer(match (answer, &ended) {
                    (Err(Error::Closed), Some(error)) => Err(error.clone()),
                    (answer, _) => answer,
                });
            }
        }
    }

    fn next(&self, group: usize) -> Option<(u64, Run<Entry<M>>, Arc<Stop>)> {
        let mut queue = self.lock();
        loop {
            if queue.ended.is_some() {
                return None;
            }
            let had_turn = queue.policy.has_turn();
            if let Some(run) = queue.policy.pick(group) {
                if had_turn && !queue.policy.has_turn() {
                    // Workers of other groups kept room for it.
                    self.ready.notify_all();
                }
                let id = queue.next_run;
                queue.next_run += 1;
                let stop = Arc::new(Stop::default());
                let pages = run.items.iter().map(|(page, _)| *page).collect();
                queue.running.insert(id, Running { pages, stop: Arc::clone(&stop) });
                return Some((id, run, stop));
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether memory has to be given back, and why the pool has ended, if it has.
    fn finish(&self, id: u64, claim: Claim) -> (bool, Option<Error>) {
        let mut queue = self.lock();
        queue.running.remove(&id);
        queue.policy.release(claim);
        let (must_tidy, ended) = (queue.policy.has_kept_in_vain(), queue.ended.clone());
        drop(queue);
        if claim.bytes > 0 {
            self.ready.notify_all();
        }
        (must_tidy, ended)
    }

    fn serve(&self, run: Run<Entry<M>>, place: &Place) -> Vec<(Entry<M>, Result<M::Output>)> {
        let stage = run.items.first().map_or(0, |(_, item)| usize::from(item.lane.stage));
        let entries: Vec<Entry<M>> = run.items.into_iter().map(|(_, item)| item.payload).collect();
        let start = Instant::now();
        let items: Vec<&M::Item> = entries.iter().map(|entry| &entry.item).collect();
        let answers: Vec<Result<M::Output>> = match self.fenced(&items, place) {
            Err(error) if items.len() > 1 && !place.stop.is_stopped() && !matches!(error, Error::Unavailable(_)) => {
                items.iter().map(|item| self.fenced(&[*item], place).and_then(only)).collect()
            }
            Err(error) => items.iter().map(|_| Err(error.clone())).collect(),
            Ok(outputs) => outputs.into_iter().map(Ok).collect(),
        };
        let counters = &self.counters[stage.min(STAGES - 1)];
        counters.runs.fetch_add(1, Ordering::Relaxed);
        counters.items.fetch_add(entries.len() as u64, Ordering::Relaxed);
        counters.busy.fetch_add(start.elapsed().as_micros() as u64, Ordering::Relaxed);
        let waited: u128 = entries.iter().map(|entry| start.duration_since(entry.since).as_micros()).sum();
        counters.queued.fetch_add(waited as u64, Ordering::Relaxed);
        entries.into_iter().zip(answers).collect()
    }

    /// A run that answers for every item, whatever the model does.
    fn fenced(&self, items: &[&M::Item], place: &Place) -> Result<Vec<M::Output>> {
        let outputs = catch_unwind(AssertUnwindSafe(|| self.model.run(items, place)))
            .unwrap_or_else(|panic| Err(Error::inference("run", panic_message(&*panic))))?;
        if outputs.len() == items.len() {
            return Ok(outputs);
        }
        Err(Error::inference("run", format!("{} outputs for {} items", outputs.len(), items.len())))
    }
}

fn only<T>(outputs: Vec<T>) -> Result<T> {
    outputs.into_iter().next().ok_or_else(|| Error::inference("run", "no output"))
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("internal error, please report it: {}", text.unwrap_or_else(|| "panic".into()))
}

impl<M: Model> Entry<M> {
    fn answer(self, answer: Result<M::Output>) {
        self.slots.put(self.index, answer);
    }
}

struct Slots<T>(Mutex<SlotState<T>>);

struct SlotState<T> {
    answers: Vec<Option<Result<T>>>,
    missing: usize,
    waker: Option<Waker>,
}

impl<T> Slots<T> {
    fn new(count: usize) -> Self {
        Self(Mutex::new(SlotState { answers: (0..count).map(|_| None).collect(), missing: count, waker: None }))
    }

    fn put(&self, index: usize, answer: Result<T>) {
        let mut state = lock(&self.0);
        state.answers[index] = Some(answer);
        state.missing -= 1;
        let waker = if state.missing == 0 { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The answers to one submission: a future that is ready when the last one is there.
pub struct Answers<T>(Arc<Slots<T>>);

impl<T> Future for Answers<T> {
    type Output = Result<Vec<T>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0.0);
        if state.missing > 0 {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut state.answers).into_iter().flatten().collect())
    }
}
