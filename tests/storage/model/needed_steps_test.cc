// Proof that the model can fail, and that the protocols' steps are needed: each step left out, and each done after the
// one that follows it, one at a time. FORMAT.md explains those that the model finds free.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <map>

#include "catch.h"
#include "scenarios.h"
#include "search.h"

namespace holdfast::storage::model {
namespace {

// The faults that only an order between writers reveals. Each other step is needed for its data (else the next step
// cannot run) or against a loss of power, or is free.
constexpr const char* kMustBreak[] = {"without O4",   "without O5", "O5 before O4", "without S7",
                                      "S7 before S5", "without P2", "without P3",   "P3 before P2"};

std::string first_word(const std::string& label) { return label.substr(0, label.find(' ')); }

// Runs in a child, because a step may crash without the result of the step before it, which is also an answer.
std::string what_breaks(const Fault& fault) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  std::cout.flush();
  const pid_t child = fork();
  if (child == 0) {
    std::string answer;
    std::vector<Scenario> scenarios = small_scenarios();
    const std::size_t small = scenarios.size();
    for (Scenario& scenario : two_writer_scenarios()) scenarios.push_back(std::move(scenario));
    for (std::size_t i = 0; i < scenarios.size(); ++i) {
      const Scenario& scenario = scenarios[i];
      SearchOptions options;
      options.fault = fault;
      options.seed = 1;
      options.most_states = i < small ? 10000 : 1500;
      const SearchResult result = search(scenario, options);
      if (result.broken.empty()) continue;
      answer = result.broken.front().substr(0, result.broken.front().find('\n'));
      break;
    }
    if (!answer.empty() && write(ends[1], answer.data(), answer.size()) < 0) _exit(1);
    _exit(0);
  }
  close(ends[1]);
  std::string answer;
  char buffer[4096];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;)
    answer.append(buffer, static_cast<std::size_t>(got));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return "cannot run: it needs what another step made";
  return answer;
}

TEST_CASE("every_step_of_the_protocols_is_needed_or_free_for_a_reason", "[full]") {
  // The protocols, as the product performs them.
  std::map<std::string, std::vector<std::string>> protocols;
  for (const Scenario& scenario : small_scenarios()) {
    World world(scenario, begin(scenario), {});
    for (std::size_t writer = 0; writer < world.writers(); ++writer) {
      while (!world.finished(writer)) world.step(writer);
    }
    for (const auto& labels : world.protocols()) {
      auto& known = protocols[first_word(labels.front())];
      if (labels.size() > known.size()) known = labels;
    }
  }
  REQUIRE(!protocols.empty());

  std::size_t free = 0;
  const auto try_fault = [&](const std::string& name, const Fault& fault) {
    const std::string what = what_breaks(fault);
    std::cout << "model: " << name << ": " << (what.empty() ? "holds" : what) << std::endl;
    if (what.empty()) ++free;
    const bool must_break = std::count(std::begin(kMustBreak), std::end(kMustBreak), name) > 0;
    if (must_break) CHECK_FALSE((name + " " + what) == name + " ");
  };
  for (const auto& [first, labels] : protocols) {
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const std::string step = first_word(labels[i]);
      try_fault("without " + step, {Fault::Kind::leave_out, step, ""});
      if (i + 1 == labels.size()) continue;
      const std::string next = first_word(labels[i + 1]);
      try_fault(next + " before " + step, {Fault::Kind::move, step, next});
    }
  }
  // Between these steps there is only a sync, which does not matter to processes that only crash.
  try_fault("S7 before S5", {Fault::Kind::move, "S5", "S7"});
  std::cout << "model: " << free << " faults that the model finds free; FORMAT.md gives the reasons" << std::endl;
}

}  // namespace
}  // namespace holdfast::storage::model
