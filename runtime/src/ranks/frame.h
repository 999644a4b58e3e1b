// Frame: what each rank says of the operation it enters, exchanged before any bytes of it move. Gloo ends the process
// where sizes differ and hangs where operations do, so ranks compare first and a divergence is an error with both call
// sites. A small value travels inside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast {

struct Frame {
  std::uint64_t sequence = 0;  // of the rank's operations, from 1
  std::string operation = {};  // "broadcast"
  std::string site = {};       // "train.cc:41"
  std::string what = {};       // what all ranks must have alike: "float [3, 4] from rank 0"; empty: nothing
  std::uint64_t bytes = 0;     // of the rank's value
  std::string value = {};      // all of it where it fits
};

/// Every frame is this long on the wire.
inline constexpr std::size_t kFrameBytes = 4096;
/// More than any value has: what says it is larger is not a frame.
inline constexpr std::uint64_t kLargestValue = std::uint64_t{1} << 40;

/// The value is left out where it does not fit.
std::string encode(const Frame& frame);
/// Throws Error(corrupt) for what is not a frame of this build.
Frame decode_frame(const std::string& wire);

/// How the ranks' frames differ, in a sentence that names two ranks, their operations and their call sites; nothing
/// where all entered the same operation. Where all but one agree, that one is named.
std::optional<std::string> divergence(const std::vector<Frame>& frames);

}  // namespace holdfast
