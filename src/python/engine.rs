//! The class `ThreadSafeOCR` and the answers it gives.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, unbounded};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::{Argument, Settings, View, seconds, to_python};
use super::errors::{ConfigError, InvalidImageError};
use super::exit;
use crate::config::{DeviceConfig, EngineConfig, Options};
use crate::engine::{Engine, Handle, Request, Setup, Size};
use crate::lock::lock;
use crate::models::{ModelSet, ModelSpec};
use crate::pipeline::Steps;
use crate::runtime::{self, Device, Precision};
use crate::{engine, process, shapes, tiles};

/// Numbers of the requests that somebody should look at again, for the package's two daemon threads; new in a forked child. No lock that a
/// vanished thread may hold.
static NEWS: ArcSwapOption<(u32, [Channel; 2])> = ArcSwapOption::const_empty();

type Channel = (Sender<u64>, Receiver<u64>);

fn news() -> Arc<(u32, [Channel; 2])> {
    loop {
        let current = NEWS.load_full();
        if let Some(own) = current.as_ref().filter(|news| news.0 == std::process::id()) {
            return Arc::clone(own);
        }
        let made = Arc::new((std::process::id(), [unbounded(), unbounded()]));
        NEWS.compare_and_swap(&current, Some(made));
        // The parent's is leaked, where there is one.
        std::mem::forget(current);
    }
}

/// Waits, without the GIL, for the next request of a line (0: futures, 1: asyncio) to look at. For the package's daemon threads.
#[pyfunction]
pub(super) fn next_news(py: Python<'_>, line: usize) -> Option<u64> {
    exit::detach_daemon(py, || news().1.get(line)?.1.recv().ok())
}

/// Loads ONNX Runtime from `library`, after the libraries in `preload`; once a process.
#[pyfunction]
pub(super) fn init(py: Python<'_>, library: PathBuf, preload: Vec<PathBuf>) -> PyResult<()> {
    Ok(exit::detach(py, || runtime::init(&library, &preload))?)
}

/// The files of a set's networks, each with what it is: "det", "rec" or "cls".
#[pyfunction]
pub(super) fn networks(
    py: Python<'_>,
    models: &Bound<'_, PyAny>,
    model_folder: PathBuf,
) -> PyResult<Vec<(PathBuf, &'static str)>> {
    let models = model_spec(models)?;
    Ok(py.detach(|| ModelSet::find(&models, &model_folder))?.networks())
}

/// The widths of a GPU's runs of recognition, pixels.
#[pyfunction]
pub(super) fn line_widths() -> Vec<u32> {
    shapes::GPU.to_vec()
}

/// Whether this process may use a matrix unit of bfloat16: AMX, on Linux.
#[pyfunction]
pub(super) fn has_matrix_unit() -> bool {
    tiles::is_there()
}

