// Lets a parameter that is a whole number also accept an object that converts to one.
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
