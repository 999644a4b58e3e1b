// A run in its own folder, for tests of sessions in one process. What the session prints goes to a file there.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/session/session.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/run/metrics.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "session/earlier_sessions.h"
#include "storage/scratch_folder.h"

struct Run {
  ScratchFolder folder;
  std::string every = "never";

  holdfast::SessionOptions options() const {
    holdfast::SessionOptions given;
    given.dir = folder.path().string();
    given.run = "run";
    given.every = every;
    given.device = "cpu";
    return given;
  }
  // The session's own lines go to a file, so that a test's output stays short.
  template <class Body>
  auto session(Body&& body, holdfast::SessionOptions given) const {
    char name[] = "program";
    char* argv[] = {name, nullptr};
    int argc = 1;
    const int kept = ::dup(STDERR_FILENO);
    const int file = ::open((folder / "stderr").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    ::dup2(file, STDERR_FILENO);
    ::close(file);
    struct Restore {
      int fd;
      ~Restore() {
        ::dup2(fd, STDERR_FILENO);
        ::close(fd);
      }
    } restore{kept};
    holdfast::earlier_sessions() = {};  // each session represents its own process
    auto session = holdfast::Session::start(argc, argv, given);
    return body(session);
  }
  template <class Body>
  auto session(Body&& body) const {
    return session(std::forward<Body>(body), options());
  }
  /// Everything that all sessions have printed so far.
  std::string said() const {
    std::ifstream file((folder / "stderr").string());
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::unique_ptr<holdfast::storage::Store> store() const {
    return holdfast::storage::open_file_store(folder / "run", {.read_only = true});
  }
  holdfast::storage::History history() const {
    holdfast::storage::History history;
    REQUIRE(history.refresh(*store()).ok());
    return history;
  }
  std::vector<holdfast::storage::Manifest> versions() const {
    const auto past = history();
    std::vector<holdfast::storage::Manifest> manifests;
    for (const auto& version : past.versions()) {
      manifests.push_back(holdfast::storage::VersionReader::open(*store(), version.uid)->manifest());
    }
    return manifests;
  }
  std::vector<holdfast::storage::Note> close_notes() const {
    auto notes = history().notes();
    std::erase_if(notes, [](const auto& note) { return note.kind != holdfast::storage::NoteKind::close; });
    return notes;
  }
  std::vector<nlohmann::json> metrics() const {
    const auto metrics = holdfast::storage::read_metrics(*store(), history());
    REQUIRE(metrics.ok());
    return *metrics;
  }
};
