# Every library the project uses, each found once and here.
find_package(Threads REQUIRED)

# LibTorch: Debian's package, a download from pytorch.org, or the one inside a Python installation
# (cmake -DCMAKE_PREFIX_PATH="$(python3 -c 'import torch; print(torch.utils.cmake_prefix_path)')").
find_package(Torch REQUIRED)
# Wheels before PyTorch 2.6 have the string of before C++11, and so must every room then.
if(TORCH_CXX_FLAGS MATCHES "_GLIBCXX_USE_CXX11_ABI=0")
  add_compile_definitions(_GLIBCXX_USE_CXX11_ABI=0)
endif()
add_library(gvsl_torch INTERFACE)
target_include_directories(gvsl_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
# The C++ library first: the LibTorch of a Python installation exports functions of std::filesystem that do not
# work (remove_all calls address 0 in 2.11).
target_link_libraries(gvsl_torch INTERFACE stdc++ ${TORCH_LIBRARIES})

# What sums over the ranks of a job: Gloo on the CPU; NCCL on CUDA, whose header lies beside LibTorch in a Python
# installation. A Python installation has no headers of Gloo.
add_library(gvsl_collectives INTERFACE)
find_path(GLOO_INCLUDE_DIR gloo/algorithm.h)
if(GLOO_INCLUDE_DIR)
  target_include_directories(gvsl_collectives SYSTEM INTERFACE ${GLOO_INCLUDE_DIR})
  target_compile_definitions(gvsl_collectives INTERFACE GVSL_GLOO)
elseif(NOT GVSL_MODEL_ONLY)
  message(FATAL_ERROR "Gloo's headers are missing (libgloo-dev)")
endif()
if(TORCH_CUDA_LIBRARIES)
  set(wheels "${TORCH_INSTALL_PREFIX}/../nvidia/nccl")
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS "${wheels}/include")
  find_library(NCCL_LIBRARY NAMES libnccl.so.2 nccl NAMES_PER_DIR HINTS "${wheels}/lib")
endif()
if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
  target_include_directories(gvsl_collectives SYSTEM INTERFACE ${NCCL_INCLUDE_DIR})
  target_link_libraries(gvsl_collectives INTERFACE ${NCCL_LIBRARY})
  target_compile_definitions(gvsl_collectives INTERFACE GVSL_NCCL USE_C10D_NCCL)
endif()

# Abseil's Status, GoogleTest, nlohmann's JSON and OpenSSL's SHA-256. GVSL_MODEL_ONLY must build where none
# of them is present: there the few names that imaging and model use come from stand-ins in
# cmake/standalone (docs/adr/0002-model-builds-alone.md). The service itself is never built with them.
# Their folders are no SYSTEM ones: they come before LibTorch's, which may hold a copy of the same library.
if(GVSL_MODEL_ONLY)
  set(presence QUIET)
else()
  set(presence REQUIRED)
endif()
set(standin "${CMAKE_SOURCE_DIR}/cmake/standalone")

find_package(absl CONFIG ${presence})
add_library(gvsl_status INTERFACE)
if(absl_FOUND)
  target_link_libraries(gvsl_status INTERFACE absl::status absl::statusor absl::strings)
else()
  target_include_directories(gvsl_status INTERFACE "${standin}/absl_standin")
endif()

find_package(GTest ${presence})
add_library(gvsl_gtest INTERFACE)
if(GTest_FOUND)
  include(GoogleTest)
  target_link_libraries(gvsl_gtest INTERFACE GTest::gtest GTest::gtest_main)
else()
  set(GVSL_STANDALONE_GTEST ON)
  target_include_directories(gvsl_gtest INTERFACE "${standin}/gtest_standin")
  target_sources(gvsl_gtest INTERFACE "${standin}/gtest_standin/gtest_main.cc")
endif()

find_package(nlohmann_json ${presence})
add_library(gvsl_json INTERFACE)
if(nlohmann_json_FOUND)
  target_link_libraries(gvsl_json INTERFACE nlohmann_json::nlohmann_json)
else()
  target_include_directories(gvsl_json INTERFACE "${standin}/json_standin")
endif()

find_package(OpenSSL ${presence})
add_library(gvsl_crypto INTERFACE)
if(OPENSSL_FOUND)
  target_link_libraries(gvsl_crypto INTERFACE OpenSSL::Crypto)
