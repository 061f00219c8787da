//! Owned BGR8 pixels, and the way to them from encoded bytes and raw arrays. The only user of the `image` and `tiff` crates.
//!
//! What comes in is not trusted. The header is read first and judged before anything is allocated for pixels; metadata that is not needed is
//! cut out of JPEG and PNG streams, so that broken metadata cannot cost the page; a page that was cut short is refused, because half an answer
//! looks like a whole one; and a decoder that panics is turned into an error.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::image::codecs::{bmp, gif, jpeg, png, pnm, webp};
use ::image::metadata::Orientation;
use ::image::{ColorType, ImageDecoder, ImageError, Limits};
use tiff::decoder::{Decoder as TiffDecoder, DecodingResult, Limits as TiffLimits};
use tiff::tags::{CompressionMethod, Tag};
use tiff::{ColorType as TiffColor, TiffError};

use crate::error::{Error, Result};

/// Bytes per pixel of an [`Image`].
const BGR: usize = 3;

/// What every decoder takes whatever the picture's size: tables, buffers of rows. Measured: 240 KB at most.
const FIXED_BYTES: u64 = 256 << 10;

/// What a decoder may allocate beyond the estimate before it is stopped.
const SLACK_BYTES: u64 = 4 << 20;

/// An EXIF block larger than this is not looked at. JPEG cannot hold more than 64 KiB; PNG and WebP could claim gigabytes.
const MAX_EXIF_BYTES: u64 = 1 << 20;

/// So many strips of a TIFF may be one.
const SHARED: usize = 16;

/// A file is read whole before it is decoded. A hundred megapixels of 16 bits and four channels are 0.8 GB.
pub(crate) const LONGEST_FILE: u64 = 4 << 30;

/// Deflate never expands more than this: 258 bytes from two bits.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// How a message names what can be read.
const FORMATS_READ: &str = "JPEG, PNG, WebP, TIFF, BMP, GIF and PNM are read";

/// Owned BGR8 pixels, rows top to bottom without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl Image {
    /// Wraps `data`: `height` rows of `width` pixels of 3 bytes, blue first.
    ///
    /// # Errors
    /// [`Error::InvalidImage`] when a side is zero or `data` is not `width * height * 3` bytes long.
    pub fn new(width: u32, height: u32, data: Vec<u8>) -> Result<Self> {
        check_length(width, height, BGR as u64, data.len())?;
        Ok(Self { width, height, data })
    }

    /// Pixels in a row.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `width * height * 3` bytes, blue first, rows top to bottom without padding.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.data
    }

    /// The bytes of [`Self::pixels`].
    #[must_use]
    pub fn into_pixels(self) -> Vec<u8> {
        self.data
    }
}

/// What the header of an encoded image says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Pixels in a row of the decoded [`Image`], that is, after the EXIF turn.
    pub width: u32,
    /// Rows of the decoded [`Image`].
    pub height: u32,
    /// Estimate of all that [`decode`] holds at its peak, in bytes: the finished [`Image`] is included, the encoded bytes are not.
    pub decode_bytes: usize,
}

/// Reads the header of `encoded` and nothing else. `max_pixels` is the largest `width * height` allowed.
///
/// # Errors
/// [`Error::InvalidImage`] when the bytes are not an image that can be read here, when a side is zero, or when the image has more than
/// `max_pixels` pixels. That the header is good does not say that the picture is: see [`decode`].
pub fn probe(encoded: &[u8], max_pixels: u64) -> Result<Header> {
    let plan = inspect(&mut Cursor::new(encoded), encoded.len() as u64, max_pixels)?;
    Ok(plan.header())
}

/// As [`probe`], for a file, of which no more is read than the header needs. Also returns the file's length in bytes.
///
/// # Errors
/// As [`probe`], and [`Error::File`] when the file is missing, is not a regular file, or cannot be read.
pub fn probe_file(path: &Path, max_pixels: u64) -> Result<(Header, u64)> {
    let unreadable = |source: io::Error| Error::File { path: path.to_path_buf(), source: Arc::new(source) };
    // Before `open`, which waits for a writer when the path is a named pipe.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let length = metadata.len();
    if length > LONGEST_FILE {
        return Err(Error::InvalidImage(format!(
            "{} has {length} bytes, and images of more than {LONGEST_FILE} are not read; save the page by itself",
            path.display()
        )));
    }
    let mut source = BufReader::new(File::open(path).map_err(unreadable)?);
    match inspect(&mut source, length, max_pixels) {
        Ok(plan) => Ok((plan.header(), length)),
        Err(Fault::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(unreadable(error)),
        Err(fault) => Err(fault.into()),
    }
}

/// Decodes the first frame or page of `encoded`, turned as its EXIF orientation says, 16-bit samples as their high byte, colours as they are
/// stored (a colour profile is not applied).
///
/// Transparency is laid over white, or over black when what is visible is bright and little: see [`Ground`].
///
/// # Errors
/// [`Error::InvalidImage`] as [`probe`] (judged before pixels are allocated), and when the picture's data are damaged or end early.
pub fn decode(encoded: &[u8], max_pixels: u64) -> Result<Image> {
    let (plan, raw) = read(encoded, max_pixels)?;
    let image = Image::new(plan.width, plan.height, raw.into_bgr())?;
    Ok(plan.turn.apply(image))
}

/// As `OpenCV` decodes for `IMREAD_COLOR`: turned as EXIF says, whatever is transparent in its colour.
///
/// # Errors
/// As [`decode`].
pub fn decode_color(encoded: &[u8], max_pixels: u64) -> Result<Image> {
    let (plan, raw) = read(encoded, max_pixels)?;
    let image = Image::new(plan.width, plan.height, raw.without_alpha().into_bgr())?;
    Ok(plan.turn.apply(image))
}

/// As `OpenCV` decodes for `IMREAD_UNCHANGED`, but 16-bit samples as their high byte: neither turned nor laid over anything. Width, height, and
/// pixels of 3 bytes, blue first, or of 4 where there is transparency, the last being alpha.
///
/// # Errors
/// As [`decode`].
pub fn decode_unchanged(encoded: &[u8], max_pixels: u64) -> Result<(u32, u32, Vec<u8>)> {
    let (plan, raw) = read(encoded, max_pixels)?;
    let data = match raw.layout {
        Layout::GrayAlpha => {
            raw.data.as_chunks::<2>().0.iter().flat_map(|&[gray, alpha]| [gray, gray, gray, alpha]).collect()
        }
        Layout::Rgba => {
            let mut data = raw.data;
            data.as_chunks_mut::<4>().0.iter_mut().for_each(|pixel| pixel.swap(0, 2));
            data
        }
        _ => raw.into_bgr(),
    };
    Ok((plan.width, plan.height, data))
}

/// The pixels as they are stored, and what the header said.
fn read(encoded: &[u8], max_pixels: u64) -> Result<(Plan, Raw)> {
    let plan = inspect(&mut Cursor::new(encoded), encoded.len() as u64, max_pixels)?;
    let raw = guarded(plan.format, || match plan.format {
        Format::Jpeg => decode_jpeg(encoded, &plan),
        Format::Png => decode_png(encoded, &plan),
        Format::Gif => read_pixels(gif::GifDecoder::new(Cursor::new(encoded))?, &plan),
        Format::Bmp => read_pixels(bmp::BmpDecoder::new(Cursor::new(encoded))?, &plan),
        Format::Pnm => read_pixels(pnm::PnmDecoder::new(Cursor::new(encoded))?, &plan),
        Format::WebP => decode_webp(encoded, &plan),
        Format::Tiff => decode_tiff(encoded, &plan),
    })?;
    Ok((plan, raw))
}

/// How the bytes of a raw array are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One byte per pixel, 0 black.
    Gray,
    /// Blue, green, red.
    Bgr,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, alpha (not premultiplied).
    Bgra,
    /// Red, green, blue, alpha (not premultiplied).
    Rgba,
}

/// Makes an [`Image`] of raw pixels: `height` rows of `width` pixels, top to bottom without padding. `data` becomes the image's own memory
/// except for [`Channels::Gray`], which needs three times as much. Alpha is treated as in [`decode`].
///
/// # Errors
/// [`Error::InvalidImage`] when a side is zero or `data` has another length than the shape says.
pub fn from_interleaved(width: u32, height: u32, channels: Channels, data: Vec<u8>) -> Result<Image> {
    let layout = match channels {
        Channels::Gray => Layout::Gray,
        Channels::Bgr => Layout::Bgr,
        Channels::Rgb => Layout::Rgb,
        Channels::Bgra => Layout::Bgra,
        Channels::Rgba => Layout::Rgba,
    };
    check_length(width, height, layout.samples() as u64, data.len())?;
    Image::new(width, height, layout.into_bgr(data))
}

fn check_length(width: u32, height: u32, samples: u64, length: usize) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::InvalidImage(format!("the image is {width} x {height} pixels: it has nothing to read")));
    }
    // Widened: the largest product, u32::MAX squared times 4, does not fit 64 bits.
    let needed = u128::from(width) * u128::from(height) * u128::from(samples);
    if needed == length as u128 {
        return Ok(());
    }
    Err(Error::InvalidImage(format!(
        "{length} bytes are not an image of {width} x {height} pixels with {samples} channel(s), which takes {needed}; \
         check the shape, and pass rows without padding"
    )))
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// What can go wrong inside.

/// An error before it is known whether the bytes came from a file.
enum Fault {
    /// Reading failed. At the end of the data: the image is cut short. Otherwise the file is to blame.
    Io(io::Error),
    /// Not an image that can be read; the text is the whole message.
    Bad(String),
}

impl Fault {
    fn bad(format: Format, what: impl fmt::Display) -> Self {
        Self::Bad(format!("this {format} cannot be decoded: {what}; save the image anew, as PNG or JPEG"))
    }

    fn cut_short(format: Format, what: impl fmt::Display) -> Self {
        Self::Bad(format!("this {format} is cut short: {what}; get the whole file"))
    }

    /// An end of data that a decoder met, told with the format's name.
    fn of(format: Format, fault: Self) -> Self {
        match fault {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::cut_short(format, "the data end before the picture does")
            }
            // Made by a decoder, or a seek to where no file goes: the image is to blame, not the disk.
            Self::Io(error) if error.get_ref().is_some() || error.kind() == io::ErrorKind::InvalidInput => {
                Self::bad(format, error)
            }
            other => other,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::IoError(error) => Self::Io(error),
            // Wrapped, to be given the format's name by `Fault::of`.
            other => Self::Io(io::Error::new(io::ErrorKind::InvalidData, other.to_string())),
        }
    }
}

