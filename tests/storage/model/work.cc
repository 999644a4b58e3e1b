#include "work.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "holdfast/storage/readers/version_reader.h"

namespace holdfast::storage::model {
namespace {

constexpr const char* kTensor = "work";

Status load_work(const VersionReader& version, Work& work) {
  const TensorEntry* tensor = version.manifest().find(kTensor);
  if (!tensor) return {StatusCode::misfit, "no work in this version"};
  Work loaded(tensor->bytes() / sizeof(std::uint32_t));
  const Status read = version.read({{kTensor, std::as_writable_bytes(std::span(loaded))}}, {true, 1});
  if (read.ok()) work = std::move(loaded);
  return read;
}

}  // namespace

bool holds(const Work& work, std::uint32_t item) { return std::find(work.begin(), work.end(), item) != work.end(); }

std::vector<Work> works_in(const Store& store) {
  History history;
  std::vector<Work> works;
  if (!history.refresh(store).ok()) return works;
  for (const VersionRef& version : history.versions()) {
    if (history.is_dropped(version.uid)) continue;
    const auto reader = VersionReader::open(store, version.uid);
    if (reader && reader->verify().empty()) works.push_back(reader->manifest().values.at("work").get<Work>());
  }
  return works;
}

bool any_holds(const std::vector<Work>& works, std::uint32_t item) {
  return std::any_of(works.begin(), works.end(), [&](const Work& work) { return holds(work, item); });
}

OpenRequest request_of(const std::string& session, StepRunner& steps) {
  OpenRequest request;
  request.run = "run";
  request.session = session;
  request.host = "host-" + session.substr(0, 1);
  request.pid = 1;
  request.platform = "model";
  request.program = "program";
  request.take_over = true;
  // Constant clocks: nothing may depend on them, and equal states stay equal.
  request.wall_time = [] { return std::string("2026-01-01T00:00:00Z"); };
  request.seconds = [] { return 0.0; };
  request.pause = [](double) {};
  request.steps = &steps;
  return request;
}

OpenRequest request_of_process(const std::string& session) {
  OpenRequest request;
  request.run = "run";
  request.session = session;
  request.host = "host-" + session.substr(0, 1);
  request.pid = ::getpid();
  request.platform = "test";
  request.program = "program";
  request.take_over = true;
  return request;
}

Result<std::unique_ptr<RunWriter>> open_work(Store& store, OpenRequest request, Work& work) {
  Work loaded;
  request.load = [&loaded](const VersionReader& version) { return load_work(version, loaded); };
  auto hold = RunWriter::open(store, request);
  if (hold.ok()) work = (*hold)->base() ? std::move(loaded) : Work();
  return hold;
}

Result<SavedVersion> save_work(RunWriter& hold, Work& work, std::uint32_t item) {
  Work next = work;
  next.push_back(item);
  SaveRequest request;
  request.reason = "test";
  request.position.step = next.size();
  request.values["work"] = next;
  request.tensors.push_back({kTensor,
                             Dtype::u32,
                             {static_cast<std::int64_t>(next.size())},
                             [&next](std::uint64_t offset, std::span<std::byte> into) {
                               std::memcpy(into.data(), reinterpret_cast<const std::byte*>(next.data()) + offset,
                                           into.size());
                             }});
  auto saved = hold.save(request);
  if (saved.ok()) work = std::move(next);
  return saved;
}

}  // namespace holdfast::storage::model
