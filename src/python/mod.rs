//! Python bindings: the only module that may name `pyo3` or `numpy`.
// PyO3 hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

mod convert;
mod engine;
mod errors;
mod exit;
mod pixels;

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::tiles::Products;

/// The folder of downloaded model sets; None where there is no home.
#[pyfunction]
fn model_cache() -> Option<PathBuf> {
    crate::models::cache_folder()
}

/// A network's file as a CPU runs it whose convolutions have `block` channels in a block; None where nothing changes. To be looked at: what ONNX
/// Runtime refuses is run as it is in the file.
#[pyfunction]
fn rewritten<'py>(py: Python<'py>, model: &[u8], block: usize) -> Option<Bound<'py, PyBytes>> {
    crate::rewrite::rewritten(model, Some(block), Products::Three).map(|rewritten| PyBytes::new(py, &rewritten.model))
}

/// Native core of `threadsafe_ocr`.
#[pymodule(gil_used = false, name = "_core")]
mod core {
    #[pymodule_export]
    use super::engine::{
        Pending, ThreadSafeOCR, cores, has_matrix_unit, init, line_widths, networks, next_news, unload,
    };
    #[pymodule_export]
    use super::exit::{after_fork, before_fork, shut_down, this_is_the_main_thread};
    #[pymodule_export]
    use super::pixels::{crops, decode};
    #[pymodule_export]
    use super::{model_cache, rewritten};

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
