#include "settings.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>

#include "answers.h"

namespace encoder_bench {
namespace {

const Words<bool> kNoOrYes{{"0", false}, {"1", true}};
const Words<bool> kDevice{{"cpu", false}, {"cuda", true}};

}  // namespace

Settings read_settings(int argc, char** argv) {
  Settings s;
  const auto integer = [](std::int64_t& value) {
    return [&value](const std::string& text) { value = std::atoll(text.c_str()); };
  };
  const auto mebibytes = [](std::int64_t& bytes) {
    return
        [&bytes](const std::string& text) { bytes = static_cast<std::int64_t>(std::atof(text.c_str()) * (1 << 20)); };
  };
  const auto choice = [](auto& value, const auto& words) {
    return [&value, &words](const std::string& text) {
      const auto found = std::find_if(words.begin(), words.end(), [&](const auto& word) { return word.first == text; });
      if (found == words.end()) refuse("unknown choice " + text);
      value = found->second;
    };
  };
  const std::map<std::string, std::function<void(const std::string&)>> known{
      {"layers", integer(s.model.layers)},
      {"width", integer(s.model.width)},
      {"heads", integer(s.model.heads)},
      {"feed_forward", integer(s.model.feed_forward)},
      {"tokens", integer(s.model.context)},
      {"batch", integer(s.batch)},
      {"bucket_mb", mebibytes(s.ddp.bucket_bytes)},
      {"first_bucket_mb", mebibytes(s.ddp.first_bucket_bytes)},
      {"compress", choice(s.ddp.compress, kCompress)},
      {"find_unused", choice(s.ddp.find_unused, kNoOrYes)},
      {"mark_last_gradient", choice(s.mark_last_gradient, kNoOrYes)},
      {"device", choice(s.cuda, kDevice)},
      {"folder", [&](const std::string& text) { s.folder = text; }},
  };
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto equals = argument.find('=');
    const auto setting = known.find(argument.substr(0, equals));
    if (equals == std::string::npos || setting == known.end()) refuse("unknown setting " + argument);
    setting->second(argument.substr(equals + 1));
  }
  return s;
}

}  // namespace encoder_bench
