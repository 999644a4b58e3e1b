#include "process/launcher_progress.h"

#include <boost/filesystem/operations.hpp>
#include <cstdlib>
#include <fstream>

#include "holdfast/runtime/platform/launcher.h"

namespace holdfast {

void tell_launcher(std::uint64_t saved_step) {
  const char* path = std::getenv(detail::kProgressVariable);
  if (path == nullptr || *path == '\0') return;
  const boost::filesystem::path whole(path), beside(std::string(path) + ".new");
  std::ofstream(beside.string()) << saved_step << '\n';
  boost::system::error_code ignored;
  boost::filesystem::rename(beside, whole, ignored);
}

}  // namespace holdfast
