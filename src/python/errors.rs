//! Errors of the core as the exception classes of `threadsafe_ocr.exceptions`.

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
                let arguments = (source.raw_os_error(), source.to_string(), path);
                if source.kind() == std::io::ErrorKind::NotFound {
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
