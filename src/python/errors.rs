//! Errors of the core as the exception classes of `threadsafe_ocr.exceptions`.

use std::io;

use pyo3::PyErr;

use crate::error::Error;

macro_rules! exceptions {
    ($($name:ident),*) => { $(pyo3::import_exception!(threadsafe_ocr.exceptions, $name);)* };
}

exceptions!(
    ConfigError,
    EngineClosedError,
    EngineUnavailableError,
    ForkedProcessError,
    ImageFileError,
    ImageNotFoundError,
    InferenceError,
    InvalidImageError,
    ModelLoadError,
    ModelNotFoundError,
    OcrTimeoutError,
    OverloadedError
);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Config(_) => ConfigError::new_err(message),
            Error::ModelNotFound(_) => ModelNotFoundError::new_err(message),
            Error::ModelLoad(_) => ModelLoadError::new_err(message),
            Error::InvalidImage(_) => InvalidImageError::new_err(message),
            Error::File { path, source } => {
                let path = path.display().to_string();
                let arguments = (number(&source), without_number(&source), path);
                if source.kind() == io::ErrorKind::NotFound {
                    return ImageNotFoundError::new_err(arguments);
                }
                ImageFileError::new_err(arguments)
            }
            Error::Overloaded { .. } => OverloadedError::new_err(message),
            Error::Timeout(_) => OcrTimeoutError::new_err(message),
            Error::Inference { .. } => InferenceError::new_err(message),
            Error::Closed => EngineClosedError::new_err(message),
            Error::Unavailable(_) => EngineUnavailableError::new_err(message),
            Error::Forked(_) => ForkedProcessError::new_err(message),
        }
    }
}

/// The `errno` of `source`; std gives a directory and a path that no system takes a kind only. The numbers are those of every platform.
fn number(source: &io::Error) -> Option<i32> {
    source.raw_os_error().or(match source.kind() {
        io::ErrorKind::IsADirectory => Some(21),
        io::ErrorKind::InvalidInput => Some(22),
        _ => None,
    })
}

/// What `source` says, less std's " (os error 2)": Python shows the number itself.
fn without_number(source: &io::Error) -> String {
    let text = source.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}
