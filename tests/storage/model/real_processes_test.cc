// Two real processes on one real folder, each stopped (SIGSTOP) at random moments for longer than any step takes, while
// the second takes the run over from the first.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <random>
#include <sstream>
#include <thread>

#include "../scratch_folder.h"
#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "work.h"

namespace holdfast::storage::model {
namespace {

std::unique_ptr<Store> store_at(const Path& folder) { return open_file_store(folder / "run", {false, false}); }

void nap(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

void tell(int to, const std::string& line) {
  const std::string text = line + "\n";
  if (write(to, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(3);
}

// A writer's process: saves until it is superseded or has saved `saves` versions. Each acknowledgement goes to the
// parent, which decides what was lost.
[[noreturn]] void write_versions(const Path& folder, const std::string& session, int saves, int to) {
  auto store = store_at(folder);
  Work work;
  auto run = open_work(*store, request_of_process(session), work);
  if (!run.ok()) {
    tell(to, (run.code() == StatusCode::superseded ? "stale " : "failed ") + run.status().message());
    _exit(0);
  }
  for (int i = 1; i <= saves; ++i) {
    const auto item = static_cast<std::uint32_t>(std::stoul(session.substr(0, 1), nullptr, 16) * 1000 + i);
    auto saved = save_work(**run, work, item);
    Status status = saved.ok() ? Status() : saved.status();
    if (saved.ok()) tell(to, "saved " + std::to_string(item));
    if (saved.ok() && i % 3 == 0) {
      auto dropped = (*run)->prune({2});
      if (!dropped.ok()) status = dropped.status();
    }
    if (!status.ok()) {
      tell(to, (status.code() == StatusCode::superseded ? "stale " : "failed ") + status.message());
      _exit(0);
    }
    nap(1);
  }
  _exit(0);
}

struct Child {
  pid_t pid = 0;
  int from = -1;
};

Child start(const Path& folder, const std::string& session, int saves) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    write_versions(folder, session, saves, ends[1]);
  }
  close(ends[1]);
  return {pid, ends[0]};
}

std::string all_of(int from) {
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = read(from, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(got));
  close(from);
  return text;
}

void run_pairs(int pairs) {
  int stale = 0;
  std::size_t acknowledged = 0;
  for (int pair = 0; pair < pairs; ++pair) {
    std::mt19937 random(static_cast<std::uint32_t>(pair));
    const auto below = [&random](std::uint32_t n) { return static_cast<int>(random() % n); };
    const ScratchFolder folder;
    // Either order of session ids, so that a tie of epochs goes either way.
    const std::string first = pair % 2 == 0 ? "aaaaaaaa" : "bbbbbbbb";
    const std::string second = pair % 2 == 0 ? "bbbbbbbb" : "aaaaaaaa";

    const Child slow = start(folder.path(), first, 100);
    nap(below(40));
    kill(slow.pid, SIGSTOP);
    const Child fast = start(folder.path(), second, 10);
    for (int stops = below(3); stops > 0; --stops) {
      nap(below(15));
      kill(fast.pid, SIGSTOP);
      nap(below(20));
      kill(slow.pid, SIGCONT);
      nap(below(20));
      kill(slow.pid, SIGSTOP);
      kill(fast.pid, SIGCONT);
    }
    nap(50 + below(150));
    kill(slow.pid, SIGCONT);

    Work saved;
    for (const Child& child : {slow, fast}) {
      std::istringstream lines(all_of(child.from));
      waitpid(child.pid, nullptr, 0);
      for (std::string word, rest; lines >> word && std::getline(lines, rest);) {
        INFO("pair " << pair << ":" << rest);
        CHECK(word != "failed");
        if (word == "saved") saved.push_back(static_cast<std::uint32_t>(std::stoul(rest)));
        if (word != "stale") continue;
        ++stale;
        CHECK(rest.find("was taken over by session " + (child.pid == slow.pid ? second : first)) != std::string::npos);
      }
    }
    auto store = store_at(folder.path());
    Work found;
    auto run = open_work(*store, request_of_process("cccccccc"), found);
    INFO("pair " << pair << ": " << (run.ok() ? "" : run.status().message()));
    REQUIRE(run.ok());
    for (const std::uint32_t item : saved) CHECK(std::count(found.begin(), found.end(), item) == 1);
    CHECK(save_work(**run, found, 1).ok());
    acknowledged += saved.size();
  }
  std::cout << "model: process pairs=" << pairs << " acknowledged=" << acknowledged << " stale_writers=" << stale
            << " lost=0" << std::endl;
  CHECK(stale >= pairs / 2);
}

TEST_CASE("a_suspended_process_that_continues_after_a_takeover_stops_with_an_error", "[full]") { run_pairs(20); }

TEST_CASE("two_hundred_pairs_of_real_processes_lose_nothing", "[long]") { run_pairs(200); }

}  // namespace
}  // namespace holdfast::storage::model
