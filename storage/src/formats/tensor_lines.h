// The tensors of a manifest as our encoder lays them out, one a line: a version may have a hundred thousand, and a JSON
// document of them costs a hundred times their bytes in time.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast::storage {

/// `"w":{"dtype":"F32","shape":[1,2],"digest":"…","parts":[…]}`, without the line's end.
void append_tensor(std::string& text, const TensorEntry& tensor);

struct WithoutTensors {
  std::string rest;  // the entry with an empty object of tensors
  std::vector<TensorEntry> tensors;
};
/// Takes the tensors out of a manifest. Empty where anything is not laid out just as append_tensor() and EntryWriter do
/// it, or names are not in order: other writers may, and what is wrong is for the reader of the whole document to say.
std::optional<WithoutTensors> take_tensors(std::string_view entry);

struct ManifestOutline {
  std::string rest;  // the entry with empty objects of tensors and values
  std::size_t tensors = 0;
};
/// As take_tensors(), for those who ask for neither tensors nor values. What is left out is not looked at.
std::optional<ManifestOutline> take_outline(std::string_view entry);

}  // namespace holdfast::storage
