// What a rank writes to the driver: answers on stdout, refusals on stderr.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace encoder_bench {

/// Ends the program.
[[noreturn]] void refuse(const std::string& sentence);
void answer(const nlohmann::json& what);

}  // namespace encoder_bench
