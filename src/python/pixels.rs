//! Pixels for callers with rules of their own: decoding in OpenCV's two ways, and the crops of given boxes.

use numpy::ndarray::{Array3, ArrayView3, Axis};
use numpy::{IntoPyArray, PyArray3, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors::InvalidImageError;
use crate::geometry::{self, Point, Quad};
use crate::image::{self, Channels, Image};

type Pixels<'py> = Bound<'py, PyArray3<u8>>;

/// Decodes as `cv2.imdecode` does: `IMREAD_COLOR` for `color`, else `IMREAD_UNCHANGED`; without the GIL.
#[pyfunction]
pub(super) fn decode<'py>(
    py: Python<'py>,
    encoded: &Bound<'py, PyBytes>,
    color: bool,
    max_pixels: u64,
) -> PyResult<Pixels<'py>> {
    let bytes = encoded.as_bytes();
    let (width, height, data) = py.detach(|| {
        if !color {
            return image::decode_unchanged(bytes, max_pixels);
        }
        let image = image::decode_color(bytes, max_pixels)?;
        Ok((image.width(), image.height(), image.into_pixels()))
    })?;
    to_array(py, width, height, data)
}

/// Cuts boxes, float32 (n, 4, 2), out of a BGR page as 2.x does: straightened, tall ones turned left; without the GIL. `half`: straightened as
/// `MinerU` 4 does, in half precision.
#[pyfunction]
#[pyo3(signature = (page, boxes, half = false))]
pub(super) fn crops<'py>(
    py: Python<'py>,
    page: PyReadonlyArray3<'py, u8>,
    boxes: PyReadonlyArray3<'py, f32>,
    half: bool,
) -> PyResult<Vec<Pixels<'py>>> {
    let (page, boxes) = (page.as_array(), boxes.as_array());
    if page.shape()[2] != 3 || boxes.shape()[1..] != [4, 2] {
        return Err(InvalidImageError::new_err("crops are cut out of pixels HxWx3, for boxes of shape (n, 4, 2)"));
    }
    let cut = py.detach(|| cut(&page, &boxes, half))?;
    cut.into_iter().map(|image| to_array(py, image.width(), image.height(), image.into_pixels())).collect()
}

fn cut(page: &ArrayView3<'_, u8>, boxes: &ArrayView3<'_, f32>, half: bool) -> crate::Result<Vec<Image>> {
    let (height, width, _) = page.dim();
    let image = image::from_interleaved(width as u32, height as u32, Channels::Bgr, page.iter().copied().collect())?;
    let crop = |corners: numpy::ndarray::ArrayView2<'_, f32>| {
        let quad = Quad(std::array::from_fn(|i| Point { x: corners[[i, 0]], y: corners[[i, 1]] }));
        let empty = || crate::Error::InvalidImage(format!("the box {:?} has nothing inside", quad.0));
        let crop = if half { geometry::crop_half(&image, &quad) } else { geometry::crop(&image, &quad, false) };
        crop.ok_or_else(empty)
    };
    boxes.axis_iter(Axis(0)).map(crop).collect()
}

fn to_array(py: Python<'_>, width: u32, height: u32, data: Vec<u8>) -> PyResult<Pixels<'_>> {
    let (width, height) = (width as usize, height as usize);
    let channels = data.len() / (width * height).max(1);
    let array = Array3::from_shape_vec((height, width, channels), data);
    Ok(array.map_err(|e| InvalidImageError::new_err(e.to_string()))?.into_pyarray(py))
}
