// The C++ half of tests/python/payload_test.py. Prints what it wrote or read as one JSON list of tensors: name, dtype,
// shape and all bytes in hexadecimal digits.
//
//   payload_peer write RUN          writes a payload with all sorts of tensors, prints [its path, the tensors]
//   payload_peer read RUN NAME      reads the safetensors file RUN/data/NAME strictly
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "holdfast/storage/formats/safetensors.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "storage/sample_version.h"

using namespace holdfast::storage;
using namespace sample_version;
using nlohmann::json;

namespace {

std::string hex(std::string_view bytes) {
  std::string text;
  for (unsigned char byte : bytes) text.append({"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]});
  return text;
}

int fail(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}

int write(const std::string& run) {
  const auto store = open_file_store(run);
  if (Status status = store->prepare(); !status) return fail(status);
  std::vector<Tensor> tensors = all_sorts();
  for (Tensor& tensor : tensors) {
    // A bool may have only these two bytes.
    if (tensor.dtype == Dtype::boolean) {
      for (char& byte : tensor.bytes) byte &= 1;
    }
  }
  tensors.push_back(tensor("large", Dtype::bf16, {1000, 1001}));
  const std::string name = payload_name({uid_of(42), 0, 1});
  if (auto table = write_payload(*store, name, {{"format", "pt"}}, sources_of(tensors)); !table)
    return fail(table.status());
  json list = json::array();
  for (const Tensor& tensor : tensors) {
    list.push_back({{"name", tensor.name},
                    {"dtype", std::string(to_string(tensor.dtype))},
                    {"shape", tensor.shape},
                    {"bytes", hex(tensor.bytes)}});
  }
  std::printf("%s\n", json{run + "/" + name, list}.dump().c_str());
  return 0;
}

int read(const std::string& run, const std::string& name) {
  const auto store = open_file_store(run, {.read_only = true});
  const auto object = store->open("data/" + name);
  if (!object) return fail(object.status());
  const auto header = read_safetensors_header(**object);
  if (!header) return fail(header.status());
  json list = json::array();
  for (const SafetensorsTensor& tensor : header->tensors) {
    std::string bytes(tensor.end - tensor.begin, '\0');
    const Status status = (*object)->read(header->data_begin + tensor.begin, std::as_writable_bytes(std::span(bytes)));
    if (!status) return fail(status);
    list.push_back({{"name", tensor.name},
                    {"dtype", std::string(to_string(tensor.dtype))},
                    {"shape", tensor.shape},
                    {"bytes", hex(bytes)}});
  }
  std::printf("%s\n", list.dump().c_str());
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string verb = count > 1 ? words[1] : "";
  if (verb == "write" && count == 3) return write(words[2]);
  if (verb == "read" && count == 4) return read(words[2], words[3]);
  std::fprintf(stderr, "usage: payload_peer write RUN | read RUN NAME\n");
  return 2;
}
