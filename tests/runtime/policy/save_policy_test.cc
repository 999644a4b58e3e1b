#include "policy/save_policy.h"

#include <chrono>
#include <string>

#include "catch.h"
#include "holdfast/runtime/error.h"

using holdfast::Boundary;
using holdfast::decide;
using holdfast::Error;
using holdfast::LastSave;
using holdfast::parse_save_every;
using holdfast::SaveEvery;
using namespace std::chrono_literals;

TEST_CASE("intervals_are_read_as_people_write_them") {
  CHECK(parse_save_every("500") == SaveEvery{500, 0, 0s});
  CHECK(parse_save_every("500steps") == SaveEvery{500, 0, 0s});
  CHECK(parse_save_every("1 step") == SaveEvery{1, 0, 0s});
  CHECK(parse_save_every("10min") == SaveEvery{0, 0, 10min});
  CHECK(parse_save_every("30s") == SaveEvery{0, 0, 30s});
  CHECK(parse_save_every("2h") == SaveEvery{0, 0, 2h});
  CHECK(parse_save_every("1.5h") == SaveEvery{0, 0, 90min});
  CHECK(parse_save_every("1epoch") == SaveEvery{0, 1, 0s});
  CHECK(parse_save_every("500,10min, 2epochs") == SaveEvery{500, 2, 10min});
  CHECK(parse_save_every("never") == SaveEvery{});
  for (const char* text : {"", "0", "0s", "-5", "10m", "5x", "1.5", "500,", "500,600", "min", "1e3", "99999999999d",
                           "18446744073709551616", "never,5"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_save_every(text), Error);
  }
  CHECK(to_string(parse_save_every("500,10min,2epochs")) == "500 steps, 2 epochs, 10 min");
  CHECK(to_string(parse_save_every("1")) == "step");
  CHECK(to_string(SaveEvery{}) == "never");
}

TEST_CASE("saves_are_due_by_the_table_of_intervals") {
  const std::chrono::steady_clock::time_point start{1000s};
  struct Row {
    const char* every;
    LastSave last;  // step, epochs, time
    Boundary here;  // step, epochs, now, last
    holdfast::StopRequest requests;
    bool save, stop;
    const char* reason;
  };
  const Row rows[] = {
      {"500", {0, 0, start}, {499, 0, start, false}, {}, false, false, ""},
      {"500", {0, 0, start}, {500, 0, start, false}, {}, true, false, "every 500 steps"},
      {"500", {500, 0, start}, {500, 0, start, false}, {}, false, false, ""},
      {"500", {730, 0, start}, {999, 0, start, false}, {}, false, false, ""},
      {"500", {730, 0, start}, {1000, 0, start, false}, {}, true, false, "every 500 steps"},
      {"500", {730, 0, start}, {1002, 0, start, false}, {}, true, false, "every 500 steps"},
      {"1", {0, 0, start}, {1, 0, start, false}, {}, true, false, "every step"},
      {"10min", {0, 0, start}, {7, 0, start + 599s, false}, {}, false, false, ""},
      {"10min", {0, 0, start}, {7, 0, start + 600s, false}, {}, true, false, "every 10 min"},
      {"10min", {7, 0, start}, {7, 0, start + 600s, false}, {}, false, false, ""},
      {"1epoch", {0, 0, start}, {938, 0, start, false}, {}, false, false, ""},
      {"1epoch", {0, 0, start}, {938, 1, start, false}, {}, true, false, "every epoch"},
      {"2epochs", {938, 1, start}, {1876, 2, start, false}, {}, true, false, "every 2 epochs"},
      {"2epochs", {1876, 2, start}, {2814, 3, start, false}, {}, false, false, ""},
      {"1epoch", {938, 0, start}, {938, 1, start, false}, {}, true, false, "every epoch"},
      {"never", {0, 0, start}, {938, 1, start + 24h, false}, {}, false, false, ""},
      {"never", {0, 0, start}, {938, 1, start, true}, {}, true, false, "end"},
      {"500", {500, 0, start}, {1000, 1, start, true}, {}, true, false, "end"},
      {"500", {1000, 1, start}, {1000, 1, start, true}, {}, false, false, ""},
      {"500", {3, 0, start}, {4, 0, start, false}, {.stop = "SIGTERM"}, true, true, "SIGTERM"},
      {"500", {4, 0, start}, {4, 0, start, false}, {.stop = "SIGTERM"}, false, true, "SIGTERM"},
      {"500", {3, 0, start}, {4, 0, start, true}, {.stop = "SIGTERM"}, true, false, "end"},
      {"500", {4, 0, start}, {4, 0, start, true}, {.stop = "SIGTERM"}, false, false, ""},
      {"500", {3, 0, start}, {4, 0, start, false}, {.save = "SIGUSR1"}, true, false, "SIGUSR1"},
      {"500", {4, 0, start}, {4, 0, start, false}, {.save = "save_now"}, true, false, "save_now"},
      {"500", {4, 0, start}, {4, 0, start, false}, {.stop = "SIGINT", .save = "SIGUSR1"}, true, true, "SIGINT"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.every, row.last.step, row.last.epochs, row.here.step, row.here.epochs, row.here.last);
    const auto decision = decide(parse_save_every(row.every), row.here, row.last, row.requests);
    CHECK(decision.save == row.save);
    CHECK(decision.stop == row.stop);
    CHECK(decision.reason == row.reason);
  }
}
