// holdfast show --json: one object with all facts.
#include "terminal/terminal.h"
#include "verbs/show.h"

namespace holdfast::tools {

using nlohmann::ordered_json;
using storage::TensorEntry;

namespace {

ordered_json to_json(const Checkpoint& checkpoint, const ShownTensor& line) {
  const TensorEntry& tensor = *line.tensor;
  ordered_json json = {{"name", line.name},
                       {"dtype", to_string(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes()},
                       {"tied_to", line.tied_to.empty() ? ordered_json() : ordered_json(line.tied_to)},
                       {"digest", checkpoint.is_version ? ordered_json(tensor.digest.hex()) : ordered_json()},
                       {"parts", ordered_json::array()}};
  if (checkpoint.is_version) json["non_finite"] = tensor.non_finite;
  for (const storage::TensorPart& part : tensor.parts) {
    json["parts"].push_back(
        {{"file", checkpoint.manifest.files[part.file].name}, {"begin", part.begin}, {"end", part.end}});
  }
  if (line.stats) {
    const auto or_null = [](const std::optional<Number>& number) {
      return number ? json_number(*number) : ordered_json();
    };
    json["stats"] = {{"elements", line.stats->elements},
                     {"min", or_null(line.stats->min)},
                     {"max", or_null(line.stats->max)},
                     {"mean", or_null(line.stats->mean)},
                     {"nan", line.stats->nan}};
  }
  return json;
}

ordered_json to_json(const Checkpoint& checkpoint) {
  const storage::Manifest& manifest = checkpoint.manifest;
  ordered_json json = {{"kind", checkpoint.is_version ? "version" : "file"}, {"path", checkpoint.path.string()}};
  if (checkpoint.is_version) {
    json.update({{"run", manifest.run},
                 {"uid", manifest.uid.text()},
                 {"number", manifest.uid.seq},
                 {"session", manifest.uid.session},
                 {"parent", manifest.parent ? ordered_json(manifest.parent->text()) : ordered_json()},
                 {"step", manifest.position.step},
                 {"epoch", manifest.position.epoch},
                 {"samples", manifest.position.samples},
                 {"time", manifest.time},
                 {"reason", manifest.reason},
                 {"world_size", ranks_of(manifest)},
                 {"durability", manifest.durability},
                 {"non_finite", manifest.non_finite ? ordered_json(*manifest.non_finite) : ordered_json()},
                 {"metrics", ordered_json(manifest.metrics)},
                 {"values", ordered_json(manifest.values)},
                 {"made_by", ordered_json(manifest.made_by)},
                 {"cost", ordered_json(manifest.cost)}});
  } else {
    json["metadata"] = checkpoint.metadata;
  }
  json["bytes"] = manifest.payload_bytes();
  json["files"] = ordered_json::array();
  for (const storage::FileEntry& file : manifest.files) {
    json["files"].push_back({{"name", file.name},
                             {"bytes", file.bytes},
                             {"digest", checkpoint.is_version ? ordered_json(file.digest.hex()) : ordered_json()}});
  }
  json["problem"] = checkpoint.damage.ok() ? ordered_json() : ordered_json(checkpoint.damage.message());
  return json;
}

}  // namespace

ordered_json show_json(const Shown& shown) {
  ordered_json json = to_json(shown.checkpoint);
  json["passed_over"] = ordered_json::array();
  for (const storage::PassedOver& passed : shown.passed_over) {
    json["passed_over"].push_back({{"uid", passed.uid.text()}, {"reason", passed.reason}});
  }
  json["tensors"] = ordered_json::array();
  for (const ShownTensor& line : shown.tensors) json["tensors"].push_back(to_json(shown.checkpoint, line));
  return json;
}

}  // namespace holdfast::tools