impl From<TiffError> for Fault {
    fn from(error: TiffError) -> Self {
        match error {
            TiffError::IoError(error) => Self::Io(error),
            other => Self::Io(io::Error::new(io::ErrorKind::InvalidData, other.to_string())),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Bad(message) => Self::InvalidImage(message),
            Fault::Io(error) => Self::InvalidImage(format!("the image cannot be read: {error}; get the whole file")),
        }
    }
}

/// Runs a decoder so that its panic costs one image and not the process.
fn guarded<T>(format: Format, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|fault| Fault::of(format, fault)),
        Err(_) => {
            Err(Fault::Bad(format!("the decoder of {format} broke on this file; save the image anew, as PNG or JPEG")))
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// Which format, and the plan.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    Gif,
    WebP,
    Tiff,
    Bmp,
    Pnm,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
            Self::Pnm => "PNM",
        })
    }
}

impl Format {
    /// The format by its first bytes; names of files and content types are not asked, they lie.
    fn of(start: &[u8]) -> Result<Self, Fault> {
        match start {
            [0xFF, 0xD8, 0xFF, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Ok(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Self::Tiff),
            [b'B', b'M', _, _, _, _, 0, 0, ..] | [b'B', b'M', _, _, _, _, _, _, _, _, _, _, 0, 0, ..] => Ok(Self::Bmp),
            // PBM, PGM and PPM, as text and as bytes; what pdftoppm writes.
            [b'P', b'1'..=b'6', b' ' | b'\t' | b'\r' | b'\n' | b'#', ..] => Ok(Self::Pnm),
            _ => Err(Fault::Bad(not_an_image(start))),
        }
    }
}

/// Says what the bytes are, as far as their start tells.
fn not_an_image(start: &[u8]) -> String {
    let known = match start {
        [] => return format!("the image is empty: there are 0 bytes; {FORMATS_READ}"),
        [b'%', b'P', b'D', b'F', ..] => "a PDF is read by read_pages, page by page",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "HEIC, AVIF and videos are not read: convert to PNG or JPEG",
        [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => "JPEG XL is not read: convert to PNG or JPEG",
        [0, 0, 0, 12, b'j', b'P', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => "JPEG 2000 is not read: convert to PNG or JPEG",
        [b'8', b'B', b'P', b'S', ..] => "Photoshop files are not read: convert to PNG or JPEG",
        [0, 0, 1 | 2, 0, ..] => "icons are not read: convert to PNG",
        [b'P', b'K', 3, 4, ..] => {
            "a zip archive or office document is not an image: take its pictures out, or render its pages"
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy file is not an image: load it and pass the array",
        [0x1F, 0x8B, ..] => "gzip data are not an image: decompress them first",
        _ if is_markup(start) => "SVG, HTML and XML are not read: render to PNG first",
        _ => "",
    };
    if !known.is_empty() {
        return format!("{known} ({FORMATS_READ})");
    }
    let shown = &start[..start.len().min(24)];
    let dots = if start.len() > shown.len() { "..." } else { "" };
    let hint = if shown.iter().all(|b| (0x20..0x7F).contains(b)) {
        "; if that is a file's name, pass it as a path, not as bytes"
    } else {
        ""
    };
    format!("not an image: it starts with \"{}{dots}\"{hint}; {FORMATS_READ}", shown.escape_ascii())
}

fn is_markup(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start).trim_ascii_start();
    matches!(start, [b'<', b'?' | b'!' | b'a'..=b'z' | b'A'..=b'Z', ..])
}

/// What the header says and `decode` needs.
#[derive(Debug, Clone, Copy)]
struct Plan {
    format: Format,
    /// As stored, before the turn.
    width: u32,
    height: u32,
    turn: Turn,
    /// Bytes per pixel that the decoder writes.
    raw: u64,
    /// Whether these become BGR in the same memory.
    in_place: bool,
    /// What the decoder itself needs while it writes them, bytes.
    scratch: u64,
}

impl Plan {
    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Bytes at the peak: while decoding, while making BGR, or while turning, whichever is most.
    fn peak_bytes(&self) -> u64 {
        let bgr = BGR as u64;
        let decoding = self.raw.saturating_mul(self.pixels()).saturating_add(self.scratch.saturating_add(FIXED_BYTES));
        let converting = self.raw.max(bgr) + if self.in_place { 0 } else { self.raw.min(bgr) };
        let turning = if self.turn.transpose { 2 * bgr } else { bgr };
        decoding.max(converting.max(turning).saturating_mul(self.pixels()))
    }

    fn header(&self) -> Header {
        let (width, height) = self.turn.size(self.width, self.height);
        Header { width, height, decode_bytes: usize::try_from(self.peak_bytes()).unwrap_or(usize::MAX) }
    }

    fn check(&self, max_pixels: u64) -> Result<(), Fault> {
        let (width, height) = (self.width, self.height);
        if width == 0 || height == 0 {
            return Err(Fault::Bad(format!(
                "this {} says it is {width} x {height} pixels: it has nothing to read",
                self.format
            )));
        }
        if self.pixels() > max_pixels {
            return Err(Fault::Bad(format!(
                "the image is {width} x {height} = {} pixels, more than max_pixels={max_pixels}; raise max_pixels or shrink the image",
                self.pixels()
            )));
        }
        Ok(())
    }

    fn max_alloc(&self) -> u64 {
        self.peak_bytes().saturating_add(SLACK_BYTES)
    }
}

/// Reads the header. `length` is the source's length in bytes.
fn inspect<R: BufRead + Seek>(source: &mut R, length: u64, max_pixels: u64) -> Result<Plan, Fault> {
    let format = Format::of(source.fill_buf()?)?;
    let plan = guarded(format, || match format {
        Format::Jpeg => plan_jpeg(source, length),
        Format::Png => plan_png(source, length),
        Format::Gif => {
            let screen = gif::GifDecoder::new(source)?;
            // The frame's palette indices, and a frame that does not fill the screen is decoded beside it.
            Ok(plan_of(&screen, format, 5))
        }
        Format::Bmp => Ok(plan_of(&bmp::BmpDecoder::new(source)?, format, 0)),
        Format::Pnm => Ok(plan_of(&pnm::PnmDecoder::new(source)?, format, 0)),
        Format::WebP => plan_webp(source, length),
        Format::Tiff => plan_tiff(source),
    })?;
    plan.check(max_pixels)?;
    Ok(plan)
}

/// The plan for one of the `image` crate's decoders, which needs `scratch` bytes per pixel besides what it writes.
fn plan_of(decoder: &impl ImageDecoder, format: Format, scratch: u64) -> Plan {
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let pixels = u64::from(width) * u64::from(height);
    Plan {
        format,
        width,
        height,
        turn: Turn::default(),
        raw: color.bytes_per_pixel().into(),
        in_place: color.has_color(),
        scratch: scratch.saturating_mul(pixels),
    }
}

/// Pixels as a decoder gave them, 8 bits a sample.
struct Raw {
    layout: Layout,
    data: Vec<u8>,
}

impl Raw {
    fn into_bgr(self) -> Vec<u8> {
        self.layout.into_bgr(self.data)
    }

    fn without_alpha(self) -> Self {
        let Self { layout, mut data } = self;
        let layout = match layout {
            Layout::GrayAlpha => {
                compact::<2, 1>(&mut data, |[gray, _]| [gray]);
                Layout::Gray
            }
            Layout::Rgba => {
                compact::<4, 3>(&mut data, |[red, green, blue, _]| [red, green, blue]);
                Layout::Rgb
            }
            other => other,
        };
        Self { layout, data }
    }
}

/// Runs one of the `image` crate's decoders under the plan's limits.
fn read_pixels(mut decoder: impl ImageDecoder, plan: &Plan) -> Result<Raw, Fault> {
    same_size(decoder.dimensions(), plan)?;
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(plan.width);
    limits.max_image_height = Some(plan.height);
    limits.max_alloc = Some(plan.max_alloc());
    decoder.set_limits(limits)?;

    let color = decoder.color_type();
    let wide = match color {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => false,
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => true,
        other => return Err(Fault::bad(plan.format, format_args!("pixels of type {other:?} are not read"))),
    };
    let length = usize::try_from(decoder.total_bytes()).map_err(|_| Fault::bad(plan.format, "it is too large"))?;
    let mut data = vec![0; length];
    decoder.read_image(&mut data)?;
    if wide {
        keep_high_bytes(&mut data);
    }
    let layout = match color.channel_count() {
        1 => Layout::Gray,
        2 => Layout::GrayAlpha,
        3 => Layout::Rgb,
        _ => Layout::Rgba,
    };
    Ok(Raw { layout, data })
}

/// The decoder must see the size that was judged; were it another, the limits would not hold.
fn same_size(size: (u32, u32), plan: &Plan) -> Result<(), Fault> {
    if size == (plan.width, plan.height) {
        return Ok(());
    }
    let (width, height) = size;
    Err(Fault::bad(
        plan.format,
        format_args!("its header says {} x {} pixels and its picture {width} x {height}", plan.width, plan.height),
    ))
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// JPEG.

/// SOI or a restart: markers without a length.
fn stands_alone(marker: u8) -> bool {
    matches!(marker, 0x01 | 0xD0..=0xD8)
}

/// Steps over garbage to the next marker, as every reader of JPEG does.
fn next_marker<R: BufRead>(source: &mut R) -> io::Result<u8> {
    loop {
        source.skip_until(0xFF)?;
        let mut marker = 0xFF;
        while marker == 0xFF {
            marker = read_array::<1>(source)?[0];
        }
        if marker != 0 {
            return Ok(marker);
        }
    }
}

/// Bytes of the segment that follow its length field.
fn segment_length<R: Read>(source: &mut R) -> Result<u64, Fault> {
    match u16::from_be_bytes(read_array(source)?) {
        length @ 2.. => Ok(u64::from(length) - 2),
        length => Err(Fault::bad(Format::Jpeg, format_args!("a segment says it is {length} bytes long"))),
    }
}

/// Walks the segments up to the first scan. Thumbnails lie inside segments and are stepped over with them.
fn plan_jpeg<R: BufRead + Seek>(source: &mut R, length: u64) -> Result<Plan, Fault> {
    let mut frame = None;
    let mut turn = None;
    loop {
        let marker = next_marker(source)?;
        if stands_alone(marker) {
            continue;
        }
        if marker == 0xD9 {
            return Err(Fault::bad(Format::Jpeg, "it holds no picture"));
        }
        let size = segment_length(source)?;
        match marker {
            0xC0..=0xC2 if frame.is_none() && size >= 6 => {
                let head = read_array::<6>(source)?;
                source.seek_relative(size as i64 - 6)?;
                frame = Some((marker, head));
            }
            // 0xC4 are Huffman tables, 0xC8 is reserved, 0xCC are arithmetic conditions.
            0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                return Err(Fault::bad(Format::Jpeg, "lossless, hierarchical and arithmetic JPEG are not read"));
            }
            0xE1 if turn.is_none() => {
                let mut payload = vec![0; size as usize];
                source.read_exact(&mut payload)?;
                turn = payload.strip_prefix(b"Exif\0\0").and_then(Turn::from_exif);
            }
            0xDA => break,
            _ => source.seek_relative(size as i64)?,
        }
    }
    let Some((marker, [_, h1, h0, w1, w0, components])) = frame else {
        return Err(Fault::bad(Format::Jpeg, "its picture has no size"));
    };
    let (width, height) = (u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0])));
    let gray = components == 1;
    // A progressive picture is held as two-byte coefficients until its last scan.
    let coefficients =
        if marker == 0xC2 { 2 * u64::from(components) * u64::from(width) * u64::from(height) } else { 0 };
    Ok(Plan {
        format: Format::Jpeg,
        width,
        height,
        turn: turn.unwrap_or_default(),
        raw: if gray { 1 } else { 3 },
        in_place: !gray,
        // The decoder keeps its own copy of the bytes, and `whole_jpeg` may make one.
        scratch: coefficients + length.saturating_mul(2),
    })
}

