#include "holdfast/storage/formats/safetensors.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "formats/strict_json.h"
#include "formats/tensor_bytes.h"
#include "holdfast/storage/text/plural.h"
#include "holdfast/storage/text/text.h"
#include "holdfast/storage/text/units.h"

namespace holdfast::storage {

using nlohmann::json;

namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr int kMaxHeaderDepth = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

void append_string(std::string& into, const std::string& text) {
  if (needs_no_escape(text)) {
    into.append(1, '"').append(text).append(1, '"');
  } else {
    into += json(text).dump();
  }
}

void put_length(std::string& into, std::uint64_t length) {
  for (std::uint64_t i = 0; i < kLengthBytes; ++i) into[i] = static_cast<char>(length >> (8 * i) & 0xff);
}

std::uint64_t get_length(std::string_view prefix) {
  std::uint64_t length = 0;
  for (std::uint64_t i = 0; i < kLengthBytes; ++i) {
    length |= std::uint64_t{static_cast<unsigned char>(prefix[i])} << (8 * i);
  }
  return length;
}

/// `header.tensors` is sorted by name.
Status check_names(const SafetensorsHeader& header) {
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    const SafetensorsTensor& tensor = header.tensors[i];
    if (!is_utf8(tensor.name)) return {StatusCode::invalid, "a tensor's name is not UTF-8: rename it"};
    if (tensor.name == kMetadataKey) {
      return {StatusCode::invalid,
              "a tensor is named \"__metadata__\", which is reserved by the safetensors format: rename it"};
    }
    if (i > 0 && header.tensors[i - 1].name == tensor.name) {
      return {StatusCode::invalid, "two tensors are named " + in_quotes(tensor.name) + ": rename one"};
    }
  }
  for (const auto& [key, value] : header.metadata) {
    if (!is_utf8(key) || !is_utf8(value))
      return {StatusCode::invalid, "the metadata " + in_quotes(key) + " is not UTF-8"};
  }
  return {};
}

// By hand, because ordered_json takes five times as long, and a header may have a hundred thousand tensors.
void append_json(std::string& text, const SafetensorsTensor& tensor) {
  append_string(text, tensor.name);
  text.append(":{\"dtype\":\"").append(to_string(tensor.dtype));
  text.append("\",\"shape\":[");
  for (std::size_t i = 0; i < tensor.shape.size(); ++i)
    text.append(i ? "," : "").append(std::to_string(tensor.shape[i]));
  text.append("],\"data_offsets\":[").append(std::to_string(tensor.begin)).append(",");
  text.append(std::to_string(tensor.end)).append("]}");
}

Status corrupt(const std::string& problem) { return {StatusCode::corrupt, "the safetensors header " + problem}; }

/// Whether `value` is a whole number of at most `limit`; sets `number`.
bool take_number(const json& value, std::uint64_t limit, std::uint64_t& number) {
  if (!value.is_number_unsigned()) return false;
  number = value.get<std::uint64_t>();
  return number <= limit;
}

Result<SafetensorsTensor> decode_description(const std::string& name, const json& info) {
  const auto fail = [&](const std::string& problem) {
    return corrupt("gives the tensor " + in_quotes(name) + " " + problem);
  };
  if (!info.is_object()) return fail("no description");
  const auto dtype = info.find("dtype");
  const auto shape = info.find("shape");
  const auto offsets = info.find("data_offsets");
  if (dtype == info.end() || !dtype->is_string()) return fail("no dtype");
  if (shape == info.end() || !shape->is_array()) return fail("no shape");
  if (offsets == info.end() || !offsets->is_array() || offsets->size() != 2) return fail("no pair of data_offsets");

  SafetensorsTensor tensor;
  tensor.name = name;
  const std::string& dtype_name = dtype->get_ref<const std::string&>();
  const auto known = parse_dtype(dtype_name);
  if (!known) {
    return Status(StatusCode::unsupported, "the tensor " + in_quotes(name) + " has the dtype " + in_quotes(dtype_name) +
                                               ", which this Holdfast does not know");
  }
  tensor.dtype = *known;
  for (const json& item : *shape) {
    std::uint64_t extent = 0;
    if (!take_number(item, std::numeric_limits<std::int64_t>::max(), extent))
      return fail("a shape that is not a list of extents");
    tensor.shape.push_back(static_cast<std::int64_t>(extent));
  }
  constexpr std::uint64_t kAny = std::numeric_limits<std::uint64_t>::max();
  if (!take_number((*offsets)[0], kAny, tensor.begin) || !take_number((*offsets)[1], kAny, tensor.end)) {
    return fail("data_offsets that are not whole numbers");
  }
  if (tensor.end < tensor.begin) return fail("data that ends before it begins");
  const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes) return fail("a shape whose size does not fit 64 bits");
  if (*bytes != tensor.end - tensor.begin) return fail("data_offsets that do not fit its dtype and shape");
  return tensor;
}

Status decode_metadata(const json& object, std::map<std::string, std::string>& metadata) {
  if (!object.is_object()) return corrupt("has a \"__metadata__\" that is not an object");
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) return corrupt("has the metadata " + in_quotes(key) + ", which is not a string");
    metadata.emplace(key, value.get<std::string>());
  }
  return {};
}

