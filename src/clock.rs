//! Deadlines: one thread that sleeps until the earliest of all requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::lock::lock;
use crate::schedule::policy::PageId;

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
    /// Ordered, and not a heap: an answered request is taken out, however far its deadline.
    due: BTreeMap<(Instant, PageId), Weak<dyn Expires>>,
    ended: bool,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(crate) fn start() -> Result<Arc<Self>> {
        let clock = Arc::new(Self { state: Mutex::default(), changed: Condvar::new() });
        let own = Arc::clone(&clock);
        let thread = std::thread::Builder::new().name("ocr-clock".into()).spawn(move || own.work());
        let thread =
            thread.map_err(|e| Error::Unavailable(format!("the system gives no thread for ocr-clock: {e}")))?;
        lock(&clock.state).thread = Some(thread);
        Ok(clock)
    }

    /// `request` expires at `when`, unless it is removed or gone by then.
    pub(crate) fn add(&self, when: Instant, page: PageId, request: Weak<dyn Expires>) {
        let mut state = lock(&self.state);
        let is_next = state.due.first_key_value().is_none_or(|((first, _), _)| when < *first);
        state.due.insert((when, page), request);
        if is_next {
            self.changed.notify_one();
        }
    }

    /// The request was answered.
    pub(crate) fn remove(&self, when: Instant, page: PageId) {
        lock(&self.state).due.remove(&(when, page));
    }

    pub(crate) fn shut_down(&self) -> Option<JoinHandle<()>> {
        let mut state = lock(&self.state);
        state.ended = true;
        self.changed.notify_one();
        state.thread.take()
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        while !state.ended {
            let Some(next) = state.due.first_entry() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = next.key().0.saturating_duration_since(Instant::now());
            if left > Duration::ZERO {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let request = next.remove();
            drop(state);
            if let Some(request) = request.upgrade() {
                request.expire();
            }
            state = lock(&self.state);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    struct Request(u64, Sender<u64>);

    impl Expires for Request {
        fn expire(&self) {
            self.1.send(self.0).unwrap();
        }
    }

    struct Requests {
        clock: Arc<Clock>,
        sender: Sender<u64>,
        expired: Receiver<u64>,
    }

    impl Requests {
        fn new() -> Self {
            let (sender, expired) = channel();
            Self { clock: Clock::start().unwrap(), sender, expired }
        }

        #[must_use]
        fn add(&self, when: Instant, number: u64) -> Arc<Request> {
            let request = Arc::new(Request(number, self.sender.clone()));
            let expires: Arc<dyn Expires> = request.clone();
            self.clock.add(when, PageId(number), Arc::downgrade(&expires));
            request
        }

        fn next(&self) -> u64 {
            self.expired.recv_timeout(SOON).unwrap()
        }
    }

    impl Drop for Requests {
        fn drop(&mut self) {
            self.clock.shut_down().unwrap().join().unwrap();
        }
    }

    #[test]
    fn deadlines_pass_in_their_order_whatever_order_they_came_in() {
        let requests = Requests::new();
        let now = Instant::now();
        let far = requests.add(now + Duration::from_hours(1), 0);
        let later = requests.add(now + Duration::from_millis(200), 1);
        // The clock sleeps towards a later one.
        let sooner = requests.add(now + Duration::from_millis(50), 2);
        let past = requests.add(now, 3);
        assert_eq!([requests.next(), requests.next(), requests.next()], [3, 2, 1]);
        assert!(now.elapsed() >= Duration::from_millis(200));
        drop((far, later, sooner, past));
    }

    #[test]
    fn a_request_that_was_answered_or_is_gone_does_not_expire_and_leaves_nothing() {
        let requests = Requests::new();
        let soon = Instant::now() + Duration::from_millis(50);
        let answered = requests.add(soon, 1);
        requests.clock.remove(soon, PageId(1));
        drop(requests.add(soon, 2));
        let same_time = requests.add(soon, 3);
        assert_eq!(requests.next(), 3);
        assert!(requests.expired.try_recv().is_err());
        assert!(lock(&requests.clock.state).due.is_empty());
        drop((answered, same_time));
    }

    #[test]
    fn thousands_of_deadlines_pass_each_once() {
        let requests = Requests::new();
        let now = Instant::now();
        let all: Vec<_> = (0..5000).map(|n| requests.add(now + Duration::from_micros(n * 7919 % 5000), n)).collect();
        let mut expired: Vec<u64> = (0..5000).map(|_| requests.next()).collect();
        expired.sort_unstable();
        assert!(expired.into_iter().eq(0..5000));
        drop(all);
    }
}