/// Cores that this process may use, by affinity and the container's quota: as many as there are workers.
#[pyfunction]
pub(super) fn cores() -> usize {
    process::cores()
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
        let (mut model_folder, mut replaced) = (PathBuf::new(), HashMap::new());
        settings.take("model_folder", &mut model_folder)?;
        settings.take("replaced", &mut replaced)?;
        let (mut config, mut device_config) = (EngineConfig::default(), DeviceConfig::default());
        settings.take_config(&mut config)?;
        settings.take_device_config(&mut device_config)?;
        let mut options = Options::default();
        settings.take_options(&mut options)?;
        let mut device = String::from("cpu");
        settings.take("device", &mut device)?;
        let mut bf16 = false;
        settings.take("bf16", &mut bf16)?;
        settings.finish()?;
        let (models, device) = (model_spec(models)?, parse_device(&device)?);
        let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
        let setup = Setup { models, model_folder, replaced, device, precision, config, device_config };
        let handle = exit::detach(py, || Handle::new(setup))?;
        Ok(Self { handle, options })
    }

    /// Opens a request for `inputs`, of which only the sizes are looked at; each comes with whether its channels are RGB. Its time runs.
    #[pyo3(name = "_open", signature = (inputs, *, detect, recognize, timeout, options))]
    fn open(
        &self,
        py: Python<'_>,
        inputs: Vec<(Bound<'_, PyAny>, bool)>,
        detect: bool,
        recognize: bool,
        timeout: Option<f64>,
        options: Bound<'_, PyDict>,
    ) -> PyResult<Pending> {
        let engine = self.engine(py)?;
        let mut own = self.options.clone();
        let settings = Settings(options);
        settings.take_options(&mut own)?;
        settings.finish()?;
        let deadline = engine.deadline(timeout.map(seconds).transpose()?);
        let arguments = arguments(&inputs)?;
        let views: Vec<View<'_>> = arguments.iter().map(Argument::view).collect();
        let max_pixels = engine.max_pixels();
        let size = py.detach(|| views.iter().map(|view| view.size(max_pixels)).sum::<crate::Result<Size>>())?;
        let request = Request { inputs: Vec::new(), steps: Steps { detect, recognize }, options: own };
        let pending = engine.open(size, deadline);
        Ok(Pending { native: pending, pixels: size.pixels, request: Mutex::new(Some(request)) })
    }

    /// Counters so far, as a dict.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = exit::detach(py, || self.handle.stats())?;
        let dict = PyDict::new(py);
        dict.set_item("answered", stats.answered)?;
        dict.set_item("lines", stats.lines)?;
        dict.set_item("failed", stats.failed)?;
        dict.set_item("rejected", stats.rejected)?;
        dict.set_item("cancelled", stats.cancelled)?;
        dict.set_item("timed_out", stats.timed_out)?;
        let (requests, bytes, waiting) = stats.queue;
        dict.set_item("queue_size", requests)?;
        dict.set_item("queue_bytes", bytes)?;
        dict.set_item("waiting_for_permit", waiting)?;
        dict.set_item("waiting_for_room", stats.waiting_for_room)?;
        dict.set_item("undelivered", news().1.iter().map(|(_, receiver)| receiver.len()).sum::<usize>())?;
        dict.set_item("waiting_items", stats.device.waiting)?;
        dict.set_item("running", stats.device.running)?;
        dict.set_item("activation_bytes", stats.device.reserved_bytes)?;
        let stages = stats.device.stages;
        dict.set_item("run_size", average(py, stages.iter().map(|stage| (stage.items as f64, stage.runs)))?)?;
        let inference = average(py, stages.iter().map(|stage| (stage.inference_seconds, stage.runs)))?;
        for (name, stage) in ["detection", "orientation", "recognition"].into_iter().zip(stages) {
            inference.set_item(name, average(py, [(stage.inference_seconds, stage.runs)])?)?;
        }
        dict.set_item("inference_seconds", inference)?;
        dict.set_item("queue_seconds", average(py, stages.iter().map(|stage| (stage.queue_seconds, stage.items)))?)?;
        Ok(dict)
    }

    /// Ends the engine; see `threadsafe_ocr.ThreadSafeOCR.close`.
    #[pyo3(signature = (cancel = false))]
    fn close(&self, py: Python<'_>, cancel: bool) {
        py.detach(|| self.handle.close(cancel));
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.handle.is_closed()
    }
}

impl ThreadSafeOCR {
    fn engine(&self, py: Python<'_>) -> PyResult<Arc<Engine>> {
        match self.handle.own() {
            Some(engine) => Ok(engine),
            // Built anew in a forked child; or the process is ending.
            None => Ok(exit::detach(py, || self.handle.engine())?),
        }
    }
}

