#include "ranks/frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

constexpr std::size_t kLongestText = 512;  // of a call site or a description, which are only for messages

bool same(const Frame& a, const Frame& b) { return a.operation == b.operation && a.what == b.what; }

std::string phrase(std::size_t rank, const Frame& frame) {
  return fmt::format("rank {} calls {}{}{} at {}", rank, frame.operation, frame.what.empty() ? "" : " of ", frame.what,
                     frame.site);
}

}  // namespace

std::string encode(const Frame& frame) {
  nlohmann::json header = {{"s", frame.sequence},
                           {"o", frame.operation},
                           {"c", frame.site.substr(0, kLongestText)},
                           {"w", frame.what.substr(0, kLongestText)},
                           {"b", frame.bytes}};
  std::string wire = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
  if (wire.size() + frame.value.size() <= kFrameBytes) wire += frame.value;
  wire.resize(kFrameBytes, '\0');
  return wire;
}

Frame decode_frame(const std::string& wire) {
  try {
    const std::size_t end = wire.find('\n');
    const nlohmann::json header = nlohmann::json::parse(wire.substr(0, end));
    Frame frame{header.at("s"), header.at("o"), header.at("c"), header.at("w"), header.at("b"), {}};
    if (end != std::string::npos && header.at("b").is_number_unsigned() && frame.bytes <= kLargestValue) {
      if (end + 1 + frame.bytes <= kFrameBytes) frame.value = wire.substr(end + 1, frame.bytes);
      return frame;
    }
  } catch (const std::exception&) {
  }
  throw Error(storage::StatusCode::corrupt,
              "received a malformed message from another rank; start the same build of the program on all hosts");
}

std::optional<std::string> divergence(const std::vector<Frame>& frames) {
  // The operation that most ranks are in; in a tie, that of the lowest rank.
  std::size_t usual = 0, most = 0;
  for (std::size_t rank = 0; rank < frames.size(); ++rank) {
    const auto alike = static_cast<std::size_t>(
        std::count_if(frames.begin(), frames.end(), [&](const Frame& other) { return same(other, frames[rank]); }));
    if (alike > most) {
      most = alike;
      usual = rank;
    }
  }
  for (std::size_t rank = 0; rank < frames.size(); ++rank) {
    if (same(frames[rank], frames[usual])) continue;
    return fmt::format(
        "the ranks diverge at operation {}: {}, {}; every rank must call the same operations in the same "
        "order",
        frames[rank].sequence, phrase(rank, frames[rank]), phrase(usual, frames[usual]));
  }
  return std::nullopt;
}

}  // namespace holdfast
