// The rules for a manifest that was read or is about to be written (FORMAT.md lists them).
#pragma once

#include <optional>
#include <string>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast::storage {

/// What is wrong, as a sentence without its subject; empty: nothing.
using Problem = std::optional<std::string>;

/// Every file is a payload of this run, listed once. The subject is "the manifest".
Problem check_files(const Manifest& manifest);
/// All rules, that of check_files() first. The subject is "the manifest".
Problem check_structure(const Manifest& manifest);

}  // namespace holdfast::storage
