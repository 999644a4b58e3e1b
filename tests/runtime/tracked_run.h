// A run in memory. Tracked state is saved to it and restored from it through the storage library's own protocols.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/memory_store.h"
#include "message_parts.h"
#include "state/run_state.h"

class TrackedRun {
 public:
  TrackedRun() : store_(holdfast::storage::open_memory_store(holdfast::storage::make_memory_image())) {
    holdfast::storage::OpenRequest request;
    request.run = "run";
    request.session = "aaaaaaaa";
    request.host = "host";
    request.load = [](const holdfast::storage::VersionReader&) { return holdfast::storage::Status(); };
    auto writer = holdfast::storage::RunWriter::open(*store_, request);
    holdfast::detail::throw_if(writer.status());
    writer_ = *std::move(writer);
  }

  void save(const holdfast::RunState& state) { save(state.capture()); }

  void save(holdfast::Snapshot captured) {
    holdfast::storage::SaveRequest request;
    request.reason = "test";
    request.tensors = std::move(captured.tensors);
    request.tied = std::move(captured.tied);
    request.values = std::move(captured.values);
    auto saved = writer_->save(request);
    holdfast::detail::throw_if(saved.status());
    newest_ = saved->uid;
  }

  holdfast::storage::VersionReader newest() const {
    auto version = holdfast::storage::VersionReader::open(*store_, newest_);
    holdfast::detail::throw_if(version.status());
    return *std::move(version);
  }

  /// The payload's bytes. Equal states must give equal bytes.
  std::string payload() const { return *store_->get(newest().manifest().files.at(0).name); }

  /// Flips one bit of a tensor's stored bytes.
  void damage(const std::string& tensor) {
    const auto version = newest();
    const auto& part = version.manifest().find(tensor)->parts.at(0);
    const std::string& name = version.manifest().files.at(part.file).name;
    std::string bytes = *store_->get(name);
    bytes[part.begin] = static_cast<char>(bytes[part.begin] ^ 1);
    holdfast::detail::throw_if(store_->put(name, bytes));
  }

 private:
  std::unique_ptr<holdfast::storage::Store> store_;
  std::unique_ptr<holdfast::storage::RunWriter> writer_;
  holdfast::storage::Uid newest_;
};

/// Every byte of a state, by name.
struct StateBytes {
  std::map<std::string, std::string> tensors;
  std::map<std::string, std::string> tied;
  std::string values;
};

inline StateBytes bytes_of(const holdfast::RunState& state, std::size_t piece = std::size_t{1} << 20) {
  const holdfast::Snapshot captured = state.capture();
  StateBytes bytes{{}, captured.tied, captured.values.dump()};
  for (const auto& source : captured.tensors) {
    std::size_t size = element_size(source.dtype);
    for (const auto extent : source.shape) size *= static_cast<std::size_t>(extent);
    std::string all(size, '\0');
    for (std::size_t done = 0; done < size; done += piece) {
      source.copy(done, std::as_writable_bytes(std::span(all)).subspan(done, std::min(piece, size - done)));
    }
    bytes.tensors.emplace(source.name, std::move(all));
  }
  return bytes;
}

/// The names of the tensors that differ between two states.
inline std::vector<std::string> other_tensors(const StateBytes& a, const StateBytes& b) {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : a.tensors) {
    if (const auto found = b.tensors.find(name); found == b.tensors.end() || found->second != bytes) {
      names.push_back(name);
    }
  }
  for (const auto& [name, bytes] : b.tensors) {
    if (!a.tensors.contains(name)) names.push_back(name);
  }
  return names;
}

/// The names of the tensors that differ, and "values" and "tied" if those differ.
inline std::vector<std::string> other_parts(const StateBytes& a, const StateBytes& b) {
  std::vector<std::string> names = other_tensors(a, b);
  if (a.values != b.values) names.push_back("values");
  if (a.tied != b.tied) names.push_back("tied");
  return names;
}

inline const std::vector<std::string> kNone;
