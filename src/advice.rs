//! What ONNX Runtime and CUDA say, in words for those who have to put it right.

/// A message of ONNX Runtime without the places in its source: `CUDA failure 100: no CUDA-capable device is detected in cudaGetDeviceCount(..)`.
pub(crate) fn complaint(message: &str) -> String {
    if let Some(at) = message.find("CUDA failure ") {
        let mut parts = message[at..].split(" ; ");
        let what = parts.next().unwrap_or_default();
        let call = parts.find_map(|part| part.strip_prefix("expr=")).unwrap_or("CUDA").trim();
        return format!("{what} in {}", call.trim_end_matches(';'));
    }
    // After the mark: number : name : text.
    let told = message.rsplit_once("[ONNXRuntimeError] : ").and_then(|(_, rest)| rest.splitn(3, " : ").nth(2));
    told.unwrap_or(message).trim().trim_end_matches('.').to_owned()
}

/// What is missing on the way to the GPU, and how to get it.
pub(crate) fn remedy(complaint: &str) -> &'static str {
    let missing = complaint.split_once("with error: ").map_or("", |(_, missing)| missing);
    match cuda_error(complaint) {
        Some(2) => "The GPU has no memory left: end what else uses it (nvidia-smi lists it)",
        Some(3) => {
            "Where a process used CUDA before it was forked, its children cannot: start them with multiprocessing's \"spawn\", or make \
             the first ThreadSafeOCR after the fork"
        }
        Some(35) => "The NVIDIA driver is too old for the installed CUDA libraries: update it",
        Some(100) => {
            "The NVIDIA driver shows this process no GPU: nvidia-smi must list it, CUDA_VISIBLE_DEVICES must not hide it, and a container \
             must be started with it (docker run --gpus all)"
        }
        Some(_) => "nvidia-smi tells the state of the GPU and its driver",
        None if complaint.contains("Invalid device ID") => {
            "There is no GPU of this number: nvidia-smi -L lists them, CUDA_VISIBLE_DEVICES renumbers them"
        }
        None if complaint.contains("not enabled in this build") || missing.contains("onnxruntime") => {
            "The GPU build of ONNX Runtime is not complete: another onnxruntime package has overwritten or removed its files (or \
             ORT_DYLIB_PATH names another build). Run: pip install --force-reinstall --no-deps onnxruntime-gpu"
        }
        None if missing.starts_with("libcuda.so") => {
            "The NVIDIA driver is not installed: install it, until nvidia-smi lists the GPU; a container must be started with it (docker \
             run --gpus all)"
        }
        None => {
            "It needs NVIDIA's CUDA and cuDNN libraries: pip install \"onnxruntime-gpu[cuda,cudnn]>=1.23\", and an NVIDIA driver \
             (nvidia-smi must list the GPU)"
        }
    }
}

/// The number of a CUDA error in a message of ONNX Runtime.
fn cuda_error(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("CUDA failure ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether CUDA will fail until the process ends: the errors of which NVIDIA's headers say that the process must be terminated and
/// relaunched, an uncorrectable memory error, a context that is gone, and the unknown error that a card gives which fell off its bus. The
/// others, running out of memory among them, fail one run.
pub(crate) fn ends_the_card(message: &str) -> bool {
    matches!(cuda_error(message), Some(214 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 810 | 911 | 999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_cuda_never_recovers_from_end_the_card() {
        let says = |code: u32| ends_the_card(&format!("Non-zero status code. CUDA failure {code}: some text ; GPU=0"));
        assert!([700, 702, 719, 999].into_iter().all(says));
        assert!(![2, 9, 98, 701, 7000].into_iter().any(says), "out of memory and the like fail one run");
        assert!(!ends_the_card("CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR"));
    }

    #[test]
    fn a_complaint_is_told_without_places_in_foreign_source() {
        let failure = "/src/cuda_call.cc:154 CudaCall() [with X = bool] CUDA failure 35: driver is insufficient ; GPU=-1 ; hostname=a ; \
                       file=/src/info.cc ; line=70 ; expr=cudaGetDeviceCount(&n); \n\n";
        assert_eq!(complaint(failure), "CUDA failure 35: driver is insufficient in cudaGetDeviceCount(&n)");
        let failure =
            "/src/bridge.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load a.so with error: b.so: missing\n";
        assert_eq!(complaint(failure), "Failed to load a.so with error: b.so: missing");
        assert_eq!(complaint("File at `x : y : z` does not exist"), "File at `x : y : z` does not exist");
    }

    #[test]
    fn every_step_on_the_way_to_a_gpu_has_its_own_advice() {
        let load = "Failed to load library /x/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: ";
        let advice = |complaint: &str| remedy(complaint).to_owned();
        assert!(advice(&format!("{load}libcublasLt.so.13: cannot open shared object file")).contains("[cuda,cudnn]"));
        assert!(
            advice(&format!("{load}libcuda.so.1: cannot open shared object file")).contains("driver is not installed")
        );
        let gone = "/x/onnxruntime/capi/libonnxruntime_providers_cuda.so: cannot open shared object file";
        assert!(advice(&format!("{load}{gone}")).contains("--force-reinstall --no-deps onnxruntime-gpu"));
        assert!(advice("CUDA execution provider is not enabled in this build").contains("--force-reinstall"));
        assert!(advice("CUDA failure 35: insufficient").contains("too old"));
        assert!(advice("CUDA failure 100: no device").contains("no GPU"));
        assert!(advice("CUDA failure 3: initialization error").contains("spawn"));
        assert!(advice("Invalid device ID: 1, must be between 0 and 1").contains("no GPU of this number"));
    }
}
