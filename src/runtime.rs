//! ONNX Runtime: the library, its one environment, devices, sessions and runs. The only user of `ort`.
//!
//! Set `ORT_DISABLE_TELEMETRY=1` in the environment before [`init`]: onnxruntime 1.29 and later start Microsoft's telemetry when the
//! environment is created, which writes files, uploads, and hangs forked children at exit. (The Python package does.)

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, DeviceType, MemoryInfo, MemoryType};
use ort::operator::{ComputeContext, Kernel, KernelContext, OperatorDomain, OperatorInput, OperatorOutput};
use ort::session::RunOptions;
use ort::session::builder::{BuilderResult, GraphOptimizationLevel, SessionBuilder};
use ort::value::{
    DynValue, IntoShape, Outlet, PrimitiveTensorElementType, TensorElementType, TensorRef, TensorRefMut, ValueRef,
    ValueRefMut, ValueType,
};
use parking_lot::Mutex;

use crate::advice::{complaint, ends_the_card, remedy};
use crate::blocks::{self, Own};
use crate::convolution::{Convolution, Plan};
use crate::error::{Error, Result};
use crate::fork;
use crate::head::Head;
use crate::onnx;
use crate::operators::{self, Scale, Step};
use crate::rewrite::{self, Rewritten};
use crate::schedule::{Place, Stop};
use crate::tiles::{self, BLOCK, Products};
use crate::vectors::noise;

/// One environment a process, for ever: ONNX Runtime refuses a second one, and a forked child uses its parent's.
static ENVIRONMENT: Mutex<Option<Loaded>> = Mutex::new(None);

struct Loaded {
    library: PathBuf,
    environment: Environment,
    /// The process that made the arena of large runs. A forked child makes its own: a vanished thread may hold its parent's lock.
    arena_of: u32,
    /// The process whose arena has large pages.
    large_pages_of: u32,
}

/// Bytes that the arena keeps.
const FIRST_REGION: usize = 192 << 20;

/// Of Linux on most processors; where it is larger, asking for it has no effect.
#[cfg(target_os = "linux")]
const LARGE_PAGE: usize = 2 << 20;

/// GPUs that fail every further call of this process. Their sessions are leaked: to drop one would call CUDA again.
static LOST: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Whether ONNX Runtime knows the domain of own operators; without, no network gets any.
static HAS_OPERATORS: AtomicBool = AtomicBool::new(false);

/// Where sessions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(u32),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// In which numbers a processor computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// f32, but convolutions and a recogniser's last layer multiply numbers rounded to bfloat16, 8 bits of mantissa, on the processor's
    /// [matrix unit](tiles::is_there).
    Bf16,
}

/// Where and how a network runs.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Where.
    pub device: Device,
    /// In which numbers on a CPU; elsewhere the model's own.
    pub precision: Precision,
    /// Threads of a CPU's run that may use all cores; 1: there is none.
    pub pool_threads: usize,
}

impl Default for Target {
    /// One thread of a CPU.
    fn default() -> Self {
        Self { device: Device::Cpu, precision: Precision::F32, pool_threads: 1 }
    }
}

/// ONNX Runtime's provider for the processor, by the name that its devices have.
const CPU: &str = "CPUExecutionProvider";

/// Loads ONNX Runtime from `library` and makes the environment, once a process. Libraries in `preload` are opened before, in order; those
/// that are missing are left to the runtime to complain about.
///
/// # Errors
/// [`Error::Unavailable`] when the library cannot be loaded, is too old, or another one is in use already.
pub fn init(library: &Path, preload: &[PathBuf]) -> Result<()> {
    let _inside = fork::enter();
    let mut environment = ENVIRONMENT.lock();
    if let Some(loaded) = environment.as_ref() {
        if loaded.library == library {
            return Ok(());
        }
        return Err(Error::Unavailable(format!(
            "this process already uses {}, and a process can use one ONNX Runtime library here; start another process for {}",
            loaded.library.display(),
            library.display()
        )));
    }
    for path in preload {
        // A library that is missing or broken is named by the provider that needs it.
        let _ = ort::util::preload_dylib(path);
    }
    let builder = ort::init_from(library).map_err(|e| {
        Error::Unavailable(format!(
            "cannot use the ONNX Runtime library {}: {e}; install one with: pip install --force-reinstall \"onnxruntime>=1.23\"",
            library.display()
        ))
    })?;
    let made = builder.with_name("threadsafe-ocr").with_telemetry(false).build();
    let made = made.map_err(|e| Error::Unavailable(format!("ONNX Runtime did not start: {e}")))?;
    made.set_log_level(log_level());
    HAS_OPERATORS.store(know_operators(&made).is_some(), Ordering::Relaxed);
    let library = library.to_owned();
    *environment = Some(Loaded { library, environment: made, arena_of: 0, large_pages_of: 0 });
    Ok(())
}

fn not_loaded() -> Error {
    Error::Unavailable("ONNX Runtime is not loaded; call runtime::init first".into())
}

/// `THREADSAFE_OCR_LOG`: what ONNX Runtime writes to stderr. Workers never call Python's logging.
fn log_level() -> ort::logging::LogLevel {
    use ort::logging::LogLevel;
    match std::env::var("THREADSAFE_OCR_LOG").unwrap_or_default().to_lowercase().as_str() {
        "debug" => LogLevel::Verbose,
        "info" => LogLevel::Info,
        "warning" => LogLevel::Warning,
        "error" => LogLevel::Error,
        // Whatever fails is told to the caller who asked for it; stderr is the host program's.
        _ => LogLevel::Fatal,
    }
}

