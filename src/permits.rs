//! Admission: how many requests, and how many bytes of them, an engine holds at once. Two first-come-first-served lines, so that a few
//! large pages never shut small ones out, nor many small ones a large one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::lock::lock;

/// Requests up to this share of the byte limit stand in the line of small ones, but never more than 8 MiB.
const SMALL_SHARE: usize = 64;
const SMALL_MOST: usize = 8 << 20;
/// Large requests never hold the last eighth of the requests and bytes.
const EIGHTH: usize = 8;

const SMALL: usize = 0;
const LARGE: usize = 1;

fn class_of(bytes: usize, max_bytes: usize) -> usize {
    if bytes <= (max_bytes / SMALL_SHARE).min(SMALL_MOST) { SMALL } else { LARGE }
}

/// The permits of one engine. A cheap handle.
#[derive(Clone)]
pub struct Permits(Arc<Shared>);

struct Shared {
    limit: Used,
    /// What small requests can always have, and what large ones have at most.
    shares: [Used; 2],
    /// Few requests share one line: an eighth of them would be none.
    one_line: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In use, by small and by large requests.
    used: [Used; 2],
    lines: [VecDeque<Waiting>; 2],
    /// Numbers those who wait, in the order in which they came.
    next: u64,
    /// Somebody is letting people in.
    serving: bool,
    closed: bool,
}

#[derive(Default, Clone, Copy)]
struct Used {
    requests: usize,
    bytes: usize,
}

impl Used {
    /// Whether one more request of `bytes` stays within `limit`.
    fn has_room(self, bytes: usize, limit: Self) -> bool {
        self.requests < limit.requests && self.bytes + bytes <= limit.bytes
    }
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

impl Permits {
    /// Limits in requests and bytes.
    #[must_use]
    pub fn new(max_requests: usize, max_bytes: usize) -> Self {
        let limit = Used { requests: max_requests, bytes: max_bytes };
        let one_line = max_requests < EIGHTH;
        let eighth = Used { requests: max_requests.div_ceil(EIGHTH), bytes: max_bytes.div_ceil(EIGHTH) };
        let rest = Used { requests: max_requests - eighth.requests, bytes: max_bytes - eighth.bytes };
        let shares = [eighth, if one_line { limit } else { rest }];
        Self(Arc::new(Shared { limit, shares, one_line, state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// The line of a request of `bytes`, and the bytes it counts for: one that is larger than all that its line may hold counts for that
    /// much, so it enters when no other large one is in.
    fn class_of(&self, bytes: usize) -> (usize, usize) {
        let class = if self.0.one_line { LARGE } else { class_of(bytes, self.0.limit.bytes) };
        (class, bytes.min(self.0.shares[class].bytes))
    }

    /// Whether one more request fits, which came as number `id`.
    fn fits(&self, state: &State, class: usize, id: u64, bytes: usize) -> bool {
        let [small, large] = state.used;
        let all = Used { requests: small.requests + large.requests, bytes: small.bytes + large.bytes };
        // Small ones take what large ones leave, but beyond their own share not before a large one that came earlier.
        let is_first = class == SMALL && state.lines[LARGE].front().is_none_or(|first| first.id > id);
        all.has_room(bytes, self.0.limit) && (is_first || state.used[class].has_room(bytes, self.0.shares[class]))
    }

    /// A permit now, or an error.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when none is free, [`Error::Closed`].
    pub fn try_reserve(&self, bytes: usize) -> Result<Permit> {
        let (class, bytes) = self.class_of(bytes);
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if state.lines[class].is_empty() && self.fits(&state, class, state.next, bytes) {
            return Ok(self.grant(&mut state, class, bytes));
        }
        let [small, large] = state.used;
        Err(Error::Overloaded { requests: small.requests + large.requests, bytes: small.bytes + large.bytes })
    }

    /// Takes a place in line; `on_grant` is called once, here or on the thread that frees the room, unless the ticket is dropped first.
    pub fn reserve(&self, bytes: usize, on_grant: impl FnOnce(Result<Permit>) + Send + 'static) -> Ticket {
        let (class, bytes) = self.class_of(bytes);
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
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

    /// Lets in whoever fits, and calls them without the lock. Whoever is called may return his permit at once, so a call from inside leaves
    /// the rest to the one outside: a line of thousands must not become thousands of frames.
    fn serve<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        if state.serving {
            return;
        }
        state.serving = true;
        while let Some((on_grant, answer)) = self.next(&mut state) {
            drop(state);
            on_grant(answer);
            state = self.lock();
        }
        state.serving = false;
    }

    fn next(&self, state: &mut State) -> Option<(OnGrant, Result<Permit>)> {
        let enters = |&class: &usize| {
            let first = state.lines[class].front();
            first.is_some_and(|first| state.closed || self.fits(state, class, first.id, first.bytes))
        };
        let class = [SMALL, LARGE].into_iter().find(enters)?;
        let first = state.lines[class].pop_front()?;
        let answer = if state.closed { Err(Error::Closed) } else { Ok(self.grant(state, class, first.bytes)) };
        Some((first.on_grant, answer))
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
        let left = line.binary_search_by_key(&self.id, |waiting| waiting.id).ok().and_then(|place| line.remove(place));
        // The first in line may have been the one that did not fit.
        self.permits.serve(state);
        drop(left);
    }
}

/// Called, from any thread, when it is worth to look again.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Room for pixels that an event loop copies before their request has a permit, since the loop cannot stand in line with them uncopied.
///
/// Whoever waits for room holds nothing: he is woken and takes it himself. There is a line for every event loop, so one that is blocked keeps
/// nobody waiting but its own. Small requests have an eighth for themselves, as they have of the permits.
#[derive(Clone)]
pub struct Room(Arc<Mutex<RoomState>>);

struct RoomState {
    max_bytes: usize,
    used: [usize; 2],
    lines: BTreeMap<Line, VecDeque<Waiter>>,
    next: u64,
    closed: bool,
}

/// Small or large, and which event loop.
type Line = (usize, u64);

struct Waiter {
    id: u64,
    bytes: usize,
    wake: Wake,
}

/// A place in an event loop's line for room; left when it is dropped.
pub struct Place {
    room: Room,
    line: Line,
    id: u64,
}

/// Room that was taken; returned when it is dropped.
pub struct Taken {
    room: Room,
    class: usize,
    bytes: usize,
}

impl Room {
    /// Room for `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        let (used, lines) = ([0; 2], BTreeMap::new());
        Self(Arc::new(Mutex::new(RoomState { max_bytes, used, lines, next: 0, closed: false })))
    }

    fn lock(&self) -> MutexGuard<'_, RoomState> {
        lock(&self.0)
    }

    /// A place in the line of `event_loop`; `wake` is called whenever [`Place::take`] may have another answer.
    #[must_use]
    pub fn enter(&self, event_loop: u64, bytes: usize, wake: Wake) -> Place {
        let mut state = self.lock();
        let class = class_of(bytes, state.max_bytes);
        let (line, id, bytes) = ((class, event_loop), state.next, bytes.min(state.share(class)));
        state.next += 1;
        state.lines.entry(line).or_default().push_back(Waiter { id, bytes, wake });
        Place { room: self.clone(), line, id }
    }

    /// Requests that wait for room.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().lines.values().map(VecDeque::len).sum()
    }

    /// Refuses whoever waits, and whoever comes.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting: Vec<Wake> = state.lines.values().flatten().map(|waiter| Arc::clone(&waiter.wake)).collect();
        drop(state);
        call(&waiting);
    }
}

impl RoomState {
    fn share(&self, class: usize) -> usize {
        let eighth = self.max_bytes.div_ceil(EIGHTH);
        if class == SMALL { eighth } else { self.max_bytes - eighth }
    }

