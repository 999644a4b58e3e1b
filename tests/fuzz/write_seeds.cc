// Writes the initial inputs of the fuzzers with the encoders: write_seeds FOLDER fills FOLDER/safetensors and
// FOLDER/entry.
#include <boost/filesystem/operations.hpp>
#include <boost/filesystem/path.hpp>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

#include "holdfast/storage/formats/entries.h"
#include "holdfast/storage/formats/safetensors.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/sample_version.h"

using namespace holdfast::storage;
using namespace sample_version;

namespace {

void write(const boost::filesystem::path& path, const std::string& bytes) {
  boost::filesystem::create_directories(path.parent_path());
  std::ofstream(path.string(), std::ios::binary) << bytes;
}

/// The part of an entry to which the entry fuzzer adds a digest.
std::string without_digest(const std::string& entry) { return entry.substr(0, entry.rfind("\"digest\":")); }

}  // namespace

int main(int count, char** words) {
  if (count != 2) {
    std::fprintf(stderr, "usage: write_seeds FOLDER\n");
    return 2;
  }
  const boost::filesystem::path folder = words[1];
  const std::vector<Tensor> lists[] = {{}, {tensor("w", Dtype::f32, {2, 3})}, all_sorts()};
  int number = 0;
  for (const std::vector<Tensor>& tensors : lists) {
    const std::string name = std::to_string(number++);
    const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
    const auto manifest = publish(*store, uid_of(42), tensors);
    if (!manifest) return 1;
    write(folder / "entry" / ("save" + name), without_digest(encode(*manifest)));

    std::string file = *store->get(manifest->files[0].name);
    const std::uint64_t data_bytes = file.size() - manifest->files[0].header_bytes;
    std::string text = file.substr(8, manifest->files[0].header_bytes - 8);
    text.erase(text.find_last_not_of(' ') + 1);
    std::string length(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(data_bytes >> (8 * i) & 0xff);
    write(folder / "safetensors" / name, length + text);
  }
  Manifest boxed = manifest_of(uid_of(42));
  boxed.files = {{"data/000041-7f3a9c1e.r0of1.safetensors", 120, {}, 96, {}}};
  boxed.tensors = {{"w", Dtype::f32, {2, 3}, {}, {{0, 96, 104, {0, 0}, {2, 1}}, {0, 104, 120, {0, 1}, {2, 2}}}}};
  boxed.tied = {{"v", "w"}};
  write(folder / "entry" / "boxed", without_digest(encode(boxed)));
  OpenEntry open;
  open.uid = uid_of(1);
  open.base = uid_of(2);
  write(folder / "entry" / "open", without_digest(encode(open)));
  Note note;
  note.uid = uid_of(3);
  note.about = {uid_of(1), uid_of(2)};
  write(folder / "entry" / "note", without_digest(encode(note)));
  return 0;
}
