#include "holdfast/runtime/platform/machine_age.h"

#include <unistd.h>

#include <sstream>

namespace holdfast {

std::optional<std::chrono::seconds> machine_age(const Surroundings& around) {
  if (!around.read) return std::nullopt;
  const std::string stat = around.read("/proc/1/stat").value_or("");
  // The second field is the command's name in parentheses, and may contain blanks and parentheses.
  const auto after_name = stat.rfind(')');
  if (after_name == std::string::npos) return std::nullopt;
  std::istringstream fields(stat.substr(after_name + 1));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  double start = 0, uptime = 0;
  std::istringstream up(around.read("/proc/uptime").value_or(""));
  if (!(fields >> start) || !(up >> uptime)) return std::nullopt;
  const double age = uptime - start / static_cast<double>(sysconf(_SC_CLK_TCK));
  if (age < 0) return std::nullopt;
  return std::chrono::seconds(static_cast<std::int64_t>(age));
}

}  // namespace holdfast
