// Programs of many shapes, each killed by SIGKILL at every place that it traces: what they compute, and the state of
// their last version, equal those of a process that was never killed.
#include "program_shapes.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <iostream>
#include <map>

#include "catch.h"
#include "newest_state.h"
#include "storage/scratch_folder.h"

namespace {

struct EndedShape {
  bool killed = false;
  int code = -1;
  std::vector<shapes::Word> words;
};

EndedShape run(const shapes::Shape& shape, const ScratchFolder& folder, const std::string& run, int dies_at) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    if (std::getenv("SHAPES_SHOW") == nullptr) ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
    char name[] = "shapes";
    char* argv[] = {name, nullptr};
    int argc = 1;
    holdfast::SessionOptions options;
    options.dir = folder.path().string();
    options.run = run;
    options.seed = 11;
    options.every = "1";
    options.device = "cpu";
    options.threads = 1;
    auto session = holdfast::Session::start(argc, argv, options);
    shapes::Trace trace(ends[1], dies_at);
    ::_exit(shape.train(session, trace));
  }
  ::close(ends[1]);
  EndedShape ended;
  shapes::Word word;
  while (::read(ends[0], &word, sizeof word) == sizeof word) ended.words.push_back(word);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  ended.killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ended;
}

}  // namespace

TEST_CASE("programs_of_every_shape_resume_exactly_after_a_kill_at_any_point", "[full]") {
  int processes = 0, kills = 0, words = 0, differing = 0;
  for (const auto& shape : shapes::all()) {
    const ScratchFolder folder;
    const EndedShape undisturbed = run(shape, folder, "undisturbed", 0);
    INFO(shape.name);
    REQUIRE(undisturbed.code == holdfast::kDone);
    std::map<std::string, double> expected;
    for (const auto& word : undisturbed.words) expected[word.place] = word.value;
    REQUIRE(expected.size() == undisturbed.words.size());

    // In turn: dies before the first boundary, one further, and two, because not every place is followed by a save.
    EndedShape ended;
    for (int dies_at = 1;; dies_at = dies_at % 3 + 1) {
      ended = run(shape, folder, "killed", dies_at);
      ++processes;
      kills += ended.killed ? 1 : 0;
      for (const auto& word : ended.words) {
        ++words;
        const auto found = expected.find(word.place);
        const bool same = found != expected.end() && std::memcmp(&found->second, &word.value, sizeof(double)) == 0;
        if (!same) ++differing;
        CHECKED_ELSE(same) {
          std::cout << shape.name << " " << word.place << " is " << word.value << " and was "
                    << (found != expected.end() ? found->second : 0) << "\n";
        }
      }
      if (!ended.killed) break;
      REQUIRE(processes < 2000);
    }
    CHECK(ended.code == holdfast::kDone);
    const auto undisturbed_state = newest_state(folder / "undisturbed"), state = newest_state(folder / "killed");
    CHECK(undisturbed_state.first == state.first);
    if (shape.keeps_layout) CHECK(undisturbed_state.second == state.second);
  }
  std::cout << "program_shapes: shapes=" << shapes::all().size() << " processes=" << processes << " kills=" << kills
            << " words=" << words << " differing=" << differing << std::endl;
}
