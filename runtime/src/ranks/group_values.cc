#include <cxxabi.h>
#include <fmt/format.h>

#include <cstdlib>
#include <exception>
#include <typeinfo>
#include <utility>

#include "ranks/call_site.h"
#include "ranks/group_impl.h"
#include "ranks/value_bytes.h"

namespace holdfast {
namespace {

using nlohmann::json;
using storage::StatusCode;

std::string type_of(const std::exception& error) {
  int status = 0;
  char* name = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status);
  std::string text = status == 0 ? name : typeid(error).name();
  std::free(name);
  return text;
}

}  // namespace

void Group::barrier(Site site) { impl_->collective("barrier", "", "", site); }

std::vector<json> Group::compare(const char* operation, const std::string& what, const json& value, Site site) {
  std::vector<json> all;
  for (const CollectiveFingerprint& fingerprint : impl_->collective(operation, what, to_bytes(value), site)) {
    all.push_back(from_bytes(fingerprint.value));
  }
  return all;
}

std::string Group::to_rank(int rank) { return fmt::format(" to rank {}", rank); }

std::string Group::name_of(Reduce how) {
  const char* const names[] = {"the sum of ", "the mean of ", "the minimum of ", "the maximum of "};
  return names[static_cast<int>(how)];
}

void Group::require_rank(const char* operation, int rank, Site site) const {
  if (rank >= 0 && rank < world_size()) return;
  throw Error(StatusCode::invalid, fmt::format("{} at {} names rank {}, but the ranks are 0 to {}", operation,
                                               text_of(site), rank, world_size() - 1));
}

json Group::broadcast_json(const json& value, int from, Site site) {
  require_rank("broadcast", from, site);
  const auto fingerprints = impl_->collective("broadcast", fmt::format("a value from rank {}", from),
                                              rank() == from ? to_bytes(value) : std::string(), site);
  return from_bytes(fingerprints.at(static_cast<std::size_t>(from)).value);
}

void Group::run_on_main(const char* operation, const std::function<json()>& act, json& result, Site site) {
  std::exception_ptr thrown;
  json outcome;
  if (is_main()) {
    try {
      outcome["result"] = act();
    } catch (const RankFault&) {
      throw;
    } catch (const c10::Error& error) {
      thrown = std::current_exception();
      outcome = {{"type", type_of(error)}, {"text", error.what_without_backtrace()}};
    } catch (const std::exception& error) {
      thrown = std::current_exception();
      outcome = {{"type", type_of(error)}, {"text", error.what()}};
    } catch (...) {
      thrown = std::current_exception();
      outcome = {{"type", "an exception that is not a std::exception"}, {"text", ""}};
    }
  }
  const auto fingerprints = impl_->collective(operation, "", is_main() ? to_bytes(outcome) : std::string(), site);
  if (thrown) std::rethrow_exception(thrown);
  if (!is_main()) outcome = from_bytes(fingerprints.front().value);
  if (outcome.contains("type")) {
    throw Error(StatusCode::invalid,
                fmt::format("rank 0 threw {} in {} at {}: {}", outcome["type"].get<std::string>(), operation,
                            fingerprints.front().site, outcome["text"].get<std::string>()));
  }
  result = std::move(outcome["result"]);
}

}  // namespace holdfast