/// The header's length, within the limit and the file.
Result<std::uint64_t> decode_length(std::string_view prefix, std::uint64_t file_bytes) {
  if (file_bytes < kLengthBytes || prefix.size() < kLengthBytes) {
    return Status(StatusCode::incomplete,
                  "the file is too short for a safetensors header: it has " + std::to_string(file_bytes) + " bytes");
  }
  const std::uint64_t length = get_length(prefix);
  if (length > kMaxSafetensorsHeader) return corrupt("has a length above 100 MB: this is not a safetensors file");
  if (length > file_bytes - kLengthBytes) {
    return Status(StatusCode::incomplete, "the file is cut short within its safetensors header");
  }
  return length;
}

}  // namespace

Result<std::string> encode_safetensors_header(SafetensorsHeader& header) {
  const auto by_name = [](const SafetensorsTensor& a, const SafetensorsTensor& b) { return a.name < b.name; };
  if (!std::is_sorted(header.tensors.begin(), header.tensors.end(), by_name)) {
    std::sort(header.tensors.begin(), header.tensors.end(), by_name);
  }
  if (Status status = check_names(header); !status) return status;

  // Larger elements first: every element size divides those before it, so each tensor is aligned to its own type.
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
                     return element_size(a.dtype) > element_size(b.dtype);
                   });
  std::uint64_t reached = 0;
  for (SafetensorsTensor& tensor : header.tensors) {
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    tensor.begin = reached;
    if (!bytes || __builtin_add_overflow(reached, *bytes, &reached) ||
        reached > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return Status(StatusCode::invalid, "the tensor " + in_quotes(tensor.name) + " has an impossible shape");
    }
    tensor.end = reached;
  }

  std::string text(kLengthBytes, '\0');
  text += '{';
  if (!header.metadata.empty()) {
    append_string(text, std::string(kMetadataKey));
    text += ":{";
    for (const auto& [key, value] : header.metadata) {
      if (text.back() != '{') text += ',';
      append_string(text, key);
      text += ':';
      append_string(text, value);
    }
    text += '}';
  }
  for (const SafetensorsTensor& tensor : header.tensors) {
    if (text.back() != '{') text += ',';
    append_json(text, tensor);
  }
  text += '}';
  text.resize((text.size() + kPayloadAlignment - 1) / kPayloadAlignment * kPayloadAlignment, ' ');
  if (text.size() - kLengthBytes > kMaxSafetensorsHeader) {
    return Status(StatusCode::invalid,
                  "the names of " + plural(header.tensors.size(), "tensor") +
                      " need a safetensors header above 100 MB: save fewer tensors or shorter names");
  }
  put_length(text, text.size() - kLengthBytes);
  header.data_begin = text.size();
  return text;
}

Result<SafetensorsHeader> decode_safetensors_header(std::string_view prefix, std::uint64_t file_bytes) {
  const auto length = decode_length(prefix, file_bytes);
  if (!length) return length.status();
  if (*length > prefix.size() - kLengthBytes) {
    return Status(StatusCode::invalid, "only a part of the safetensors header was passed in");
  }
  std::string_view text = prefix.substr(kLengthBytes, *length);
  // Only spaces may follow the object; other white space is JSON, but not safetensors.
  text = text.substr(0, text.find_last_not_of(' ') + 1);
  if (text.empty() || text.back() != '}') return corrupt("does not end with '}' and spaces");
  const auto object = parse_strict_json(text, kMaxHeaderDepth, "the safetensors header");
  if (!object) return object.status();

  SafetensorsHeader header;
  header.data_begin = kLengthBytes + *length;
  for (const auto& [name, value] : object->items()) {
    if (name == kMetadataKey) {
      if (Status status = decode_metadata(value, header.metadata); !status) return status;
      continue;
    }
    auto tensor = decode_description(name, value);
    if (!tensor) return tensor.status();
    header.tensors.push_back(*std::move(tensor));
  }

  // The data is covered from its first byte to its last, without holes and without overlaps.
  std::sort(header.tensors.begin(), header.tensors.end(), [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t reached = 0;
  for (const SafetensorsTensor& tensor : header.tensors) {
    if (tensor.begin != reached) {
      return corrupt("places the tensor " + in_quotes(tensor.name) + " at " + std::to_string(tensor.begin) +
                     ", where the tensors before it reach " + std::to_string(reached));
    }
    reached = tensor.end;
  }
  const std::uint64_t data_bytes = file_bytes - header.data_begin;
  if (reached > data_bytes) {
    return Status(StatusCode::incomplete, "the file is cut short: its tensors have " + plural(reached, "byte") +
                                              ", but only " + format_count(data_bytes) + " are present");
  }
  if (reached < data_bytes)
    return corrupt("assigns the last " + plural(data_bytes - reached, "byte") + " to no tensor");
  return header;
}

Result<SafetensorsHeader> read_safetensors_header(const ObjectReader& object) {
  std::string prefix(std::min(kLengthBytes, object.bytes()), '\0');
  if (Status status = object.read(0, std::as_writable_bytes(std::span(prefix))); !status) return status;
  const auto length = decode_length(prefix, object.bytes());
  if (!length) return length.status();
  prefix.resize(kLengthBytes + *length);
  if (Status status = object.read(0, std::as_writable_bytes(std::span(prefix))); !status) return status;
  return decode_safetensors_header(prefix, object.bytes());
}

}  // namespace holdfast::storage
