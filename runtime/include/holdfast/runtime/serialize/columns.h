// Columns: the form in which many objects of one type are saved, so that the cost depends only on their bytes. Each
// member of the objects is one tensor; a vector of 100,000 of
//   struct Entry { std::array<float, 27> seen; std::int64_t action; std::vector<double> rewards; };
// named "replay" is
//   replay.seen             F32 [100000, 27]
//   replay.action           I64 [100000]
//   replay.rewards          F64 [the elements of all entries, one entry after another]
//   replay.rewards:lengths  I64 [100000]
// A column without a member name begins with a colon: ":lengths" (the number of elements of each container, text or
// stack), ":present" (whether a pointer or an optional holds something), ":index" (a variant's alternative), ":key" and
// ":value" (a map's), ":0", ":1", … (a tuple's, and a variant's), ":items" (the elements of containers in containers),
// ":shapes" (if tensors differ in shape), ":json" and ":buckets". Arrays of up to 256 bytes stay in the manifest, in
//   {"columns": 1, "arrays": {":lengths": [3], "": [0.5, 0.25, 1.0]}}
// which is the value of the object's name. state.h lists the types that are saved in columns.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace holdfast {

class State;

namespace detail {

class GrowingBytes;

/// The dtype of a C++ number.
template <class T>
constexpr c10::ScalarType scalar_type_of() {
  using enum c10::ScalarType;
  if constexpr (std::is_enum_v<T>) {
    return scalar_type_of<std::underlying_type_t<T>>();
  } else if constexpr (std::is_same_v<T, bool>) {
    return Bool;
  } else if constexpr (std::is_integral_v<T>) {
    constexpr c10::ScalarType with_sign[] = {Char, Short, Int, Long};
    constexpr c10::ScalarType without_sign[] = {Byte, UInt16, UInt32, UInt64};
    constexpr int log2 = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return std::is_signed_v<T> ? with_sign[log2] : without_sign[log2];
  } else {
    return c10::CppTypeToScalarType<T>::value;
  }
}

/// Collects one member of many objects, in their order. One thread.
class ColumnWriter {
 public:
  ColumnWriter();
  ~ColumnWriter();
  ColumnWriter(const ColumnWriter&) = delete;
  ColumnWriter& operator=(const ColumnWriter&) = delete;

  /// The column of a member. `name` must outlive the writer (a literal).
  ColumnWriter& child(const char* name);

  /// Appends `count` numbers, `width` for each object.
  void numbers(c10::ScalarType type, const void* data, std::size_t count, std::size_t width = 1);
  void tensor(const at::Tensor& tensor) { tensors_.push_back(tensor); }
  void json(nlohmann::json value) { json_.push_back(std::move(value)); }
  /// The state into which the next object saves itself.
  State object();

  /// Whether it contains only numbers and JSON, of up to 256 bytes.
  bool is_small() const;

  /// Adds everything to `state` under `name`. The writer is empty afterwards.
  void put_to(State& state, const std::string& name);

 private:
  std::size_t size_up_to(std::size_t limit) const;
  void emit(State& state, const std::string& name, const std::string& suffix, nlohmann::json& arrays);
  void emit_tensors(State& state, const std::string& key, const std::string& suffix, nlohmann::json& arrays);

  c10::ScalarType type_ = c10::ScalarType::Undefined;
  std::size_t width_ = 1;
  std::shared_ptr<GrowingBytes> bytes_;  // of the numbers; null: no numbers
  std::vector<at::Tensor> tensors_;
  nlohmann::json json_ = nlohmann::json::array();
  std::unique_ptr<State> objects_;
  std::size_t object_count_ = 0;
  std::vector<std::pair<const char*, std::unique_ptr<ColumnWriter>>> children_;
  std::size_t next_child_ = 0;  // the expected next child if the objects have the same members
};

/// Returns what a ColumnWriter collected, in the same order. Throws Error (misfit) for missing data and for another
/// type; whole numbers may be read into wider types, and a float into a double. One thread.
class ColumnReader {
 public:
  /// Reads what was put under `name`. The state must outlive the reader.
  ColumnReader(const State& state, const std::string& name);
  ~ColumnReader();
  ColumnReader(const ColumnReader&) = delete;
  ColumnReader& operator=(const ColumnReader&) = delete;

  ColumnReader& child(const char* name);

  void numbers(c10::ScalarType type, void* data, std::size_t count);
  at::Tensor tensor();
  nlohmann::json json();
  State object();

  /// Whether `name` was saved in columns.
  static bool is_there(const State& state, const std::string& name);

 private:
  ColumnReader(const ColumnReader& parent, const std::string& suffix);
  void open_tensors();
  const at::Tensor* array(const std::string& suffix) const;
  void from_json(const nlohmann::json& value, c10::ScalarType type, std::byte* to) const;
  [[noreturn]] void throw_other_type(const std::string& saved, c10::ScalarType wanted, bool is_too_large) const;
  [[noreturn]] void throw_missing(const std::string& what) const;
  std::string full_name() const;

  const State& state_;
  const std::string name_;
  const std::string suffix_;
  const nlohmann::json* const arrays_;
  const nlohmann::json* in_manifest_ = nullptr;
  at::Tensor numbers_;  // flat; undefined until the first read
  std::size_t next_number_ = 0;
  std::vector<at::Tensor> tensors_;
  std::size_t next_tensor_ = 0;
  bool has_tensors_ = false;
  nlohmann::json json_;
  std::size_t next_json_ = 0;
  std::size_t next_object_ = 0;
  std::vector<std::pair<const char*, std::unique_ptr<ColumnReader>>> children_;
  std::size_t next_child_ = 0;  // as in ColumnWriter
};

}  // namespace detail
}  // namespace holdfast
