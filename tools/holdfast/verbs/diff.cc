// holdfast diff: the differences between two versions or two safetensors files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "inspect/checkpoint.h"
#include "inspect/checkpoint_diff.h"
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

struct DiffOptions {
  std::string first;
  std::string second;
  std::string third;
  bool every_byte = false;
  bool json = false;
};

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

Result<int> run_diff(const DiffOptions& options) {
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
  const auto difference = [&] {
    Progress progress("comparing");
    return compare(*a, *b, options.every_byte,
                   [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
  }();
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
  auto options = std::make_shared<DiffOptions>();
  CLI::App* verb =
      app.add_subcommand("diff", "Compare two versions or safetensors files: tensors bit by bit, position and values.");
  verb->add_option("A", options->first, "a version or file; with C, a run")->required()->type_name("");
  verb->add_option("B", options->second, "another version or file; with C, the number of the first version")
      ->required()
      ->type_name("");
  verb->add_option("C", options->third, "the number of the second version")->type_name("");
  verb->add_flag("--bytes", options->every_byte, "also read tensors whose recorded digests are equal");
  verb->add_flag("--json", options->json, "print one JSON object instead of text");
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
