//! The class `ThreadSafeOCR` and the answers it gives.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::convert::{Argument, Settings, seconds, to_python};
use super::errors::{ConfigError, OcrTimeoutError};
use super::exit;
use crate::config::{DeviceConfig, EngineConfig, Options};
use crate::engine::{Engine, Handle, Request, Setup};
use crate::error::Error;
use crate::models::ModelSpec;
use crate::pipeline::{Input, Steps};
use crate::runtime::{self, Device};
use crate::{engine, process};

/// Numbers of finished requests, for the package's two daemon threads; new in a forked child.
static FINISHED: Mutex<Option<(u32, [Channel; 2])>> = Mutex::new(None);

type Channel = (Sender<u64>, Receiver<u64>);

fn channel(index: usize) -> Channel {
    let mut finished = FINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    if finished.as_ref().is_none_or(|(owner, _)| *owner != pid) {
        std::mem::forget(finished.replace((pid, [unbounded(), unbounded()])));
    }
    let Some((_, channels)) = finished.as_ref() else { return unbounded() };
    channels[index.min(1)].clone()
}

/// Waits, without the GIL, for the next finished request of a line (0: futures, 1: asyncio). For the package's daemon threads.
#[pyfunction]
pub(super) fn next_finished(py: Python<'_>, line: usize) -> Option<u64> {
    let (_, receiver) = channel(line);
    exit::wait_as_daemon(py, || receiver.recv().ok())
}

/// Loads ONNX Runtime from `library`, after the libraries in `preload`; once a process.
#[pyfunction]
pub(super) fn init(py: Python<'_>, library: PathBuf, preload: Vec<PathBuf>) -> PyResult<()> {
    Ok(py.detach(|| runtime::init(&library, &preload))?)
}

/// Unloads all models and ends the workers; `ConfigError` while an engine is open.
#[pyfunction]
pub(super) fn unload(py: Python<'_>) -> PyResult<()> {
    Ok(py.detach(process::unload)?)
}

/// See `threadsafe_ocr.ThreadSafeOCR`.
#[pyclass(frozen, subclass, module = "threadsafe_ocr._core")]
pub(super) struct ThreadSafeOCR {
    handle: Handle,
    options: Options,
}

#[pymethods]
impl ThreadSafeOCR {
    #[new]
    #[pyo3(signature = (models, settings))]
    fn new(py: Python<'_>, models: &Bound<'_, PyAny>, settings: Bound<'_, PyDict>) -> PyResult<Self> {
        let settings = Settings(settings);
        let mut model_folder = PathBuf::new();
        settings.take("model_folder", &mut model_folder)?;
        let (mut config, mut device_config) = (EngineConfig::default(), DeviceConfig::default());
        settings.take_config(&mut config)?;
        settings.take_device_config(&mut device_config)?;
        let mut options = Options::default();
        settings.take_options(&mut options)?;
        let mut device = String::from("cpu");
        settings.take("device", &mut device)?;
        settings.finish()?;
        let setup =
            Setup { models: model_spec(models)?, model_folder, device: parse_device(&device)?, config, device_config };
        let handle = py.detach(|| Handle::new(setup))?;
        Ok(Self { handle, options })
    }

    /// Starts a request and returns its answer to come. `wait_in_line`: do not wait here for a permit.
    #[pyo3(signature = (inputs, *, detect, recognize, timeout, wait, rgb, in_line, line, number, options))]
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)] // keywords of Python
    fn start<'py>(
        &self,
        py: Python<'py>,
        inputs: &Bound<'py, PyList>,
        detect: bool,
        recognize: bool,
        timeout: Option<f64>,
        wait: bool,
        rgb: bool,
        in_line: bool,
        line: Option<usize>,
        number: u64,
        options: Bound<'py, PyDict>,
    ) -> PyResult<Pending> {
        let engine = py.detach(|| self.handle.engine())?;
        let mut own = self.options.clone();
        let settings = Settings(options);
        settings.take_options(&mut own)?;
        settings.finish()?;
        let deadline = engine.deadline(timeout.map(seconds).transpose()?);
        let arguments: Vec<Argument<'py>> =
            inputs.iter().map(|value| Argument::new(&value, rgb)).collect::<PyResult<_>>()?;
        let mut request = Request { inputs: Vec::new(), steps: Steps { detect, recognize }, options: own };
        let mut bytes = 0;
        let mut copied = Vec::with_capacity(arguments.len());
        for argument in arguments {
            if let Some((w, h)) = argument.array_size() {
                engine.check_pixels(w, h)?;
                bytes += w as usize * h as usize * 3;
                copied.push(Err(argument));
                continue;
            }
            let input = argument.into_input(py)?;
            bytes += py.detach(|| engine.size_of(std::slice::from_ref(&input)))?;
            copied.push(Ok(input));
        }
        let pending = if in_line && wait {
            request.inputs = copy_all(py, copied)?;
            py.detach(|| engine.submit_in_line(request, bytes, deadline))
        } else {
            let permit =
                if wait { wait_for_permit(py, &engine, bytes, deadline)? } else { engine.try_reserve(bytes)? };
            request.inputs = copy_all(py, copied)?;
            py.detach(|| engine.submit(request, permit, deadline))
        };
        if let Some(line) = line {
            let (sender, _) = channel(line);
            pending.notify(move || {
                // The receiver lives as long as the process.
                let _ = sender.send(number);
            });
        }
        Ok(Pending(pending))
    }

    /// Counters so far, as a dict.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = py.detach(|| Ok::<_, Error>(self.handle.engine()?.stats()))?;
        let dict = PyDict::new(py);
        dict.set_item("answered", stats.answered)?;
        dict.set_item("failed", stats.failed)?;
        dict.set_item("rejected", stats.rejected)?;
        dict.set_item("cancelled", stats.cancelled)?;
        dict.set_item("timed_out", stats.timed_out)?;
        let (requests, bytes, waiting) = stats.queue;
        dict.set_item("queue_size", requests)?;
        dict.set_item("queue_bytes", bytes)?;
        dict.set_item("waiting_for_permit", waiting)?;
        dict.set_item("waiting_items", stats.device.waiting)?;
        dict.set_item("running", stats.device.running)?;
        dict.set_item("activation_bytes", stats.device.reserved_bytes)?;
        let runs = stats.device.runs;
        let mean = |sum: f64, count: u64| if count == 0 { 0.0 } else { sum / count as f64 };
        let averages = [
            ("run_size", stats.device.items as f64, runs),
            ("inference_seconds", stats.device.inference_seconds, runs),
            ("queue_seconds", stats.device.queue_seconds, stats.device.items),
        ];
        for (name, sum, count) in averages {
            let entry = PyDict::new(py);
            entry.set_item("mean", mean(sum, count))?;
            entry.set_item("sum", sum)?;
            entry.set_item("count", count)?;
            dict.set_item(name, entry)?;
        }
        Ok(dict)
    }

    /// Ends the engine; see `threadsafe_ocr.ThreadSafeOCR.close`.
    #[pyo3(signature = (cancel = false))]
    fn close(&self, py: Python<'_>, cancel: bool) {
        py.detach(|| {
            // Otherwise it is the parent's engine in a forked child, or the process is ending: nothing is left to end.
            if let Ok(engine) = self.handle.engine() {
                engine.close(cancel);
            }
        });
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        py.detach(|| self.handle.engine().map_or(true, |engine| engine.is_closed()))
    }
}