/// `THREADSAFE_OCR_PROFILE`: the beginning of the names of the JSON files, one for each session, to which ONNX Runtime writes when it is
/// dropped how long every node ran, on which provider and on which thread. The first run of a network with own operators is the one at load, but in bf16.
fn profile() -> Option<PathBuf> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut name = std::env::var_os("THREADSAFE_OCR_PROFILE").filter(|name| !name.is_empty())?;
    name.push(format!("-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    Some(name.into())
}

fn environment() -> Result<Environment> {
    let mut loaded = ENVIRONMENT.lock();
    let Some(loaded) = loaded.as_mut() else { return Err(not_loaded()) };
    if loaded.arena_of != std::process::id() {
        let made = make_arena(&loaded.environment, loaded.arena_of != 0);
        made.map_err(|e| Error::Unavailable(format!("ONNX Runtime gave no memory arena: {e}")))?;
        loaded.arena_of = std::process::id();
    }
    Ok(loaded.environment.clone())
}

/// Makes the arena of large runs, in place of an `old` one.
///
/// A session's own arena grows in powers of two, which do not join: detection of 4000x2816 pixels then takes 2.9 GB where 1.5 are enough
/// (measured, onnxruntime 1.32). Here a block is taken before a large run, so that one region is there for all of it (where no other run
/// takes or frees it in between). Every region has a table of 3 % of its size, which is written at once: with regions of 2 GB the system
/// took 45 ms of a detection under load, with 256 MB 25 ms. The first region stays, so that lines and most first looks find their memory
/// warm: with 192 MB the system takes 0.04 s of a page's CPU time for it, with 64 MB 0.12 s; 320 MB win another 0.02 s and would keep 100 MB
/// more (16 clients, `make bench-floor`, 2026-11-25).
#[allow(unsafe_code)]
fn make_arena(environment: &Environment, old: bool) -> ort::Result<()> {
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let settings = [
        (c"arena_extend_strategy", 0), // powers of two, from the growth below
        (c"initial_chunk_size_bytes", FIRST_REGION),
        (c"initial_growth_chunk_size_bytes", 256 << 20),
        (c"max_dead_bytes_per_chunk", 4 << 20),
    ];
    let (keys, values) = (settings.map(|(key, _)| key.as_ptr()), settings.map(|(_, value)| value));
    let (api, mut config) = (ort::api(), std::ptr::null_mut());
    // SAFETY: every pointer is valid for its call: environment and memory info are borrowed by this frame, the keys are literals, both
    // arrays have the length that is given. The configuration is copied by the runtime and released here, once. The environment is locked,
    // and the sessions that use an arena share its ownership.
    unsafe {
        if old {
            ort::Error::result_from_status((api.UnregisterAllocator)(environment.ptr().cast_mut(), memory.ptr()))?;
        }
        let made = (api.CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), &raw mut config);
        ort::Error::result_from_status(made)?;
        let registered = (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), memory.ptr(), config);
        (api.ReleaseArenaCfg)(config);
        ort::Error::result_from_status(registered)
    }
}

/// What a run takes in.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// N x 3 x height x width, normalised.
    Planes(&'a [f32], [usize; 4]),
    /// N x height x width x 3 bytes, of which the model itself makes `byte * factor + offset`, channel by channel: the form of a network for
    /// a GPU, see the Python package's `card_models`.
    Pixels(&'a [u8], [usize; 4], &'a Normalisation),
}

/// The inputs of a model that takes pixels.
const PIXELS: [&str; 3] = ["card.pixels", "card.factor", "card.offset"];

/// What becomes of a byte of each channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Multiplied by this,
    pub factor: [f32; 3],
    /// and this added.
    pub offset: [f32; 3],
}

/// A model that is loaded and can run.
///
/// On the CPU any number of threads may run one session at once, as many of them side by side as it was loaded for. On other devices a session
/// belongs to one worker.
pub struct Session {
    /// Taken only by `drop`.
    inner: Option<ort::session::Session>,
    target: Target,
    inputs: Vec<CString>,
    output: CString,
    takes_pixels: bool,
    head: Option<Head>,
    classes: Option<usize>,
    input_shape: Vec<i64>,
    output_shape: Vec<i64>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _inside = fork::enter();
        let session = self.inner.take();
        if is_lost(self.target.device) {
            std::mem::forget(session);
        }
    }
}

impl Session {
    /// Loads the model file `path`. `alone`: for runs that may use all cores.
    ///
    /// # Errors
    /// [`Error::ModelLoad`] naming the file, [`Error::Unavailable`] when the device cannot be used, [`Error::Closed`] at the process's end.
    pub fn load(path: &Path, target: &Target, alone: bool) -> Result<Self> {
        let device = target.device;
        if is_lost(device) {
            return Err(lost(device, "it failed earlier"));
        }
        let _inside = fork::enter();
        if fork::has_ended() {
            return Err(Error::Closed);
        }
        Self::made(path, target, alone)
    }

