// Helpers for tests that save and resume: a session on a store, whose versions have one small tensor each.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/storage/run/run_writer.h"

namespace run_fixture {

using namespace holdfast::storage;

/// A tensor of 64 floats that all equal `value`.
inline TensorSource constant_tensor(const std::string& name, float value) {
  return {name, Dtype::f32, {8, 8}, [value](std::uint64_t offset, std::span<std::byte> into) {
            for (std::size_t i = 0; i < into.size(); ++i) {
              std::byte bytes[sizeof value];
              std::memcpy(bytes, &value, sizeof value);
              into[i] = bytes[(offset + i) % sizeof value];
            }
          }};
}

inline SaveRequest version(std::uint64_t step) {
  SaveRequest request;
  request.reason = "test";
  request.position.step = step;
  request.tensors = {constant_tensor("w", static_cast<float>(step)), constant_tensor("b", -static_cast<float>(step))};
  return request;
}

/// The step at which a version was saved, read from its tensors, with every digest checked.
inline Result<std::uint64_t> read_step(const VersionReader& reader) {
  std::vector<float> w(64), b(64);
  const Status status =
      reader.read({{"w", std::as_writable_bytes(std::span(w))}, {"b", std::as_writable_bytes(std::span(b))}},
                  {.check_digests = true, .threads = 1});
  if (!status.ok()) return status;
  for (std::size_t i = 0; i < w.size(); ++i) {
    if (w[i] != w[0] || b[i] != -w[0] || w[0] != static_cast<float>(reader.manifest().position.step)) {
      return Status(StatusCode::invalid, "the tensors are not those of the step");
    }
  }
  return reader.manifest().position.step;
}

struct SessionOf {
  std::string session = "aaaaaaaa";
  std::string program = "program-1";
  std::optional<std::string> from = std::nullopt;
  bool fresh = false;
  bool take_over = false;
  std::string job = "";
};

struct Opened {
  Result<std::unique_ptr<RunWriter>> writer;
  std::optional<std::uint64_t> step;                         // of the loaded version
  std::vector<std::string> said;                             // reports while the run was opened
  std::shared_ptr<const std::vector<std::string>> all_said;  // all reports until now
  RunWriter* operator->() { return writer->get(); }
  bool ok() const { return writer.ok(); }
};

inline Opened open_run(Store& store, const SessionOf& who = {}) {
  std::optional<std::uint64_t> step;
  const auto said = std::make_shared<std::vector<std::string>>();  // shared, because the writer also reports later
  OpenRequest request;
  request.run = "test";
  request.session = who.session;
  request.host = "host";
  request.pid = 1;
  request.platform = "local";
  request.program = who.program;
  request.from = who.from;
  request.fresh = who.fresh;
  request.take_over = who.take_over;
  request.job = who.job;
  request.wall_time = [] { return std::string("2026-01-01T00:00:00Z"); };
  request.seconds = [] { return 0.0; };
  request.pause = [](double) {};
  request.say = [said](const std::string& line) { said->push_back(line); };
  request.load = [&step](const VersionReader& reader) {
    auto read = read_step(reader);
    if (read) step = *read;
    return read.status();
  };
  auto writer = RunWriter::open(store, request);
  return {std::move(writer), step, *said, said};
}

}  // namespace run_fixture
