# LibTorch's headers take 20 seconds to compile, so tests and examples share them precompiled. The owner is a program,
# not a library, because its flags (-fPIE) must be those of the programs that reuse it.
file(WRITE "${PROJECT_BINARY_DIR}/precompiled/main.cc" "int main() {}\n")
add_executable(holdfast_precompiled "${PROJECT_BINARY_DIR}/precompiled/main.cc")
set_target_properties(holdfast_precompiled PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/precompiled")
target_link_libraries(holdfast_precompiled PRIVATE LibTorch::LibTorch holdfast_warnings)
target_compile_options(holdfast_precompiled PRIVATE -UFMT_HEADER_ONLY)
target_precompile_headers(holdfast_precompiled PRIVATE <torch/torch.h>)

# The runtime has what FMT_HEADER_ONLY would compile in every source file (runtime/src/libtorch/fmt.cc).
function(holdfast_use_precompiled program)
  target_compile_options(${program} PRIVATE -UFMT_HEADER_ONLY)
  target_precompile_headers(${program} REUSE_FROM holdfast_precompiled)
endfunction()
