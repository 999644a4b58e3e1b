// The columns of a type's members, below the column of the type.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace holdfast::detail {

/// The suffix that a child's name adds to its column's name.
inline std::string suffix_of(const char* name) { return name[0] == ':' ? name : std::string(".") + name; }

/// The column of that name, or null. Names are usually the same literals in the same order: `next` is the expected
/// index.
template <class Column>
Column* find_child(const std::vector<std::pair<const char*, std::unique_ptr<Column>>>& children, const char* name,
                   std::size_t& next) {
  std::size_t at = next < children.size() ? next : 0;
  for (std::size_t i = 0; i < children.size(); ++i) {
    const auto& [known, column] = children[at];
    if (++at == children.size()) at = 0;
    if (known == name || std::strcmp(known, name) == 0) {
      next = at;
      return column.get();
    }
  }
  return nullptr;
}

}  // namespace holdfast::detail
