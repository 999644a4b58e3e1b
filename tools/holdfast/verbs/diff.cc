// holdfast diff: the differences between two versions or two safetensors files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "inspect/checkpoint.h"
#include "inspect/tensor_diff.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"

namespace holdfast::tools {

using nlohmann::json;
using nlohmann::ordered_json;
using storage::Result;
using storage::Status;
using storage::TensorEntry;

namespace {

struct Options {
  std::string first;
  std::string second;
  std::string third;
  bool every_byte = false;
  bool json = false;
};

struct ChangedTensor {
  std::string name;
  const TensorEntry* a = nullptr;
  const TensorEntry* b = nullptr;
  std::optional<TensorDiff> diff;  // empty if the shapes differ
};

/// A member that differs between two JSON objects; null if it is missing on one side.
struct ChangedValue {
  std::string path;  // JSON pointer
  std::optional<json> a;
  std::optional<json> b;
};

struct Difference {
  std::size_t alike = 0;
  std::vector<ChangedTensor> tensors;
  std::vector<std::string> only_in_a;
  std::vector<std::string> only_in_b;
  std::vector<ChangedValue> values;  // "/position/…", "/tied/…", "/values/…"
  bool compared_values = false;
  bool none() const { return tensors.empty() && only_in_a.empty() && only_in_b.empty() && values.empty(); }
};

void diff_json(const std::string& path, const json& a, const json& b, std::vector<ChangedValue>& changed) {
  if (a == b && a.type() == b.type()) return;
  if (!a.is_object() || !b.is_object()) {
    changed.push_back({path, a, b});
    return;
  }
  // RFC 6901, section 3.
  const auto token = [](std::string key) {
    for (std::size_t at = 0; (at = key.find_first_of("~/", at)) != std::string::npos; at += 2) {
      key.replace(at, 1, key[at] == '~' ? "~0" : "~1");
    }
    return "/" + key;
  };
  for (const auto& [key, value] : a.items()) {
    if (const auto other = b.find(key); other != b.end()) {
      diff_json(path + token(key), value, *other, changed);
    } else {
      changed.push_back({path + token(key), value, std::nullopt});
    }
  }
  for (const auto& [key, value] : b.items()) {
    if (!a.contains(key)) changed.push_back({path + token(key), std::nullopt, value});
  }
}

json comparable(const storage::Manifest& manifest) {
  return {
      {"position",
       {{"step", manifest.position.step}, {"epoch", manifest.position.epoch}, {"samples", manifest.position.samples}}},
      {"tied", manifest.tied},
      {"values", manifest.values}};
}

Result<Difference> compare(const Checkpoint& a, const Checkpoint& b, bool every_byte) {
  Difference difference;
  const std::vector<std::string> a_names = a.tensor_names();
  const std::vector<std::string> b_names = b.tensor_names();
  std::set_difference(a_names.begin(), a_names.end(), b_names.begin(), b_names.end(),
                      std::back_inserter(difference.only_in_a));
  std::set_difference(b_names.begin(), b_names.end(), a_names.begin(), a_names.end(),
                      std::back_inserter(difference.only_in_b));
  std::vector<std::string> both;
  std::set_intersection(a_names.begin(), a_names.end(), b_names.begin(), b_names.end(), std::back_inserter(both));

  std::uint64_t done = 0, total = 0;
  for (const std::string& name : both) total += a.manifest.find(name)->bytes();
  Progress progress("comparing");
  const auto advance = [&](std::uint64_t bytes) { progress.update(done += bytes, total); };
  for (const std::string& name : both) {
    const TensorEntry* in_a = a.manifest.find(name);
    const TensorEntry* in_b = b.manifest.find(name);
    const bool alike_type = in_a->dtype == in_b->dtype;
    if (in_a->shape != in_b->shape) {
      difference.tensors.push_back({name, in_a, in_b, std::nullopt});
      advance(in_a->bytes());
      continue;
    }
    const bool both_have_digests = a.is_version && b.is_version;
    if (alike_type && both_have_digests && !every_byte && in_a->digest == in_b->digest) {
      ++difference.alike;
      advance(in_a->bytes());
      continue;
    }
    const auto diff = compare(a, *in_a, b, *in_b, advance);
    if (!diff) return diff.status();
    if (alike_type && diff->differing == 0) {
      ++difference.alike;
    } else {
      difference.tensors.push_back({name, in_a, in_b, *diff});
    }
  }
  difference.compared_values = a.is_version && b.is_version;
  if (difference.compared_values) diff_json("", comparable(a.manifest), comparable(b.manifest), difference.values);
  return difference;
}

/// The index of an element in each dimension.
std::vector<std::int64_t> index_of(std::uint64_t element, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t d = shape.size(); d-- > 0;) {
    index[d] = static_cast<std::int64_t>(element % static_cast<std::uint64_t>(shape[d]));
    element /= static_cast<std::uint64_t>(shape[d]);
  }
  return index;
}

std::string type_text(const TensorEntry& tensor) {
  return fmt::format("{} {}", to_string(tensor.dtype), format_shape(tensor.shape));
}

ordered_json to_json(const Difference& difference, const Checkpoint& a, const Checkpoint& b) {
  const auto side = [](const Checkpoint& checkpoint) -> ordered_json {
    return {{"path", checkpoint.path.string()},
            {"uid", checkpoint.is_version ? ordered_json(checkpoint.manifest.uid.text()) : ordered_json()}};
  };
  ordered_json result = {
      {"equal", difference.none()}, {"a", side(a)}, {"b", side(b)}, {"equal_tensors", difference.alike}};
  result["tensors"] = ordered_json::array();
  for (const ChangedTensor& tensor : difference.tensors) {
    ordered_json item = {{"name", tensor.name},
                         {"a", {{"dtype", to_string(tensor.a->dtype)}, {"shape", tensor.a->shape}}},
                         {"b", {{"dtype", to_string(tensor.b->dtype)}, {"shape", tensor.b->shape}}}};
    if (tensor.diff) {
      item["elements"] = tensor.diff->elements;
      item["differing"] = tensor.diff->differing;
      item["nan_on_one_side"] = tensor.diff->nan_on_one_side;
      item["max_abs"] = json_number(tensor.diff->max_abs);
      item["max_abs_at"] =
          tensor.diff->max_abs > 0 ? ordered_json(index_of(tensor.diff->max_at, tensor.a->shape)) : ordered_json();
    } else {
      for (const char* key : {"elements", "differing", "nan_on_one_side", "max_abs", "max_abs_at"}) item[key] = nullptr;
    }
    result["tensors"].push_back(std::move(item));
  }
  result["only_in_a"] = difference.only_in_a;
  result["only_in_b"] = difference.only_in_b;
  result["values_compared"] = difference.compared_values;
  result["values"] = ordered_json::array();
  for (const ChangedValue& value : difference.values) {
    ordered_json item = {{"path", value.path}};
    if (value.a) item["a"] = ordered_json(*value.a);
    if (value.b) item["b"] = ordered_json(*value.b);
    result["values"].push_back(std::move(item));
  }
  return result;
}

std::string short_json(const std::optional<json>& value) {
  if (!value) return "(missing)";
  constexpr std::size_t kShown = 48;
  std::string text = printable(value->dump(-1, ' ', false, json::error_handler_t::replace));
  if (text.size() <= kShown) return text;
  std::size_t cut = kShown;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return fmt::format("{}… ({} characters)", text.substr(0, cut), format_count(text.size()));
}

void print_difference(const Difference& difference, const Checkpoint& a, const Checkpoint& b) {
  print(fmt::format("a  {}\nb  {}\n", styled(Style::bold, a.title), styled(Style::bold, b.title)));
  if (!difference.tensors.empty()) {
    Table table;
    table.column("tensor", Table::Align::left);
    table.column("dtype and shape", Table::Align::left);
    table.column("differing", Table::Align::right);
    table.column("max abs difference", Table::Align::right);
    table.column("at", Table::Align::left);
    table.column("", Table::Align::left);
    for (const ChangedTensor& tensor : difference.tensors) {
      const bool alike_type = tensor.a->dtype == tensor.b->dtype && tensor.a->shape == tensor.b->shape;
      std::string type = type_text(*tensor.a);
      if (!alike_type) type = styled(Style::bad, type + " -> " + type_text(*tensor.b));
      if (!tensor.diff) {
        table.row({printable(tensor.name), type, "-", "-", "", ""});
        continue;
      }
      const TensorDiff& diff = *tensor.diff;
      std::string remark;
      if (diff.nan_on_one_side > 0) {
        remark = styled(Style::bad, format_count(diff.nan_on_one_side) + " NaN on one side only");
      } else if (alike_type && diff.max_abs == 0) {
        remark = "only signs of zero or bits of NaN";
      }
      table.row({printable(tensor.name), type,
                 fmt::format("{} of {}", format_count(diff.differing), format_count(diff.elements)),
                 format_number(diff.max_abs),
                 diff.max_abs > 0 ? format_shape(index_of(diff.max_at, tensor.a->shape)) : "", remark});
    }
    print("\n" + table.text());
  }
  const auto list = [](const char* heading, const std::vector<std::string>& names, const Checkpoint& side) {
    if (names.empty()) return;
    print(fmt::format("\n{}\n", heading));
    for (const std::string& name : names) {
      print(fmt::format("  {}  {}\n", printable(name), type_text(*side.manifest.find(name))));
    }
  };
  list("only in a:", difference.only_in_a, a);
  list("only in b:", difference.only_in_b, b);
  if (!difference.values.empty()) {
    Table table;
    for (const char* heading : {"value", "a", "b"}) table.column(heading, Table::Align::left);
    for (const ChangedValue& value : difference.values) {
      table.row({printable(value.path.substr(1)), short_json(value.a), short_json(value.b)});
    }
    print("\n" + table.text());
  }

  const std::string values = difference.compared_values ? "position and values" : "";
  if (difference.none()) {
    print(fmt::format("{}: all {} are bit-identical{}\n", styled(Style::good, "equal"),
                      plural(difference.alike, "tensor"), values.empty() ? "" : ", and so are " + values));
    return;
  }
  std::vector<std::string> counts;
  counts.push_back(plural(difference.alike, "tensor") + " equal");
  if (!difference.tensors.empty()) counts.push_back(format_count(difference.tensors.size()) + " different");
  if (!difference.only_in_a.empty()) counts.push_back(format_count(difference.only_in_a.size()) + " only in a");
  if (!difference.only_in_b.empty()) counts.push_back(format_count(difference.only_in_b.size()) + " only in b");
  if (!difference.values.empty()) counts.push_back(plural(difference.values.size(), "value") + " different");
  print(fmt::format("\n{}: {}\n", styled(Style::bad, "different"), fmt::join(counts, ", ")));
}

Result<int> run_diff(const Options& options) {
  // diff RUN 3 5 compares two versions of one run.
  const bool one_run = !options.third.empty();
  const auto open = [&](const std::string& name, const std::string& number) -> Result<Checkpoint> {
    const auto target = find_target(name, number, /*loadable=*/true);
    if (!target) return target.status();
    return open_checkpoint(*target);
  };
  const auto a = one_run ? open(options.first, options.second) : open(options.first, "");
  if (!a) return a.status();
  const auto b = one_run ? open(options.first, options.third) : open(options.second, "");
  if (!b) return b.status();
  for (const Checkpoint* checkpoint : {&*a, &*b}) {
    if (!checkpoint->damage.ok()) {
      return Status(checkpoint->damage.code(), checkpoint->title + ": " + checkpoint->damage.message());
    }
  }
  const auto difference = compare(*a, *b, options.every_byte);
  if (!difference) return difference.status();
  if (options.json) {
    print_json(to_json(*difference, *a, *b));
  } else {
    print_difference(*difference, *a, *b);
  }
  return difference->none() ? kOk : kFound;
}

}  // namespace