    fn fits(&self, class: usize, bytes: usize) -> bool {
        self.used[class] + bytes <= self.share(class)
    }

    fn first(&self, line: Line) -> Option<&Waiter> {
        self.lines.get(&line).and_then(VecDeque::front)
    }

    /// Takes a waiter out; returns him.
    fn leave(&mut self, line: Line, id: u64) -> Option<Waiter> {
        let waiters = self.lines.get_mut(&line)?;
        let place = waiters.binary_search_by_key(&id, |waiter| waiter.id).ok()?;
        let left = waiters.remove(place);
        if waiters.is_empty() {
            self.lines.remove(&line);
        }
        left
    }
}

/// Wakes those who could take room of `class` now: the first of every line.
fn wake_first(state: MutexGuard<'_, RoomState>, class: usize) {
    let lines = state.lines.range((class, 0)..=(class, u64::MAX));
    let first = lines.filter_map(|(_, waiters)| waiters.front()).filter(|first| state.fits(class, first.bytes));
    let woken: Vec<Wake> = first.map(|first| Arc::clone(&first.wake)).collect();
    drop(state);
    call(&woken);
}

fn call(wakes: &[Wake]) {
    for wake in wakes {
        wake();
    }
}

impl Place {
    /// Room, if the place is the first of its line and there is room; the place is then left.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn take(&self) -> Result<Option<Taken>> {
        let mut state = self.room.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let class = self.line.0;
        let first = state.first(self.line).filter(|first| first.id == self.id);
        let Some(bytes) = first.map(|first| first.bytes).filter(|&bytes| state.fits(class, bytes)) else {
            return Ok(None);
        };
        state.used[class] += bytes;
        let left = state.leave(self.line, self.id);
        wake_first(state, class);
        drop(left);
        Ok(Some(Taken { room: self.room.clone(), class, bytes }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        let left = state.leave(self.line, self.id);
        if left.is_some() {
            wake_first(state, self.line.0);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.used[self.class] -= self.bytes;
        wake_first(state, self.class);
    }
}