/// `mean`, `sum` and `count` of sums and counts.
fn average(py: Python<'_>, parts: impl IntoIterator<Item = (f64, u64)>) -> PyResult<Bound<'_, PyDict>> {
    let (sum, count) = parts.into_iter().fold((0.0, 0), |(sum, count), part| (sum + part.0, count + part.1));
    let dict = PyDict::new(py);
    dict.set_item("mean", if count == 0 { 0.0 } else { sum / count as f64 })?;
    dict.set_item("sum", sum)?;
    dict.set_item("count", count)?;
    Ok(dict)
}

fn arguments<'py>(inputs: &[(Bound<'py, PyAny>, bool)]) -> PyResult<Vec<Argument<'py>>> {
    inputs.iter().map(|(value, rgb)| Argument::new(value, *rgb)).collect()
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

/// A request, and its answer to come.
#[pyclass(frozen, module = "threadsafe_ocr._core")]
pub(super) struct Pending {
    native: engine::Pending,
    /// Of the sizes that it was opened with.
    pixels: u64,
    /// Until it is started.
    request: Mutex<Option<Request>>,
}

#[pymethods]
impl Pending {
    /// Waits for a permit, without the GIL; `wait=False` refuses at once where none is free.
    fn reserve(&self, py: Python<'_>, wait: bool) -> PyResult<()> {
        if wait {
            self.native.reserve();
        } else {
            self.native.try_reserve();
        }
        match self.native.reserved(Duration::ZERO) {
            Some(reserved) => Ok(reserved?),
            None => Ok(exit::wait(py, |slice| self.native.reserved(slice))??),
        }
    }

    /// In an event loop: takes room for what is to be copied; False: not yet, `notify` tells when to ask again.
    fn take_room(&self, event_loop: u64) -> PyResult<bool> {
        Ok(self.native.take_room(event_loop)?)
    }

    /// Copies `inputs`, without the GIL, and starts: under its permit where it has one, else in line for one.
    fn start(&self, py: Python<'_>, inputs: Vec<(Bound<'_, PyAny>, bool)>) -> PyResult<()> {
        let permit = self.native.take_permit();
        let request = lock(&self.request).take();
        let Some(mut request) = request else { return Ok(()) };
        let arguments = arguments(&inputs)?;
        let views: Vec<View<'_>> = arguments.iter().map(Argument::view).collect();
        let pixels: u64 = views.iter().map(View::pixels).sum();
        if pixels > self.pixels {
            return Err(InvalidImageError::new_err(format!(
                "the image changed while its request waited: it has {pixels} pixels now, and had {}; give each call its own array",
                self.pixels
            )));
        }
        py.detach(|| {
            request.inputs = views.iter().map(View::copy).collect::<crate::Result<_>>()?;
            match permit {
                Some(permit) => self.native.start(request, permit),
                None => self.native.start_in_line(request),
            }
            Ok(())
        })
    }

    /// Sends `number` to a line of `next_news` when the answer is there, or when `take_room` should be asked again.
    fn notify(&self, line: usize, number: u64) {
        let Some((sender, _)) = news().1.get(line).cloned() else { return };
        self.native.notify(Arc::new(move || {
            // The receiver lives as long as the process.
            let _ = sender.send(number);
        }));
    }

    /// Waits for the answer, without the GIL; None where it is not there after `timeout` seconds, the request then goes on.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let until = timeout.map(|t| seconds(t.max(0.0))).transpose()?.and_then(|t| Instant::now().checked_add(t));
        let answer = exit::wait(py, |slice| {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let time = left.map_or(slice, |left| left.min(slice));
            match (self.native.wait_for(time), left) {
                (None, Some(left)) if left <= time => Some(None),
                (None, _) => None,
                (answer, _) => Some(answer),
            }
        })?;
        answer.map(|answer| to_python(py, answer?)).transpose()
    }

    /// The answer, or None where it is not there yet.
    fn poll(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.native.wait_for(Duration::ZERO).map(|answer| to_python(py, answer?)).transpose()
    }

    /// The request is not wanted any more; what it had queued is taken out, what runs only for it is stopped.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.native.cancel());
    }
}
