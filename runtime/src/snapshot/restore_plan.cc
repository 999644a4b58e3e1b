#include "snapshot/restore_plan.h"

#include <fnmatch.h>

#include <algorithm>
#include <cctype>

#include "exact_json.h"
#include "holdfast/storage/formats/digest.h"
#include "snapshot/stored_name.h"
#include "splitmix64.h"
#include "tensors/dtype.h"
#include "tensors/tensor_source.h"

namespace holdfast {

using storage::TensorEntry;

namespace {

/// The first pattern that matches `name` or `also`; null if none does.
const std::string* matching(const std::vector<std::string>& patterns, const std::string& name,
                            const std::string& also) {
  for (const std::string& pattern : patterns) {
    if (fnmatch(pattern.c_str(), name.c_str(), 0) == 0 ||
        (!also.empty() && fnmatch(pattern.c_str(), also.c_str(), 0) == 0)) {
      return &pattern;
    }
  }
  return nullptr;
}

/// The strides of a tensor of `shape` in the memory format of `old`. Empty if that is contiguous.
std::vector<std::int64_t> channels_last_strides(const at::Tensor& old, const std::vector<std::int64_t>& shape) {
  if (old.sizes().size() != shape.size()) return {};
  switch (old.suggest_memory_format()) {
    case at::MemoryFormat::ChannelsLast:
      return c10::get_channels_last_strides_2d(shape);
    case at::MemoryFormat::ChannelsLast3d:
      return c10::get_channels_last_strides_3d(shape);
    default:
      return {};
  }
}

}  // namespace

std::string track_as_resizable(const std::string& name) {
  const bool is_identifier = !name.empty() && std::isdigit(static_cast<unsigned char>(name.front())) == 0 &&
                             std::all_of(name.begin(), name.end(), [](const char c) {
                               return c == '_' || std::isalnum(static_cast<unsigned char>(c)) != 0;
                             });
  return "track(\"" + name + "\", " + (is_identifier ? name : "…") + ", holdfast::resizable)";
}

RestorePlan::RestorePlan(const storage::Manifest& manifest, const LoosenOptions& loosen, const TensorNames& names,
                         const RankPlace& place, std::set<const void*> parameters)
    : manifest_(manifest), loosen_(loosen), names_(names), place_(place), parameters_(std::move(parameters)) {
  fit.version = manifest.uid.short_text();
  for (const NamedTensor& named : names.all()) {
    if (names.owners()[named.owner].is_resizable) resizable_.insert(named.stored_as);
  }
  for (const NamedTensor& named : names.all()) {
    require_storable(named.name, named.tensor);
    // The variable's item restores it.
    if (named.is_variable && was_undefined(named.name)) continue;
    const TensorEntry* entry = find_tensor(named.name);
    if (!entry) {
      missing(named.name, describe(named.tensor));
      note_rebuilt(named.name);
      continue;
    }
    if (!has_form_of(named.tensor, *entry)) {
      if (may_resize(named, *entry)) {
        if (!takes_other_form(named.name, *entry, named.tensor)) continue;
        resize(named, *entry);
      } else {
        if (!named.is_variable || is_parameter(named.tensor)) matches(named.name, *entry, named.tensor);
        continue;
      }
    } else if (named.name == named.stored_as) {
      fill(*entry, named.tensor);
    }
    if (named.name == named.stored_as) continue;
    if (const TensorEntry* shared = manifest.find(stored_name(named.stored_as));
        shared && shared->digest != entry->digest) {
      differs(Difference::Kind::value, named.name,
              "is tied to " + named.stored_as + " in the program, and has other values than it in the checkpoint");
    }
  }
}

bool RestorePlan::may_resize(const NamedTensor& named, const TensorEntry& entry) const {
  if (resizable_.empty() || !resizable_.contains(named.stored_as)) return false;
  const at::ScalarType type = to_scalar_type(entry.dtype);
  return named.tensor.is_leaf() && !named.tensor.is_inference() &&
         (!named.tensor.requires_grad() || at::isFloatingType(type) || at::isComplexType(type));
}

// A module's layers are the program's: a restore can only change the shape of their tensors.
void RestorePlan::note_rebuilt(const std::string& name) {
  if (fit.differences.empty() || fit.differences.back().name != name) return;  // it is allowed
  for (const auto& owner : names_.owners()) {
    if (owner.is_resizable && name.starts_with(owner.name + "."))
      fit.differences.back().rebuild = "'" + owner.name + "'";
  }
}

// Gives the same memory to every handle of the tensor and of the tensors that share its bytes.
void RestorePlan::resize(const NamedTensor& named, const TensorEntry& entry) {
  resizing_.insert(named.name);
  const at::Tensor& first = *names_.find(named.stored_as);
  const TensorEntry* const shared = manifest_.find(stored_name(named.stored_as));
  apply([tensor = named.tensor, made = make_instead_of(first, shared ? *shared : entry)](std::vector<std::string>&) {
    take_form(tensor, *made);
  });
}

bool RestorePlan::is_of_other_ranks(const std::string& name) const {
  if (saved_world_size(manifest_) == place_.world_size) return false;
  // The process's own generators are always rank-local, even if there was only one rank.
  if (name.starts_with("generator.")) return true;
  const std::string another = rank_name(stored_name(name), 1);
  return manifest_.find(another) != nullptr || manifest_.values.contains(another);
}

std::uint64_t RestorePlan::fresh_seed(const std::string& name) const {
  const auto found = manifest_.made_by.find("seed");
  const std::uint64_t seed =
      found != manifest_.made_by.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
  return splitmix64(seed_of_rank(seed, manifest_.position.step, place_.rank) ^ storage::digest_of(name).low);
}

std::optional<std::string> RestorePlan::own_name_of(const std::string& stored, std::optional<int> rank) const {
  const int whose = rank.value_or(place_.rank);
  if (whose == 0) return {};  // rank 0's state has the name itself
  const std::string own = rank_name(stored, whose);
  return manifest_.find(own) != nullptr || manifest_.values.contains(own) ? std::optional(own) : std::nullopt;
}

const TensorEntry* RestorePlan::find_tensor(const std::string& name, std::optional<int> rank) {
  asked_tensors_.insert(name);
  const std::string stored = stored_name(name);
  return manifest_.find(own_name_of(stored, rank).value_or(stored));
}

const TensorEntry* RestorePlan::need_tensor(const std::string& name, const std::string& what, std::optional<int> rank) {
  const TensorEntry* entry = find_tensor(name, rank);
  if (!entry) missing(name, what);
  return entry;
}

const nlohmann::json* RestorePlan::find_value(const std::string& name, std::optional<int> rank) {
  asked_values_.insert(name);
  const std::string stored = stored_name(name);
  const auto found = manifest_.values.find(own_name_of(stored, rank).value_or(stored));
  return found == manifest_.values.end() ? nullptr : &*found;
}

bool RestorePlan::was_undefined(const std::string& name) {
  const nlohmann::json* value = find_value(name);
  return value != nullptr && *value == "undefined" && find_tensor(name) == nullptr;
}

std::optional<nlohmann::json> RestorePlan::need_value(const std::string& name, const std::string& what) {
  if (const nlohmann::json* value = find_value(name)) return decode_non_finite(*value);
  missing(name, what);
  return std::nullopt;
}

bool RestorePlan::matches(const std::string& name, const TensorEntry& entry, const at::Tensor& tensor) {
  if (has_form_of(tensor, entry)) return true;
  const bool same_shape = tensor.sizes() == at::IntArrayRef(entry.shape);
  const NamedTensor* const named = names_.find_named(name);
  const bool could_resize = named != nullptr && !resizable_.contains(named->stored_as);
  const bool may =
      allowed(loosen_.allow_mismatch, same_shape ? Difference::Kind::dtype : Difference::Kind::shape, name,
              "is " + describe(tensor) + " in the program and " + describe(entry) + " in the checkpoint", {},
              "stays as the program made it", could_resize ? names_.owners()[named->owner].name : std::string());
  if (may) staying_.insert(name);
  return false;
}

bool RestorePlan::takes_other_form(const std::string& name, const TensorEntry& entry, const at::Tensor& tensor) {
  if (matching(loosen_.allow_mismatch, name, {}) == nullptr) return true;
  return matches(name, entry, tensor);
}

void RestorePlan::differs(Difference::Kind kind, const std::string& name, const std::string& what,
                          const std::string& owner) {
  fit.differences.push_back({kind, name, name + " " + what, owner.empty() ? owner : track_as_resizable(owner)});
}

bool RestorePlan::missing(const std::string& name, const std::string& what, const std::string& also) {
  return allowed(loosen_.allow_missing, Difference::Kind::missing, name,
                 "is in the program (" + what + ") and not in the checkpoint", also, "stays as the program made it");
}

bool RestorePlan::unexpected(const std::string& name, const std::string& what, const std::string& also) {
  for (const std::string& owner : loosen_.waiting) {
    if (is_of(name, owner) || name.starts_with(owner + "@")) return true;
  }
  return allowed(loosen_.allow_unexpected, Difference::Kind::unexpected, name,
                 "is in the checkpoint (" + what + ") and not in the program", also, "is left unread");
}

bool RestorePlan::allows_unexpected(const std::string& name, const std::string& also) const {
  return matching(loosen_.allow_unexpected, name, also) != nullptr;
}

bool RestorePlan::allowed(const std::vector<std::string>& patterns, Difference::Kind kind, const std::string& name,
                          const std::string& what, const std::string& also, const char* outcome,
                          const std::string& owner) {
  if (const std::string* pattern = matching(patterns, name, also)) {
    fit.notes.push_back(name + " " + what + ": it " + outcome + ", as '" + *pattern + "' allows");
    return true;
  }
  differs(kind, name, what, owner);
  return false;
}

void RestorePlan::fill(const TensorEntry& entry, const at::Tensor& tensor) {
  targets_.push_back({&entry, std::make_shared<at::Tensor>(tensor), tensor.device(), {}});
}

std::shared_ptr<at::Tensor> RestorePlan::make(const TensorEntry& entry, at::Device device,
                                              std::vector<std::int64_t> strides) {
  targets_.push_back({&entry, std::make_shared<at::Tensor>(), device, std::move(strides)});
  return targets_.back().tensor;
}

std::shared_ptr<at::Tensor> RestorePlan::make_instead_of(const at::Tensor& old, const TensorEntry& entry) {
  auto& made = instead_of_[{old.unsafeGetTensorImpl(), &entry}];
  if (!made) made = make(entry, old.device(), channels_last_strides(old, entry.shape));
  return made;
}

void RestorePlan::finish() {
  // Every run has the process's generators and the session's own progress.
  const auto is_of_every_run = [](const std::string& name) {
    return name.starts_with("generator.") || name == "holdfast" || name.starts_with("holdfast@");
  };
  fit.has_common_names = false;
  for (const TensorEntry& entry : manifest_.tensors) {
    if (asked_tensors_.contains(program_name(entry.name))) {
      fit.has_common_names = fit.has_common_names || !is_of_every_run(entry.name);
      continue;
    }
    unexpected(entry.name, describe(entry));
    note_rebuilt(entry.name);
  }
  for (const auto& [alias, name] : manifest_.tied) {
    if (!asked_tensors_.contains(program_name(alias))) unexpected(alias, "tied to " + name);
  }
  for (const auto& [name, value] : manifest_.values.items()) {
    const bool listed = manifest_.find(name) && !asked_tensors_.contains(program_name(name));
    fit.has_common_names =
        fit.has_common_names || (asked_values_.contains(program_name(name)) && !is_of_every_run(name));
    if (!asked_values_.contains(program_name(name)) && !listed) unexpected(name, "a value");
  }
  std::stable_sort(fit.differences.begin(), fit.differences.end(),
                   [](const Difference& a, const Difference& b) { return a.name < b.name; });
}

}  // namespace holdfast
