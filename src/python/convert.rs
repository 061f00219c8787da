//! Python values to the core's, and back. The only place that touches Python memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use numpy::ndarray::{Array3, ArrayViewD, Axis, Ix1};
use numpy::{IntoPyArray, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::errors::{ConfigError, InvalidImageError};
use crate::buffer;
use crate::config::{DeviceConfig, EngineConfig, LimitType, Numerics, OnFork, Options, ScoreMode};
use crate::engine::Size;
use crate::image::{self, Channels};
use crate::pipeline::{Input, OcrResult, Seconds};

/// What the caller gave; its memory is Python's.
pub(super) enum Argument<'py> {
    Array(PyReadonlyArrayDyn<'py, u8>, Channels),
    Bytes(Bound<'py, PyBytes>),
    Path(PathBuf),
    /// Width and height of an image that is still to be converted.
    Unconverted(u32, u32),
}

/// A borrow of it that other threads may see, so that it can be copied without the GIL.
pub(super) enum View<'a> {
    Pixels(ArrayViewD<'a, u8>, Channels),
    Encoded(&'a [u8]),
    Path(&'a Path),
    Unconverted(u32, u32),
}

/// What PIL takes for a pixel while it converts an image: turned, as RGBA, as bytes.
const PIL_BYTES: usize = 12;

impl<'py> Argument<'py> {
    /// `value`: a uint8 ndarray, bytes, a path as str, or the size of an image to come as a tuple.
    pub(super) fn new(value: &Bound<'py, PyAny>, rgb: bool) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone()));
        }
        if let Ok(path) = value.cast::<PyString>() {
            return Ok(Self::Path(path.extract()?));
        }
        if let Ok(array) = value.cast::<PyUntypedArray>() {
            return Self::from_array(value, array, rgb);
        }
        if let Ok((width, height)) = value.extract() {
            return Ok(Self::Unconverted(width, height));
        }
        let kind = value.get_type().name()?;
        Err(PyTypeError::new_err(format!(
            "cannot read a {kind}; give a path, bytes, a file object, a PIL image or a uint8 ndarray"
        )))
    }

    fn from_array(value: &Bound<'py, PyAny>, array: &Bound<'py, PyUntypedArray>, rgb: bool) -> PyResult<Self> {
        let shape = array.shape().to_vec();
        let Ok(pixels) = value.cast::<PyArrayDyn<u8>>() else {
            return Err(PyTypeError::new_err(format!(
                "the array's dtype is {}; pixels are uint8, 0 to 255: convert with .astype(numpy.uint8)",
                array.dtype()
            )));
        };
        let channels = match (shape.as_slice(), rgb) {
            ([_, _] | [_, _, 1], _) => Channels::Gray,
            ([_, _, 3], false) => Channels::Bgr,
            ([_, _, 3], true) => Channels::Rgb,
            ([_, _, 4], false) => Channels::Bgra,
            ([_, _, 4], true) => Channels::Rgba,
            _ => {
                return Err(InvalidImageError::new_err(format!(
                    "the array's shape is {shape:?}; pixels are HxW, HxWx1, HxWx3 or HxWx4"
                )));
            }
        };
        if shape[0] == 0 || shape[1] == 0 {
            return Err(InvalidImageError::new_err(format!("the image has no pixels: the array's shape is {shape:?}")));
        }
        if shape[..2].iter().any(|&side| side > u32::MAX as usize) {
            return Err(InvalidImageError::new_err(format!("the array's shape {shape:?} is too large")));
        }
        Ok(Self::Array(pixels.try_readonly().map_err(|e| PyTypeError::new_err(e.to_string()))?, channels))
    }

    /// The argument itself keeps the memory borrowed.
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Self::Array(array, channels) => View::Pixels(array.as_array(), *channels),
            Self::Bytes(bytes) => View::Encoded(bytes.as_bytes()),
            Self::Path(path) => View::Path(path),
            Self::Unconverted(width, height) => View::Unconverted(*width, *height),
        }
    }
}

impl View<'_> {
    /// What it takes, from its shape or header; checks `max_pixels`.
    pub(super) fn size(&self, max_pixels: u64) -> crate::Result<Size> {
        match self {
            Self::Pixels(array, channels) => {
                let (width, height) = size_of(array);
                // Gray is copied and spread to three; four are copied and made three in place.
                let bytes = if matches!(channels, Channels::Bgr | Channels::Rgb) { 3 } else { 4 };
                Size::of_pixels(width, height, bytes, max_pixels)
            }
            Self::Encoded(bytes) => Size::of_encoded(bytes, max_pixels),
            Self::Path(path) => Size::of_file(path, max_pixels),
            Self::Unconverted(width, height) => Size::of_pixels(*width, *height, PIL_BYTES, max_pixels),
        }
    }

    /// Of pixels, how many.
    pub(super) fn pixels(&self) -> u64 {
        let Self::Pixels(array, _) = self else { return 0 };
        let (width, height) = size_of(array);
        u64::from(width) * u64::from(height)
    }

    /// Copies what the core needs.
    pub(super) fn copy(&self) -> crate::Result<Input> {
        match self {
            Self::Pixels(array, channels) => {
                let (width, height) = size_of(array);
                image::from_interleaved(width, height, *channels, copy_of(array)).map(Input::Pixels)
            }
            Self::Encoded(bytes) => Ok(Input::Encoded(bytes.to_vec())),
            Self::Path(path) => Ok(Input::Path(path.to_path_buf())),
            Self::Unconverted(..) => Err(crate::Error::InvalidImage("the image was not converted".into())),
        }
    }
}

