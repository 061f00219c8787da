/* A stand-in for the NVIDIA driver on a machine without a card, as libcuda.so.1: NVIDIA's real runtime gets as far as cuInit. */
#include <string.h>

enum { NO_DEVICE = 100 };

int cuTensorMapEncodeTiled(void) { return 0; }
int cuInit(unsigned flags) { return NO_DEVICE; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }

static int nothing(void) { return 0; }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status)
{
    if (status)
        *status = 0;
    if (strcmp(name, "cuInit") == 0)
        *function = cuInit;
    else if (strcmp(name, "cuDriverGetVersion") == 0)
        *function = cuDriverGetVersion;
    else if (strcmp(name, "cuGetProcAddress") == 0)
        *function = cuGetProcAddress_v2;
    else
        *function = nothing;
    return 0;
}
