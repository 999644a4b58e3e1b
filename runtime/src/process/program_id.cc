#include "process/program_id.h"

#include <fstream>
#include <vector>

#include "holdfast/storage/formats/digest.h"

namespace holdfast {

std::string program_id() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  if (!file) return "";
  storage::DigestStream digest;
  std::vector<char> chunk(std::size_t{1} << 20);
  while (file) {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    digest.update(std::as_bytes(std::span(chunk.data(), static_cast<std::size_t>(file.gcount()))));
  }
  return digest.finish().hex();
}

}  // namespace holdfast
