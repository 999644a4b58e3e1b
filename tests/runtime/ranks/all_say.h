// A check of what every rank of a group returns.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>

#include "catch.h"
#include "ranks.h"

namespace ranks {

/// Every rank's `body` succeeds and returns `expected`.
inline void all_say(int count, const std::string& expected, const std::function<std::string(holdfast::Group&)>& body,
                    c10::DeviceType device = c10::kCPU) {
  const auto ended = run(count, body, std::chrono::seconds(60), device);
  for (std::size_t rank = 0; rank < ended.size(); ++rank) {
    INFO("rank " << rank << " of " << count);
    CHECK(ended[rank].code == 0);
    CHECK(ended[rank].text == expected);
  }
}

}  // namespace ranks
