// The CPU kernels for x86-64 processors with AVX2; see cpu_kernels_impl.h.
#define GVSL_LANES 8
#define GVSL_ROWS 6
#define GVSL_TABLE kAvx2Kernels
#define GVSL_NAME "avx2"
#include "model/cpu_kernels_impl.h"
