#include "snapshot/capture.h"

#include <algorithm>
#include <utility>

#include "exact_json.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/formats/digest.h"

namespace holdfast {

using storage::StatusCode;

Capture::Capture(const TensorNames& names, std::function<std::set<const void*>()> parameters, bool digests_generators)
    : names_(names),
      parameters_(std::move(parameters)),
      digests_generators_(digests_generators),
      buffer_(make_copy_buffer()) {
  sources_.reserve(names.all().size());
  for (const NamedTensor& named : names.all()) {
    if (named.name == named.stored_as) {
      tensor(named.name, named.tensor, named.is_alike);
    } else {
      tied.emplace(named.name, named.stored_as);
    }
  }
}

bool Capture::is_parameter(const at::Tensor& tensor) const {
  return parameters_().contains(tensor.unsafeGetTensorImpl());
}

void Capture::tensor(const std::string& name, const at::Tensor& tensor, bool is_alike) {
  sources_.push_back(make_source(name, tensor, buffer_));
  if (!is_alike) may_differ.insert(name);
}

std::vector<storage::TensorSource> Capture::take_sources() {
  std::vector<storage::TensorSource*> by_name;
  by_name.reserve(sources_.size());
  for (storage::TensorSource& source : sources_) by_name.push_back(&source);
  std::sort(by_name.begin(), by_name.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  std::vector<storage::TensorSource> sorted;
  sorted.reserve(by_name.size());
  for (storage::TensorSource* const source : by_name) {
    if (tied.contains(source->name) || (!sorted.empty() && sorted.back().name == source->name)) {
      throw Error(StatusCode::invalid, "two tracked tensors are called '" + source->name +
                                           "': track one of their owners under another name");
    }
    sorted.push_back(std::move(*source));
  }
  return sorted;
}

void Capture::value(const std::string& name, nlohmann::json value) {
  if (!is_utf8(value)) {
    throw Error(StatusCode::unsupported, "the value of '" + name +
                                             "' holds text that is not UTF-8, which JSON cannot keep: track the bytes "
                                             "as a std::vector<std::uint8_t>");
  }
  values[name] = encode_non_finite(std::move(value));
}

void Capture::generator(const std::string& name) {
  if (const auto value = values.find(name); value != values.end()) {
    generators[name] = storage::digest_of(value->dump()).hex();
    return;
  }
  const auto source =
      std::find_if(sources_.rbegin(), sources_.rend(), [&](const auto& source) { return source.name == name; });
  if (source != sources_.rend()) generators[name] = source->digest().hex();
}

}  // namespace holdfast