    fn made(path: &Path, target: &Target, alone: bool) -> Result<Self> {
        let device = target.device;
        let environment = environment()?;
        let (session, head) = build(&environment, path, target, alone)?;
        if device == Device::Cpu {
            use_large_pages_at_first(&session);
        }
        let wrong = |why: String| Error::ModelLoad(format!("{}: {why}", path.display()));
        let first = |outlets: &[Outlet], count: usize, what: &str| -> Result<Vec<i64>> {
            match outlets.first().map(Outlet::dtype) {
                Some(ValueType::Tensor { shape, .. }) if outlets.len() == count => Ok(shape.to_vec()),
                Some(_) if outlets.len() == count => Err(wrong(format!("the model's {what} is not a tensor"))),
                _ => Err(wrong(format!("the model has {} {what}, not {count}", outlets.len()))),
            }
        };
        let takes_pixels = session.inputs().iter().map(Outlet::name).eq(PIXELS);
        let input_shape = first(session.inputs(), if takes_pixels { PIXELS.len() } else { 1 }, "input")?;
        let output_shape = first(session.outputs(), 1, "output")?;
        let classes = session.metadata().ok().filter(|_| takes_pixels).and_then(|told| told.custom("classes"));
        let classes = classes.and_then(|classes| classes.parse().ok()).filter(|&classes| classes > 0);
        let classes = head.as_ref().map(Head::classes).or(classes);
        let names = session.inputs().iter().chain(session.outputs()).map(|outlet| CString::new(outlet.name()));
        let mut inputs = names.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(e.to_string()))?;
        let output = inputs.pop().unwrap_or_default();
        Ok(Self {
            inner: Some(session),
            target: *target,
            inputs,
            output,
            takes_pixels,
            head,
            classes,
            input_shape,
            output_shape,
        })
    }

    /// Whether the model takes [`Input::Pixels`], and not planes.
    #[must_use]
    pub fn takes_pixels(&self) -> bool {
        self.takes_pixels
    }

    /// The last layer of a recogniser on the CPU, where it is left to be computed from the output: N x T x features.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Classes of a recogniser whose output does not have them: one with a [`Session::head`]; one that takes pixels and tells a class and how
    /// sure it is, where its maker knew them.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Dimensions of the input; -1 where they are free.
    #[must_use]
    pub fn input_shape(&self) -> &[i64] {
        &self.input_shape
    }

    /// Dimensions of the output; -1 where they are free.
    #[must_use]
    pub fn output_shape(&self) -> &[i64] {
        &self.output_shape
    }

    /// Runs the model and hands its f32 output and dimensions to `read`, without a copy.
    ///
    /// # Errors
    /// [`Error::Inference`] of `stage`; [`Error::Closed`] when the `place`'s stop ended the run; [`Error::Unavailable`] when the card is lost.
    pub fn run<R>(
        &self,
        stage: &'static str,
        input: Input<'_>,
        place: &Place,
        read: impl FnOnce(&[f32], &[i64]) -> R,
    ) -> Result<R> {
        let run = || -> ort::Result<R> {
            let Some(output) = self.run_raw(input, None, &*self.run_options(place)?)? else {
                return Err(ort::Error::new("the run gave no output"));
            };
            let (dimensions, values) = output.try_extract_tensor::<f32>()?;
            Ok(read(values, dimensions))
        };
        run().map_err(|e| self.run_error(stage, &place.stop, &e.to_string()))
    }

    /// Runs the model and has its output, of the shape `output_shape`, written to `output`: a large one in the arena would keep its whole
    /// region there. `activations`: bytes that the run takes of the arena at most.
    ///
    /// # Errors
    /// As [`Session::run`], also where the output has another shape.
    pub fn run_into(
        &self,
        stage: &'static str,
        input: Input<'_>,
        (output, output_shape): (&mut [f32], [usize; 4]),
        activations: usize,
        place: &Place,
    ) -> Result<()> {
        if let (Some(session), Device::Cpu) = (&self.inner, self.target.device)
            && activations > FIRST_REGION
        {
            with_block(session, activations, |_| ());
        }
        let mut run = || -> ort::Result<_> {
            let mut output = TensorRefMut::from_array_view_mut((output_shape, &mut *output))?;
            self.run_raw(input, Some(&mut output), &*self.run_options(place)?)
        };
        run().map(drop).map_err(|e| self.run_error(stage, &place.stop, &e.to_string()))
    }

    /// A run on the CPU gives the arena's free memory back to the system at its end, unless a like run waits for it: to fetch it again would take
    /// the system 0.2 s of a detection at 2000 pixels.
    fn run_options(&self, place: &Place) -> ort::Result<Arc<RunOptions>> {
        let mut options = RunOptions::new()?;
        if self.target.device == Device::Cpu && !place.keep_memory {
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        }
        let options = Arc::new(options);
        let ender = Arc::clone(&options);
        place.stop.on_stop(move || {
            // It fails only for a null pointer, which RunOptions never holds.
            let _ = ender.terminate();
        });
        Ok(options)
    }

    /// `OrtApi::Run` on a shared reference; returns the output where none is given to write to. `ort`'s own `run` asks for `&mut`, since
    /// some providers crash when one session is run from two threads at once; Microsoft documents that the CPU provider does not
    /// (microsoft/onnxruntime issues 114 and 22967).
    #[allow(unsafe_code)]
    fn run_raw(
        &self,
        input: Input<'_>,
        given: Option<&mut TensorRefMut<'_, f32>>,
        options: &RunOptions,
    ) -> ort::Result<Option<DynValue>> {
        let Some(session) = &self.inner else { return Err(ort::Error::new("the session is gone")) };
        let (planes, pixels);
        let values = match input {
            Input::Planes(data, shape) => {
                planes = TensorRef::from_array_view((shape, data))?;
                vec![planes.ptr()]
            }
            Input::Pixels(data, shape, Normalisation { factor, offset }) => {
                let factor = TensorRef::from_array_view(([3], &factor[..]))?;
                let offset = TensorRef::from_array_view(([3], &offset[..]))?;
                pixels = (TensorRef::from_array_view((shape, data))?, factor, offset);
                vec![pixels.0.ptr(), pixels.1.ptr(), pixels.2.ptr()]
            }
        };
        if values.len() != self.inputs.len() {
            return Err(ort::Error::new("the model takes another kind of input"));
        }
        let names: Vec<_> = self.inputs.iter().map(|name| name.as_ptr()).collect();
        let is_given = given.is_some();
        let mut output = given.map_or(std::ptr::null_mut(), |given| given.ptr().cast_mut());
        // SAFETY: every pointer is valid for the call: session, options, names, inputs and a given output are borrowed by this frame, the
        // arrays have as many elements as the counts say. A given output is written to and stays its owner's; otherwise `output` is null,
        // so that the runtime allocates the value. Concurrent calls on one session happen only on a processor, whose provider allows
        // them, see above; any other session is run by the one worker that owns it (`Net::session`). On success the runtime hands
        // over ownership of a value it allocated with the session's allocator, which `from_ptr` takes; the session outlives it, because it
        // is read and dropped before `run` returns.
        unsafe {
            let status = (ort::api().Run)(
                session.ptr().cast_mut(),
                options.ptr(),
                names.as_ptr(),
                values.as_ptr(),
                names.len(),
                [self.output.as_ptr()].as_ptr(),
                1,
                &raw mut output,
            );
            ort::Error::result_from_status(status)?;
            let output = NonNull::new(output).filter(|_| !is_given);
            Ok(output.map(|output| DynValue::from_ptr(output, Some(session.allocator()))))
        }
    }

    fn run_error(&self, stage: &'static str, stop: &Stop, message: &str) -> Error {
        if let Device::Cuda(index) = self.target.device
            && ends_the_card(message)
        {
            let mut lost_ones = LOST.lock();
            if !lost_ones.contains(&index) {
                lost_ones.push(index);
            }
            return lost(self.target.device, message);
        }
        if stop.is_stopped() { Error::Closed } else { Error::inference(stage, message) }
    }
}

