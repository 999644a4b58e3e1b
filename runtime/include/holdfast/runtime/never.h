// A condition that is false only where the template around it is used: static_assert(never<T>, "what is wrong").
#pragma once

namespace holdfast {

template <class>
constexpr bool never = false;

}  // namespace holdfast
