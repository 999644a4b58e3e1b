// One tracked object: a Capture takes its state when it is saved, a RestorePlan when a version is compared or restored.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/runtime/serialize/object_reference.h"
#include "holdfast/runtime/serialize/state.h"
#include "snapshot/capture.h"
#include "snapshot/restore_plan.h"

namespace holdfast {

class TrackedItem {
 public:
  explicit TrackedItem(std::string name) : name_(std::move(name)) {}
  virtual ~TrackedItem() = default;
  const std::string& name() const { return name_; }
  /// The address of the user's variable that is tracked; null where the registry keeps the object alive.
  const void* variable() const { return variable_; }
  /// Whether the run has begun with it: begin() was called, or a version was restored into it.
  bool has_begun() const { return has_begun_; }
  void note_begun() { has_begun_ = true; }
  void refer_to(const void* variable) { variable_ = variable; }
  /// Whether its tensors take a saved shape and dtype that differ from theirs (resizable.h).
  bool is_resizable() const { return is_resizable_; }
  /// Whether the program draws numbers from it.
  bool is_generator() const { return is_generator_; }
  void note_generator() { is_generator_ = true; }
  void let_resize() { is_resizable_ = true; }
  /// The module, optimizer or scheduler that the variable holds now; null for everything else.
  virtual const void* object() const { return nullptr; }

  /// Its current parts, which are tracked under their own names ("name.part").
  virtual std::vector<detail::StatePart> parts() const { return {}; }
  /// The item of which it is a part; null for what the user tracked.
  const TrackedItem* owner() const { return owner_; }
  void belongs_to(const TrackedItem* owner) { owner_ = owner; }

  /// Adds its tensors that live in the program and that optimizers may refer to. Capture and RestorePlan handle these.
  virtual void add_names(TensorNames&) const {}
  /// Adds the tensors that it updates, if it is an optimizer; false if these are unknown.
  virtual bool add_parameters(std::set<const void*>&) const { return true; }
  /// Called before the first step: the current flags and options are those of the code.
  virtual void begin(const TensorNames&) {}
  /// Saves everything else. Throws Error (invalid) for what a program that begins as this one did could not restore.
  virtual void capture(Capture&) const {}
  virtual void plan(RestorePlan&) {}

 private:
  std::string name_;
  const void* variable_ = nullptr;
  const TrackedItem* owner_ = nullptr;
  bool has_begun_ = false;
  bool is_resizable_ = false;
  bool is_generator_ = false;
};

[[noreturn]] void throw_null(const char* kind, const std::string& name);
/// Throws Error (invalid) for a tracked object whose shape or dtype changed after the run had begun: a program that
/// begins as this one did could not restore it. `change`: what changed.
[[noreturn]] void throw_changed_form(const std::string& name, const std::string& change);

/// The object that a reference refers to now. Throws Error (invalid) if there is none; `kind`: "module".
template <class Object>
Object& held_by(const detail::ObjectReference<Object>& reference, const char* kind, const std::string& name) {
  Object* const object = reference.get();
  if (object == nullptr) throw_null(kind, name);
  return *object;
}

}  // namespace holdfast
