#include <algorithm>
#include <utility>

#include "holdfast/storage/run/run_writer.h"
#include "run/publish_entry.h"

namespace holdfast::storage {

// Save. From S5 on the version exists for all readers; at S8 it is acknowledged, so that nothing can remove it.
//
//   S1  draw an unused number
//   S2  write the payload under its own name, hashing, and make its bytes durable
//   S3  gather every rank's table
//   S4  make the payload's name durable, in parallel with writing the manifest durably under a temporary name
//   S5  publish the manifest, create-only
//   S6  make the manifest's name durable
//   S7  list: a higher open → not acknowledged, stop
//   S8  acknowledge
Result<SavedVersion> RunWriter::save(SaveRequest request) {
  if (ended_) return *ended_;
  const double begin = seconds_();
  SavedVersion saved;
  Manifest manifest;
  std::string payload;
  std::vector<PayloadTable> tables;
  std::string text;  // of the manifest
  std::unique_ptr<StagedObject> staged;
  bool has_payload = false;
  bool published = false;
  bool acknowledged = false;

  // Values that could not be read back are refused before any payload is written.
  manifest.metrics = std::move(request.metrics);
  manifest.values = std::move(request.values);
  manifest.made_by = std::move(request.made_by);
  if (Status status = check_values(manifest); !status.ok()) return status;

  Status status = steps_.perform({
      {"S1 draw the number",
       [&] {
         saved.uid = manifest.uid = next_uid();
         payload = payload_name({saved.uid, 0, 1});
         return Status();
       }},
      {"S2 write the payload",
       [&] {
         auto table = write_payload(store_, payload,
                                    {{"format", "pt"}, {"holdfast.uid", saved.uid.text()}, {"holdfast.run", run_}},
                                    std::move(request.tensors));
         if (!table) return table.status();
         has_payload = true;
         tables.push_back(std::move(*table));
         return Status();
       }},
      {"S3 gather the tables",
       [&] {
         Status described = describe(request, std::move(tables), manifest);
         return described.ok() && request.inspect ? request.inspect(manifest) : described;
       }},
      {"S4 sync data beside staging the manifest",
       [&] {
         Status synced, written;
         auto checked = encode_checked(manifest);
         if (!checked) return checked.status();
         text = *std::move(checked);
         saved.bytes = manifest.payload_bytes() + text.size();
         steps_.together([&] { synced = store_.sync_folder("data"); },
                         [&] {
                           auto stage = store_.stage(entry_name(manifest.uid, EntryKind::save), text);
                           written = stage.status();
                           if (stage) staged = std::move(*stage);
                         });
         return synced.ok() ? written : synced;
       }},
      {"S5 publish the manifest",
       [&] {
         if (!staged) return Status(StatusCode::invalid, "there is no manifest to publish");
         published = true;  // from here on the manifest may exist even if the call fails
         return publish_staged(store_, std::move(staged), entry_name(manifest.uid, EntryKind::save), text);
       }},
      {"S6 sync the journal", [&] { return store_.sync_folder("journal"); }},
      {"S7 list", [&] { return check_not_superseded(); }},
      {"S8 acknowledge",
       [&] {
         acknowledged = true;
         return Status();
       }},
  });
  if (!acknowledged || !status.ok()) {
    if (status.code() == StatusCode::superseded) return status;
    if (!published) {
      if (has_payload) (void)store_.remove(payload);  // no manifest refers to it; else it would become an orphan
      return status;
    }
    // After the next loss of power it may exist or not, so it is not acknowledged, not removed and not counted.
    doubtful_.insert(saved.uid);
    return Status(StatusCode::unknown,
                  "version " + saved.uid.short_text() +
                      " is written but not proven durable, so it does not count as saved: " + status.message());
  }
  newest_ = saved.uid;
  saved_ = true;
  saved.durability = manifest.durability;
  saved.seconds = seconds_() - begin;
  saved.non_finite = manifest.non_finite.value_or(0);
  constexpr std::size_t kNamed = 3;
  for (const TensorEntry& tensor : manifest.tensors) {
    if (tensor.non_finite > 0 && saved.non_finite_tensors.size() < kNamed) {
      saved.non_finite_tensors.push_back(tensor.name);
    }
  }
  non_finite_[saved.uid] = saved.non_finite;
  previous_cost_ = {{"seconds", saved.seconds}, {"bytes", saved.bytes}};
  return saved;
}

Status RunWriter::describe(SaveRequest& request, std::vector<PayloadTable> tables, Manifest& manifest) {
  manifest.epoch = open_.epoch;
  manifest.parent = newest_;
  manifest.run = run_;
  manifest.time = wall_time_();
  manifest.reason = request.reason;
  manifest.position = request.position;
  manifest.world_size = static_cast<int>(tables.size());
  manifest.durability = store_.capabilities().durable_put ? "fsynced" : "process-safe";
  manifest.cost = previous_cost_;
  manifest.tied = std::move(request.tied);
  manifest.non_finite = 0;
  for (PayloadTable& table : tables) {
    const std::size_t file = manifest.files.size();
    manifest.files.push_back(std::move(table.file));
    manifest.tensors.reserve(manifest.tensors.size() + table.tensors.size());
    for (TensorEntry& tensor : table.tensors) {
      for (TensorPart& part : tensor.parts) part.file = file;
      *manifest.non_finite += tensor.non_finite;
      manifest.tensors.push_back(std::move(tensor));
    }
  }
  const auto by_name = [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; };
  if (tables.size() > 1) std::sort(manifest.tensors.begin(), manifest.tensors.end(), by_name);
  return {};
}

}  // namespace holdfast::storage
