// How an entry of a run folder gets its name, create-only, in the best way that works there. Private to the file
// driver.
#pragma once

#include <memory>
#include <string_view>

#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// The end of a staged entry's name.
inline constexpr const char* kStagedSuffix = ".tmp";

struct Publishing {
  enum class Way { link, rename, in_place };  // best first
  Way way = Way::link;
  bool create_only_enforced = false;
};

/// Finds the best way that works here: link, exclusive rename, O_EXCL in place. Tries it with files in `folder`.
Status probe_publishing(FileOperations& files, const Path& folder, Publishing& found);
/// The same for a file system where only O_EXCL in place may be used.
Status probe_in_place(FileOperations& files, const Path& folder, Publishing& found);

/// Writes the bytes to a file with a temporary name beside `path`; in place, keeps them in memory.
Result<std::unique_ptr<StagedObject>> stage_file(FileOperations& files, const Path& path, std::string_view bytes,
                                                 bool durable, Publishing::Way way);

}  // namespace holdfast::storage
