// One writer of a World: its program, the fiber it runs in, and the results of its calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "world.h"

namespace holdfast::storage::model {

struct World::Writer {
  Program program;
  std::unique_ptr<SteppedStore> store;
  FaultySteps steps;
  std::unique_ptr<Fiber> fiber;
  std::string next = "start";
  bool killed = false;
  std::size_t done = 0;  // actions

  Work work;
  std::optional<SessionOrder> order;  // once opened
  std::optional<Uid> base;            // until its first save
  bool open_failed = false;
  bool stale = false;  // a call returned `superseded`
  std::uint32_t saves = 0;
  Fingerprint told;  // the outcomes of its calls
};

}  // namespace holdfast::storage::model
