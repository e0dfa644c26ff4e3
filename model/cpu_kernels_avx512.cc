// The CPU kernels for x86-64 processors with AVX512; see cpu_kernels_impl.h.
#define GVSL_LANES 16
#define GVSL_ROWS 12
#define GVSL_TABLE kAvx512Kernels
#define GVSL_NAME "avx512"
#include "model/cpu_kernels_impl.h"