fn size_of(array: &ArrayViewD<'_, u8>) -> (u32, u32) {
    (array.shape()[1] as u32, array.shape()[0] as u32)
}

fn copy_of(array: &ArrayViewD<'_, u8>) -> Vec<u8> {
    let mut data = buffer::room_for(array.len());
    if let Some(whole) = array.as_slice() {
        data.extend_from_slice(whole);
        return data;
    }
    // Rows are whole in a part of an image; where they are not, as in `image[:, :, ::-1]`, iterators of one dimension are 20 times as fast
    // as the array's own.
    data.resize(array.len(), 0);
    let row_length = array.len() / array.shape()[0];
    for (row, copy) in array.outer_iter().zip(data.chunks_exact_mut(row_length)) {
        if let Some(row) = row.as_slice() {
            copy.copy_from_slice(row);
            continue;
        }
        let channels = row_length / row.shape()[0];
        for channel in 0..channels {
            let samples = if row.ndim() == 1 { row.view() } else { row.index_axis(Axis(1), channel) };
            let copies = copy.iter_mut().skip(channel).step_by(channels);
            if let Ok(samples) = samples.into_dimensionality::<Ix1>() {
                copies.zip(samples).for_each(|(copy, sample)| *copy = *sample);
            }
        }
    }
    data
}

/// The raw answer: (width, height, quarter turns, texts, scores, corners, flags, `first_corners`, `column_counts`, (columns, probabilities),
/// seconds of each step). Corners are float32 (n, 4, 2); columns int32 and probabilities float32, one a code point, those of all lines one
/// after the other.
pub(super) fn to_python(py: Python<'_>, result: OcrResult) -> PyResult<Py<PyAny>> {
    let n = result.lines.len();
    let mut corners = Array3::<f32>::zeros((n, 4, 2));
    let (mut texts, mut scores, mut flags) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut first_corners, mut column_counts) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut columns, mut probabilities) = (Vec::new(), Vec::new());
    for (i, line) in result.lines.into_iter().enumerate() {
        for (k, point) in line.quad.0.iter().enumerate() {
            corners[[i, k, 0]] = point.x;
            corners[[i, k, 1]] = point.y;
        }
        texts.push(line.text);
        scores.push(line.score);
        flags.push(line.upside_down.map(|(turned, p)| (turned, (!p.is_nan()).then_some(p))));
        first_corners.push(line.direction as usize);
        column_counts.push(line.columns);
        for (column, probability) in line.characters {
            columns.push(column as i32);
            probabilities.push(probability);
        }
    }
    let characters = (columns.into_pyarray(py), probabilities.into_pyarray(py));
    let corners = corners.into_pyarray(py);
    let Seconds { decode, detection, orientation, recognition } = result.seconds;
    let raw = (
        result.width,
        result.height,
        result.direction as usize,
        texts,
        scores,
        corners,
        flags,
        first_corners,
        column_counts,
        characters,
        (decode, detection, orientation, recognition),
    );
    Ok(raw.into_pyobject(py)?.into_any().unbind())
}

/// Reads settings out of a dict, each once; what is left over is unknown.
pub(super) struct Settings<'py>(pub Bound<'py, PyDict>);

