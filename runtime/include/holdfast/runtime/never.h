// A condition that fails only if the surrounding template is instantiated: static_assert(never<T>, "what is wrong").
#pragma once

namespace holdfast::detail {

template <class>
constexpr bool never = false;

}  // namespace holdfast::detail
