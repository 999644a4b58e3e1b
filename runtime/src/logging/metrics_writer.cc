#include "logging/metrics_writer.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

ordered_json finite(const json& value) {
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (std::isnan(number)) return "nan";
    if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
    return number;
  }
  if (value.is_array()) {
    auto copy = ordered_json::array();
    for (const auto& element : value) copy.push_back(finite(element));
    return copy;
  }
  if (value.is_object()) {
    auto copy = ordered_json::object();
    for (const auto& [key, element] : value.items()) copy[key] = finite(element);
    return copy;
  }
  return value;
}

}  // namespace

MetricsWriter::MetricsWriter(storage::Store& store, const storage::Uid& open)
    : store_(store), name_(storage::metrics_name(open)) {}

void MetricsWriter::check(const json& values) {
  if (!values.is_object()) {
    throw Error(storage::StatusCode::invalid, "log takes names and values, as in {{\"loss\", 0.5}}, not " +
                                                  values.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  for (const char* own : {"step", "epoch", "time"}) {
    if (!values.contains(own)) continue;
    throw Error(storage::StatusCode::invalid,
                std::string("log writes '") + own + "' itself: give that value another name");
  }
}

storage::Status MetricsWriter::log(std::uint64_t step, std::uint64_t epoch, const json& values) {
  check(values);
  ordered_json record;
  record["step"] = step;
  record["epoch"] = epoch;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  record["time"] = static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()) / 1000;
  for (const auto& [key, value] : values.items()) record[key] = finite(value);
  if (held_.empty()) oldest_ = std::chrono::steady_clock::now();
  held_ += record.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  const bool full = held_.size() >= kHoldBytes && !torn_;  // after a failure, only time leads to a retry
  if (!full && std::chrono::steady_clock::now() - oldest_ < kHold) return {};
  return flush();
}

storage::Status MetricsWriter::flush() {
  if (held_.empty()) return {};
  auto status = store_.append(name_, torn_ ? "\n" + held_ : held_);
  torn_ = !status.ok();
  if (status.ok() || held_.size() > kDropBytes) held_.clear();
  oldest_ = std::chrono::steady_clock::now();
  return status;
}

}  // namespace holdfast
