//! OCR for services.
pub mod config;
pub mod error;
pub mod image;
pub mod resample;
pub mod geometry;
pub mod detection;
pub mod orientation;
pub mod recognition;
