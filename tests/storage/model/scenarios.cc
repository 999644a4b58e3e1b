#include "scenarios.h"

namespace holdfast::storage::model {
namespace {

constexpr auto kSave = Action::save;
constexpr auto kPrune = Action::prune;
constexpr auto kOrphans = Action::remove_orphans;

Program program(const char* session, std::vector<Action> actions, std::optional<std::size_t> rewind_to = {}) {
  return {session, std::move(actions), rewind_to, 1};
}

}  // namespace

std::vector<Scenario> small_scenarios() {
  return {
      {"two open a new run and save", 0, {program("aaaaaaaa", {kSave}), program("bbbbbbbb", {kSave})}},
      {"two open a run and save", 2, {program("aaaaaaaa", {kSave}), program("bbbbbbbb", {kSave})}},
      {"one saves and prunes, one rewinds", 2, {program("aaaaaaaa", {kSave, kPrune}), program("bbbbbbbb", {kSave}, 0)}},
      {"one rewinds, one saves and prunes", 2, {program("aaaaaaaa", {kSave}, 0), program("bbbbbbbb", {kSave, kPrune})}},
      {"one saves twice and prunes, one rewinds to the first of these",
       1,
       {program("aaaaaaaa", {kSave, kSave, kPrune}), program("bbbbbbbb", {kSave}, 1)}},
      {"one saves its first version, one removes orphans",
       0,
       {program("aaaaaaaa", {kSave}), program("bbbbbbbb", {kOrphans})}},
      {"one saves, one removes orphans", 1, {program("aaaaaaaa", {kSave}), program("bbbbbbbb", {kOrphans})}},
  };
}

std::vector<Scenario> two_writer_scenarios() {
  const std::vector<Action> full = {kSave, kSave, kPrune};
  return {
      {"new run, two saves and prune each", 0, {program("aaaaaaaa", full), program("bbbbbbbb", full)}},
      {"two saves and prune each", 1, {program("aaaaaaaa", full), program("bbbbbbbb", full)}},
      {"two saves and prune, beside orphan removal first",
       1,
       {program("aaaaaaaa", full), program("bbbbbbbb", {kOrphans, kSave, kSave, kPrune})}},
      {"orphan removal first, beside two saves and prune",
       1,
       {program("aaaaaaaa", {kOrphans, kSave, kSave, kPrune}), program("bbbbbbbb", full)}},
      {"two saves and prune, beside a rewind", 2, {program("aaaaaaaa", full), program("bbbbbbbb", full, 0)}},
      {"a rewind, beside two saves and prune", 2, {program("aaaaaaaa", full, 0), program("bbbbbbbb", full)}},
      {"two rewinds", 2, {program("aaaaaaaa", full, 0), program("bbbbbbbb", full, 1)}},
  };
}

std::vector<Scenario> three_writer_scenarios() {
  return {{"three open and save",
           1,
           {program("aaaaaaaa", {kSave}), program("bbbbbbbb", {kSave}), program("cccccccc", {kSave})}}};
}

}  // namespace holdfast::storage::model
