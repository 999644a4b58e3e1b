#include "logging/console.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/stores/memory_store.h"
#include "logging/metrics_writer.h"
#include "message_parts.h"

using holdfast::Console;
using holdfast::end_line;
using holdfast::MetricsWriter;
using holdfast::progress_line;
using holdfast::ProgressFacts;
using holdfast::saved_line;
using holdfast::start_line;
using nlohmann::json;
using namespace std::chrono_literals;

namespace {

// A stream whose text can be read back.
struct Page {
  Page() : file(std::tmpfile()) {}
  ~Page() { std::fclose(file); }
  std::string text() const {
    std::fflush(file);
    std::rewind(file);
    std::string all(1 << 16, '\0');
    all.resize(std::fread(all.data(), 1, all.size(), file));
    std::fseek(file, 0, SEEK_END);
    return all;
  }
  std::FILE* file;
};

std::string metrics_text(const holdfast::storage::Store& store, const holdfast::storage::Uid& open) {
  auto text = store.get(holdfast::storage::metrics_name(open));
  return text.ok() ? *text : "";
}

}  // namespace

TEST_CASE("log_lines_have_numbers_and_units") {
  const auto fresh = start_line(
      {.run = "fashion", .device = "cpu, 2 threads", .seed = 42, .place = "runs/fashion", .every = "10 min"});
  CHECK(lacking(fresh,
                {"run fashion", "cpu, 2 threads", "seed 42", "in runs/fashion", "every 10 min", "from scratch"}) == "");
  CHECK_FALSE(contains(fresh, "bit-exact"));
  CHECK(start_line({.run = "fashion", .platform = "Kaggle, Save Version", .device = "cuda:0", .every = "500 steps"})
            .starts_with("run fashion on Kaggle, Save Version: cuda:0, seed 0"));
  const auto resumed = start_line({.run = "fashion",
                                   .device = "NVIDIA H200",
                                   .seed = 1,
                                   .place = "runs/fashion",
                                   .every = "never",
                                   .resumed = "version 42-7f3a, step 1,200",
                                   .differences = {"threads 2 → 4", "LibTorch 2.11.0 → 2.12.0"},
                                   .note = "a note"});
  CHECK(lacking(resumed,
                {"run fashion", "NVIDIA H200", "seed 1", "in runs/fashion", "at the end", "version 42-7f3a, step 1,200",
                 "not bit-exact", "threads 2 → 4", "LibTorch 2.11.0 → 2.12.0", "a note"}) == "");
  CHECK(lacking(saved_line({"42-7f3a", 1200, "every 500 steps", 19293798, 12300us, 35100us, "fsynced"}),
                {"version 42-7f3a", "step 1,200", "every 500 steps", "18.4 MiB", "waited 12.3 ms",
                 "fsynced after 35.1 ms"}) == "");
  CHECK(lacking(end_line({"SIGTERM", 1234, "43-7f3a"}), {"step 1,234", "SIGTERM", "saved as version 43-7f3a"}) == "");
  CHECK(contains(end_line({"SIGTERM", 0, ""}), "nothing is saved"));
  CHECK(lacking(end_line({"SIGTERM", 1234, "43-7f3a", 34}),
                {"step 1,234", "SIGTERM", "34 steps", "not saved", "from version 43-7f3a"}) == "");
  CHECK(progress_line({1234, 9380, 2, 10, {{"loss", 0.41732}}}, 123.4) ==
        "epoch 2/10  step 1,234/9,380  13 %  loss 0.4173  123 steps/s  1 min 06 s left");
  CHECK(progress_line({5, 0, 0, 0, {}}, 0) == "step 5");
}

TEST_CASE("without_a_terminal_progress_is_a_line_every_half_minute") {
  Page page;
  int asked = 0;
  {
    Console console(page.file, Console::Style::plain);
    const Console::Clock::time_point start{100s};
    for (std::uint64_t step = 0; step <= 70; ++step) {
      console.progress(step, start + std::chrono::seconds(step), [&] {
        ++asked;
        return ProgressFacts{.step = step};
      });
    }
  }
  CHECK(asked == 2);
  CHECK(page.text() == "holdfast: step 30  1 steps/s\nholdfast: step 60  1 steps/s\n");
}

