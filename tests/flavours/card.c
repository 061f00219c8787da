/* A stand-in for CUDA 13, cuBLAS and cuDNN: two cards that keep what is copied to them and compute nothing, so that the whole route
 * through ONNX Runtime's CUDA provider runs on any machine. Functions that the provider needs and that are not here are generated to
 * do nothing and return success (conftest.py).
 *
 * CARD_LOG: a file that gets a line "thread call" for every call of interest. CARD_BROKEN: once this file exists, every such call fails
 * with an error that CUDA does not recover from. In a forked child every such call fails, as real ones do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { CARDS = 2, INITIALIZATION_ERROR = 3, ILLEGAL_ADDRESS = 700 };

static _Thread_local int current;

static int called(const char *call)
{
    static pid_t owner;
    const char *log = getenv("CARD_LOG"), *broken = getenv("CARD_BROKEN");
    FILE *file = log ? fopen(log, "a") : NULL;
    if (file) {
        char thread[16];
        prctl(PR_GET_NAME, thread);
        fprintf(file, "%s %s(%d)\n", thread, call, current);
        fclose(file);
    }
    if (owner == 0)
        owner = getpid();
    if (owner != getpid())
        return INITIALIZATION_ERROR;
    return broken && access(broken, F_OK) == 0 ? ILLEGAL_ADDRESS : 0;
}

static int handle(void **made)
{
    *made = calloc(1, 64);
    return 0;
}

/* The beginning of CUDA 13's cudaDeviceProp; the rest may stay as it is. */
struct properties {
    char name[256], uuid[16], luid[8];
    unsigned mask;
    size_t memory, shared_memory;
    int registers, warp_size;
    size_t pitch;
    int block_threads, block[3], grid[3];
    size_t constant_memory;
    int major, minor;
};

int cudaGetDeviceCount(int *count) { *count = CARDS; return called("cudaGetDeviceCount"); }
int cudaSetDevice(int card) { current = card; return called("cudaSetDevice"); }
int cudaGetDevice(int *card) { *card = current; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int card) { *value = 0; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaGetDeviceProperties(struct properties *card, int number)
{
    card->memory = 1ul << 34;
    card->warp_size = 32;
    card->block_threads = 1024;
    card->major = 9;
    return called("cudaGetDeviceProperties");
}
const char *cudaGetErrorString(int error)
{
    return error == INITIALIZATION_ERROR ? "initialization error" : "an illegal memory access was encountered";
}
const char *cudaGetErrorName(int error) { return "an error of the stand-in"; }

int cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = 1ul << 34; return 0; }
int cudaMalloc(void **memory, size_t bytes) { *memory = calloc(1, bytes); return called("cudaMalloc"); }
int cudaFree(void *memory) { free(memory); return called("cudaFree"); }
int cudaMallocHost(void **memory, size_t bytes) { *memory = calloc(1, bytes); return 0; }
int cudaHostAlloc(void **memory, size_t bytes, unsigned flags) { *memory = calloc(1, bytes); return 0; }
int cudaFreeHost(void *memory) { free(memory); return 0; }

static int copy(const char *call, void *to, const void *from, size_t bytes)
{
    int status = called(call);
    if (status == 0)
        memcpy(to, from, bytes);
    return status;
}
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { return copy("cudaMemcpy", to, from, n); }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) { return copy("cudaMemcpyAsync", to, from, n); }
int cudaMemset(void *to, int value, size_t n) { memset(to, value, n); return 0; }
int cudaMemsetAsync(void *to, int value, size_t n, void *stream) { memset(to, value, n); return 0; }

int cudaStreamCreate(void **made) { return handle(made); }
int cudaStreamCreateWithFlags(void **made, unsigned flags) { return handle(made); }
int cudaStreamSynchronize(void *stream) { return called("cudaStreamSynchronize"); }
int cudaEventCreate(void **made) { return handle(made); }
int cudaEventCreateWithFlags(void **made, unsigned flags) { return handle(made); }
void **__cudaRegisterFatBinary(void *binary) { static void *registered; return &registered; }

int cublasCreate_v2(void **made) { return handle(made); }
int cublasLtCreate(void **made) { return handle(made); }
int cudnnCreate(void **made) { return handle(made); }
size_t cudnnGetVersion(void) { return 91000; }
const char *cudnnGetErrorString(int error) { return "a stand-in's error"; }
int cudnnBackendCreateDescriptor(int kind, void **made) { return handle(made); }
int cudnnBackendDestroyDescriptor(void *descriptor) { free(descriptor); return 0; }
int cudnnBackendGetAttribute(void *descriptor, int name, int type, long wanted, long *count, void *values)
{
    enum { BOOLEAN = 2, INT64 = 3, DESCRIPTOR = 15 };
    if (count)
        *count = 1;
    if (values && type != DESCRIPTOR)
        memset(values, 0, type == INT64 ? sizeof(long) : type == BOOLEAN ? 1 : sizeof(int));
    return 0;
}