fn decode_jpeg(encoded: &[u8], plan: &Plan) -> Result<Raw, Fault> {
    let stream = whole_jpeg(encoded, plan)?;
    read_pixels(jpeg::JpegDecoder::new(Cursor::new(&*stream))?, plan)
}

/// The stream up to its end marker, without the metadata that could break the decoder.
///
/// The decoder fills what is missing with gray and says nothing, so this is where a page that was cut short is caught.
fn whole_jpeg<'a>(encoded: &'a [u8], plan: &Plan) -> Result<Cow<'a, [u8]>, Fault> {
    let cut_short = || Fault::cut_short(Format::Jpeg, "its data end before the end-of-image marker");
    let mut source = Cursor::new(encoded);
    let mut dropped = Vec::new();
    let mut scanned = 0;
    loop {
        let marker = next_marker(&mut source).map_err(|_| cut_short())?;
        if marker == 0xD9 {
            break;
        }
        if stands_alone(marker) {
            continue;
        }
        let start = source.position() as usize;
        let size = segment_length(&mut source)? as usize;
        let end = start + 2 + size;
        let payload = encoded.get(start + 2..end).ok_or_else(cut_short)?;
        if is_metadata(marker, payload) {
            dropped.push(start - 2..end);
        }
        source.set_position(end as u64);
        if marker == 0xDA {
            let scan = scan_length(&encoded[end..]).ok_or_else(cut_short)?;
            scanned += scan;
            source.set_position((end + scan) as u64);
        }
    }
    // A block takes a bit at least, in the first scan of a progressive picture too.
    let blocks = u64::from(plan.width.div_ceil(8)) * u64::from(plan.height.div_ceil(8));
    if (scanned as u64).saturating_mul(8) < blocks {
        return Err(Fault::cut_short(
            Format::Jpeg,
            format_args!("{scanned} bytes cannot hold {} x {} pixels", plan.width, plan.height),
        ));
    }
    Ok(without(&encoded[..source.position() as usize], &dropped))
}

/// EXIF, XMP, colour profiles, previews, notes. Kept are JFIF and a well-formed Adobe segment, which says how the colours are stored.
fn is_metadata(marker: u8, payload: &[u8]) -> bool {
    match marker {
        0xEE => !matches!(payload, [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, 0..=2, ..]),
        0xE1..=0xEF | 0xFE => true,
        _ => false,
    }
}

/// Bytes of entropy-coded data up to the next marker that is not a restart. `None`: there is no such marker.
fn scan_length(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += data.get(at..)?.iter().position(|&byte| byte == 0xFF)?;
        match data.get(at + 1)? {
            0 | 0xD0..=0xD7 => at += 2,
            0xFF => at += 1,
            _ => return Some(at),
        }
    }
}

/// `data` without the ranges in `dropped`, which are in order and apart.
fn without<'a>(data: &'a [u8], dropped: &[Range<usize>]) -> Cow<'a, [u8]> {
    if dropped.is_empty() {
        return Cow::Borrowed(data);
    }
    let mut kept = Vec::with_capacity(data.len());
    let mut at = 0;
    for range in dropped {
        kept.extend_from_slice(&data[at..range.start]);
        at = range.end;
    }
    kept.extend_from_slice(&data[at..]);
    Cow::Owned(kept)
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// PNG.

/// What stands before a PNG's pixels.
struct PngHead {
    /// The signature, IHDR, PLTE, tRNS and the head of the first IDAT: all that the picture needs.
    bytes: Vec<u8>,
    /// Offset of the first IDAT's payload in the file, bytes.
    data_at: u64,
    turn: Turn,
}

/// Walks the chunks up to the first IDAT. Colour profiles, text, animation control and whatever else may be broken are left out: the default
/// picture of an animation is its first frame or its poster.
fn png_head<R: BufRead + Seek>(source: &mut R) -> Result<PngHead, Fault> {
    let mut bytes = read_array::<8>(source)?.to_vec();
    let mut turn = Turn::default();
    loop {
        let header = read_array::<8>(source)?;
        let [l3, l2, l1, l0, kind @ ..] = header;
        let length = u64::from(u32::from_be_bytes([l3, l2, l1, l0]));
        match &kind {
            b"IDAT" => {
                bytes.extend_from_slice(&header);
                return Ok(PngHead { bytes, data_at: source.stream_position()?, turn });
            }
            // The longest is a palette of 256 colours.
            b"IHDR" | b"PLTE" | b"tRNS" if length <= 768 => {
                bytes.extend_from_slice(&header);
                source.take(length + 4).read_to_end(&mut bytes)?;
            }
            b"eXIf" if length <= MAX_EXIF_BYTES => {
                let mut exif = vec![0; length as usize];
                source.read_exact(&mut exif)?;
                source.seek_relative(4)?;
                turn = Turn::from_exif(&exif).unwrap_or_default();
            }
            [first, ..] if first.is_ascii_lowercase() => source.seek_relative(length as i64 + 4)?,
            _ => {
                let kind = kind.escape_ascii();
                return Err(Fault::bad(
                    Format::Png,
                    format_args!("the chunk {kind} of {length} bytes is out of place"),
                ));
            }
        }
    }
}

fn plan_png<R: BufRead + Seek>(source: &mut R, length: u64) -> Result<Plan, Fault> {
    let head = png_head(source)?;
    let decoder = png::PngDecoder::new(Cursor::new(&head.bytes))?;
    let mut plan = plan_of(&decoder, Format::Png, 0);
    plan.turn = head.turn;
    // `decode_png` may copy the data.
    plan.scratch = length;
    let stored = stored_png_bytes(&head.bytes, &plan);
    if length.saturating_mul(MAX_DEFLATE_RATIO) < stored {
        return Err(Fault::cut_short(
            Format::Png,
            format_args!("{length} bytes cannot hold {} x {} pixels", plan.width, plan.height),
        ));
    }
    Ok(plan)
}

/// Bytes of the picture before deflate, without filter types.
fn stored_png_bytes(head: &[u8], plan: &Plan) -> u64 {
    let [depth, color] = [24, 25].map(|at| head.get(at).copied().unwrap_or(1));
    let samples = match color {
        2 => 3,
        4 => 2,
        6 => 4,
        _ => 1,
    };
    (u64::from(plan.width) * samples * u64::from(depth)).div_ceil(8) * u64::from(plan.height)
}

fn decode_png(encoded: &[u8], plan: &Plan) -> Result<Raw, Fault> {
    let head = png_head(&mut Cursor::new(encoded))?;
    let at = head.data_at as usize;
    let stream = if head.bytes.len() == at {
        Cow::Borrowed(encoded)
    } else {
        Cow::Owned([&head.bytes, &encoded[at..]].concat())
    };
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(plan.max_alloc());
    read_pixels(png::PngDecoder::with_limits(Cursor::new(&*stream), limits)?, plan)
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// WebP.

/// Walks the RIFF chunks for what the decoder does not check: that the file is whole, and that the picture inside has the size the header
/// says, as the decoder allocates before it compares. The EXIF chunk is read on the way.
fn plan_webp<R: BufRead + Seek>(source: &mut R, length: u64) -> Result<Plan, Fault> {
    let [_, _, _, _, s0, s1, s2, s3, ..] = read_array::<12>(source)?;
    let end = 8 + u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
    if end > length {
        return Err(Fault::cut_short(Format::WebP, format_args!("it has {length} of {end} bytes")));
    }
    let mut turn = Turn::default();
    let mut frames = Vec::new();
    // The header of a chunk that does not fit is padding.
    while source.stream_position()? + 8 <= end {
        let [kind @ .., l0, l1, l2, l3] = read_array::<8>(source)?;
        let size = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        let next = source.stream_position()? + size + size % 2;
        match &kind {
            b"EXIF" if size <= MAX_EXIF_BYTES => {
                let mut exif = vec![0; size as usize];
                if source.read_exact(&mut exif).is_ok() {
                    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif);
                    turn = Turn::from_exif(exif).unwrap_or_default();
                }
            }
            b"VP8 " if size >= 10 => frames.push(lossy_webp_size(&read_array(source)?)),
            // Of an animation's frame the picture's chunk comes after 16 bytes, with or without an alpha chunk before it.
            b"ANMF" if size >= 16 => {
                source.seek_relative(16)?;
                continue;
            }
            _ => {}
        }
        source.seek(SeekFrom::Start(next))?;
    }
    source.rewind()?;
    let decoder = webp::WebPDecoder::new(source)?;
    // Lossless pixels are decoded as RGBA, an animation's frame beside its canvas; lossy planes take less.
    let scratch = if decoder.has_animation() { 8 } else { 4 };
    let mut plan = plan_of(&decoder, Format::WebP, scratch);
    if frames.iter().any(|&(width, height)| width > plan.width || height > plan.height) {
        return Err(Fault::bad(Format::WebP, "its picture is larger than its header says"));
    }
    plan.turn = turn;
    Ok(plan)
}

