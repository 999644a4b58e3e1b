// What a whole-number parameter accepts in addition to the built-in types.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace holdfast::detail {

/// A class other than `Own` that converts to a whole number, such as a value of a configuration.
template <class T, class Own>
concept StandsForWholeNumber =
    !std::same_as<T, Own> && std::is_class_v<T> && std::convertible_to<const T&, std::int64_t>;

}  // namespace holdfast::detail
