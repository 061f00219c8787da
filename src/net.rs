//! A model and its sessions: loaded when they are first asked for, shared or owned as their device wants it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::runtime::{Device, Session, Target};

/// A model file and its sessions on one device: on the CPU one that all workers share, and one with a pool of all cores for runs beside which
/// little else could run; elsewhere one for each worker, made and run on that worker's thread.
#[derive(Debug)]
pub struct Net {
    /// Tells models apart.
    pub id: u64,
    path: PathBuf,
    target: Target,
    sessions: Mutex<Vec<Option<Arc<Session>>>>,
    wide: Mutex<Option<Arc<Session>>>,
}

impl Net {
    /// A model that is loaded when a session of it is first asked for.
    #[must_use]
    pub fn new(id: u64, path: &Path, target: Target) -> Self {
        let (sessions, wide) = (Mutex::new(Vec::new()), Mutex::new(None));
        Self { id, path: path.to_owned(), target, sessions, wide }
    }

    /// The session for a run of `worker`; `alone`: the run may use all cores.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn session(&self, worker: usize, alone: bool) -> Result<Arc<Session>> {
        if self.target.device == Device::Cpu {
            if alone && self.target.pool_threads > 1 {
                return get_or_load(&mut self.wide.lock(), || self.load(true));
            }
            let mut sessions = self.sessions.lock();
            sessions.resize(1, None);
            return get_or_load(&mut sessions[0], || self.load(false));
        }
        // Only this worker ever looks at its slot, so the lock is not held while the session loads.
        let held = self.sessions.lock().get(worker).cloned().flatten();
        if let Some(session) = held {
            return Ok(session);
        }
        let session = Arc::new(self.load(false)?);
        let mut sessions = self.sessions.lock();
        let slots = sessions.len().max(worker + 1);
        sessions.resize(slots, None);
        sessions[worker] = Some(Arc::clone(&session));
        Ok(session)
    }

    fn load(&self, alone: bool) -> Result<Session> {
        Session::load(&self.path, &self.target, alone)
    }
}

fn get_or_load(slot: &mut Option<Arc<Session>>, load: impl FnOnce() -> Result<Session>) -> Result<Arc<Session>> {
    if let Some(session) = slot {
        return Ok(Arc::clone(session));
    }
    let session = Arc::new(load()?);
    *slot = Some(Arc::clone(&session));
    Ok(session)
}