/// Size in pixels that a lossy picture's own header says: 14 bits a side, after a tag and a start code of 3 bytes each.
fn lossy_webp_size(header: &[u8; 10]) -> (u32, u32) {
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
    (side(header[6], header[7]), side(header[8], header[9]))
}

fn decode_webp(encoded: &[u8], plan: &Plan) -> Result<Raw, Fault> {
    read_pixels(webp::WebPDecoder::new(Cursor::new(encoded))?, plan)
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// TIFF, through the `tiff` crate itself: `image` refuses JPEG's YCbCr in TIFF and gray of 2 and 4 bits.

fn plan_tiff<R: BufRead + Seek>(source: &mut R) -> Result<Plan, Fault> {
    let mut decoder = TiffDecoder::new(source)?;
    let (width, height) = decoder.dimensions()?;
    let (layout, bits) = tiff_layout(&mut decoder)?;
    let samples = layout.samples() as u64;
    let pixels = u64::from(width) * u64::from(height);
    // 16-bit samples are narrowed into a second buffer, narrow ones widened.
    let raw = if bits == 8 { samples } else { samples * u64::from(bits.div_ceil(8)) + samples };
    // A strip of JPEG is decoded by itself; a single strip may be the page.
    let scratch = if is_jpeg_tiff(&mut decoder)? { samples * pixels } else { 0 };
    Ok(Plan {
        format: Format::Tiff,
        width,
        height,
        turn: tiff_turn(&mut decoder),
        raw,
        in_place: !matches!(layout, Layout::Gray | Layout::GrayAlpha),
        scratch,
    })
}

/// The samples of a pixel and the bits of a sample.
fn tiff_layout<R: Read + Seek>(decoder: &mut TiffDecoder<R>) -> Result<(Layout, u8), Fault> {
    match decoder.colortype()? {
        TiffColor::Gray(bits @ (1 | 2 | 4 | 8 | 16)) => Ok((Layout::Gray, bits)),
        TiffColor::GrayA(bits @ (8 | 16)) | TiffColor::Multiband { bit_depth: bits @ (8 | 16), num_samples: 2 } => {
            Ok((Layout::GrayAlpha, bits))
        }
        TiffColor::RGB(bits @ (8 | 16)) => Ok((Layout::Rgb, bits)),
        TiffColor::RGBA(bits @ (8 | 16)) => Ok((Layout::Rgba, bits)),
        TiffColor::CMYK(bits @ (8 | 16)) => Ok((Layout::Cmyk, bits)),
        TiffColor::YCbCr(8) => Ok((Layout::YCbCr, 8)),
        other => Err(Fault::bad(Format::Tiff, format_args!("pixels of type {other:?} are not read"))),
    }
}

fn tiff_turn<R: Read + Seek>(decoder: &mut TiffDecoder<R>) -> Turn {
    let tag = decoder.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten();
    tag.and_then(Orientation::from_exif).map(Turn::from).unwrap_or_default()
}

fn is_jpeg_tiff<R: Read + Seek>(decoder: &mut TiffDecoder<R>) -> Result<bool, Fault> {
    let method = decoder.find_tag_unsigned::<u16>(Tag::Compression)?;
    Ok(method == Some(CompressionMethod::ModernJPEG.to_u16()))
}

fn decode_tiff(encoded: &[u8], plan: &Plan) -> Result<Raw, Fault> {
    let mut decoder = TiffDecoder::new(Cursor::new(encoded))?;
    same_size(decoder.dimensions()?, plan)?;
    let (layout, bits) = tiff_layout(&mut decoder)?;
    let chunks = tiff_chunks(&mut decoder, encoded.len())?;
    check_tiff_rows(&mut decoder, plan)?;
    if is_jpeg_tiff(&mut decoder)? {
        check_jpeg_chunks(encoded, &chunks, decoder.chunk_dimensions(), plan)?;
    }
    // Old fax software stores the bits of a byte backwards, which the decoder does not know.
    let backwards = decoder.find_tag_unsigned::<u8>(Tag::FillOrder).ok().flatten() == Some(2);
    let stream = if backwards { Cow::Owned(with_bits_reversed(encoded, &chunks)) } else { Cow::Borrowed(encoded) };

    let most = usize::try_from(plan.max_alloc()).unwrap_or(usize::MAX);
    let mut limits = TiffLimits::default();
    limits.decoding_buffer_size = most;
    limits.intermediate_buffer_size = most;
    let mut decoder = TiffDecoder::new(Cursor::new(&*stream))?.with_limits(limits);
    let mut samples = DecodingResult::U8(Vec::new());
    let read = decoder.read_image_to_buffer(&mut samples)?;
    let data = match samples {
        DecodingResult::U8(data) if bits < 8 => widen(&data, plan.width as usize, plan.height as usize, bits),
        DecodingResult::U8(data) => data,
        DecodingResult::U16(data) => data.into_iter().map(|sample| (sample >> 8) as u8).collect(),
        _ => return Err(Fault::bad(Format::Tiff, "its samples are neither 8 nor 16 bit whole numbers")),
    };
    let expected = plan.pixels() * layout.samples() as u64;
    if data.len() as u64 != expected {
        return Err(Fault::bad(Format::Tiff, format_args!("{} samples came where {expected} belong", data.len())));
    }
    let data = if read.planes > 1 { interleave(&data, layout.samples()) } else { data };
    Ok(Raw { layout, data })
}

/// Where the strips or tiles lie. One that reaches past the end means that the file was cut: JPEG strips would be filled with gray.
fn tiff_chunks<R: Read + Seek>(decoder: &mut TiffDecoder<R>, length: usize) -> Result<Vec<Range<usize>>, Fault> {
    let mut find = |strips, tiles| -> Result<Vec<u64>, Fault> {
        match decoder.find_tag_unsigned_vec(strips)? {
            Some(values) => Ok(values),
            None => Ok(decoder.find_tag_unsigned_vec(tiles)?.unwrap_or_default()),
        }
    };
    let offsets = find(Tag::StripOffsets, Tag::TileOffsets)?;
    let sizes = find(Tag::StripByteCounts, Tag::TileByteCounts)?;
    let chunks = offsets.iter().zip(&sizes).map(|(&offset, &size)| {
        let end = offset.saturating_add(size);
        if end > length as u64 {
            return Err(Fault::cut_short(Format::Tiff, format_args!("it has {length} bytes and needs {end}")));
        }
        Ok(offset as usize..end as usize)
    });
    let chunks: Vec<Range<usize>> = chunks.collect::<Result<_, _>>()?;
    // Some may be one, as blank ones are; but to go over the same bytes for each of a million takes hours.
    let sum: usize = chunks.iter().map(Range::len).sum();
    if sum / SHARED > length {
        return Err(Fault::bad(Format::Tiff, format_args!("its strips have {sum} bytes, and the file {length}")));
    }
    Ok(chunks)
}

/// The `tiff` crate sets memory aside for a whole row of a tile with all its samples, however wide and many they say they are, and puts the tables of
/// JPEG before each strip, however long they are.
fn check_tiff_rows<R: Read + Seek>(decoder: &mut TiffDecoder<R>, plan: &Plan) -> Result<(), Fault> {
    const WIDEST_TILE: u32 = 1 << 16;
    const MOST_SAMPLES: u16 = 16;
    /// Usual ones have 600 bytes.
    const LONGEST_TABLES: usize = 1 << 16;
    let tables = decoder.find_tag_unsigned_vec::<u8>(Tag::JPEGTables)?.map_or(0, |tables| tables.len());
    if tables > LONGEST_TABLES {
        return Err(Fault::bad(Format::Tiff, format_args!("its JPEG tables have {tables} bytes")));
    }
    let samples = decoder.find_tag_unsigned::<u16>(Tag::SamplesPerPixel)?.unwrap_or(1);
    let (width, _) = decoder.chunk_dimensions();
    if samples > MOST_SAMPLES || width > plan.width.max(WIDEST_TILE) {
        return Err(Fault::bad(
            Format::Tiff,
            format_args!("{samples} samples a pixel in tiles {width} pixels wide are too much"),
        ));
    }
    Ok(())
}

/// The `tiff` crate decodes a strip or tile of JPEG at whatever size that says, before it looks whether it is the one expected, and fills
/// what is missing with gray.
fn check_jpeg_chunks(encoded: &[u8], chunks: &[Range<usize>], expected: (u32, u32), plan: &Plan) -> Result<(), Fault> {
    /// A tile may be larger than the picture: of 1024 x 1024 pixels, and no more.
    const LARGEST_TILE: u64 = 1 << 20;
    for chunk in chunks {
        let bytes = &encoded[chunk.clone()];
        let strip = plan_jpeg(&mut Cursor::new(bytes), 0)?;
        let wider = strip.width > expected.0.saturating_add(15) || strip.height > expected.1.saturating_add(15);
        if wider || strip.pixels() > padded(plan).max(LARGEST_TILE) {
            return Err(Fault::bad(Format::Tiff, "a strip of JPEG is larger than the picture"));
        }
        whole_jpeg(bytes, &strip)?;
    }
    Ok(())
}

/// Pixels when both sides are filled up to whole JPEG blocks.
fn padded(plan: &Plan) -> u64 {
    (u64::from(plan.width) + 15) * (u64::from(plan.height) + 15)
}

fn with_bits_reversed(encoded: &[u8], chunks: &[Range<usize>]) -> Vec<u8> {
    let mut chunks = chunks.to_vec();
    chunks.sort_by_key(|chunk| (chunk.start, chunk.end));
    chunks.dedup();
    let mut turned = encoded.to_vec();
    for chunk in chunks {
        turned[chunk].iter_mut().for_each(|byte| *byte = byte.reverse_bits());
    }
    turned
}

/// Rows of gray samples of 1, 2 or 4 bits, the first in the high bits, each row filling whole bytes.
fn widen(packed: &[u8], width: usize, height: usize, bits: u8) -> Vec<u8> {
    let bits = usize::from(bits);
    let top = (1_u8 << bits) - 1;
    let per_byte = 8 / bits;
    let mut gray = Vec::with_capacity(width * height);
    for row in packed.chunks_exact((width * bits).div_ceil(8)) {
        gray.extend((0..width).map(|x| {
            let shift = 8 - bits - x % per_byte * bits;
            ((row[x / per_byte] >> shift) & top) * (255 / top)
        }));
    }
    gray
}

/// Plane after plane to pixel after pixel.
fn interleave(planes: &[u8], samples: usize) -> Vec<u8> {
    let mut data = vec![0; planes.len()];
    for (sample, plane) in planes.chunks_exact(planes.len() / samples).enumerate() {
        for (pixel, &value) in data.chunks_exact_mut(samples).zip(plane) {
            pixel[sample] = value;
        }
    }
    data
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// Pixels.

/// What the bytes of a pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Gray,
    GrayAlpha,
    Bgr,
    Rgb,
    Bgra,
    Rgba,
    /// 0 is no ink.
    Cmyk,
    /// Full range, BT.601, as JPEG has it.
    YCbCr,
}

impl Layout {
    fn samples(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Bgr | Self::Rgb | Self::YCbCr => 3,
            Self::Bgra | Self::Rgba | Self::Cmyk => 4,
        }
    }

    /// Makes BGR of whole pixels, in the same memory except for gray.
    fn into_bgr(self, mut data: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Gray => return spread(&data),
            Self::GrayAlpha => {
                flatten::<2, 1>(&mut data);
                return spread(&data);
            }
            Self::Bgr => {}
            Self::Rgb => swap_red_blue(&mut data),
            Self::Bgra => flatten::<4, 3>(&mut data),
            Self::Rgba => {
                flatten::<4, 3>(&mut data);
                swap_red_blue(&mut data);
            }
            Self::Cmyk => compact::<4, 3>(&mut data, |[c, m, y, k]| [y, m, c].map(|ink| times(!ink, !k))),
            Self::YCbCr => compact::<3, 3>(&mut data, bgr_of_ycbcr),
        }
        data
    }
}

