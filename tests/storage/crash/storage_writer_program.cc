// A storage-only program for tests to trace, with real system calls: opens the run in its only argument, saves twice,
// prunes, closes, and prints each promise when it is made: "opened 000001-7f3a9c1e", "saved 000002-7f3a9c1e 7".
// Exit status: 0 success; 1 refused, with a message on standard error.
#include <unistd.h>

#include <cstdio>

#include "holdfast/storage/stores/file/file_store.h"
#include "workload.h"

using namespace holdfast::storage;

namespace {

int refuse(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return 2;
  const auto store = open_file_store(arguments[1]);
  OpenRequest request = crash::request_to_open(1);
  request.session = random_session_id();
  const auto opened = RunWriter::open(*store, request);
  if (!opened) return refuse(opened.status());
  RunWriter& writer = **opened;
  std::printf("opened %s\n", writer.uid().text().c_str());
  std::fflush(stdout);
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t step = 10 + static_cast<std::uint64_t>(i);
    const auto saved = writer.save(crash::state_at(step));
    if (!saved) return refuse(saved.status());
    std::printf("saved %s %llu\n", saved->uid.text().c_str(), static_cast<unsigned long long>(step));
    std::fflush(stdout);
  }
  Retention retention;
  retention.keep_last = 2;
  if (const auto pruned = writer.prune(retention); !pruned) return refuse(pruned.status());
  const Status closed = writer.note(NoteKind::close, {}, "end", nlohmann::json::object());
  return closed.ok() ? 0 : refuse(closed);
}
