// The tensors of a manifest in our encoder's layout, one a line. A version may have a hundred thousand tensors, for
// which a general JSON parser is too slow.
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
/// Takes the tensors out of a manifest. Empty if the layout differs from that of append_tensor() and EntryWriter, or if
/// names are not in order: other writers may differ, and the reader of the whole document reports errors.
std::optional<WithoutTensors> take_tensors(std::string_view entry);

struct ManifestOutline {
  std::string rest;  // the entry with empty objects of tensors and values
  std::size_t tensors = 0;
};
/// Like take_tensors(), for callers that need neither tensors nor values. The omitted text is not checked.
std::optional<ManifestOutline> take_outline(std::string_view entry);

}  // namespace holdfast::storage