/// Takes a block of `bytes` from the arena, hands its address to `look`, and gives it back. The arena grows by one region where it has no room.
fn with_block(session: &ort::session::Session, bytes: usize, look: impl FnOnce(usize)) {
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default);
    // What cannot be had now, a run will ask for in its turn, and say so.
    let Ok(arena) = memory.and_then(|memory| Allocator::new(session, memory)) else { return };
    if let Ok(block) = arena.alloc::<u8>(bytes) {
        look(block.as_ptr() as usize);
    }
}

/// Has Linux back the arena's first region with pages of 2 MB, where it does so for those that ask: they are seldom looked up, and a page
/// takes 3 to 4 % less CPU time (AMD EPYC in a virtual machine, 16 clients, 2026-11-26). The later regions come and go. There large pages win
/// another 4 % of detection at a page's own size, but where the host takes free ones back, those of a first run cost 3 ms for each MB.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn use_large_pages(session: &ort::session::Session) {
    let bytes = FIRST_REGION - LARGE_PAGE;
    with_block(session, bytes, |start| {
        let (start, end) = (start.next_multiple_of(LARGE_PAGE), (start + bytes) / LARGE_PAGE * LARGE_PAGE);
        // SAFETY: the range lies within a block that nobody else has while this runs. The advice changes no byte of it, and where the system
        // does not take it, all is as before.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    });
}

/// By the first session of an arena, before it runs: later ones may find runs in its first region, and would get another. They wait here.
fn use_large_pages_at_first(session: &ort::session::Session) {
    let mut loaded = ENVIRONMENT.lock();
    if let Some(loaded) = loaded.as_mut()
        && loaded.large_pages_of != std::process::id()
    {
        loaded.large_pages_of = std::process::id();
        use_large_pages(session);
    }
}

#[cfg(not(target_os = "linux"))]
fn use_large_pages(_session: &ort::session::Session) {}

fn is_lost(device: Device) -> bool {
    matches!(device, Device::Cuda(index) if LOST.lock().contains(&index))
}

fn lost(device: Device, message: &str) -> Error {
    let message = complaint(message);
    Error::Unavailable(format!(
        "{device} is lost to this process ({message}): after such an error CUDA fails until the process ends. Restart it; engines on the CPU \
         go on"
    ))
}

/// The session, and what was cut off its model.
fn build(
    environment: &Environment,
    path: &Path,
    target: &Target,
    alone: bool,
) -> Result<(ort::session::Session, Option<Head>)> {
    let device = target.device;
    let unusable = |message: String| match device {
        Device::Cpu => unloadable(path, &message),
        Device::Cuda(_) => unavailable(device, &message),
    };
    // Where it lists none, ONNX Runtime 1.22 ends the process.
    if device == Device::Cpu && processors(environment).next().is_none() {
        return Err(Error::Unavailable(
            "ONNX Runtime lists no processor, as releases before 1.23 do; update it: pip install --upgrade \"onnxruntime>=1.23\""
                .into(),
        ));
    }
    let builder = || {
        let builder = ort::session::Session::builder(environment).map_err(|e| unusable(e.to_string()))?;
        let with = match device {
            Device::Cpu => with_cpu(builder, environment, target, alone),
            Device::Cuda(index) => with_cuda(builder, index),
        };
        with.map_err(|e| unusable(e.to_string()))
    };
    let profiled = || with_profile(builder()?).map_err(|e| unusable(e.to_string()));
    let block = rewrite::block();
    let products = if target.precision == Precision::Bf16 { Products::One } else { Products::Three };
    // A file that cannot be read is the runtime's to complain about.
    let file = if device == Device::Cpu { std::fs::read(path).ok() } else { None };
    let rewritten = file.as_ref().and_then(|file| rewrite::rewritten(file, block, products));
    let is_rewritten = rewritten.is_some();
    let as_it_is = || {
        let whole = block.and(file).filter(|file| onnx::is_whole(file))?;
        Some(Rewritten { model: whole, head: None })
    };
    if let Some(Rewritten { model, head }) = rewritten.or_else(as_it_is) {
        let is_recogniser = head.is_some();
        let own =
            block.and_then(|block| with_own_operators(builder, profiled, &model, (is_recogniser, products), block));
        let made = match own {
            Some(session) => Some(session),
            None if is_rewritten => profiled()?.commit_from_memory(&model).ok(),
            None => None,
        };
        if let Some(session) = made
            && let ([_], [output]) = (session.inputs(), session.outputs())
            && (head.is_none() || gives_columns(output))
        {
            return Ok((session, head));
        }
    }
    // What nothing was changed in, and what ONNX Runtime refuses.
    let made = profiled()?.commit_from_file(path);
    let session = made.map_err(|e| match e.to_string() {
        // CUDA, CUDNN or CUBLAS.
        message if message.contains(" failure ") => unusable(message),
        message => unloadable(path, &message),
    })?;
    Ok((session, None))
}

/// Gives the system back what loading or unloading freed: glibc keeps it, for each thread that loaded, and later ones find little use for it, 40 to
/// 60 MB after a set was loaded. Takes 5 ms in a small process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn give_back_memory() {
    // SAFETY: any thread may call it at any time; it touches free memory alone.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back_memory() {}

/// N x columns x numbers, as recognisers do.
fn gives_columns(output: &Outlet) -> bool {
    matches!(output.dtype(), ValueType::Tensor { shape, .. } if shape.len() == 3)
}

/// The network with own operators, where it is the same as without; `None` too where ONNX Runtime does not tell how it optimised it.
fn with_own_operators(
    builder: impl Fn() -> Result<SessionBuilder>,
    profiled: impl Fn() -> Result<SessionBuilder>,
    model: &[u8],
    (is_recogniser, products): (bool, Products),
    block: usize,
) -> Option<ort::session::Session> {
    if !HAS_OPERATORS.load(Ordering::Relaxed) {
        return None;
    }
    let (mut optimised, written) = optimised(builder().ok()?, model)?;
    let is_recogniser = is_recogniser || optimised.outputs().iter().any(gives_columns);
    let sides = sample(optimised.inputs(), is_recogniser)?;
    use_large_pages_at_first(&optimised);
    let own = |tiled| blocks::with_own_operators(written.clone(), block, tiled);
    let made =
        |own: Vec<u8>, builder: Result<SessionBuilder>| with_operators(builder.ok()?)?.commit_from_memory(&own).ok();
    let mut checked = |own: Vec<u8>, builder| {
        let mut made = made(own, builder)?;
        agree(&mut optimised, &mut made, &sides).ok()?.then_some(made)
    };
    let is_one = products == Products::One;
    // In f32 not detection: of its map a pixel more or less, whose probability is off by a millionth, moves a box.
    let is_tiled = (is_recogniser || is_one) && tiles::is_there();
    let three = if is_tiled { own(Some(Products::Three)) } else { None };
    // Of integers nothing is tiled.
    let one = three.as_ref().filter(|_| is_one).and_then(|three| own(Some(products)).filter(|one| one != three));
    let tiled = three.and_then(|three| checked(three, if one.is_some() { builder() } else { profiled() }));
    match (tiled, one) {
        (None, _) => checked(own(None)?, profiled()),
        (Some(session), None) => Some(session),
        // The same graph, in numbers of which such a check would tell little.
        (Some(session), Some(one)) => made(one, profiled()).or(Some(session)),
    }
}

/// The model as ONNX Runtime optimises it for this processor, made, and as a file; `None` where that cannot be had. It writes to files alone.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn optimised(builder: SessionBuilder, model: &[u8]) -> Option<(ort::session::Session, Vec<u8>)> {
    use std::io::Read;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    // SAFETY: the name is a literal.
    let descriptor = unsafe { libc::memfd_create(c"optimised network".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return None;
    }
    // SAFETY: it is open, and nobody else has it.
    let mut file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // It is run once.
    let mut builder = builder.with_prepacking(false).ok()?.with_optimized_model_path(path).ok()?;
    let session = builder.commit_from_memory(model).ok()?;
    let mut written = Vec::new();
    file.read_to_end(&mut written).ok()?;
    Some((session, written))
}

#[cfg(not(target_os = "linux"))]
fn optimised(_builder: SessionBuilder, _model: &[u8]) -> Option<(ort::session::Session, Vec<u8>)> {
    None
}

/// Two small pictures that are wider than high, 48 high for recognisers, as lines are, for a network that takes these; of what is fixed, so large.
fn sample(inputs: &[Outlet], is_recogniser: bool) -> Option<Vec<usize>> {
    let [input] = inputs else { return None };
    let ValueType::Tensor { shape, .. } = input.dtype() else { return None };
    let free = [2, 3, if is_recogniser { 48 } else { 96 }, 160];
    let sides: Vec<usize> = shape.iter().zip(free).map(|(&side, free)| usize::try_from(side).unwrap_or(free)).collect();
    // Others would take seconds.
    sides.iter().try_fold(1_usize, |size, &side| size.checked_mul(side)).filter(|size| (1..=1 << 21).contains(size))?;
    Some(sides)
}

/// Of these sides: dark strokes in a band on light ground, as letters are, since detection sees nothing in noise; of several pictures the later half
/// is noise.
fn pictures(sides: &[usize]) -> Vec<f32> {
    let (Some(&width), Some(&height)) = (sides.last(), sides.iter().nth_back(1)) else { return Vec::new() };
    let size = sides.iter().product::<usize>();
    let mut noise = noise();
    let strokes: Vec<f32> = (0..height.div_ceil(4) * width.div_ceil(4)).map(|_| noise()).collect();
    let number = |at: usize| {
        let (x, y) = (at % width, at / width % height);
        let is_inside = (height / 3..height * 2 / 3).contains(&y) && (width / 8..width * 7 / 8).contains(&x);
        let is_dark = is_inside && strokes[y / 4 * width.div_ceil(4) + x / 4] < 0.0;
        if at >= size / 2 && sides[0] > 1 {
            noise()
        } else if is_dark {
            -2.0
        } else {
            2.0
        }
    };
    (0..size).map(number).collect()
}

/// Whether both compute the same of [`pictures`]. What a graph broadcasts is seen in its shapes alone, which are not in the file, and a
/// foreign model may be made in a way that [`blocks`] takes for another.
fn agree(
    optimised: &mut ort::session::Session,
    changed: &mut ort::session::Session,
    sides: &[usize],
) -> ort::Result<bool> {
    let numbers = pictures(sides);
    let mut results = Vec::new();
    for session in [optimised, changed] {
        let outputs = session.run(ort::inputs![TensorRef::from_array_view((sides.to_vec(), &*numbers))?])?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>()?;
        results.push((shape.to_vec(), values.to_vec()));
    }
    let [(shape, wanted), (found_shape, found)] = &*results else { return Ok(false) };
    let largest = wanted.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let is_near = |(wanted, found): (&f32, &f32)| (wanted - found).abs() <= 1e-3 * largest;
    Ok(shape == found_shape && wanted.iter().zip(found).all(is_near))
}

/// The smallest model that ONNX Runtime takes: y = Identity(x), f32, operators of version 13, `ir_version` 8.
const IDENTITY: &[u8] = b"\x08\x08\x3a\x2b\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\x12\x01g\x5a\x09\x0a\x01x\x12\x04\x0a\x02\x08\x01\x62\x09\x0a\x01y\x12\x04\x0a\x02\x08\x01\x42\x02\x10\x0d";

/// Makes the domain of own operators known to ONNX Runtime, which keeps domains in a table of the process without a lock: the first session adds
/// one, and of two that do at once one fails. Later ones, on any thread, only look.
fn know_operators(environment: &Environment) -> Option<()> {
    // See `build`: it must be there before a session is.
    processors(environment).next()?;
    let builder = with_cpu(ort::session::Session::builder(environment).ok()?, environment, &Target::default(), false);
    let mut builder = with_operators(builder.ok()?)?;
    builder.commit_from_memory(IDENTITY).ok().map(drop)
}

/// For what [`optimised`] gave, with own operators.
fn with_operators(builder: SessionBuilder) -> Option<SessionBuilder> {
    let domain = OperatorDomain::new(blocks::DOMAIN).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::Gelu as usize }>).ok()?.add(OwnKernel::<{ Own::Gate as usize }>).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::Mean as usize }>).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::QuantizedGelu as usize }>).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::Quantize as usize }>).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::Dequantize as usize }>).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::DequantizedSum as usize }>).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::Chain as usize }>).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::Convolution as usize }>).ok()?;
    let domain = domain.add(OwnKernel::<{ Own::ConvolutionSum as usize }>).ok()?;
    builder.with_optimization_level(GraphOptimizationLevel::Disable).ok()?.with_operators(domain).ok()
}

