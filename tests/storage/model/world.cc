#include "world.h"

#include <algorithm>
#include <utility>

#include "work.h"
#include "world_writer.h"

namespace holdfast::storage::model {

Beginning begin(const Scenario& scenario) {
  Beginning beginning;
  if (scenario.versions_before == 0) return beginning;
  auto image = std::make_shared<Image>();
  SteppedStore store(image, {});
  FaultySteps steps;
  Work work;
  auto hold = open_work(store, request_of("11111111", steps), work);
  if (!hold.ok()) beginning.wrongs.push_back("before the writers started: " + hold.status().message());
  for (std::uint32_t i = 0; hold.ok() && i < scenario.versions_before; ++i) {
    auto saved = save_work(**hold, work, i + 1);
    if (!saved.ok())
      beginning.wrongs.push_back("before the writers started: " + saved.status().message());
    else
      beginning.acknowledged.push_back({{1, "11111111"}, i + 1, saved->uid});
  }
  beginning.image = *image;
  return beginning;
}

World::World(const Scenario& scenario, const Beginning& beginning, const Fault& fault)
    : image_(std::make_shared<Image>(beginning.image)),
      acknowledged_(beginning.acknowledged),
      wrongs_(beginning.wrongs) {
  for (const Program& program : scenario.writers) {
    writers_.push_back(std::make_unique<Writer>());
    Writer& writer = *writers_.back();
    writer.program = program;
    SteppedStore::Hooks hooks;
    hooks.before = [&writer](std::string_view what) {
      writer.next = what;
      writer.fiber->yield();
      if (writer.killed) throw WriterDied();
    };
    hooks.may_meet = [this, &writer](Meeting what) { return may_meet(writer, what); };
    writer.steps.fault = fault;
    writer.steps.performing = [this](const std::vector<std::string>& labels) { protocols_.insert(labels); };
    writer.store = std::make_unique<SteppedStore>(image_, std::move(hooks));
    writer.fiber = std::make_unique<Fiber>([this, &writer] {
      try {
        live(writer);
      } catch (const WriterDied&) {
      }
    });
  }
  for (const auto& writer : writers_) writer->fiber->resume();  // up to its first operation
}

World::~World() {
  for (std::size_t writer = 0; writer < writers_.size(); ++writer) kill(writer);
}

bool World::finished(std::size_t writer) const { return writers_[writer]->fiber->finished(); }

const std::string& World::next(std::size_t writer) const { return writers_[writer]->next; }

void World::step(std::size_t writer) { writers_[writer]->fiber->resume(); }

void World::kill(std::size_t index) {
  Writer& writer = *writers_[index];
  if (writer.fiber->finished()) return;
  writer.killed = true;
  writer.store->die();
  writer.fiber->resume();
}

std::size_t World::superseded() const {
  return static_cast<std::size_t>(
      std::count_if(writers_.begin(), writers_.end(), [](const auto& writer) { return writer->stale; }));
}

bool World::may_meet(const Writer& writer, Meeting what) const {
  return std::any_of(writers_.begin(), writers_.end(), [&](const auto& other) {
    if (other.get() == &writer || other->fiber->finished()) return false;
    const auto& actions = other->program.actions;
    return std::any_of(actions.begin() + static_cast<std::ptrdiff_t>(other->done), actions.end(), [&](Action action) {
      return action == Action::remove_orphans || (action == Action::prune && what == Meeting::removes_versions);
    });
  });
}

// Between two calls a RunWriter's knowledge is its history, the numbers it drew and the results of its calls. From here
// on, all ways that led to the same knowledge are one state.
void World::forget_the_way(Writer& writer, const RunWriter& run) {
  std::string known = run.uid().text() + " from " + (run.base() ? run.base()->text() : "nothing");
  for (const OpenEntry& open : run.history().opens()) known += " open " + open.uid.text();
  for (const VersionRef& version : run.history().versions()) known += " version " + version.uid.text();
  for (const Note& note : run.history().notes()) known += " note " + note.uid.text();
  for (const std::string& uid : writer.store->own()) known += " own " + uid;
  known +=
      " highest " + std::to_string(run.history().highest_seq()) + " of " + std::to_string(writer.store->highest_seen());
  Fingerprint remembered;
  remembered.then(known);
  writer.store->remember_only(remembered);
}

Fingerprint World::fingerprint() const {
  Fingerprint all = image_->fingerprint();
  for (const auto& writer : writers_) {
    all.then(writer->store->observed());
    all.then(writer->told);
    all.then(writer->fiber->finished() ? "finished" : "");
  }
  return all;
}

void World::wrong(const Writer& writer, const std::string& what) {
  wrongs_.push_back("writer " + writer.program.session.substr(0, 1) + ": " + what);
}

bool World::is_superseded(const SessionOrder& order) const {
  const auto& opens = image_->opens();
  return std::any_of(opens.begin(), opens.end(), [&order](const OpenEntry& open) {
    return SessionOrder{open.epoch, open.uid.session} > order;
  });
}

// One writer's life, in its fiber.
void World::live(Writer& writer) {
  OpenRequest request = request_of(writer.program.session, writer.steps);
  if (writer.program.rewind_to && !acknowledged_.empty()) {
    // The user lists the run and names a version of it.
    writer.next = "looks for a version";
    writer.fiber->yield();
    if (writer.killed) throw WriterDied();
    const std::size_t chosen = std::min(*writer.program.rewind_to, acknowledged_.size() - 1);
    request.from = acknowledged_[chosen].uid.text();
    writer.told.then(*request.from);
  }
  auto hold = open_work(*writer.store, request, writer.work);
  writer.told.then(hold.ok() ? "opened" : to_string(hold.code()));
  if (!hold.ok()) {
    writer.open_failed = true;
    writer.stale = hold.code() == StatusCode::superseded;
    if (writer.stale) {
      std::optional<SessionOrder> own;
      for (const OpenEntry& open : image_->opens()) {
        if (open.uid.session == writer.program.session) own = SessionOrder{open.epoch, open.uid.session};
      }
      if (!own || !is_superseded(*own)) wrong(writer, "may not open although no later session owns the run");
    }
    // A rewind may name a version that another writer drops at the same time; all other starts must open or be
    // superseded.
    if (!writer.stale && !writer.program.rewind_to) wrong(writer, "cannot open: " + hold.status().message());
    return;
  }
  RunWriter& run = **hold;
  for (const OpenEntry& open : image_->opens()) {
    if (open.uid == run.uid()) writer.order = SessionOrder{open.epoch, open.uid.session};
  }
  if (!writer.order) return wrong(writer, "opened without an open entry in the journal");
  writer.base = run.base();

  for (const Action action : writer.program.actions) {
    forget_the_way(writer, run);
    Status status;
    if (action == Action::save) save(writer, run);
    if (action == Action::prune) {
      auto dropped = run.prune({writer.program.keep_last});
      if (!dropped.ok()) status = dropped.status();
    }
    if (action == Action::remove_orphans) {
      auto removed = run.remove_orphans();
      if (!removed.ok()) status = removed.status();
    }
    writer.told.then(to_string(status.code()));
    if (status.code() == StatusCode::superseded)
      writer.stale = true;
    else if (!status.ok())
      wrong(writer, "cannot tidy: " + status.message());
    if (writer.stale) break;
    ++writer.done;
  }
  if (!writer.stale) return;

  // A stale writer that continues gets the same result every time, and leaves no version behind.
  const Fingerprint before = image_->fingerprint();
  auto again = save_work(run, writer.work, 999);
  if (again.code() != StatusCode::superseded) wrong(writer, "was superseded, and saved afterwards");
  if (!(image_->fingerprint() == before)) wrong(writer, "changed the store after it was superseded");
}

void World::save(Writer& writer, RunWriter& run) {
  const auto item =
      static_cast<std::uint32_t>(std::stoul(writer.program.session.substr(0, 1), nullptr, 16) * 100 + ++writer.saves);
  auto saved = save_work(run, writer.work, item);
  writer.told.then(saved.ok() ? saved->uid.text() : std::string(to_string(saved.code())));
  if (saved.ok()) {
    acknowledged_.push_back({*writer.order, item, saved->uid});
    writer.base.reset();
    if (is_superseded(*writer.order))
      wrong(writer, "acknowledged " + saved->uid.text() + " although a later session owns the run");
    return;
  }
  if (saved.code() != StatusCode::superseded) return wrong(writer, "cannot save: " + saved.status().message());
  writer.stale = true;
  if (!is_superseded(*writer.order)) wrong(writer, "was told that it is superseded while no later session exists");
  const std::string& sentence = saved.status().message();
  const auto& opens = image_->opens();
  const bool names_owner = std::any_of(opens.begin(), opens.end(), [&](const OpenEntry& open) {
    return SessionOrder{open.epoch, open.uid.session} > *writer.order &&
           sentence.find(open.uid.session) != std::string::npos && sentence.find(open.host) != std::string::npos;
  });
  if (!names_owner) {
    wrong(writer, "was superseded with a sentence that does not say by whom: " + sentence);
  }
}

}  // namespace holdfast::storage::model
