//! What scheduling promises, and what a stage must offer to be scheduled. Knows nothing of images, ONNX or Python.
//!
//! * Workers belong to a device. A free worker serves, among the pages that have an item it can run, the one with the least work left or,
//!   where there is one, the oldest page of about that size, and of that page the item of the latest stage. So a receipt overtakes large
//!   pages, the mean wait is short, and pages of one kind are answered in the order in which they came. The oldest page gets an eighth of
//!   the time whatever its size, so nothing starves.
//! * Detections and unusually wide recognitions reserve their activations from the device's budget before they start; an item that did not
//!   fit eight times takes the device's one turn, so that small items cannot shut it out.
//! * A run gets all cores where little else could run beside it: a lone page's detection, and one so large that no second one fits the budget.
//! * An answer never depends on what else is queued: items share a run only where their input shapes are equal.
//! * A failed or panicking run of several items is retried item by item, so only the guilty request fails.
//! * A page that leaves takes its queued items along, and a run that serves nobody any more is stopped.
//!
//! `policy` decides and is a plain value; `worker` has the lock, the condition variable and the threads around it; `executor` runs the pages'
//! own steps (decoding, post-processing) on as many threads as cores.

pub mod executor;
pub mod policy;
pub mod worker;

use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::lock::lock;

/// Detection, orientation and recognition; see [`policy::Lane::stage`].
pub const STAGES: usize = 3;

/// What a worker runs. One implementation serves all stages; tests have fakes.
pub trait Model: Send + Sync + 'static {
    /// Input of one item.
    type Item: Send + 'static;
    /// Output of one item.
    type Output: Send + 'static;

    /// Runs items of one lane; one output an item, in their order.
    ///
    /// # Errors
    /// What the runtime said; [`crate::Error::Unavailable`] when the device is lost for good.
    fn run(&self, items: &[&Self::Item], place: &Place) -> Result<Vec<Self::Output>>;

    /// Gives back the memory that was kept for runs that went. `last` has just run; when that was asked nothing else ran or waited.
    fn tidy(&self, _last: &Self::Item) {}
}

/// Where and how a run happens.
#[derive(Debug, Default)]
pub struct Place {
    /// The worker's number in its group.
    pub worker: usize,
    /// There is little to do beside it: the run may use all cores.
    pub alone: bool,
    /// A large run waits for the memory that this one, or one beside it, will leave.
    pub keep_memory: bool,
    /// Ends the run early.
    pub stop: Arc<Stop>,
}

/// The way to end a run from outside.
#[derive(Default)]
pub struct Stop(Mutex<StopState>);

#[derive(Default)]
struct StopState {
    stopped: bool,
    action: Option<Box<dyn Fn() + Send>>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stop").field(&self.is_stopped()).finish()
    }
}

impl Stop {
    /// The model says how its run is ended. Called at once where the run was already stopped.
    pub fn on_stop(&self, action: impl Fn() + Send + 'static) {
        let mut state = lock(&self.0);
        if state.stopped {
            action();
        }
        state.action = Some(Box::new(action));
    }

    /// Ends the run, now or when it starts.
    pub fn stop(&self) {
        let mut state = lock(&self.0);
        state.stopped = true;
        if let Some(action) = &state.action {
            action();
        }
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        lock(&self.0).stopped
    }
}
