//! Admission: how many requests, and how many bytes of them, an engine holds at once. Two first-come-first-served lines, so that a few
//! large pages never shut small ones out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Requests up to this share of the byte limit stand in the line of small ones, but never more than 8 MiB.
const SMALL_SHARE: usize = 64;
const SMALL_MOST: usize = 8 << 20;
/// Large requests hold at most 7/8 of the requests and bytes.
const LARGE_EIGHTHS: usize = 7;

/// The permits of one engine. A cheap handle.
#[derive(Clone)]
pub struct Permits(Arc<Shared>);

struct Shared {
    max_requests: usize,
    max_bytes: usize,
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Default)]
struct State {
    /// In use, by small and by large requests.
    used: [Used; 2],
    lines: [VecDeque<Waiting>; 2],
    closed: bool,
}

#[derive(Default, Clone, Copy)]
struct Used {
    requests: usize,
    bytes: usize,
}

type OnGrant = Box<dyn FnOnce(Result<Permit>) + Send>;

struct Waiting {
    id: u64,
    bytes: usize,
    on_grant: OnGrant,
}

/// The right to hold a request's memory; returned when it is dropped.
pub struct Permit {
    permits: Permits,
    class: usize,
    bytes: usize,
}

/// A place in line; left when it is dropped.
pub struct Ticket {
    permits: Permits,
    class: usize,
    id: u64,
}

const SMALL: usize = 0;
const LARGE: usize = 1;

impl Permits {
    /// Limits in requests and bytes.
    #[must_use]
    pub fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self(Arc::new(Shared { max_requests, max_bytes, state: Mutex::default(), next: AtomicU64::new(0) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Few requests share one line: an eighth of them would be none.
    fn one_line(&self) -> bool {
        self.0.max_requests < 8
    }

    fn class_of(&self, bytes: usize) -> usize {
        let small = bytes <= (self.0.max_bytes / SMALL_SHARE).min(SMALL_MOST);
        if self.one_line() || !small { LARGE } else { SMALL }
    }

    fn fits(&self, state: &State, class: usize, bytes: usize) -> bool {
        let (small, large) = (state.used[SMALL], state.used[LARGE]);
        let share = |all: usize| if self.one_line() { all } else { all / 8 * LARGE_EIGHTHS };
        if small.requests + large.requests >= self.0.max_requests {
            return false;
        }
        if class == LARGE {
            // A page larger than the whole share enters when no other large one is in.
            let few = large.requests < share(self.0.max_requests).max(1);
            return few && (large.requests == 0 || large.bytes + bytes <= share(self.0.max_bytes));
        }
        small.bytes + bytes <= self.0.max_bytes - large.bytes.min(share(self.0.max_bytes))
    }

    /// A permit now, or an error.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when none is free, [`Error::Closed`].
    pub fn try_reserve(&self, bytes: usize) -> Result<Permit> {
        let class = self.class_of(bytes);
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if state.lines[class].is_empty() && self.fits(&state, class, bytes) {
            return Ok(self.grant(&mut state, class, bytes));
        }
        let [small, large] = state.used;
        Err(Error::Overloaded { requests: small.requests + large.requests, bytes: small.bytes + large.bytes })
    }

    /// Takes a place in line; `on_grant` is called once, here or on the thread that frees the room, unless the ticket is dropped first.
    pub fn reserve(&self, bytes: usize, on_grant: impl FnOnce(Result<Permit>) + Send + 'static) -> Ticket {
        let class = self.class_of(bytes);
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.lines[class].push_back(Waiting { id, bytes, on_grant: Box::new(on_grant) });
        self.serve(state);
        Ticket { permits: self.clone(), class, id }
    }

    /// Requests and bytes that hold permits, and requests that wait for one.
    #[must_use]
    pub fn usage(&self) -> (usize, usize, usize) {
        let state = self.lock();
        let [small, large] = state.used;
        (small.requests + large.requests, small.bytes + large.bytes, state.lines.iter().map(VecDeque::len).sum())
    }

    /// Refuses whoever waits, and whoever comes.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.serve(state);
    }

    fn grant(&self, state: &mut State, class: usize, bytes: usize) -> Permit {
        state.used[class].requests += 1;
        state.used[class].bytes += bytes;
        Permit { permits: self.clone(), class, bytes }
    }

    /// Lets in whoever fits, and calls them without the lock.
    fn serve(&self, mut state: MutexGuard<'_, State>) {
        let mut called = Vec::new();
        for class in [SMALL, LARGE] {
            while let Some(bytes) = state.lines[class].front().map(|waiting| waiting.bytes) {
                if !state.closed && !self.fits(&state, class, bytes) {
                    break;
                }
                let Some(waiting) = state.lines[class].pop_front() else { break };
                let answer = if state.closed { Err(Error::Closed) } else { Ok(self.grant(&mut state, class, bytes)) };
                called.push((waiting.on_grant, answer));
            }
        }
        drop(state);
        for (on_grant, answer) in called {
            on_grant(answer);
        }
    }
}

impl Permit {
    /// Returns what is no longer needed: the permit is for `bytes` from now on, where that is less.
    pub fn shrink(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        let mut state = self.permits.lock();
        state.used[self.class].bytes -= freed;
        self.permits.serve(state);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        state.used[self.class].requests -= 1;
        state.used[self.class].bytes -= self.bytes;
        self.permits.serve(state);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        let line = &mut state.lines[self.class];
        let place = line.iter().position(|waiting| waiting.id == self.id);
        let left = place.and_then(|place| line.remove(place));
        // The first in line may have been the one that did not fit.
        self.permits.serve(state);
        drop(left);
    }
}