fn copy_all(py: Python<'_>, inputs: Vec<Result<Input, Argument<'_>>>) -> PyResult<Vec<Input>> {
    inputs.into_iter().map(|input| input.or_else(|argument| argument.into_input(py))).collect()
}

fn wait_for_permit(
    py: Python<'_>,
    engine: &Engine,
    bytes: usize,
    deadline: Option<(Instant, Duration)>,
) -> PyResult<crate::permits::Permit> {
    let reservation = py.detach(|| engine.reserve(bytes));
    let permit = exit::wait(py, |slice| {
        let left = deadline.map(|(when, timeout)| (when.saturating_duration_since(Instant::now()), timeout));
        let time = left.map_or(slice, |(left, _)| left.min(slice));
        match (reservation.wait_for(time), left) {
            (None, Some((left, timeout))) if left <= time => Some(Err(Error::Timeout(timeout))),
            (permit, _) => permit,
        }
    });
    py.detach(|| drop(reservation));
    Ok(permit??)
}

/// A set's name, a folder, or a dict of single models.
fn model_spec(models: &Bound<'_, PyAny>) -> PyResult<ModelSpec> {
    if let Ok(dict) = models.cast::<PyDict>() {
        let settings = Settings(dict.copy()?);
        let (mut det, mut rec, mut dict, mut cls) = (None, None, None, None);
        settings.take("det", &mut det)?;
        settings.take("rec", &mut rec)?;
        settings.take("dict", &mut dict)?;
        settings.take("cls", &mut cls)?;
        settings.finish()?;
        let (Some(det), Some(rec)) = (det, rec) else {
            return Err(ConfigError::new_err("models needs \"det\" and \"rec\"; \"dict\" and \"cls\" may be left out"));
        };
        return Ok(ModelSpec::Files { det, rec, dict, cls });
    }
    let Ok(path) = models.extract::<PathBuf>() else {
        return Err(PyTypeError::new_err(
            "models is the name of a set, a folder, or {\"det\":, \"rec\":, \"dict\":, \"cls\":}",
        ));
    };
    match path.to_str() {
        Some(name) if !path.is_dir() && !name.contains(['/', '\\']) => Ok(ModelSpec::Named(name.into())),
        _ => Ok(ModelSpec::Folder(path)),
    }
}

fn parse_device(name: &str) -> PyResult<Device> {
    match name.split_once(':').unwrap_or((name, "0")) {
        ("cpu", "0") if !name.contains(':') => Ok(Device::Cpu),
        ("cuda", index) if index.parse::<u32>().is_ok() => Ok(Device::Cuda(index.parse().unwrap_or(0))),
        _ => Err(ConfigError::new_err(format!("device={name:?}; it can be \"auto\", \"cpu\", \"cuda\" or \"cuda:1\""))),
    }
}

/// The answer to a request, to come.
#[pyclass(frozen, module = "threadsafe_ocr._core")]
pub(super) struct Pending(engine::Pending);

#[pymethods]
impl Pending {
    /// Waits for the answer, without the GIL; `TimeoutError` after `timeout` seconds, the request goes on.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let until = timeout.map(|t| seconds(t.max(0.0))).transpose()?.and_then(|t| Instant::now().checked_add(t));
        let answer = exit::wait(py, |slice| {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let time = left.map_or(slice, |left| left.min(slice));
            match (self.0.wait_for(time), left) {
                (None, Some(left)) if left <= time => Some(None),
                (None, _) => None,
                (answer, _) => Some(answer),
            }
        });
        let Some(answer) = answer? else {
            return Err(OcrTimeoutError::new_err("the answer is not there yet; the request goes on"));
        };
        to_python(py, answer?)
    }

    /// The request is not wanted any more; what it had queued is taken out, what runs only for it is stopped.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.0.cancel());
    }
}