/// Gray to BGR.
fn spread(gray: &[u8]) -> Vec<u8> {
    let mut bgr = vec![0; gray.len() * BGR];
    for (pixel, &value) in bgr.as_chunks_mut::<BGR>().0.iter_mut().zip(gray) {
        *pixel = [value; BGR];
    }
    bgr
}

fn swap_red_blue(data: &mut [u8]) {
    for pixel in data.as_chunks_mut::<BGR>().0 {
        pixel.swap(0, 2);
    }
}

/// Native-endian 16-bit samples to 8 bits, in place.
fn keep_high_bytes(data: &mut Vec<u8>) {
    compact::<2, 1>(data, |sample| [(u16::from_ne_bytes(sample) >> 8) as u8]);
}

/// Rewrites every `FROM` bytes as `TO` bytes, `TO` being no more, in place; gives back what is left over.
fn compact<const FROM: usize, const TO: usize>(data: &mut Vec<u8>, make: impl Fn([u8; FROM]) -> [u8; TO]) {
    let count = data.len() / FROM;
    for i in 0..count {
        let mut pixel = [0; FROM];
        pixel.copy_from_slice(&data[i * FROM..(i + 1) * FROM]);
        data[i * TO..(i + 1) * TO].copy_from_slice(&make(pixel));
    }
    data.truncate(count * TO);
    data.shrink_to_fit();
}

/// `a * b` where 255 is one, rounded.
fn times(a: u8, b: u8) -> u8 {
    ((u32::from(a) * u32::from(b) + 127) / 255) as u8
}

fn bgr_of_ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    // 16 fractional bits.
    let y = (i32::from(y) << 16) + (1 << 15);
    let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
    let channels = [y + 116_130 * cb, y - 22_554 * cb - 46_802 * cr, y + 91_881 * cr];
    channels.map(|channel| (channel >> 16).clamp(0, 255) as u8)
}

/// What transparent pixels are laid over.
///
/// Letters must contrast with their ground, and a transparent picture does not say which it was drawn for. White is the rule: it is what a
/// page and nearly every program use. Black is taken when the visible pixels are bright (their alpha-weighted mean luminance is 128 or more)
/// and mostly nothing is visible (the mean alpha is below one half): white letters on nothing. A fully transparent picture is a white page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    Black,
    White,
}

impl Ground {
    /// For pixels of `N` samples, the last being alpha. `None`: all are opaque.
    fn of<const N: usize>(pixels: &[[u8; N]]) -> Option<Self> {
        let (mut alphas, mut light) = (0_u64, 0_u64);
        for pixel in pixels {
            let alpha = u64::from(pixel[N - 1]);
            alphas += alpha;
            light += alpha * luminance(pixel);
        }
        let opaque = 255 * pixels.len() as u64;
        if alphas == opaque {
            return None;
        }
        let bright = light >= 128 * alphas;
        // No alpha at all counts as bright and must not be black.
        let white = alphas == 0 || !bright || 2 * alphas >= opaque;
        Some(if white { Self::White } else { Self::Black })
    }

    fn value(self) -> u8 {
        match self {
            Self::Black => 0,
            Self::White => 255,
        }
    }
}

/// Of gray with alpha, or (R + 2 G + B) / 4, which does not ask whether red or blue comes first.
fn luminance<const N: usize>(pixel: &[u8; N]) -> u64 {
    if N < 4 {
        return pixel[0].into();
    }
    (u64::from(pixel[0]) + 2 * u64::from(pixel[1]) + u64::from(pixel[2])) / 4
}

/// Lays pixels of `N` samples, the last being alpha, over their [`Ground`]: `C` = `N` - 1 samples are left, in place.
fn flatten<const N: usize, const C: usize>(data: &mut Vec<u8>) {
    let colors = |pixel: [u8; N]| std::array::from_fn::<u8, C, _>(|i| pixel[i]);
    let Some(ground) = Ground::of(data.as_chunks::<N>().0) else {
        compact(data, colors);
        return;
    };
    let ground = ground.value();
    compact(data, |pixel: [u8; N]| {
        let alpha = pixel[N - 1];
        // One rounding for both parts: the sum cannot pass 255.
        colors(pixel).map(|color| {
            let sum = u32::from(color) * u32::from(alpha) + u32::from(ground) * u32::from(!alpha);
            ((sum + 127) / 255) as u8
        })
    });
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// Turning.

/// An EXIF orientation as steps: rows become columns, then each row is mirrored, then the rows change order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Turn {
    transpose: bool,
    mirror: bool,
    flip: bool,
}

impl From<Orientation> for Turn {
    fn from(orientation: Orientation) -> Self {
        let (transpose, mirror, flip) = match orientation {
            Orientation::NoTransforms => (false, false, false),
            Orientation::FlipHorizontal => (false, true, false),
            Orientation::Rotate180 => (false, true, true),
            Orientation::FlipVertical => (false, false, true),
            Orientation::Rotate90FlipH => (true, false, false),
            Orientation::Rotate90 => (true, true, false),
            Orientation::Rotate270FlipH => (true, true, true),
            Orientation::Rotate270 => (true, false, true),
        };
        Self { transpose, mirror, flip }
    }
}

impl Turn {
    /// The turn that a raw EXIF block (from its byte-order mark on) asks for. `None`: it asks for none that is known.
    fn from_exif(exif: &[u8]) -> Option<Self> {
        Orientation::from_exif_chunk(exif).map(Self::from)
    }

    fn size(self, width: u32, height: u32) -> (u32, u32) {
        if self.transpose { (height, width) } else { (width, height) }
    }

    fn apply(self, image: Image) -> Image {
        let (width, height) = self.size(image.width, image.height);
        let mut data = image.data;
        if self.transpose {
            data = transposed(&data, image.width as usize, image.height as usize);
        }
        let row_bytes = width as usize * BGR;
        if self.mirror {
            for row in data.chunks_exact_mut(row_bytes) {
                row.as_chunks_mut::<BGR>().0.reverse();
            }
        }
        if self.flip {
            flip_rows(&mut data, row_bytes);
        }
        Image { width, height, data }
    }
}

/// Rows to columns, in tiles that fit the first cache.
fn transposed(data: &[u8], width: usize, height: usize) -> Vec<u8> {
    const TILE: usize = 32;
    let from = data.as_chunks::<BGR>().0;
    let mut bytes = vec![0; data.len()];
    let to = bytes.as_chunks_mut::<BGR>().0;
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for x in left..width.min(left + TILE) {
                let column = &mut to[x * height..(x + 1) * height];
                for y in top..height.min(top + TILE) {
                    column[y] = from[y * width + x];
                }
            }
        }
    }
    bytes
}

fn flip_rows(data: &mut [u8], row_bytes: usize) {
    let rows = data.len() / row_bytes;
    let (upper, lower) = data.split_at_mut(rows / 2 * row_bytes);
    for (above, below) in upper.chunks_exact_mut(row_bytes).zip(lower.rchunks_exact_mut(row_bytes)) {
        above.swap_with_slice(below);
    }
}

