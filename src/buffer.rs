//! Buffers as large as a page.

/// An empty vector with room for `len` values.
///
/// glibc keeps a freed block of up to 32 MB in an arena of the thread that made it, for ever; a larger one is mapped by itself and given back.
/// So a large buffer gets more room than that: what is not touched is no memory. Without this 2,000 pages from 16 threads left 200 MB behind.
pub(crate) fn room_for<T>(len: usize) -> Vec<T> {
    const LARGE: usize = 1 << 20;
    const KEPT: usize = 33 << 20;
    let bytes = len.saturating_mul(size_of::<T>());
    let is_kept = cfg!(target_env = "gnu") && (LARGE..KEPT).contains(&bytes);
    Vec::with_capacity(if is_kept { KEPT / size_of::<T>() } else { len })
}

/// `len` times `value`.
pub(crate) fn filled<T: Clone>(value: T, len: usize) -> Vec<T> {
    let mut buffer = room_for(len);
    buffer.resize(len, value);
    buffer
}