endif()

find_package(benchmark QUIET)

if(GVSL_MODEL_ONLY)
  return()
endif()

find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED)
find_package(DCMTK CONFIG REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Eigen3 REQUIRED)

# cairo: pictures with lines and words.
find_path(CAIRO_INCLUDE_DIR cairo.h PATH_SUFFIXES cairo REQUIRED)
find_library(CAIRO_LIBRARY cairo REQUIRED)
add_library(gvsl_cairo INTERFACE)
target_include_directories(gvsl_cairo SYSTEM INTERFACE ${CAIRO_INCLUDE_DIR})
target_link_libraries(gvsl_cairo INTERFACE ${CAIRO_LIBRARY})

# niftilib: header and voxels of NIfTI-1 and NIfTI-2.
find_path(NIFTI_INCLUDE_DIR nifti2_io.h PATH_SUFFIXES nifti REQUIRED)
find_library(NIFTI_LIBRARY nifti2 REQUIRED)
find_library(ZNZ_LIBRARY znz REQUIRED)
add_library(gvsl_nifti INTERFACE)
target_include_directories(gvsl_nifti SYSTEM INTERFACE ${NIFTI_INCLUDE_DIR})
target_link_libraries(gvsl_nifti INTERFACE ${NIFTI_LIBRARY} ${ZNZ_LIBRARY} ZLIB::ZLIB)

# ITK's MetaIO: the reference implementation of MetaImage. Only this library of ITK is linked.
find_path(METAIO_INCLUDE_DIR metaImage.h PATH_SUFFIXES ITK-5.2 REQUIRED)
find_library(METAIO_LIBRARY ITKMetaIO-5.2 REQUIRED)
add_library(gvsl_metaio INTERFACE)
target_include_directories(gvsl_metaio SYSTEM INTERFACE ${METAIO_INCLUDE_DIR})
target_link_libraries(gvsl_metaio INTERFACE ${METAIO_LIBRARY} ZLIB::ZLIB)

# OpenJPEG: the JPEG 2000 that DCMTK lacks. Included by its folder's name: ITK has a header of the same name.
find_path(OPENJPEG_INCLUDE_DIR openjpeg-2.5/openjpeg.h REQUIRED)
find_library(OPENJPEG_LIBRARY openjp2 REQUIRED)
add_library(gvsl_openjpeg INTERFACE)
target_include_directories(gvsl_openjpeg SYSTEM INTERFACE ${OPENJPEG_INCLUDE_DIR})
target_link_libraries(gvsl_openjpeg INTERFACE ${OPENJPEG_LIBRARY})

# SOCI over SQLite.
find_path(SOCI_INCLUDE_DIR soci/soci.h REQUIRED)
find_library(SOCI_CORE_LIBRARY soci_core REQUIRED)
find_library(SOCI_SQLITE3_LIBRARY soci_sqlite3 REQUIRED)
find_package(SQLite3 REQUIRED)
add_library(gvsl_soci INTERFACE)
target_include_directories(gvsl_soci SYSTEM INTERFACE ${SOCI_INCLUDE_DIR})
target_link_libraries(gvsl_soci INTERFACE ${SOCI_CORE_LIBRARY} ${SOCI_SQLITE3_LIBRARY} SQLite::SQLite3)

# Faiss: the nearest of many vectors. Its package names OpenMP's target and does not find it.
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(faiss CONFIG REQUIRED)
add_library(gvsl_faiss INTERFACE)
target_link_libraries(gvsl_faiss INTERFACE faiss)

# Prometheus: the metrics of gvsl-ingest.
find_path(PROMETHEUS_INCLUDE_DIR prometheus/exposer.h REQUIRED)
find_library(PROMETHEUS_CORE_LIBRARY prometheus-cpp-core REQUIRED)
find_library(PROMETHEUS_PULL_LIBRARY prometheus-cpp-pull REQUIRED)
add_library(gvsl_prometheus INTERFACE)
target_include_directories(gvsl_prometheus SYSTEM INTERFACE ${PROMETHEUS_INCLUDE_DIR})
target_link_libraries(gvsl_prometheus INTERFACE ${PROMETHEUS_PULL_LIBRARY} ${PROMETHEUS_CORE_LIBRARY})

# Boost.CRC, header only: the checksum of TensorBoard's files.
find_package(Boost REQUIRED)