void add_diff(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand(
      "diff", "Compares two versions or safetensors files: tensors bit by bit, position and values.");
  verb->add_option("A", options->first, "a version or file; with C, a run")->required();
  verb->add_option("B", options->second, "another one; with C, the first version's number")->required();
  verb->add_option("C", options->third, "the second version's number");
  verb->add_flag("--bytes", options->every_byte, "read also tensors whose recorded digests agree");
  verb->add_flag("--json", options->json, "one JSON object instead of text");
  verb->footer(
      std::string(kVersionHelp) +
      help_footer(
          "  holdfast diff runs/mnist 3 5\n  holdfast diff runs/mnist runs/mnist-again\n  holdfast diff a.safetensors "
          "b.safetensors",
          "  equal, a and b: path, uid; equal_tensors (count), only_in_a[], only_in_b[] (names),\n"
          "  tensors[]: name, a and b: dtype, shape; elements, differing, nan_on_one_side, max_abs, max_abs_at "
          "(index);\n"
          "             null where shapes differ\n"
          "  values_compared (false with plain files), values[]: path (JSON pointer), a, b (absent where missing)\n"
          "  an error: error: code, message, exit",
          "  0  equal\n  1  different\n  2  wrong command line\n  3  one of them does not exist or cannot be read"));
  verb->callback([options, &invocation] {
    invocation.json = options->json;
    invocation.run = [options] { return run_diff(*options); };
  });
}

}  // namespace holdfast::tools
