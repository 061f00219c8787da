//! OCR for services: pages in, lines of text out, from any number of threads.
//!
//! The five-minute tour, in the order a page takes:
//!
//! * [`engine`]: an [`Engine`](engine::Engine) gives out permits, starts pages and hands back their answers.
//! * [`pipeline`]: one page, as an `async fn` in straight-line code; [`frame`]: what may be done to it first.
//! * [`detection`], [`orientation`], [`recognition`]: what goes into each net and what comes out, on [`geometry`], [`line`] and [`resample`].
//! * [`schedule`]: which waiting item runs next, and the threads that run it.
//! * [`runtime`]: ONNX Runtime's sessions, of networks as [`rewrite`] and, once it has optimised them, [`blocks`] make them. [`head`]: a
//!   recogniser's last layer. [`operators`]: some in between. [`convolution`], on [`tiles`]: the others on a processor's matrix unit. [`net`]: a
//!   network's sessions. [`models`]: the files. [`process`]: what a process has once.
//! * [`config`]: every setting and its default. [`error`]: everything that can go wrong.
//!
//! The core knows nothing of Python; `python` (a feature, off by default) shows it to Python.

mod advice;
pub mod blocks;
mod buffer;
mod chains;
mod clock;
pub mod config;
pub mod convolution;
pub mod detection;
pub mod engine;
pub mod error;
pub mod fork;
pub mod frame;
pub mod geometry;
pub mod head;
pub mod image;
pub mod line;
mod lock;
pub mod models;
pub mod net;
mod onnx;
pub mod operators;
pub mod orientation;
pub mod permits;
pub mod pipeline;
pub mod process;
#[cfg(feature = "python")]
mod python;
pub mod recognition;
pub mod resample;
pub mod rewrite;
pub mod runtime;
pub mod schedule;
pub mod shapes;
mod tiled;
pub mod tiles;
mod vectors;

pub use error::{Error, Result};
