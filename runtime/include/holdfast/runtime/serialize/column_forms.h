// Maps an object's contents to columns: write_column() appends an object, read_column() reads the next one.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <ranges>
#include <sstream>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/serialize/columns.h"
#include "holdfast/runtime/serialize/state.h"
#include "holdfast/runtime/serialize/state_forms.h"

namespace holdfast::detail {

/// The archive with which a type with holdfast_state() writes its members.
struct ColumnWriteArchive {
  template <class T>
  ColumnWriteArchive& operator()(const char* name, const T& member) {
    write_column(column.child(name), member);
    return *this;
  }
  template <class T>
  ColumnWriteArchive& operator()(const char* name, const T& member, Resizable) {
    return (*this)(name, member);
  }
  ColumnWriter& column;
};
struct ColumnReadArchive {
  template <class T>
  ColumnReadArchive& operator()(const char* name, T& member) {
    read_column(column.child(name), member);
    return *this;
  }
  template <class T>
  ColumnReadArchive& operator()(const char* name, T& member, Resizable) {
    return (*this)(name, member);
  }
  ColumnReader& column;
};

/// The names of the elements of tuples and the alternatives of variants.
template <std::size_t i>
const char* element_name() {
  static const std::string name = ":" + std::to_string(i);
  return name.c_str();
}

[[noreturn]] inline void throw_part_in_column() {
  throw Error(storage::StatusCode::unsupported,
              "a container holds structs of which some have a module, an optimizer, a scheduler or a generator and the "
              "first has none: track these objects one by one");
}

template <class T>
void write_number(ColumnWriter& column, const T& x) {
  column.numbers(scalar_type_of<T>(), &x, 1);
}
template <class T>
T read_number(ColumnReader& column) {
  T x{};
  column.numbers(scalar_type_of<T>(), &x, 1);
  return x;
}

/// How many elements the next container or text has.
inline std::size_t read_length(ColumnReader& column) {
  const auto length = read_number<std::int64_t>(column.child(":lengths"));
  if (length < 0 || length > (std::int64_t{1} << 40)) {
    throw Error(storage::StatusCode::misfit, "a container has an impossible length in the checkpoint");
  }
  return static_cast<std::size_t>(length);
}

inline void write_text(ColumnWriter& column, const std::string& text) {
  write_number(column.child(":lengths"), static_cast<std::int64_t>(text.size()));
  column.numbers(c10::ScalarType::Byte, text.data(), text.size());
}
inline std::string read_text(ColumnReader& column) {
  std::string text(read_length(column), '\0');
  if (!text.empty()) column.numbers(c10::ScalarType::Byte, text.data(), text.size());
  return text;
}

/// Whether T uses the ":lengths" of its own column, so that a container of T needs another column for its elements.
template <class T>
constexpr bool has_lengths() {
  if constexpr (is_fixed_array<T>) {
    return has_lengths<std::ranges::range_value_t<T>>();
  } else if constexpr (IsPart<T>) {
    return false;
  } else {
    return IsContainer<T> || is_adaptor<T> || std::same_as<T, std::string> || HasTextState<T>;
  }
}
template <class Element, class Column>
Column& column_of_items(Column& column) {
  if constexpr (has_lengths<Element>()) {
    return column.child(":items");
  } else {
    return column;
  }
}

/// Whether a container's elements are numbers in one block.
template <class T>
concept HasNumberBlock = std::ranges::contiguous_range<T> && IsNumber<std::ranges::range_value_t<T>>;

template <class T>
void write_container(ColumnWriter& column, const T& x) {
  using Element = element_form<typename T::value_type>;
  write_number(column.child(":lengths"), static_cast<std::int64_t>(std::ranges::size(x)));
  if constexpr (IsUnordered<T>) {
    write_number(column.child(":buckets"), static_cast<std::int64_t>(x.bucket_count()));
  }
  ColumnWriter& items = column_of_items<Element>(column);
  if constexpr (HasNumberBlock<T>) {
    items.numbers(scalar_type_of<Element>(), std::ranges::data(x), std::ranges::size(x));
  } else {
    for (const auto& element : x) {
      if constexpr (requires { typename T::mapped_type; }) {
        write_column(items.child(":key"), element.first);
        write_column(items.child(":value"), element.second);
      } else if constexpr (std::same_as<Element, bool>) {
        write_column(items, static_cast<bool>(element));
      } else {
        write_column(items, static_cast<const Element&>(element));
      }
    }
  }
}

template <class T>
void read_container(ColumnReader& column, T& x) {
  using Element = element_form<typename T::value_type>;
  const std::size_t size = read_length(column);
  [[maybe_unused]] std::size_t buckets = 0;
  if constexpr (IsUnordered<T>) {
    buckets = static_cast<std::size_t>(read_number<std::int64_t>(column.child(":buckets")));
  }
  ColumnReader& items = column_of_items<Element>(column);
  x.clear();
  if constexpr (HasNumberBlock<T> && requires { x.resize(size); }) {
    x.resize(size);
    items.numbers(scalar_type_of<Element>(), std::ranges::data(x), size);
  } else if constexpr (is_anywhere<IsPartForm, Element>()) {
    if (size > 0) throw_part_in_column();
  } else if constexpr (!std::default_initializable<Element>) {
    if (size > 0) {
      throw Error(storage::StatusCode::unsupported,
                  "the elements of a container have no default constructor, so they cannot be restored");
    }
  } else {
    if constexpr (requires { x.reserve(size); } && !IsUnordered<T>) x.reserve(size);
    auto read_element = [&](Element& element) {
      if constexpr (requires { typename T::mapped_type; }) {
        read_column(items.child(":key"), element.first);
        read_column(items.child(":value"), element.second);
      } else {
        read_column(items, element);
      }
    };
    if constexpr (IsUnordered<T>) {
      // With the saved number of buckets, elements are inserted from the last to the first: each goes to the front of
      // its bucket. This restores the order if the library keeps the elements in one list (libstdc++ and libc++ do).
      std::vector<Element> elements(size);
      for (Element& element : elements) read_element(element);
      x.rehash(0);
      x.rehash(buckets);
      for (auto element = elements.rbegin(); element != elements.rend(); ++element) x.insert(std::move(*element));
    } else {
      for (std::size_t i = 0; i < size; ++i) {
        Element element{};
        read_element(element);
        x.insert(x.end(), std::move(element));
      }
    }
  }
}

template <class T>
void read_owned(ColumnReader& column, T& owner) {
  using Owned = std::remove_cvref_t<decltype(*owner)>;
  if (!read_number<bool>(column.child(":present"))) {
    owner.reset();
    return;
  }
  if (!owner) {
    if constexpr (!std::default_initializable<Owned>) {
      throw Error(storage::StatusCode::unsupported,
                  "a pointer or an optional is empty, and what it holds in the checkpoint has no default constructor: "
                  "make it before the loop begins");
    } else if constexpr (std::same_as<T, std::unique_ptr<Owned>>) {
      owner = std::make_unique<Owned>();
    } else if constexpr (std::same_as<T, std::shared_ptr<Owned>>) {
      owner = std::make_shared<Owned>();
    } else {
      owner.emplace();
    }
  }
  read_column(column, *owner);
}

template <class T, std::size_t... i>
void write_variant(ColumnWriter& column, const T& x, std::index_sequence<i...>) {
  write_number(column.child(":index"), static_cast<std::int64_t>(x.index()));
  ((x.index() == i ? write_column(column.child(element_name<i>()), *std::get_if<i>(&x)) : void()), ...);
}
template <class T, std::size_t... i>
void read_variant(ColumnReader& column, T& x, std::index_sequence<i...>) {
  const auto index = static_cast<std::size_t>(read_number<std::int64_t>(column.child(":index")));
  (
      [&] {
        if (index != i) return;
        if (x.index() != i) x.template emplace<i>();
        read_column(column.child(element_name<i>()), *std::get_if<i>(&x));
      }(),
      ...);
}

template <class T>
void write_column(ColumnWriter& column, const T& x) {
  static_assert(IsSupported<T>, "this type cannot be saved: see holdfast/runtime/serialize/state.h for those that can");
  if constexpr (IsPart<T>) {
    throw_part_in_column();
  } else if constexpr (HasMembers<T>) {
    ColumnWriteArchive archive{column};
    StateMembers::visit(archive, const_cast<T&>(x));  // the archive takes them as const
  } else if constexpr (HasState<T>) {
    State state = column.object();
    x.save(state);
  } else if constexpr (std::same_as<T, at::Tensor>) {
    column.tensor(x);
  } else if constexpr (IsNumber<T>) {
    write_number(column, x);
  } else if constexpr (std::same_as<T, std::string>) {
    write_text(column, x);
  } else if constexpr (is_complex<T>) {
    const typename T::value_type parts[] = {x.real(), x.imag()};
    column.numbers(scalar_type_of<typename T::value_type>(), parts, 2, 2);
  } else if constexpr (is_duration<T>) {
    write_column(column, x.count());
  } else if constexpr (is_time_point<T>) {
    write_column(column, x.time_since_epoch());
  } else if constexpr (is_atomic<T>) {
    write_column(column, x.load());
  } else if constexpr (is_bitset<T>) {
    write_text(column, x.to_string());
  } else if constexpr (std::same_as<T, std::monostate>) {
    return;
  } else if constexpr (HasNumberBlock<T> && is_fixed_array<T>) {
    column.numbers(scalar_type_of<std::ranges::range_value_t<T>>(), std::ranges::data(x), std::ranges::size(x),
                   std::ranges::size(x));
  } else if constexpr (is_fixed_array<T>) {
    for (const auto& element : x) write_column(column, element);
  } else if constexpr (is_tuple<T>) {
    [&]<std::size_t... i>(std::index_sequence<i...>) {
      (write_column(column.child(element_name<i>()), std::get<i>(x)), ...);
    }
    (std::make_index_sequence<std::tuple_size_v<T>>());
  } else if constexpr (is_variant<T>) {
    write_variant(column, x, std::make_index_sequence<std::variant_size_v<T>>());
  } else if constexpr (is_owner<T>) {
    write_number(column.child(":present"), static_cast<bool>(x));
    if (x) write_column(column, std::as_const(*x));
  } else if constexpr (is_adaptor<T>) {
    write_column(column, container_of(x));
  } else if constexpr (IsContainer<T>) {
    write_container(column, x);
  } else if constexpr (HasTextState<T>) {
    write_text(column, access_text_state(const_cast<T&>(x)).get().template get<std::string>());
  } else if constexpr (HasJsonState<T>) {
    column.json(x.state());
  } else {
    column.json(nlohmann::json(x));
  }
}

template <class T>
void read_column(ColumnReader& column, T& x) {
  if constexpr (IsPart<T>) {
    throw_part_in_column();
  } else if constexpr (HasMembers<T>) {
    ColumnReadArchive archive{column};
    StateMembers::visit(archive, x);
  } else if constexpr (HasState<T>) {
    x.load(column.object());
  } else if constexpr (std::same_as<T, at::Tensor>) {
    x = column.tensor();
  } else if constexpr (IsNumber<T>) {
    x = read_number<T>(column);
  } else if constexpr (std::same_as<T, std::string>) {
    x = read_text(column);
  } else if constexpr (is_complex<T>) {
    typename T::value_type parts[2] = {};
    column.numbers(scalar_type_of<typename T::value_type>(), parts, 2);
    x = T(parts[0], parts[1]);
  } else if constexpr (is_duration<T>) {
    typename T::rep count{};
    read_column(column, count);
    x = T(count);
  } else if constexpr (is_time_point<T>) {
    typename T::duration since{};
    read_column(column, since);
    x = T(since);
  } else if constexpr (is_atomic<T>) {
    typename T::value_type value{};
    read_column(column, value);
    x.store(value);
  } else if constexpr (is_bitset<T>) {
    x = T(read_text(column));
  } else if constexpr (std::same_as<T, std::monostate>) {
    return;
  } else if constexpr (HasNumberBlock<T> && is_fixed_array<T>) {
    column.numbers(scalar_type_of<std::ranges::range_value_t<T>>(), std::ranges::data(x), std::ranges::size(x));
  } else if constexpr (is_fixed_array<T>) {
    for (auto& element : x) read_column(column, element);
  } else if constexpr (is_tuple<T>) {
    [&]<std::size_t... i>(std::index_sequence<i...>) {
      (read_column(column.child(element_name<i>()), std::get<i>(x)), ...);
    }
    (std::make_index_sequence<std::tuple_size_v<T>>());
  } else if constexpr (is_variant<T>) {
    read_variant(column, x, std::make_index_sequence<std::variant_size_v<T>>());
  } else if constexpr (is_owner<T>) {
    read_owned(column, x);
  } else if constexpr (is_adaptor<T>) {
    read_column(column, container_of(x));
  } else if constexpr (IsContainer<T>) {
    read_container(column, x);
  } else if constexpr (HasTextState<T>) {
    const nlohmann::json text(read_text(column));
    access_text_state(x).set(text);
  } else if constexpr (HasJsonState<T>) {
    x.set_state(column.json());
  } else {
    column.json().get_to(x);
  }
}

}  // namespace holdfast::detail
