# How every target of the project is compiled, linked and tested.
if(NOT CMAKE_CXX_STANDARD)  # a newer LibTorch's headers may want a newer one
  set(CMAKE_CXX_STANDARD 17)
endif()
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(GVSL_CCACHE ccache)
if(GVSL_CCACHE)
  # Precompiled headers and ccache agree only with these settings (ccache manual, "Precompiled headers").
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_PCH_EXTSUM=1 ${GVSL_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  endif()
endif()

if(GVSL_SANITIZER)
  add_compile_options(-fsanitize=${GVSL_SANITIZER} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${GVSL_SANITIZER})
endif()

if(GVSL_FUZZ)
  # A finding of UBSan is a failure; the classes of libraries have no type information for it.
  add_compile_options(-fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined -fno-sanitize=vptr)
endif()

# Warnings are for our code alone: generated code and library headers do not get them.
add_library(gvsl_warnings INTERFACE)
target_compile_options(gvsl_warnings INTERFACE -Wall -Wextra -Wno-missing-field-initializers -Werror)

# gvsl_room(NAME SOURCES ... USES targets...): the library of one room.
function(gvsl_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_USES} PRIVATE gvsl_warnings)
endfunction()

# gvsl_program(NAME SOURCES ... USES ...): an executable in build/bin.
function(gvsl_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_USES} gvsl_warnings)
endfunction()

# gvsl_test(NAME SOURCES ... USES ... [TIMEOUT s]): one GoogleTest binary, each case a CTest test.
function(gvsl_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;USES" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_USES} gvsl_gtest gvsl_warnings)
  target_compile_definitions(${name} PRIVATE
    GVSL_TEST_DATA_DEFAULT="${GVSL_TEST_DATA}" GVSL_GOLDEN_DEFAULT="${GVSL_GOLDEN}"
    GVSL_SOURCE_DIR="${CMAKE_SOURCE_DIR}" GVSL_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  if(GVSL_STANDALONE_GTEST)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
  else()
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT ${ARG_TIMEOUT})
  endif()
endfunction()
