// How the registry finds a tracked module, optimizer or scheduler: each access reads what the user's variable holds.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>

namespace holdfast::detail {

template <class Object>
struct ObjectReference {
  std::function<Object*()> get;  // null while the variable holds nothing
};

/// A variable that may hold another object later: a TORCH_MODULE holder, a shared_ptr, a unique_ptr, an optional or a
/// plain pointer.
template <class T, class Object>
concept PointsTo = requires(T& x) {
  static_cast<bool>(x);
  requires std::derived_from<std::remove_cvref_t<decltype(*x)>, Object>;
};

/// Null where `x` holds nothing.
template <class T>
auto* pointee(T& x) {
  if constexpr (requires { x.ptr().get(); }) {
    return x ? x.ptr().get() : nullptr;  // a const holder still gives its module
  } else {
    return x ? std::addressof(*x) : nullptr;
  }
}

/// The variable must outlive the reference.
template <class Object, PointsTo<Object> T>
ObjectReference<Object> reference_through(T& x) {
  static_assert(std::is_convertible_v<decltype(pointee(x)), Object*>,
                "track() needs an object that restore() may change: what the pointer points to is const");
  return {[&x]() -> Object* { return pointee(x); }};
}

/// The object must outlive the reference.
template <class Object>
ObjectReference<Object> reference_to(Object& x) {
  return {[&x] { return &x; }};
}

}  // namespace holdfast::detail
