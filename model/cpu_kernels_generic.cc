// The CPU kernels for any processor (SSE2 on x86-64, NEON on ARM); see cpu_kernels_impl.h.
#define GVSL_LANES 4
#define GVSL_ROWS 2
#define GVSL_TABLE kGenericKernels
#define GVSL_NAME "generic"
#include "model/cpu_kernels_impl.h"