impl<'py> Settings<'py> {
    pub(super) fn take<T>(&self, name: &str, target: &mut T) -> PyResult<()>
    where
        T: for<'a> FromPyObject<'a, 'py>,
    {
        let Some(value) = self.0.get_item(name)? else { return Ok(()) };
        self.0.del_item(name)?;
        if value.is_none() {
            return Ok(());
        }
        *target = value.extract().map_err(|_| {
            ConfigError::new_err(format!("{name}={value} is not of the right type or size; see docs/settings.md"))
        })?;
        Ok(())
    }

    fn take_choice<T: Copy>(&self, name: &str, target: &mut T, choices: &[(&str, T)]) -> PyResult<()> {
        let mut chosen: Option<String> = None;
        self.take(name, &mut chosen)?;
        let Some(chosen) = chosen else { return Ok(()) };
        let Some((_, value)) = choices.iter().find(|(choice, _)| *choice == chosen) else {
            let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            return Err(ConfigError::new_err(format!("{name}={chosen:?}; it can be {}", names.join(", "))));
        };
        *target = *value;
        Ok(())
    }

    /// Every per-request option that is given replaces the one in `options`.
    pub(super) fn take_options(&self, options: &mut Options) -> PyResult<()> {
        let whose = [
            ("paddle2", Numerics::Paddle2),
            ("paddle3", Numerics::Paddle3),
            ("rapidocr", Numerics::RapidOcr),
            ("mineru", Numerics::MinerU),
            ("mineru4", Numerics::MinerU4),
        ];
        self.take_choice("numerics", &mut options.numerics, &whose)?;
        let p = &mut options.page;
        self.take("page_max_side", &mut p.max_side)?;
        self.take("page_min_side", &mut p.min_side)?;
        self.take("page_pad_ratio", &mut p.pad_ratio)?;
        self.take("page_pad_height", &mut p.pad_height)?;
        let d = &mut options.detection;
        self.take("det_limit_side_len", &mut d.limit_side_len)?;
        let types = [
            ("min", LimitType::Min),
            ("max", LimitType::Max),
            ("resize_long", LimitType::ResizeLong),
            ("auto", LimitType::Auto),
        ];
        self.take_choice("det_limit_type", &mut d.limit_type, &types)?;
        self.take("det_max_side", &mut d.max_side)?;
        self.take("det_thresh", &mut d.thresh)?;
        self.take("det_box_thresh", &mut d.box_thresh)?;
        self.take("det_unclip_ratio", &mut d.unclip_ratio)?;
        self.take("det_use_dilation", &mut d.use_dilation)?;
        self.take_choice("det_score_mode", &mut d.score_mode, &[("fast", ScoreMode::Fast), ("slow", ScoreMode::Slow)])?;
        self.take("det_max_candidates", &mut d.max_candidates)?;
        self.take("use_textline_orientation", &mut options.orientation.enabled)?;
        self.take("cls_thresh", &mut options.orientation.thresh)?;
        self.take("use_doc_orientation", &mut options.orientation.upright)?;
        let r = &mut options.recognition;
        self.take("rec_score_thresh", &mut r.score_thresh)?;
        self.take("rec_width_step", &mut r.width_step)?;
        self.take("rec_min_width", &mut r.min_width)?;
        self.take("rec_max_width", &mut r.max_width)?;
        self.take("rec_group", &mut r.group)?;
        Ok(options.validate()?)
    }

    /// An engine's limits.
    pub(super) fn take_config(&self, config: &mut EngineConfig) -> PyResult<()> {
        self.take("max_pixels", &mut config.max_pixels)?;
        self.take("max_queue_size", &mut config.max_queue_size)?;
        self.take("max_queue_bytes", &mut config.max_queue_bytes)?;
        let mut timeout = None;
        self.take("timeout", &mut timeout)?;
        config.timeout = timeout.map(seconds).transpose()?;
        self.take_choice("on_fork", &mut config.on_fork, &[("rebuild", OnFork::Rebuild), ("error", OnFork::Error)])?;
        Ok(())
    }

    /// A device's knobs.
    pub(super) fn take_device_config(&self, config: &mut DeviceConfig) -> PyResult<()> {
        self.take("run_size", &mut config.run_size)?;
        self.take("intra_op_num_threads", &mut config.intra_op_num_threads)?;
        self.take("activation_bytes", &mut config.activation_bytes)
    }

    /// Complains of what nobody took.
    pub(super) fn finish(&self) -> PyResult<()> {
        let Some(name) = self.0.keys().iter().next() else { return Ok(()) };
        Err(PyTypeError::new_err(format!("there is no setting {name}; see docs/settings.md")))
    }
}

/// A time span in seconds, not negative.
pub(super) fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| ConfigError::new_err(format!("timeout={value} is not a number of seconds")))
}
