//! The interpreter's edges: blocking waits, its end, and fork.
//!
//! A thread that asks for the GIL of an interpreter that is gone hangs for ever (before Python 3.14 `CPython` would end it inside native frames, and
//! `PyO3` has it hang instead). So after the exit hook a waiting thread does not ask at once: daemon threads never do, callers in other threads after
//! three seconds, and the hook waits for those who have their answer.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::{fork, process};

/// How long a blocked call may ignore Ctrl-C.
const SIGNAL_POLL: Duration = Duration::from_millis(100);
/// The interpreter is normally gone by then.
const PARK: Duration = Duration::from_secs(3);

/// Threads between their answer and the GIL.
static ATTACHING: AtomicUsize = AtomicUsize::new(0);
static MAIN_IS_KNOWN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static IS_MAIN: Cell<bool> = const { Cell::new(false) };
}

/// Who will run Python's signal handlers. Called by the package when it is imported on the main thread.
#[pyfunction]
pub(super) fn this_is_the_main_thread() {
    IS_MAIN.set(true);
    MAIN_IS_KNOWN.store(true, Ordering::SeqCst);
}

/// True also where nobody knows which thread is the main one.
fn may_be_main() -> bool {
    IS_MAIN.get() || !MAIN_IS_KNOWN.load(Ordering::SeqCst)
}

/// Every blocking wait of the bindings: without the GIL, and on the main thread in slices, with a look at signals between them.
pub(super) fn wait<T: Send>(py: Python<'_>, mut wait_for: impl FnMut(Duration) -> Option<T> + Send) -> PyResult<T> {
    let slice = if may_be_main() { SIGNAL_POLL } else { Duration::from_hours(1) };
    loop {
        if let Some(answer) = detach(py, || wait_for(slice)) {
            return Ok(answer);
        }
        py.check_signals()?;
    }
}

/// What may end with the process: a caller in another thread comes back from it three seconds after the exit hook, if at all.
pub(super) fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    detach_and_park(py, work, PARK)
}

/// As [`detach`], for the package's own daemon threads, which never come back after the exit hook.
pub(super) fn detach_daemon<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    detach_and_park(py, work, Duration::MAX)
}

fn detach_and_park<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send, park: Duration) -> T {
    let answer = py.detach(|| {
        let answer = work();
        begin_attaching(park);
        answer
    });
    ATTACHING.fetch_sub(1, Ordering::SeqCst);
    answer
}

fn begin_attaching(park: Duration) {
    ATTACHING.fetch_add(1, Ordering::SeqCst);
    if !process::has_ended() || IS_MAIN.get() {
        return;
    }
    ATTACHING.fetch_sub(1, Ordering::SeqCst);
    std::thread::sleep(park);
    ATTACHING.fetch_add(1, Ordering::SeqCst);
}

/// The exit hook: intake stops, running inference is terminated, native threads are joined, callers that have their answer get home.
#[pyfunction]
pub(super) fn shut_down(py: Python<'_>) {
    // Exit hooks run on the main thread.
    this_is_the_main_thread();
    py.detach(|| {
        process::end();
        let patience = Instant::now() + Duration::from_secs(1);
        while ATTACHING.load(Ordering::SeqCst) > 0 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Before `os.fork`.
#[pyfunction]
pub(super) fn before_fork(py: Python<'_>) {
    py.detach(fork::before);
}

/// After `os.fork`, in the parent and in the child.
#[pyfunction]
pub(super) fn after_fork(child: bool) {
    if child {
        ATTACHING.store(0, Ordering::SeqCst);
        // Python's main thread is now the one that forked.
        this_is_the_main_thread();
    }
    fork::after();
}
