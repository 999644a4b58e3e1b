#include "holdfast/storage/text/time.h"

#include <cstdio>
#include <ctime>

namespace holdfast::storage {

// With the C library, because storage does not depend on fmt.
std::string time_text() {
  const std::time_t seconds = std::time(nullptr);
  std::tm time{};
  ::gmtime_r(&seconds, &time);
  char text[sizeof "2000-01-01T00:00:00Z"];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &time);
  return text;
}

std::optional<std::int64_t> parse_time(const std::string& text) {
  std::tm time{};
  int read = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%n", &time.tm_year, &time.tm_mon, &time.tm_mday, &time.tm_hour,
                  &time.tm_min, &time.tm_sec, &read) != 6 ||
      text.back() != 'Z') {
    return std::nullopt;
  }
  time.tm_year -= 1900;
  time.tm_mon -= 1;
  return static_cast<std::int64_t>(::timegm(&time));
}

}  // namespace holdfast::storage
