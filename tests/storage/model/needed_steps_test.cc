// Proof that the model can fail, and that the protocols' steps are needed: each step left out, and each done after the
// one that follows it, one at a time. FORMAT.md explains those that the model finds free.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>

#include "catch.h"
#include "scenarios.h"
#include "search.h"

namespace holdfast::storage::model {
namespace {

std::vector<Scenario> scenarios_for_faults() {
  std::vector<Scenario> all = small_scenarios();
  for (Scenario& scenario : two_writer_scenarios()) all.push_back(std::move(scenario));
  return all;
}

std::string first_word(const std::string& label) { return label.substr(0, label.find(' ')); }

// In a child: a step that needs what the step before it produced may crash without it, which is an answer too.
std::string what_breaks(const Fault& fault, std::uint64_t most_states) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  std::cout.flush();
  const pid_t child = fork();
  if (child == 0) {
    std::string answer;
    for (const Scenario& scenario : scenarios_for_faults()) {
      SearchOptions options;
      options.fault = fault;
      options.most_states = most_states;
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
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) answer.append(buffer, static_cast<std::size_t>(got));
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

  std::map<std::string, std::string> found;
  for (const auto& [first, labels] : protocols) {
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const std::string step = first_word(labels[i]);
      found["without " + step] = what_breaks({Fault::Kind::leave_out, step}, 4000);
      if (i + 1 < labels.size()) {
        found[first_word(labels[i + 1]) + " before " + step] = what_breaks({Fault::Kind::swap, step}, 4000);
      }
    }
  }
  for (const auto& [fault, what] : found) {
    std::cout << "model: " << fault << ": " << (what.empty() ? "holds" : what) << std::endl;
  }
}

}  // namespace
}  // namespace holdfast::storage::model
