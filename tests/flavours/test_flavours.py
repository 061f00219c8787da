"""Which onnxruntime is used in which mix of packages, what is said where the way to a GPU ends, and the whole way on a stand-in for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import CPU, GPU, GPU_PACKAGE, PAGE, Environment

from threadsafe_ocr import ThreadSafeOCR

LIBRARIES = """
from threadsafe_ocr.runtime import library
answer([library(gpu=False).name, library(gpu=True).name])
"""


@pytest.fixture(params=["gpu_only", "cpu_then_gpu", "gpu_then_cpu"])
def environment(request: pytest.FixtureRequest) -> Environment:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def expected() -> list[str]:
    """The texts of the page, read where the tests run."""
    with ThreadSafeOCR(device="cpu") as ocr:
        return [line.text for line in ocr.read(PAGE).lines]


def test_without_onnxruntime_the_error_says_what_to_install(without: Environment) -> None:
    cpu, gpu = without.run('answer([tell(ThreadSafeOCR), tell(ThreadSafeOCR, device="cuda")])')
    assert 'pip install "onnxruntime>=1.23"' in cpu
    assert 'pip install "onnxruntime-gpu[cuda,cudnn]>=1.23"' in gpu


def test_each_device_gets_its_library_whatever_was_installed_last(
    gpu_only: Environment, cpu_then_gpu: Environment, gpu_then_cpu: Environment
) -> None:
    cpu, gpu = f"libonnxruntime.so.{CPU}", f"libonnxruntime.so.{GPU}"
    assert gpu_only.run(LIBRARIES) == [gpu, gpu]
    assert cpu_then_gpu.run(LIBRARIES) == [cpu, gpu]
    assert gpu_then_cpu.run(LIBRARIES) == [cpu, gpu]


def test_the_cpu_reads_the_same_text_in_every_mix(environment: Environment, expected: list[str]) -> None:
    texts, used, found = environment.run(
        """
        from threadsafe_ocr.runtime import library
        ocr = ThreadSafeOCR(device="cpu")
        answer([texts(ocr), mapped("libonnxruntime.so"), str(library(gpu=False))])
        """
    )
    assert texts == expected
    assert used == [os.path.realpath(found)]


def test_without_a_driver_cuda_names_it_and_auto_reads_on_the_cpu(gpu_only: Environment, expected: list[str]) -> None:
    error, again, texts, logged = gpu_only.run(
        """
        error = tell(ThreadSafeOCR, device="cuda")
        first, second = ThreadSafeOCR(), ThreadSafeOCR()
        answer([error, tell(ThreadSafeOCR, device="cuda:1"), texts(first), logged])
        """
    )
    for said, device in ((error, "cuda:0"), (again, "cuda:1")):
        assert f'device="{device}" cannot be used' in said
        assert "libcuda.so.1: cannot open shared object file" in said
        assert "The NVIDIA driver is not installed" in said and "pip install" not in said
    assert texts == expected
    (why,) = logged
    assert "uses the CPU" in why and "The NVIDIA driver is not installed" in why


def test_without_cuda_libraries_cuda_names_them_and_what_to_install(gpu_then_cpu: Environment) -> None:
    error = gpu_then_cpu.run('answer(tell(ThreadSafeOCR, device="cuda"))')
    assert "libcublasLt.so.13: cannot open shared object file" in error
    assert 'pip install "onnxruntime-gpu[cuda,cudnn]>=1.23"' in error


def test_with_a_driver_the_first_cuda_call_is_reached_and_the_process_lives_on(
    gpu_only: Environment, driver: Path, expected: list[str]
) -> None:
    error, nvidia, texts, more = gpu_only.run(
        """
        error = tell(ThreadSafeOCR, device="cuda")
        nvidia = [mapped(name) for name in ("libcudart.so", "libcublasLt.so", "libcublas.so", "libcurand.so")]
        auto = ThreadSafeOCR()
        answer([error, nvidia, texts(auto), texts(ThreadSafeOCR(device="cpu"))])
        """,
        libraries=driver,
    )
    assert "CUDA failure 100: no CUDA-capable device is detected in cudaGetDeviceCount" in error
    assert "shows this process no GPU" in error and "nvidia-smi" in error
    # The loader does not search these folders: our preloading does.
    assert all(str(gpu_only.folder) in path for (path,) in nvidia)
    assert texts == more == expected


def test_nvidia_libraries_are_opened_before_those_that_need_them(gpu_only: Environment) -> None:
    found = gpu_only.run("from threadsafe_ocr.runtime import nvidia_libraries\nanswer(nvidia_libraries())")
    assert [Path(path).name for path in found] == ["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"]


def test_only_the_workers_of_the_chosen_card_make_and_run_sessions(cpu_then_gpu: Environment, card: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    made, ran, lines = cpu_then_gpu.run(
        """
        def count(): return len(open(os.environ["CARD_LOG"]).readlines())
        ocr = ThreadSafeOCR(device="cuda:1")
        made = count()
        threads = [threading.Thread(target=ocr.recognize, args=([LINE] * 5,)) for _ in range(16)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        lines = ocr.recognize([LINE] * 5)
        ocr.read(PAGE)
        answer([made, count(), [line.text for line in lines]])
        """,
        libraries=card, CARD_LOG=log,
    )  # fmt: skip
    assert lines == [""] * 5, "the stand-in computes nothing"
    seen = [tuple(line.split()) for line in log.read_text().splitlines()]
    making, running = seen[:made], seen[made:ran]
    workers = {f"ocr-cuda1-{net}{worker}" for net in ("det", "cls", "rec") for worker in (0, 1)}
    assert {thread for thread, _ in making} == workers, "a session was made elsewhere, or later"
    assert {thread for thread, _ in running} <= workers
    assert {"cudaMemcpyAsync(1)", "cudaStreamSynchronize(1)"} <= {call for _, call in running}
    assert {call for _, call in seen if call.startswith("cudaSetDevice")} == {"cudaSetDevice(1)"}


def test_auto_uses_a_card_that_works(cpu_then_gpu: Environment, card: Path) -> None:
    names, logged = cpu_then_gpu.run(
        """
        ocr = ThreadSafeOCR()
        names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
        answer([names, logged])
        """,
        libraries=card,
    )
    assert {"ocr-cuda0-det0", "ocr-cuda0-rec1"} <= set(names) and not logged
    assert not any(name.startswith("ocr-cpu") for name in names)


def test_a_card_that_is_not_there_is_named(cpu_then_gpu: Environment, card: Path) -> None:
    error = cpu_then_gpu.run('answer(tell(ThreadSafeOCR, device="cuda:2"))', libraries=card)
    assert 'device="cuda:2" cannot be used' in error and "Invalid device ID: 2" in error
    assert "There is no GPU of this number: nvidia-smi -L lists them" in error


def test_a_broken_model_is_the_models_fault_on_a_card_too(cpu_then_gpu: Environment, card: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    error = cpu_then_gpu.run(
        f"""
        from threadsafe_ocr import ModelLoadError
        try:
            ThreadSafeOCR({{"det": {str(broken)!r}, "rec": {str(broken)!r}, "dict": {str(broken)!r}}}, device="cuda")
        except ModelLoadError as error:
            answer(str(error))
        ThreadSafeOCR(device="cuda")
        """,
        libraries=card,
    )
    assert "broken.onnx" in error


def test_a_card_that_fails_for_good_is_left_alone_and_the_cpu_goes_on(
    cpu_then_gpu: Environment, card: Path, tmp_path: Path, expected: list[str]
) -> None:
    log, broken = tmp_path / "log", tmp_path / "broken"
    errors, cpu, auto, logged, later, lost = cpu_then_gpu.run(
        """
        import gc
        log = os.environ["CARD_LOG"]
        gpu, cpu = ThreadSafeOCR(device="cuda"), ThreadSafeOCR(device="cpu")
        gpu.read(PAGE)
        futures = [gpu.submit(PAGE) for _ in range(8)]
        open(os.environ["CARD_BROKEN"], "w").close()
        futures += [gpu.submit(PAGE) for _ in range(8)]
        errors = [str(error) for error in (future.exception(timeout=30) for future in futures) if error]
        errors.append(tell(gpu.read, PAGE))
        lost = len(open(log).readlines())
        errors.append(tell(ThreadSafeOCR, device="cuda"))
        auto = ThreadSafeOCR()
        read = [texts(cpu), texts(auto)]
        for ocr in (gpu, cpu, auto):
            ocr.close()
        del gpu, cpu, auto, ocr, futures
        gc.collect()
        threadsafe_ocr.unload()
        later = tell(ThreadSafeOCR, device="cuda")
        answer([errors, *read, logged, later, lost])
        """,
        libraries=card, CARD_LOG=log, CARD_BROKEN=broken,
    )  # fmt: skip
    assert len(errors) >= 9
    for error in (*errors, later):
        assert "cuda:0 is lost to this process" in error and "Restart it" in error
    assert "CUDA failure 700: an illegal memory access was encountered" in errors[-1]
    assert cpu == auto == expected
    assert len(logged) == 1 and "cuda:0 is lost" in logged[0]
    # Neither unloading nor the exit touches the card again: its sessions are leaked.
    assert log.read_text().splitlines()[lost:] == []


def test_a_forked_child_is_told_to_spawn_and_reads_on_the_cpu(
    cpu_then_gpu: Environment, card: Path, tmp_path: Path, expected: list[str]
) -> None:
    told, fresh, cpu, auto, status = cpu_then_gpu.run(
        """
        ocr = ThreadSafeOCR(device="cuda")
        ocr.read(PAGE)
        child = os.fork()
        if child == 0:
            errors = [tell(ocr.read, PAGE), tell(ThreadSafeOCR, device="cuda")]
            with open(os.environ["ANSWER"], "w") as file:
                json.dump([*errors, texts(ThreadSafeOCR(device="cpu")), texts(ThreadSafeOCR())], file)
            # As multiprocessing's children end. The exit handlers of ONNX Runtime's CUDA provider look into the workers' thread-locals,
            # which are gone here, and crash.
            os._exit(0)
        else:
            status = os.waitpid(child, 0)[1]
            ocr.read(PAGE)
            answer([*json.load(open(os.environ["ANSWER"])), status])
        """,
        libraries=card, ANSWER=tmp_path / "answer",
    )  # fmt: skip
    for error in (told, fresh):
        assert "CUDA failure 3: initialization error" in error and '"spawn"' in error
    assert cpu == auto == expected
    assert status == 0


def test_exit_with_work_on_the_card_is_clean(cpu_then_gpu: Environment, card: Path) -> None:
    cpu_then_gpu.run(
        "ocr = ThreadSafeOCR(device='cuda')\nfutures = [ocr.submit(PAGE) for _ in range(50)]\nanswer(0)",
        libraries=card,
    )


# The last test: it overwrites a file of its environment.
def test_a_cpu_build_of_the_same_version_over_the_gpu_build_is_told_and_mended(
    gpu_then_cpu: Environment, card: Path, expected: list[str]
) -> None:
    gpu_then_cpu.pip_install(f"onnxruntime=={GPU}")
    error, texts = gpu_then_cpu.run(
        'answer([tell(ThreadSafeOCR, device="cuda"), texts(ThreadSafeOCR())])', libraries=card
    )  # fmt: skip
    assert "CUDA execution provider is not enabled in this build" in error
    assert "pip install --force-reinstall --no-deps onnxruntime-gpu" in error
    assert texts == expected
    gpu_then_cpu.pip_install("--force-reinstall", GPU_PACKAGE)
    assert gpu_then_cpu.run('ThreadSafeOCR(device="cuda")\nanswer(True)', libraries=card)
