// The types of options that choose among a few words.
#pragma once

#include <string>

namespace holdfast {

/// automatic: the GPU if there is one that LibTorch can use, else the CPU.
enum class DeviceKind { automatic, cpu, cuda };

/// automatic: bf16 on a GPU that has it (compute capability 8.0), fp16 on an older one, fp32 on a CPU.
enum class Precision { automatic, fp32, bf16, fp16 };

/// exact: checkpoint and program must name the same state; subset: load what both name.
enum class LoadMode { exact, subset };

/// The word that a user writes; "auto" for automatic.
std::string to_string(DeviceKind kind);
std::string to_string(Precision precision);
std::string to_string(LoadMode mode);

/// auto, fp32, bf16 or fp16. Throws Error(invalid).
Precision parse_precision(const std::string& text);

}  // namespace holdfast