/// An own operator by its number, and its kernel. It holds nothing: any number of threads run one session, and with it one kernel. `ort` hands each
/// a `&mut` of the box that it lies in, to which nobody writes.
struct OwnKernel<const NUMBER: usize>;

const _: () = assert!(size_of::<OwnKernel<0>>() == 0);

impl<const NUMBER: usize> OwnKernel<NUMBER> {
    const OWN: Own = Own::ALL[NUMBER];
}

impl<const NUMBER: usize> ort::operator::Operator for OwnKernel<NUMBER> {
    type Kernel<'a> = Self;

    fn name(&self) -> &str {
        Self::OWN.signature().0
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let kind = |letter| if letter == 'f' { TensorElementType::Float32 } else { TensorElementType::Uint8 };
        Self::OWN.signature().1.chars().map(move |letter| OperatorInput::required(kind(letter))).collect::<Vec<_>>()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let gives_integers = matches!(Self::OWN, Own::QuantizedGelu | Own::Quantize);
        [OperatorOutput::required(if gives_integers { TensorElementType::Uint8 } else { TensorElementType::Float32 })]
    }

    fn create_kernel(&self, _: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl<const NUMBER: usize> Kernel for OwnKernel<NUMBER> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let run = Run(context);
        if rewrite::block() == Some(16) { run.of::<16>(Self::OWN) } else { run.of::<8>(Self::OWN) }
    }
}

