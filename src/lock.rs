//! The lock of this crate.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One that a panic elsewhere does not poison: what it guards is whole at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
