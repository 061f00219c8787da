//! The interpreter's edges: blocking waits, its end, and fork.
//!
//! A thread that asks for the GIL of an interpreter that is gone is killed inside native frames. So after the exit hook a waiting thread
//! never returns to Python by itself: daemon threads park for ever, callers in other threads for three seconds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::{fork, process};

/// How long a blocked call may ignore Ctrl-C.
const SIGNAL_POLL: Duration = Duration::from_millis(100);
/// The interpreter is normally gone by then.
const PARK: Duration = Duration::from_secs(3);

static FINISHED: AtomicBool = AtomicBool::new(false);
/// Threads between their answer and the GIL.
static ATTACHING: AtomicUsize = AtomicUsize::new(0);
static MAIN: OnceLock<ThreadId> = OnceLock::new();

/// Who will run Python's signal handlers. Called by the package when it is imported on the main thread.
#[pyfunction]
pub(super) fn this_is_the_main_thread() {
    MAIN.get_or_init(|| std::thread::current().id());
}

/// True also where nobody knows which thread is the main one.
fn may_be_main() -> bool {
    MAIN.get().is_none_or(|main| *main == std::thread::current().id())
}

/// Every blocking wait of the bindings: without the GIL, and on the main thread in slices, with a look at signals between them.
pub(super) fn wait<T: Send>(py: Python<'_>, mut wait_for: impl FnMut(Duration) -> Option<T> + Send) -> PyResult<T> {
    let slice = if may_be_main() { SIGNAL_POLL } else { Duration::from_hours(1) };
    loop {
        let answer = py.detach(|| {
            let answer = wait_for(slice);
            begin_attaching(PARK);
            answer
        });
        ATTACHING.fetch_sub(1, Ordering::SeqCst);
        if let Some(answer) = answer {
            return Ok(answer);
        }
        py.check_signals()?;
    }
}

/// As [`wait`], for the package's own daemon threads, which never come back after the exit hook.
pub(super) fn wait_as_daemon<T: Send>(py: Python<'_>, wait: impl FnOnce() -> T + Send) -> T {
    let answer = py.detach(|| {
        let answer = wait();
        begin_attaching(Duration::MAX);
        answer
    });
    ATTACHING.fetch_sub(1, Ordering::SeqCst);
    answer
}

fn begin_attaching(park: Duration) {
    ATTACHING.fetch_add(1, Ordering::SeqCst);
    let main_thread = MAIN.get().is_some_and(|main| *main == std::thread::current().id());
    if !FINISHED.load(Ordering::SeqCst) || main_thread {
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
        FINISHED.store(true, Ordering::SeqCst);
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
    }
    fork::after();
}