/// As many numbers are given to one thread of a run that has several, where they need not be one block's.
const SHARE: usize = 1 << 15;

/// A run of one own operator.
struct Run<'a>(&'a ComputeContext);

impl Run<'_> {
    fn input(&self, at: usize) -> ort::Result<ValueRef<'_>> {
        self.0.input(at)?.ok_or_else(wrong)
    }

    fn output(&self, shape: impl IntoShape) -> ort::Result<ValueRefMut<'_>> {
        self.0.output(0, shape)?.ok_or_else(wrong)
    }

    fn of<const BLOCK: usize>(&self, own: Own) -> ort::Result<()> {
        match own {
            Own::Gelu => self.number_by_number(operators::gelu),
            Own::Gate => self.gate::<BLOCK>(),
            Own::Mean => self.mean::<BLOCK>(),
            Own::QuantizedGelu => self.quantized_gelu(),
            Own::Quantize => self.quantize::<BLOCK>(),
            Own::Dequantize => self.dequantize::<BLOCK>(false),
            Own::DequantizedSum => self.dequantize::<BLOCK>(true),
            Own::Chain => self.chain(),
            Own::Convolution => self.convolution(false),
            Own::ConvolutionSum => self.convolution(true),
        }
    }

    fn chain(&self) -> ort::Result<()> {
        let steps = self.input(1)?;
        let (steps, _) = steps.try_extract_tensor::<f32>()?.1.as_chunks();
        let steps: Vec<_> =
            steps.iter().map(|&step| Step::of_numbers(step).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        self.number_by_number(|values, results| operators::chain(values, &steps, results))
    }

    fn convolution(&self, adds: bool) -> ort::Result<()> {
        let (map, tiles, bias, plan) = (self.input(0)?, self.input(1)?, self.input(2)?, self.input(3)?);
        let (shape, map) = map.try_extract_tensor::<f32>()?;
        let Sides { area, channels } = sides::<{ BLOCK }>(shape, 1)?;
        let (map, of_map) = (map.as_chunks().0, [shape[2] as usize, shape[3] as usize]);
        let (tiles, bias) = (tiles.try_extract_tensor::<f32>()?.1, bias.try_extract_tensor::<f32>()?.1.as_chunks().0);
        let plan = Plan::of_numbers(plan.try_extract_tensor::<f32>()?.1).ok_or_else(wrong)?;
        let [height, width] = plan.window.over(of_map).ok_or_else(wrong)?;
        let sum = if adds { Some(self.input(4)?) } else { None };
        let shape = [shape[0], (bias.len() * BLOCK) as i64, height as i64, width as i64];
        let sum = match &sum {
            Some(sum) => {
                let (of_sum, sum) = sum.try_extract_tensor::<f32>()?;
                Some(sum.as_chunks().0).filter(|_| **of_sum == shape).map(Some).ok_or_else(wrong)?
            }
            None => None,
        };
        let size = height.checked_mul(width).and_then(|area| area.checked_mul(bias.len())).filter(|&size| size > 0);
        let size = size.ok_or_else(wrong)?;
        let mut results = self.output(shape)?;
        let results = results.try_extract_tensor_mut::<f32>()?.1.as_chunks_mut().0;
        let images = map.chunks(area * channels / BLOCK).zip(results.chunks_mut(size));
        for (image, (map, results)) in images.enumerate() {
            let sum = sum.map(|sum| &sum[image * size..][..size]);
            let convolution = Convolution::new(plan, (map, of_map), tiles, bias, sum).ok_or_else(wrong)?;
            let parts = convolution.parts(results).ok_or_else(wrong)?;
            self.side_by_side(parts.into_iter(), |part| convolution.compute(part))?;
        }
        Ok(())
    }

    fn quantized_gelu(&self) -> ort::Result<()> {
        let (from, to) = (self.scale(1)?, self.scale(3)?);
        self.number_by_number(|values, results| operators::quantized_gelu(values, from, to, results))
    }

    /// Does the `work` on the first input, in parts of any length.
    fn number_by_number<T>(&self, work: impl Fn(&[T], &mut [T]) + Sync + Send) -> ort::Result<()>
    where
        T: PrimitiveTensorElementType + Sync + Send,
    {
        let values = self.input(0)?;
        let (shape, values) = values.try_extract_tensor::<T>()?;
        let mut results = self.output(shape.to_vec())?;
        let (_, results) = results.try_extract_tensor_mut::<T>()?;
        let parts = values.chunks(SHARE).zip(results.chunks_mut(SHARE));
        self.side_by_side(parts, |(values, results)| work(values, results))
    }

    fn gate<const BLOCK: usize>(&self) -> ort::Result<()> {
        let map = self.input(0)?;
        let (shape, map) = map.try_extract_tensor::<f32>()?;
        let area = sides::<BLOCK>(shape, 1)?.area;
        let gates = self.input(1)?;
        let (of_gates, gates) = gates.try_extract_tensor::<f32>()?;
        if **of_gates != [shape[0], shape[1], 1, 1] {
            return Err(wrong());
        }
        let (gates, _) = gates.as_chunks::<BLOCK>();
        let blocks = map.as_chunks::<BLOCK>().0.chunks(area);
        let mut results = self.output(shape.to_vec())?;
        let (results, _) = results.try_extract_tensor_mut::<f32>()?.1.as_chunks_mut::<BLOCK>();
        let parts = blocks.zip(gates).zip(results.chunks_mut(area));
        self.side_by_side(parts, |((pixels, gates), results)| operators::gate(pixels, gates, results))
    }

    fn mean<const BLOCK: usize>(&self) -> ort::Result<()> {
        let map = self.input(0)?;
        let (shape, map) = map.try_extract_tensor::<f32>()?;
        let area = sides::<BLOCK>(shape, 1)?.area;
        let mut means = self.output([shape[0], shape[1], 1, 1])?;
        let (means, _) = means.try_extract_tensor_mut::<f32>()?.1.as_chunks_mut::<BLOCK>();
        let parts = map.as_chunks::<BLOCK>().0.chunks(area).zip(means);
        self.side_by_side(parts, |(pixels, mean)| *mean = operators::mean(pixels))
    }

    fn quantize<const BLOCK: usize>(&self) -> ort::Result<()> {
        let map = self.input(0)?;
        let (shape, map) = map.try_extract_tensor::<f32>()?;
        let Sides { area, channels } = sides::<BLOCK>(shape, 1)?;
        let to = self.scale(1)?;
        let mut results = self.output([shape[0], shape[2], shape[3], shape[1]])?;
        let (_, results) = results.try_extract_tensor_mut::<u8>()?;
        let images = map.as_chunks::<BLOCK>().0.chunks(area * channels / BLOCK);
        let parts = images.zip(results.chunks_mut(area * channels));
        self.side_by_side(parts, |(map, results)| operators::quantize(map, area, to, results))
    }

    fn dequantize<const BLOCK: usize>(&self, adds: bool) -> ort::Result<()> {
        let first = self.input(0)?;
        let (shape, first) = first.try_extract_tensor::<u8>()?;
        let Sides { area, channels } = sides::<BLOCK>(shape, 3)?;
        let from = self.scale(1)?;
        let second = if adds { Some((self.input(3)?, self.scale(4)?)) } else { None };
        let second = match &second {
            Some((value, scale)) => Some((value.try_extract_tensor::<u8>()?.1, *scale)),
            None => None,
        };
        if second.is_some_and(|(second, _)| second.len() != first.len()) {
            return Err(wrong());
        }
        let mut results = self.output([shape[0], shape[3], shape[1], shape[2]])?;
        let (results, _) = results.try_extract_tensor_mut::<f32>()?.1.as_chunks_mut::<BLOCK>();
        let image = area * channels;
        let parts = results.chunks_mut(area).enumerate();
        self.side_by_side(parts, |(at, results)| {
            let (at, start) = (at % (channels / BLOCK), at / (channels / BLOCK) * image);
            if let Some(first) = first.get(start..start + image) {
                let second = second.and_then(|(second, scale)| Some((second.get(start..start + image)?, scale)));
                operators::dequantize((first, from), second, (at, channels), results);
            }
        })
    }

    /// A scale and a zero, from this input on.
    fn scale(&self, at: usize) -> ort::Result<Scale> {
        let (scale, zero) = (self.input(at)?, self.input(at + 1)?);
        let scale = scale.try_extract_tensor::<f32>()?.1.first().copied().ok_or_else(wrong)?;
        let zero = zero.try_extract_tensor::<u8>()?.1.first().copied().ok_or_else(wrong)?;
        Ok(Scale { scale, zero })
    }

    /// Does the `work` on each part, on all threads that the run has.
    fn side_by_side<T: Send>(&self, parts: impl Iterator<Item = T>, work: impl Fn(T) + Sync + Send) -> ort::Result<()> {
        let parts: Vec<_> = parts.map(|part| Mutex::new(Some(part))).collect();
        self.0.par_for(parts.len(), 0, |at| {
            if let Some(part) = parts.get(at).and_then(|part| part.lock().take()) {
                work(part);
            }
        })
    }
}

