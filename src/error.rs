//! The one error type of the crate. Every message says what was wrong and what to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Result alias.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. `Clone`, because a run that fails may fail several requests.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting has a value that cannot work.
    #[error("{0}")]
    Config(String),
    /// A model set or one of its files is not there.
    #[error("{0}")]
    ModelNotFound(String),
    /// A model file is there and cannot be used.
    #[error("{0}")]
    ModelLoad(String),
    /// The input is not an image that can be read.
    #[error("{0}")]
    InvalidImage(String),
    /// The input's file cannot be read.
    #[error("cannot read the image file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<std::io::Error>,
    },
    /// `wait=False` and no permit is free.
    #[error(
        "the queue is full ({requests} requests, {bytes} bytes hold permits); try again later, or raise max_queue_size or max_queue_bytes"
    )]
    Overloaded {
        /// Requests that hold a permit.
        requests: usize,
        /// Bytes they hold.
        bytes: usize,
    },
    /// The deadline passed.
    #[error("no answer within the timeout of {:.3} s; give a longer timeout=, or send less work at once", .0.as_secs_f64())]
    Timeout(Duration),
    /// A model run failed.
    #[error("{stage} failed: {message}; the request failed alone: try it again, and report it where that fails too")]
    Inference {
        /// Which stage: detection, orientation, recognition or page.
        stage: &'static str,
        /// What the runtime said.
        message: Arc<str>,
    },
    /// The engine was closed, or its process is ending.
    #[error("the engine is closed; make a new ThreadSafeOCR, unless the process is ending")]
    Closed,
    /// The device or the runtime cannot be used.
    #[error("{0}")]
    Unavailable(String),
    /// The engine belongs to the parent process and `on_fork="error"`, or the request does.
    #[error(
        "this was made in process {0}, and a forked child cannot use it; make a ThreadSafeOCR in the child, after the fork"
    )]
    Forked(u32),
}

impl Error {
    /// An [`Error::Inference`] of `stage`.
    pub(crate) fn inference(stage: &'static str, message: impl std::fmt::Display) -> Self {
        Self::Inference { stage, message: message.to_string().into() }
    }
}
