//! What must hold when the process forks, or ends: no thread is inside ONNX Runtime's environment or session creation, or a session's drop.
//!
//! Those take locks of the runtime and of the allocator's statics that a child would inherit locked for ever. Runs are harmless: the child
//! never touches the sessions of its parent (see `process`), and builds its own on the inherited environment.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug)]
struct State {
    inside: usize,
    closed: bool,
}

static STATE: Mutex<State> = Mutex::new(State { inside: 0, closed: false });
static CHANGED: Condvar = Condvar::new();
/// Set by the exit hook: from then on nothing is started.
static ENDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The forking thread holds the lock across the fork, so that the child does not inherit it held by a thread that is not there.
    static HELD: RefCell<Option<MutexGuard<'static, State>>> = const { RefCell::new(None) };
}

fn lock() -> MutexGuard<'static, State> {
    crate::lock::lock(&STATE)
}

/// While it lives, this process does not fork.
#[derive(Debug)]
pub(crate) struct Inside(());

/// Waits until no fork is under way, and keeps the next one waiting.
pub(crate) fn enter() -> Inside {
    let mut state = lock();
    while state.closed {
        state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.inside += 1;
    Inside(())
}

impl Drop for Inside {
    fn drop(&mut self) {
        lock().inside -= 1;
        CHANGED.notify_all();
    }
}

/// At exit, once and for all: no session is begun any more.
pub(crate) fn end() {
    ENDED.store(true, Ordering::SeqCst);
}

/// Whether [`end`] was called. Who asks inside is seen by [`wait_until_outside`], or sees this.
pub(crate) fn has_ended() -> bool {
    ENDED.load(Ordering::SeqCst)
}

/// Waits until nobody is inside, at most `patience`. At exit: the statics of ONNX Runtime must not go while a session is made.
pub(crate) fn wait_until_outside(patience: Duration) {
    let waited = CHANGED.wait_timeout_while(lock(), patience, |state| state.inside > 0);
    drop(waited.unwrap_or_else(PoisonError::into_inner));
}

/// Before `fork`: closes the gate and waits until nobody is inside. Blocks; the caller must not hold the GIL.
pub fn before() {
    let mut state = lock();
    while state.closed {
        state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.closed = true;
    while state.inside > 0 {
        state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    HELD.with(|held| *held.borrow_mut() = Some(state));
}

/// After `fork`, in the parent and in the child, on the thread that called [`before`]: opens the gate.
pub fn after() {
    let Some(mut state) = HELD.with(|held| held.borrow_mut().take()) else { return };
    state.closed = false;
    drop(state);
    CHANGED.notify_all();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const A_WHILE: Duration = Duration::from_millis(100);

    #[test]
    fn a_fork_waits_for_those_inside_and_newcomers_wait_for_the_fork() {
        let inside = enter();
        let (closed, is_closed) = channel();
        let (open, may_open) = channel::<()>();
        // Both on the thread that forks.
        let forking = std::thread::spawn(move || {
            before();
            closed.send(STATE.try_lock().is_err()).unwrap();
            may_open.recv().unwrap();
            after();
        });
        assert!(is_closed.recv_timeout(A_WHILE).is_err(), "somebody is inside");
        let (entered, has_entered) = channel();
        let newcomer = std::thread::spawn(move || {
            let inside = enter();
            entered.send(()).unwrap();
            drop(inside);
        });
        assert!(has_entered.recv_timeout(A_WHILE).is_err(), "the gate is closed while the fork waits");
        drop(inside);
        assert!(is_closed.recv_timeout(SOON).unwrap(), "the child must not inherit a lock that another thread holds");
        assert!(has_entered.recv_timeout(A_WHILE).is_err(), "the gate is closed during the fork");
        open.send(()).unwrap();
        has_entered.recv_timeout(SOON).unwrap();
        forking.join().unwrap();
        newcomer.join().unwrap();
        // What the child finds: nobody inside, an open gate.
        before();
        after();
        let state = lock();
        assert!(!state.closed && state.inside == 0);
    }
}