/// Of a map: its pixels, and its channels, which fill blocks.
struct Sides {
    area: usize,
    channels: usize,
}

/// Of a shape of four sides, `place` that of the channels.
fn sides<const BLOCK: usize>(shape: &[i64], place: usize) -> ort::Result<Sides> {
    let sides: Vec<usize> =
        shape.iter().filter_map(|&side| usize::try_from(side).ok()).filter(|&side| side > 0).collect();
    match (&*sides, sides.get(place)) {
        ([images, _, _, _], Some(&channels)) if channels.is_multiple_of(BLOCK) => {
            Ok(Sides { area: sides.iter().product::<usize>() / images / channels, channels })
        }
        _ => Err(wrong()),
    }
}

fn wrong() -> ort::Error {
    ort::Error::new("an own operator has inputs that are none of its own")
}

#[allow(clippy::result_large_err)] // ort's own error, on the way to ours
fn with_profile(builder: SessionBuilder) -> BuilderResult {
    match profile() {
        Some(profile) => builder.with_profiling(profile),
        None => Ok(builder),
    }
}

#[allow(clippy::result_large_err)]
fn with_cpu(builder: SessionBuilder, environment: &Environment, target: &Target, alone: bool) -> BuilderResult {
    // 1: a run uses the calling thread only.
    let threads = if alone { target.pool_threads } else { 1 };
    // Spinning threads burn a third of a service's processor time (reference: RapidOCR's defaults, measured) and win nothing here.
    let builder = builder.with_intra_threads(threads)?.with_intra_op_spinning(false)?;
    // A plan of earlier runs' memory takes more than the arena does, and one would be kept for every shape.
    let builder = builder.with_env_allocators()?.with_memory_pattern(false)?;
    // By its device: `ort::ep::CPU` names no provider to the runtime, which then chooses itself, of plugins that others have loaded too.
    builder.with_devices(processors(environment), None)
}