fn read_array<const N: usize>(source: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ::image::{DynamicImage, Frame, ImageFormat, RgbImage, RgbaImage};

    use super::*;

    const ROOM: u64 = 1_000_000;

    /// Numbers that look random and are the same in every run.
    struct Lcg(u64);

    impl Lcg {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as u32
        }

        fn bytes(&mut self, count: usize) -> Vec<u8> {
            (0..count).map(|_| self.next() as u8).collect()
        }
    }

    /// Grain over a slope: hard to compress, so that a cut anywhere cuts pixels, and soft enough for JPEG.
    fn picture(width: u32, height: u32) -> RgbImage {
        let mut lcg = Lcg(7);
        RgbImage::from_fn(width, height, |x, y| {
            let grain = lcg.next() % 12;
            ::image::Rgb([(x * 3 + grain) as u8, (y * 4 + grain) as u8, (200 - x - y + grain) as u8])
        })
    }

    fn bgr(picture: &RgbImage) -> Image {
        from_interleaved(picture.width(), picture.height(), Channels::Rgb, picture.as_raw().clone()).unwrap()
    }

    fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn encode_tiff(picture: &RgbImage, compression: tiff::encoder::Compression) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut encoder = tiff::encoder::TiffEncoder::new(&mut bytes).unwrap().with_compression(compression);
        encoder
            .write_image::<tiff::encoder::colortype::RGB8>(picture.width(), picture.height(), picture.as_raw())
            .unwrap();
        bytes.into_inner()
    }

    /// The same 60 x 40 picture in every format, and how far a sample may be off on average.
    fn every_format() -> Vec<(&'static str, Vec<u8>, f64)> {
        use tiff::encoder::Compression;
        let page = picture(60, 40);
        vec![
            ("jpeg", encode(page.clone(), ImageFormat::Jpeg), 12.0),
            ("png", encode(page.clone(), ImageFormat::Png), 0.0),
            ("gif", encode(page.clone(), ImageFormat::Gif), 12.0),
            ("bmp", encode(page.clone(), ImageFormat::Bmp), 0.0),
            ("ppm", [b"P6 60 40 255\n", &page.as_raw()[..]].concat(), 0.0),
            ("webp", encode(page.clone(), ImageFormat::WebP), 0.0),
            ("tiff", encode_tiff(&page, Compression::Uncompressed), 0.0),
            ("tiff lzw", encode_tiff(&page, Compression::Lzw), 0.0),
            ("tiff deflate", encode_tiff(&page, Compression::Deflate(tiff::encoder::DeflateLevel::Balanced)), 0.0),
            ("tiff packbits", encode_tiff(&page, Compression::Packbits), 0.0),
        ]
    }

    /// Mean absolute difference of the samples of two images of one size.
    fn difference(a: &Image, b: &Image) -> f64 {
        assert_eq!((a.width, a.height), (b.width, b.height));
        let sum: u64 = a.data.iter().zip(&b.data).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / a.data.len() as f64
    }

    fn message<T: fmt::Debug>(outcome: Result<T>) -> String {
        match outcome {
            Err(Error::InvalidImage(message)) => message,
            other => panic!("InvalidImage was expected, not {other:?}"),
        }
    }

    fn refused(encoded: &[u8]) -> String {
        message(decode(encoded, ROOM))
    }

    fn jpeg_segment(marker: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16 + 2).to_be_bytes();
        [&[0xFF, marker], &length[..], payload].concat()
    }

    /// `jpeg` with `segment` right after its SOI.
    fn with_segment(jpeg: &[u8], segment: &[u8]) -> Vec<u8> {
        [&jpeg[..2], segment, &jpeg[2..]].concat()
    }

    fn exif(orientation: u16) -> Vec<u8> {
        let [high, low] = orientation.to_be_bytes();
        let block = [0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, high, low, 0, 0, 0, 0, 0, 0];
        [b"MM\0\x2A", &block[..]].concat()
    }

    fn exif_segment(orientation: u16) -> Vec<u8> {
        jpeg_segment(0xE1, &[b"Exif\0\0", &exif(orientation)[..]].concat())
    }

    fn png_chunk(kind: &[u8], payload: &[u8]) -> Vec<u8> {
        let body = [kind, payload].concat();
        let crc = !body.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
        });
        [&(payload.len() as u32).to_be_bytes()[..], &body, &crc.to_be_bytes()].concat()
    }

    /// `png` with `chunks` right after its IHDR.
    fn with_chunks(png: &[u8], chunks: &[u8]) -> Vec<u8> {
        [&png[..33], chunks, &png[33..]].concat()
    }

    /// A little-endian TIFF of one strip, where the fields name no others. A field of more than two values is a list of shorts behind the directory.
    fn hand_made_tiff(fields: &[(u16, &[u16])], strip: &[u8]) -> Vec<u8> {
        let has_strips = fields.iter().any(|(tag, _)| *tag == 273);
        let count = fields.len() + if has_strips { 0 } else { 2 };
        let mut extra = Vec::new();
        let extra_at = 8 + 2 + 12 * count + 4;
        let extra_len: usize =
            fields.iter().filter(|(_, values)| values.len() > 2).map(|(_, values)| values.len() * 2).sum();
        let mut entries = vec![
            (
                273_u16,
                [&4_u16.to_le_bytes()[..], &1_u32.to_le_bytes(), &((extra_at + extra_len) as u32).to_le_bytes()]
                    .concat(),
            ),
            (279, [&4_u16.to_le_bytes()[..], &1_u32.to_le_bytes(), &(strip.len() as u32).to_le_bytes()].concat()),
        ];
        if has_strips {
            entries.clear();
        }
        for (tag, values) in fields {
            let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            if bytes.len() > 4 {
                let at = (extra_at + extra.len()) as u32;
                extra.append(&mut bytes);
                bytes = at.to_le_bytes().to_vec();
            }
            bytes.resize(4, 0);
            entries.push((*tag, [&3_u16.to_le_bytes()[..], &(values.len() as u32).to_le_bytes(), &bytes].concat()));
        }
        entries.sort();
        let mut file = [b"II\x2A\0\x08\0\0\0", &(count as u16).to_le_bytes()[..]].concat();
        for (tag, rest) in entries {
            file.extend(tag.to_le_bytes());
            file.extend(rest);
        }
        [&file, &[0; 4][..], &extra, strip].concat()
    }

    #[test]
    fn opencvs_two_ways_with_transparency_and_exif() {
        let pixels = [[10, 20, 30, 0], [40, 50, 60, 255]];
        let rgba = encode(RgbaImage::from_raw(2, 1, pixels.concat()).unwrap(), ImageFormat::Png);
        let bgr = [30, 20, 10, 60, 50, 40];
        assert_eq!(decode_color(&rgba, ROOM).unwrap().pixels(), bgr);
        assert_eq!(decode_unchanged(&rgba, ROOM).unwrap(), (2, 1, vec![30, 20, 10, 0, 60, 50, 40, 255]));
        let gray = ::image::GrayAlphaImage::from_raw(1, 1, vec![7, 9]).unwrap();
        let gray = encode(gray, ImageFormat::Png);
        assert_eq!(decode_color(&gray, ROOM).unwrap().pixels(), [7; 3]);
        assert_eq!(decode_unchanged(&gray, ROOM).unwrap(), (1, 1, vec![7, 7, 7, 9]));
        // Turned by a quarter: only for colour.
        let turned = with_segment(&encode(picture(60, 40), ImageFormat::Jpeg), &exif_segment(6));
        assert_eq!(decode_color(&turned, ROOM).unwrap(), decode(&turned, ROOM).unwrap());
        let (width, height, data) = decode_unchanged(&turned, ROOM).unwrap();
        assert_eq!((width, height, data.len()), (60, 40, 60 * 40 * 3));
        assert!(decode_unchanged(b"hello", ROOM).is_err() && decode_color(b"hello", ROOM).is_err());
    }

    #[test]
    fn every_format_gives_the_same_picture_and_the_size_that_was_probed() {
        let original = bgr(&picture(60, 40));
        for (name, encoded, most) in every_format() {
            let header = probe(&encoded, ROOM).unwrap();
            assert_eq!((header.width, header.height), (60, 40), "{name}");
            assert!(header.decode_bytes >= 60 * 40 * 3, "{name}");
            let off = difference(&decode(&encoded, ROOM).unwrap(), &original);
            assert!(off <= most, "{name} is off by {off}");
        }
    }

    #[test]
    fn a_page_cut_short_is_an_error_not_half_a_page() {
        for (name, encoded, _) in every_format() {
            for cut in 0..encoded.len() * 95 / 100 {
                assert!(
                    decode(&encoded[..cut], ROOM).is_err(),
                    "{name} was read from {cut} of {} bytes",
                    encoded.len()
                );
            }
        }
    }

    #[test]
    fn a_jpeg_cut_short_is_an_error_down_to_its_last_byte() {
        let encoded = encode(picture(60, 40), ImageFormat::Jpeg);
        for cut in 0..encoded.len() {
            assert!(decode(&encoded[..cut], ROOM).is_err(), "read from {cut} of {} bytes", encoded.len());
        }
    }

    #[test]
    fn a_thumbnail_is_not_taken_for_the_end_of_its_jpeg() {
        let page = encode(picture(60, 40), ImageFormat::Jpeg);
        let thumbnail = encode(picture(8, 8), ImageFormat::Jpeg);
        let encoded = with_segment(&page, &jpeg_segment(0xE1, &[b"Exif\0\0", &thumbnail[..]].concat()));
        assert_eq!(decode(&encoded, ROOM).unwrap(), decode(&page, ROOM).unwrap());
        assert!(refused(&encoded[..encoded.len() * 9 / 10]).contains("cut short"));
    }

    #[test]
    fn what_follows_a_jpegs_end_is_no_matter() {
        let page = encode(picture(60, 40), ImageFormat::Jpeg);
        let encoded = [&page[..], b"trailing \xFF\xD8\xFF rubbish"].concat();
        assert_eq!(decode(&encoded, ROOM).unwrap(), decode(&page, ROOM).unwrap());
    }

    #[test]
    fn more_pixels_than_allowed_are_refused_and_exactly_as_many_are_read() {
        for (name, encoded, _) in every_format() {
            assert!(decode(&encoded, 2400).is_ok(), "{name}");
            let told = message(decode(&encoded, 2399));
            assert!(
                told.contains("60 x 40") && told.contains("max_pixels=2399") && told.contains("raise max_pixels"),
                "{told}"
            );
            assert_eq!(message(probe(&encoded, 2399)), told, "{name}");
        }
    }

    #[test]
    fn a_header_that_promises_more_than_the_file_can_hold_is_refused_at_once() {
        let started = std::time::Instant::now();
        let most = 1 << 40;
        let page = encode(picture(60, 40), ImageFormat::Png);
        let ihdr = png_chunk(b"IHDR", &[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60, 8, 2, 0, 0, 0]);
        let png = [&page[..8], &ihdr, &page[33..]].concat();
        assert!(message(probe(&png, most)).contains("cannot hold"));

        let mut jpeg = encode(picture(60, 40), ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
        assert!(message(decode(&jpeg, most)).contains("cannot hold"));

        for (format, at, side) in [
            (ImageFormat::Gif, 6, &[0x60, 0xEA, 0x60, 0xEA][..]),
            (ImageFormat::Bmp, 18, &[0x60, 0xEA, 0, 0, 0x60, 0xEA, 0, 0]),
        ] {
            let mut encoded = encode(picture(60, 40), format);
            encoded[at..at + side.len()].copy_from_slice(side);
            assert!(message(decode(&encoded, 100_000_000)).contains("max_pixels"), "{format:?}");
        }
        assert!(message(decode(b"P6 60000 60000 255\n", 100_000_000)).contains("max_pixels"));
        let tiff =
            hand_made_tiff(&[(256, &[60_000]), (257, &[60_000]), (258, &[8]), (259, &[1]), (262, &[1])], &[0; 64]);
        assert!(message(decode(&tiff, 100_000_000)).contains("max_pixels"));
        assert!(decode(&tiff, most).is_err());
        assert!(started.elapsed().as_secs() < 20);
    }

    #[test]
    fn a_webp_whose_picture_is_larger_than_its_header_says_is_refused_before_it_is_decoded() {
        let vp8 = [0x10, 0, 0, 0x9D, 0x01, 0x2A, 0xFF, 0x3F, 0xFF, 0x3F, 0, 0];
        let mut chunks = b"WEBPVP8X\x0A\0\0\0\0\0\0\0\x09\0\0\x09\0\0VP8 \x0C\0\0\0".to_vec();
        chunks.extend(vp8);
        let encoded = [b"RIFF", &(chunks.len() as u32).to_le_bytes()[..], &chunks].concat();
        assert!(refused(&encoded).contains("larger than its header says"));
    }

    #[test]
    fn all_eight_exif_orientations_are_shown_upright() {
        let stored = encode(picture(60, 40), ImageFormat::Jpeg);
        let upright = ::image::load_from_memory(&stored).unwrap();
        for orientation in 1..=8_u8 {
            let mut expected = upright.clone();
            expected.apply_orientation(Orientation::from_exif(orientation).unwrap());
            let encoded = with_segment(&stored, &exif_segment(orientation.into()));
            let header = probe(&encoded, ROOM).unwrap();
            let image = decode(&encoded, ROOM).unwrap();
            assert_eq!((header.width, header.height), (image.width, image.height), "orientation {orientation}");
            assert_eq!(image, bgr(&expected.into_rgb8()), "orientation {orientation}");
        }
    }

    #[test]
    fn png_and_tiff_are_turned_as_they_ask_too() {
        let page = encode(picture(60, 40), ImageFormat::Png);
        let turned = with_chunks(&page, &png_chunk(b"eXIf", &exif(6)));
        let mut expected = DynamicImage::from(picture(60, 40));
        expected.apply_orientation(Orientation::Rotate90);
        assert_eq!(decode(&turned, ROOM).unwrap(), bgr(&expected.into_rgb8()));

        let fields: &[(u16, &[u16])] = &[(256, &[2]), (257, &[1]), (258, &[8]), (259, &[1]), (262, &[1]), (274, &[8])];
        let image = decode(&hand_made_tiff(fields, &[10, 20]), ROOM).unwrap();
        assert_eq!((image.width, image.height, image.data), (1, 2, vec![20, 20, 20, 10, 10, 10]));
    }

    #[test]
    fn broken_metadata_never_costs_a_jpeg() {
        let page = encode(picture(60, 40), ImageFormat::Jpeg);
        let expected = decode(&page, ROOM).unwrap();
        for segment in [
            exif_segment(0),
            exif_segment(9),
            jpeg_segment(0xE1, b"Exif\0\0rubbish"),
            jpeg_segment(0xE1, b"Exif\0\0MM\0\x2A\xFF\xFF\xFF\xFF"),
            jpeg_segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0short"),
            jpeg_segment(0xE1, b""),
            jpeg_segment(0xE2, b"ICC_PROFILE\0\x09\x01\x01rubbish"),
            jpeg_segment(0xE2, b"MPF\0\xFF"),
            jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\xFF\xFF"),
            jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\x77"),
            jpeg_segment(0xEE, b"Adobe"),
            jpeg_segment(0xFE, b"\xFF\xD9 a comment with an end marker"),
        ] {
            assert_reads_as(&expected, &with_segment(&page, &segment), &segment);
        }
    }

    /// `part` is what was put into `file`.
    fn assert_reads_as(expected: &Image, file: &[u8], part: &[u8]) {
        assert_eq!(decode(file, ROOM).unwrap(), *expected, "{:?}", part.escape_ascii().to_string());
    }

    #[test]
    fn broken_metadata_never_costs_a_png() {
        let page = encode(picture(60, 40), ImageFormat::Png);
        let expected = decode(&page, ROOM).unwrap();
        let mut bad_crc = png_chunk(b"tEXt", b"Title\0page");
        *bad_crc.last_mut().unwrap() ^= 1;
        for chunks in [
            bad_crc,
            png_chunk(b"tEXt", &[b'x'; 200]),
            png_chunk(b"zTXt", b"Title\0\0not deflate"),
            png_chunk(b"iCCP", b"profile\0\0not deflate"),
            png_chunk(b"pHYs", b"\0"),
            png_chunk(b"gAMA", b""),
            png_chunk(b"cHRM", b"rubbish"),
            png_chunk(b"eXIf", b"rubbish"),
            png_chunk(b"acTL", b"\xFF"),
            [png_chunk(b"sRGB", b"\x09"), png_chunk(b"sRGB", b"\x09")].concat(),
        ] {
            assert_reads_as(&expected, &with_chunks(&page, &chunks), &chunks);
        }
    }

    #[test]
    fn damaged_png_pixels_are_an_error() {
        let mut page = encode(picture(60, 40), ImageFormat::Png);
        let middle = page.len() / 2;
        page[middle] ^= 0x10;
        assert!(refused(&page).contains("PNG"));
    }

    #[test]
    fn an_animation_gives_its_first_frame() {
        let frames =
            [[200, 10, 20, 255], [1, 2, 3, 255]].map(|color| Frame::new(RgbaImage::from_pixel(9, 7, color.into())));
        let mut encoded = Vec::new();
        gif::GifEncoder::new(&mut encoded).encode_frames(frames).unwrap();
        let image = decode(&encoded, ROOM).unwrap();
        assert_eq!((image.width, image.height), (9, 7));
        assert!(image.data.chunks(3).all(|pixel| pixel == [20, 10, 200]));

        let still = encode(picture(60, 40), ImageFormat::Png);
        let control = [png_chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]), png_chunk(b"fcTL", &[0; 26])].concat();
        let animated = with_chunks(&still, &control);
        let end = animated.len() - 12;
        let second = [png_chunk(b"fcTL", &[1; 26]), png_chunk(b"fdAT", b"rubbish")].concat();
        let animated = [&animated[..end], &second, &animated[end..]].concat();
        assert_eq!(decode(&animated, ROOM).unwrap(), decode(&still, ROOM).unwrap());
    }

    #[test]
    fn a_gif_frame_smaller_than_the_screen_lies_where_it_belongs() {
        let mut encoded = encode(RgbaImage::from_pixel(2, 2, [200, 10, 20, 255].into()), ImageFormat::Gif);
        let descriptor = encoded.windows(9).position(|bytes| bytes == [0x2C, 0, 0, 0, 0, 2, 0, 2, 0]).unwrap();
        encoded[descriptor + 1..descriptor + 5].copy_from_slice(&[1, 0, 1, 0]);
        encoded[6..10].copy_from_slice(&[4, 0, 3, 0]);
        let image = decode(&encoded, ROOM).unwrap();
        assert_eq!((image.width, image.height), (4, 3));
        assert_eq!(image.data[..3], [255; 3]);
        assert_eq!(image.data[(4 + 1) * 3..(4 + 3) * 3], [20, 10, 200, 20, 10, 200]);
    }

    /// One letter of `ink` on nothing: a tenth of the page is visible.
    fn letter(ink: u8) -> RgbaImage {
        RgbaImage::from_fn(20, 10, |x, _| if x < 2 { [ink, ink, ink, 255] } else { [ink, ink, ink, 0] }.into())
    }

    fn ink_and_ground(image: &Image) -> (u8, u8) {
        (image.data[0], image.data[30])
    }

    #[test]
    fn letters_on_a_transparent_ground_contrast_with_it() {
        for (ink, ground) in [(0, 255), (100, 255), (160, 0), (255, 0)] {
            let image = decode(&encode(letter(ink), ImageFormat::Png), ROOM).unwrap();
            assert_eq!(ink_and_ground(&image), (ink, ground), "ink of {ink}");
            let raw = from_interleaved(20, 10, Channels::Rgba, letter(ink).into_raw()).unwrap();
            assert_eq!(raw, image);
        }
    }

    #[test]
    fn a_bright_page_with_few_holes_keeps_a_white_ground() {
        let page = RgbaImage::from_fn(20, 10, |x, _| [250, 250, 250, if x == 10 { 0 } else { 255 }].into());
        let image = decode(&encode(page, ImageFormat::Png), ROOM).unwrap();
        assert_eq!(ink_and_ground(&image), (250, 255));
    }

    #[test]
    fn a_fully_transparent_picture_is_a_white_page() {
        let image = from_interleaved(2, 1, Channels::Bgra, vec![0, 0, 0, 0, 255, 255, 255, 0]).unwrap();
        assert_eq!(image.data, [255; 6]);
    }

    #[test]
    fn an_opaque_alpha_channel_is_dropped() {
        let image = from_interleaved(2, 1, Channels::Bgra, vec![1, 2, 3, 255, 4, 5, 6, 255]).unwrap();
        assert_eq!(image.data, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn half_transparent_ink_is_mixed_with_its_ground() {
        let image = from_interleaved(1, 1, Channels::Rgba, vec![0, 100, 200, 128]).unwrap();
        assert_eq!(image.data, [227, 177, 127]);
    }

    #[test]
    fn sixteen_bits_become_their_high_byte() {
        let gray = ::image::ImageBuffer::<::image::Luma<u16>, _>::from_raw(2, 1, vec![0x12FF, 0xFF00]).unwrap();
        assert_eq!(decode(&encode(gray, ImageFormat::Png), ROOM).unwrap().data, [0x12, 0x12, 0x12, 0xFF, 0xFF, 0xFF]);
        let color = ::image::ImageBuffer::<::image::Rgba<u16>, _>::from_raw(1, 1, vec![0x12FF, 0x34FF, 0x56FF, 0xFFFF]);
        assert_eq!(decode(&encode(color.unwrap(), ImageFormat::Png), ROOM).unwrap().data, [0x56, 0x34, 0x12]);
        let fields: &[(u16, &[u16])] = &[(256, &[2]), (257, &[1]), (258, &[16]), (259, &[1]), (262, &[1])];
        let image = decode(&hand_made_tiff(fields, &[0xFF, 0x12, 0x00, 0xFF]), ROOM).unwrap();
        assert_eq!(image.data, [0x12, 0x12, 0x12, 0xFF, 0xFF, 0xFF]);
    }

    #[test]
    fn a_tiff_of_a_bit_a_pixel_is_read_in_either_bit_order_and_either_polarity() {
        let read = |photometric: u16, order: u16, byte: u8| {
            let fields: &[(u16, &[u16])] =
                &[(256, &[3]), (257, &[1]), (258, &[1]), (259, &[1]), (262, &[photometric]), (266, &[order])];
            let image = decode(&hand_made_tiff(fields, &[byte]), ROOM).unwrap();
            [image.data[0], image.data[3], image.data[6]]
        };
        assert_eq!(read(1, 1, 0b1100_0000), [255, 255, 0]);
        assert_eq!(read(0, 1, 0b1100_0000), [0, 0, 255]);
        assert_eq!(read(1, 2, 0b0000_0011), [255, 255, 0]);
    }

    #[test]
    fn a_tiff_whose_strips_are_many_times_the_file_is_refused() {
        let (starts, sizes) = ([8; 200], [400; 200]);
        let fields: &[(u16, &[u16])] = &[
            (256, &[8]),
            (257, &[200]),
            (258, &[1]),
            (259, &[1]),
            (262, &[1]),
            (266, &[2]),
            (278, &[1]),
            (273, &starts),
            (279, &sizes),
        ];
        assert!(refused(&hand_made_tiff(fields, &[1; 4])).contains("its strips have 80000 bytes"));
    }

    #[test]
    fn a_tiff_with_long_tables_of_jpeg_is_refused() {
        let tables = vec![0; 33_000];
        let fields: &[(u16, &[u16])] =
            &[(256, &[8]), (257, &[1]), (258, &[8]), (259, &[7]), (262, &[1]), (347, &tables)];
        let mut file = hand_made_tiff(fields, &[1; 4]);
        // As many bytes, not half as many shorts.
        let at = file.windows(4).position(|field| field == [91, 1, 3, 0]).unwrap();
        file[at + 2] = 1;
        file[at + 4..at + 8].copy_from_slice(&66_000_u32.to_le_bytes());
        assert!(refused(&file).contains("its JPEG tables have 66000 bytes"));
    }

    #[test]
    fn a_tiff_of_separate_planes_or_inks_is_read() {
        let fields: &[(u16, &[u16])] =
            &[(256, &[1]), (257, &[1]), (258, &[8, 8, 8, 8]), (259, &[1]), (262, &[5]), (277, &[4])];
        let image = decode(&hand_made_tiff(fields, &[255, 0, 0, 0]), ROOM).unwrap();
        assert_eq!(image.data, [255, 255, 0]);
        assert_eq!(interleave(&[1, 2, 3, 4, 5, 6], 3), [1, 3, 5, 2, 4, 6]);
    }

    #[test]
    fn jpeg_in_tiff_is_read_and_its_strips_are_checked() {
        let page = picture(64, 48);
        let strip = encode(page.clone(), ImageFormat::Jpeg);
        let tiff = |width: u16, strip: &[u8]| {
            let fields: &[(u16, &[u16])] = &[
                (256, &[width]),
                (257, &[48]),
                (258, &[8, 8, 8]),
                (259, &[7]),
                (262, &[6]),
                (277, &[3]),
                (278, &[48]),
                (530, &[2, 2]),
            ];
            hand_made_tiff(fields, strip)
        };
        let image = decode(&tiff(64, &strip), ROOM).unwrap();
        assert!(difference(&image, &decode(&strip, ROOM).unwrap()) < 1.5);
        assert!(refused(&tiff(64, &strip[..strip.len() / 2])).contains("cut short"));
        assert!(refused(&tiff(16, &strip)).contains("larger than the picture"));
        let whole = tiff(64, &strip);
        assert!(refused(&whole[..whole.len() - 9]).contains("cut short"));
    }

    #[test]
    fn ycbcr_becomes_the_colors_it_stands_for() {
        assert_eq!(bgr_of_ycbcr([255, 128, 128]), [255, 255, 255]);
        assert_eq!(bgr_of_ycbcr([76, 85, 255]), [0, 0, 254]);
        assert_eq!(bgr_of_ycbcr([0, 0, 0]), [0, 135, 0]);
    }

    #[test]
    fn gray_of_few_bits_is_spread_over_the_whole_range() {
        assert_eq!(widen(&[0b0001_1011, 0b1100_0000], 5, 1, 2), [0, 85, 170, 255, 255]);
        assert_eq!(widen(&[0x0F, 0x80, 0xF0, 0x00], 3, 2, 4), [0, 255, 136, 255, 0, 0]);
    }

    #[test]
    fn a_zero_side_is_refused() {
        let mut gif = encode(picture(60, 40), ImageFormat::Gif);
        gif[6..8].fill(0);
        assert!(refused(&gif).contains("0 x 40"));
        let mut jpeg = encode(picture(60, 40), ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 5..frame + 7].fill(0);
        assert!(refused(&jpeg).contains("60 x 0"));
        assert!(message(Image::new(0, 4, Vec::new())).contains("0 x 4"));
        assert!(message(from_interleaved(4, 0, Channels::Rgba, Vec::new())).contains("4 x 0"));
    }

    #[test]
    fn raw_pixels_of_another_length_than_their_shape_are_refused() {
        assert!(message(Image::new(2, 2, vec![0; 11])).contains("takes 12"));
        assert!(message(from_interleaved(2, 2, Channels::Gray, vec![0; 5])).contains("takes 4"));
        assert!(from_interleaved(u32::MAX, u32::MAX, Channels::Bgra, vec![0; 4]).is_err());
    }

    #[test]
    fn raw_pixels_keep_their_memory() {
        for channels in [Channels::Bgr, Channels::Rgb] {
            let data = vec![1, 2, 3, 4, 5, 6];
            let at = data.as_ptr();
            let image = from_interleaved(2, 1, channels, data).unwrap();
            assert_eq!(image.pixels().as_ptr(), at);
        }
        assert_eq!(from_interleaved(2, 1, Channels::Rgb, vec![1, 2, 3, 4, 5, 6]).unwrap().data, [3, 2, 1, 6, 5, 4]);
        assert_eq!(from_interleaved(2, 1, Channels::Gray, vec![7, 9]).unwrap().data, [7, 7, 7, 9, 9, 9]);
    }

    #[test]
    fn what_is_not_an_image_is_told_by_what_it_is() {
        for (bytes, told) in [
            (&b""[..], "empty"),
            (b"%PDF-1.7\n", "read_pages"),
            (b"\0\0\0\x20ftypheic\0\0", "HEIC"),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\">", "SVG"),
            (b"\xEF\xBB\xBF  <?xml version=\"1.0\"?>", "SVG"),
            (b"page.png", "pass it as a path"),
            (b"PK\x03\x04", "zip"),
            (b"\x01\x02\x03", "it starts with"),
            (b"\xFF\xD8", "it starts with"),
        ] {
            let message = refused(bytes);
            assert!(message.contains(told) && message.contains("are read"), "{message}");
        }
    }

    #[test]
    fn a_file_is_probed_like_its_bytes_and_a_directory_is_a_file_error() {
        let folder = std::env::temp_dir().join(format!("threadsafe-ocr-image-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, encoded, _) in every_format() {
            let path = folder.join(name);
            std::fs::write(&path, &encoded).unwrap();
            assert_eq!(
                probe_file(&path, ROOM).unwrap(),
                (probe(&encoded, ROOM).unwrap(), encoded.len() as u64),
                "{name}"
            );
        }
        let empty = folder.join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(message(probe_file(&empty, ROOM)).contains("empty"));
        std::fs::write(&empty, &encode(picture(60, 40), ImageFormat::Png)[..20]).unwrap();
        assert!(message(probe_file(&empty, ROOM)).contains("cut short"));

        let kind = |path: &Path| match probe_file(path, ROOM) {
            Err(Error::File { source, .. }) => source.kind(),
            other => panic!("a file error was expected, not {other:?}"),
        };
        assert_eq!(kind(&folder), io::ErrorKind::IsADirectory);
        assert_eq!(kind(&folder.join("missing")), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_estimate_counts_the_turned_copy_and_the_coefficients() {
        let page = encode(picture(60, 40), ImageFormat::Jpeg);
        let turned = with_segment(&page, &exif_segment(6));
        assert!(probe(&turned, ROOM).unwrap().decode_bytes >= 60 * 40 * 6);
        let mut progressive = page;
        let frame = progressive.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        progressive[frame + 1] = 0xC2;
        assert!(probe(&progressive, ROOM).unwrap().decode_bytes >= 60 * 40 * 9);
    }

    /// Whatever the bytes: an answer within the limit or an error.
    fn survives(encoded: &[u8]) {
        const MOST: u64 = 10_000;
        if let Ok(image) = decode(encoded, MOST) {
            assert!(u64::from(image.width) * u64::from(image.height) <= MOST);
            assert_eq!(image.data.len(), image.width as usize * image.height as usize * 3);
        }
    }

    #[test]
    fn flipped_bits_never_panic_and_never_pass_the_limit() {
        let mut lcg = Lcg(11);
        for (_, encoded, _) in every_format() {
            for round in 0..400 {
                let mut damaged = encoded.clone();
                // Half of the rounds in the header, where it hurts.
                let within = if round % 2 == 0 { damaged.len() } else { damaged.len().min(64) };
                for _ in 0..=round % 3 {
                    damaged[lcg.next() as usize % within] ^= 1 << (lcg.next() % 8);
                }
                survives(&damaged);
            }
        }
    }

    #[test]
    fn random_bytes_behind_a_good_signature_never_panic() {
        let mut lcg = Lcg(13);
        for start in [
            &b""[..],
            b"\xFF\xD8\xFF",
            b"\x89PNG\r\n\x1A\n",
            b"GIF89a",
            b"RIFF\x40\0\0\0WEBPVP8 ",
            b"RIFF\x40\0\0\0WEBPVP8X",
            b"II\x2A\0\x08\0\0\0",
            b"MM\0\x2A\0\0\0\x08",
            b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
        ] {
            for round in 0..200 {
                survives(&[start, &lcg.bytes(round)].concat());
            }
        }
    }

    #[test]
    fn a_decoder_that_panics_is_an_error() {
        let outcome = guarded::<()>(Format::Gif, || panic!("on purpose"));
        assert!(message(outcome.map_err(Error::from)).contains("the decoder of GIF broke"));
    }
}