TEST_CASE("on_a_terminal_the_progress_line_is_redrawn_and_makes_room_for_other_lines") {
  Page page;
  {
    Console console(page.file, Console::Style::terminal);
    const Console::Clock::time_point start{100s};
    for (int step = 0; step < 100; ++step) {  // one second in total
      console.progress(step, start + step * 10ms,
                       [&] { return ProgressFacts{.step = static_cast<std::uint64_t>(step)}; });
    }
    console.say("saved");
    console.progress(100, start + 2s, [] {
      return ProgressFacts{.step = 100, .values = {{std::string(300, 'x'), 1}}};
    });
  }
  const auto text = page.text();
  CHECK(std::count(text.begin(), text.end(), '\r') == 11);  // nine steps, one to clear, one step
  CHECK(contains(text, "\r\033[Kstep 90"));
  CHECK(contains(text, "\r\033[Kholdfast: saved\n"));
  const auto last = text.substr(text.rfind('\r'));
  CHECK(last.size() == std::string("\r\033[K").size() + 79 + 1);
  CHECK(last.back() == '\n');
}

TEST_CASE("a_progress_line_is_cut_between_characters_and_never_above_100_percent") {
  Page page;
  const Console::Clock::time_point start{100s};
  Console console(page.file, Console::Style::terminal);
  std::string name;
  for (int i = 0; i < 60; ++i) name += "ä€";  // two bytes, three bytes
  const auto facts = [&] { return ProgressFacts{.step = 7, .total_steps = 5, .values = {{name, 1}}}; };
  console.progress(6, start, facts);
  console.progress(7, start + 200ms, facts);
  const std::string text = page.text();
  CHECK(contains(text, "step 7/5 100 %"));
  std::size_t characters = 0;
  for (const char byte : text.substr(text.find("step")))
    characters += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  CHECK(characters == 79);
  const auto tail = text.substr(text.size() - 3);
  CHECK((tail == "€" || tail.substr(1) == "ä"));
}

TEST_CASE("the_log_has_every_line_with_its_time_even_those_from_before_it_was_open") {
  Page page;
  std::string log;
  Console console(page.file, Console::Style::plain);
  console.say("first");
  console.set_log([&](std::string_view text) { log += text; });
  console.say("second");
  REQUIRE(log.size() > 42);
  CHECK(contains(log, "Z first\n20"));
  CHECK(contains(log, "Z second\n"));
  CHECK(log[4] == '-');
  CHECK(log[19] == 'Z');
  const Console::Clock::time_point start{100s};
  console.progress(1, start, [] { return ProgressFacts{.step = 1}; });
  console.progress(2, start + 31s, [] { return ProgressFacts{.step = 2}; });
  CHECK(contains(log, "Z step 2"));
}

TEST_CASE("metrics_are_json_lines_that_a_flush_makes_visible") {
  const auto store = holdfast::storage::open_memory_store(holdfast::storage::make_memory_image());
  const holdfast::storage::Uid open{7, "7f3a9c1e"};
  MetricsWriter metrics(*store, open);
  CHECK(metrics.log(1, 0, {{"loss", 0.5}, {"lr", 1e-3}}).ok());
  CHECK(metrics.log(2, 0, {{"loss", std::nan("")}, {"range", {1, std::numeric_limits<double>::infinity()}}}).ok());
  CHECK(metrics_text(*store, open).empty());
  CHECK(metrics.flush().ok());
  const auto text = metrics_text(*store, open);
  const auto first = json::parse(text.substr(0, text.find('\n')));
  CHECK(first.at("step") == 1);
  CHECK(first.at("epoch") == 0);
  CHECK(first.at("time").get<double>() > 1.6e9);
  CHECK(first.at("loss") == 0.5);
  CHECK(text.rfind("{\"step\":1,\"epoch\":0,\"time\":", 0) == 0);
  const auto second = json::parse(text.substr(text.find('\n') + 1));
  CHECK(second.at("loss") == "nan");
  CHECK(second.at("range") == json::parse(R"([1, "inf"])"));
  CHECK(metrics.flush().ok());
  CHECK(metrics_text(*store, open) == text);
}

TEST_CASE("many_metrics_are_appended_before_they_fill_the_memory") {
  const auto store = holdfast::storage::open_memory_store(holdfast::storage::make_memory_image());
  const holdfast::storage::Uid open{7, "7f3a9c1e"};
  MetricsWriter metrics(*store, open);
  const std::string blob(MetricsWriter::kHoldBytes / 4, 'x');
  for (int i = 0; i < 5; ++i) CHECK(metrics.log(i, 0, {{"blob", blob}}).ok());
  CHECK(metrics_text(*store, open).size() >= MetricsWriter::kHoldBytes);
}

TEST_CASE("metrics_that_are_not_names_and_values_are_refused") {
  const auto store = holdfast::storage::open_memory_store(holdfast::storage::make_memory_image());
  MetricsWriter metrics(*store, {7, "7f3a9c1e"});
  CHECK_THROWS_AS(metrics.log(1, 0, json(3.0)), holdfast::Error);
  CHECK_THROWS_AS(metrics.log(1, 0, {{"step", 3}}), holdfast::Error);
  CHECK_THROWS_AS(metrics.log(1, 0, {{"time", 3}}), holdfast::Error);
}