/// The processor, as ONNX Runtime's own provider has it.
fn processors(environment: &Environment) -> impl Iterator<Item = ort::device::Device<'_>> {
    let is_wanted = |device: &ort::device::Device<'_>| {
        device.ep().is_ok_and(|name| name == CPU) && device.hardware_device().ty() == DeviceType::CPU
    };
    environment.devices().filter(is_wanted)
}

#[allow(clippy::result_large_err)]
fn with_cuda(builder: SessionBuilder, index: u32) -> BuilderResult {
    let builder = builder.with_intra_threads(1)?.with_intra_op_spinning(false)?;
    builder.with_execution_providers([ort::ep::CUDA::default()
        .with_device_id(index.try_into().unwrap_or(i32::MAX))
        // An exhaustive search for every new shape would cost seconds more each; the default one finds in a quarter of the time what
        // then runs 20 times as long (H200, onnxruntime 1.31). Fusing biases fails there, and the channels-last layout is slower.
        .with_conv_algorithm_search(ort::ep::cuda::ConvAlgorithmSearch::Heuristic)
        .with_arena_extend_strategy(ort::ep::ArenaExtendStrategy::SameAsRequested)
        // TF32 keeps 10 bits of mantissa: scores would differ from the CPU's by more than 1e-3.
        .with_tf32(false)
        .build()
        .error_on_failure()])
}

fn unloadable(path: &Path, message: &str) -> Error {
    let message = complaint(message);
    Error::ModelLoad(format!(
        "{} cannot be loaded ({message}); it must be a model in ONNX format, whole and readable",
        path.display()
    ))
}

fn unavailable(device: Device, message: &str) -> Error {
    let message = complaint(message);
    let remedy = remedy(&message);
    Error::Unavailable(format!(
        "device=\"{device}\" cannot be used: {message}. {remedy}. Without a GPU use device=\"cpu\" or \"auto\""
    ))
}
