#include "logging/torch_warnings.h"

#include <c10/util/Exception.h>
#include <c10/util/Logging.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <typeinfo>

namespace holdfast {
namespace {

std::atomic<bool> level_is_ours{false};

// LibTorch's own handler passes warnings to the log, whose level omits them.
class PrintedWarnings final : public c10::WarningHandler {
  void process(const c10::Warning& warning) override {
    const auto& at = warning.source_location();
    if (std::strstr(at.file, "/c10d/") != nullptr) return;
    std::fprintf(stderr, "[W %s:%u] Warning: %s (function %s)\n", at.file, at.line, warning.msg().c_str(), at.function);
  }
};

}  // namespace

void leave_out_words_of_c10d() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") != nullptr) return;
  FLAGS_caffe2_log_level = c10::GLOG_ERROR;
  level_is_ours = true;
  print_warnings_of_this_thread();
}

void print_warnings_of_this_thread() {
  if (!level_is_ours) return;
  static PrintedWarnings* const printed = new PrintedWarnings;  // for as long as any thread lives
  c10::WarningHandler* const present = c10::WarningUtils::get_warning_handler();
  if (typeid(*present) == typeid(c10::WarningHandler)) c10::WarningUtils::set_warning_handler(printed);
}

}  // namespace holdfast
