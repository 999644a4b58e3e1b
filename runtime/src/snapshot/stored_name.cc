#include "snapshot/stored_name.h"

#include "snapshot/rank_names.h"

namespace holdfast {
namespace {

// Whether the end is "@", digits, and then only "@"s: such an end denotes a rank, or is escaped.
bool needs_escape(const std::string& name) {
  if (name.find('@') == std::string::npos) return false;
  const std::size_t last = name.find_last_not_of('@');
  return last != std::string::npos && shared_name(name.substr(0, last + 1)).size() <= last;
}

}  // namespace

std::string stored_name(std::string name) {
  if (needs_escape(name)) name += '@';
  return name;
}

std::string program_name(const std::string& stored) {
  if (stored.find('@') == std::string::npos) return stored;
  const std::string name = shared_name(stored);
  const bool is_escaped = name.ends_with('@') && needs_escape(name.substr(0, name.size() - 1));
  return is_escaped ? name.substr(0, name.size() - 1) : name;
}

bool is_of(const std::string& stored, const std::string& owner) {
  return stored == stored_name(owner) || stored.starts_with(owner + ".") || stored.starts_with(owner + ":");
}

}  // namespace holdfast
