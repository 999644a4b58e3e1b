#include "two_sessions.h"

#include <algorithm>
#include <memory>

#include "holdfast/storage/stores/file/file_store.h"
#include "workload.h"

namespace holdfast::storage::crash {
namespace {

const Path kSharedRun = "/home/runs/alpha";

/// The run, its old session with three versions, and the session that takes over.
class Scene {
 public:
  explicit Scene(const std::function<void(SimulatedDisk&)>& sabotage) : disk(DiskContent({"/home"})) {
    if (sabotage) sabotage(disk);
    old_store = open_file_store(kSharedRun, {}, disk, disk);
    new_store = open_file_store(kSharedRun, {}, disk, disk);
    old_session = start(*old_store, request_to_open(1));
    for (int i = 0; i < 3; ++i) save(*old_session);
  }

  std::unique_ptr<RunWriter> start(Store& store, OpenRequest request) {
    request.steps = &disk;
    auto opened = RunWriter::open(store, request);
    if (!opened) {
      last = opened.status();
      return nullptr;
    }
    acknowledged.opens.push_back((*opened)->uid());
    return std::move(*opened);
  }
  void save(RunWriter& session) {
    const auto saved = session.save(state_at(++step));
    last = saved.status();
    if (saved) acknowledged.versions.push_back({saved->uid, step});
  }
  void prune_old() {
    Retention retention;
    retention.keep_last = 1;
    last = old_session->prune(retention).status();
  }
  void take_over(bool from_oldest) {
    OpenRequest request = request_to_open(2);
    if (from_oldest) request.from = acknowledged.versions.front().uid.text();
    new_session = start(*new_store, request);
  }
  /// A start of a program that is incompatible with the versions.
  void fail_to_take_over() {
    OpenRequest request = request_to_open(2);
    request.load = [](const VersionReader&) { return Status(StatusCode::misfit, "another program"); };
    new_session = start(*new_store, request);
  }

  std::string broken() {
    if (new_session && new_session->base()) {
      const auto base = VersionReader::open(*new_store, *new_session->base());
      if (!base) return "the new session's base is gone: " + base.status().message();
      if (const auto findings = base->verify(); !findings.empty()) {
        return "the new session's base is damaged: " + findings[0].what;
      }
    }
    for (const Acknowledged::Version& version : acknowledged.versions) {
      if (!new_session || new_session->choice().rewind || version.uid.session != session_id(1)) continue;
      if (!new_session->base() || new_session->base()->seq < version.uid.seq) {
        return "version " + version.uid.text() + " was acknowledged, but the new session continues from an older one";
      }
    }
    // The order of sessions counts, not that of their acknowledgements.
    std::stable_partition(acknowledged.versions.begin(), acknowledged.versions.end(),
                          [](const auto& version) { return version.uid.session == session_id(1); });
    // A rewind abandons newer versions on purpose, so that they are not promised any more.
    if (new_session && new_session->choice().rewind) {
      save(*new_session);
      if (!last.ok()) return "the new session cannot save: " + last.message();
      acknowledged.versions = {acknowledged.versions.back()};
    }
    return broken_restart(disk, kSharedRun, acknowledged, 3);
  }

  SimulatedDisk disk;
  std::unique_ptr<Store> old_store, new_store;
  std::unique_ptr<RunWriter> old_session, new_session;
  Acknowledged acknowledged;
  std::uint64_t step = 0;
  Status last;
};

using Act = std::function<void(Scene&)>;
struct Schedule {
  const char* name;
  Act first;   // is paused once
  Act second;  // runs during the pause
};

const std::vector<Schedule>& all_schedules() {
  const Act save = [](Scene& scene) { scene.save(*scene.old_session); };
  const Act prune = [](Scene& scene) { scene.prune_old(); };
  const Act take_over = [](Scene& scene) { scene.take_over(false); };
  const Act rewind = [](Scene& scene) { scene.take_over(true); };
  const Act take_over_and_save = [](Scene& scene) {
    scene.take_over(false);
    if (scene.new_session) scene.save(*scene.new_session);
  };
  static const std::vector<Schedule> schedules = {
      {"a save, the other takes over", save, take_over},
      {"a save, the other takes over and saves", save, take_over_and_save},
      {"a save, the other rewinds", save, rewind},
      {"a prune, the other takes over", prune, take_over},
      {"a prune, the other takes over and saves", prune, take_over_and_save},
      {"a prune, the other rewinds", prune, rewind},
      {"a takeover, the other saves", take_over, save},
      {"a takeover, the other prunes", take_over, prune},
      {"a rewind, the other prunes", rewind, prune},
  };
  return schedules;
}

}  // namespace

TwoSessions search_two_sessions(const std::function<void(SimulatedDisk&)>& sabotage, bool stop_at_first) {
  TwoSessions result;
  const auto report = [&](const std::string& what) { result.broken.push_back(what); };

  Scene misfit(sabotage);
  misfit.fail_to_take_over();
  misfit.save(*misfit.old_session);
  ++result.schedules;
  if (!misfit.last.ok()) report("a start that does not fit stops the session that runs: " + misfit.last.message());

  for (const Schedule& schedule : all_schedules()) {
    bool more = true;
    for (std::size_t at = 0; more && !(stop_at_first && !result.broken.empty()); ++at) {
      Scene scene(sabotage);
      std::size_t reached = 0;
      std::string where;
      bool switched = false;
      const auto maybe_switch = [&](const std::string& place) {
        if (switched || reached++ != at) return;
        switched = true;
        where = place;
        schedule.second(scene);
      };
      std::string step;
      scene.disk.at_step = [&](std::string_view label) {
        if (!switched) step = label;
        maybe_switch("before " + step);
      };
      scene.disk.changed = [&] { maybe_switch("in " + step); };
      schedule.first(scene);
      scene.disk.at_step = nullptr;
      scene.disk.changed = nullptr;
      more = switched;
      if (!switched) break;
      ++result.schedules;
      if (const std::string broken = scene.broken(); !broken.empty()) {
        report(std::string(schedule.name) + ", " + where + ": " + broken);
      }
    }
  }
  return result;
}

}  // namespace holdfast::storage::crash
