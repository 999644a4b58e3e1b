#include "world.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/run/payload.h"

namespace holdfast::storage::model {
namespace {

constexpr const char* kTensor = "work";

OpenRequest request_of(const std::string& session, StepRunner& steps) {
  OpenRequest request;
  request.run = "run";
  request.session = session;
  request.host = "host-" + session.substr(0, 1);
  request.pid = 1;
  request.platform = "model";
  request.program = "program";
  request.take_over = true;
  // Constant clocks: nothing may depend on them, and equal states stay equal.
  request.wall_time = [] { return std::string("2026-01-01T00:00:00Z"); };
  request.seconds = [] { return 0.0; };
  request.pause = [](double) {};
  request.steps = &steps;
  return request;
}

Status load_work(const VersionReader& version, Work& work) {
  const TensorEntry* tensor = version.manifest().find(kTensor);
  if (!tensor) return {StatusCode::misfit, "no work in this version"};
  Work loaded(tensor->bytes() / sizeof(std::uint32_t));
  const Status read = version.read({{kTensor, std::as_writable_bytes(std::span(loaded))}}, {true, 1});
  if (read.ok()) work = std::move(loaded);
  return read;
}

std::string text_of(const Work& work) {
  std::string text;
  for (const std::uint32_t item : work) text += (text.empty() ? "" : " ") + std::to_string(item);
  return "[" + text + "]";
}

bool holds(const Work& work, std::uint32_t item) { return std::find(work.begin(), work.end(), item) != work.end(); }

}  // namespace

Result<std::unique_ptr<RunWriter>> open_work(Store& store, OpenRequest request, Work& work) {
  Work loaded;
  request.load = [&loaded](const VersionReader& version) { return load_work(version, loaded); };
  auto hold = RunWriter::open(store, request);
  if (hold.ok()) work = (*hold)->base() ? std::move(loaded) : Work();
  return hold;
}

Result<SavedVersion> save_work(RunWriter& hold, Work& work, std::uint32_t item) {
  Work next = work;
  next.push_back(item);
  SaveRequest request;
  request.reason = "test";
  request.position.step = next.size();
  request.values["work"] = next;
  request.tensors.push_back({kTensor,
                             Dtype::u32,
                             {static_cast<std::int64_t>(next.size())},
                             [&next](std::uint64_t offset, std::span<std::byte> into) {
                               std::memcpy(into.data(), reinterpret_cast<const std::byte*>(next.data()) + offset,
                                           into.size());
                             }});
  auto saved = hold.save(request);
  if (saved.ok()) work = std::move(next);
  return saved;
}

struct World::Writer {
  Program program;
  std::unique_ptr<SteppedStore> store;
  FaultySteps steps;
  std::unique_ptr<Fiber> fiber;
  std::string next = "start";
  bool killed = false;
  std::size_t done = 0;  // actions

  Work work;
  std::optional<SessionOrder> order;  // once opened
  std::optional<Uid> base;            // until its first save
  bool open_failed = false;
  bool stale = false;  // a call returned `superseded`
  std::uint32_t saves = 0;
  Fingerprint told;  // the outcomes of its calls
};

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

std::vector<std::string> World::lost_work(const Work& found, const std::set<SessionOrder>& without_rewinds) const {
  // The highest deliberate rewind, and the work it rewound to.
  std::optional<SessionOrder> rewound;
  std::optional<Uid> base;
  for (const OpenEntry& open : image_->opens()) {
    const SessionOrder order{open.epoch, open.uid.session};
    if (!open.rewind || without_rewinds.contains(order) || (rewound && order < *rewound)) continue;
    rewound = order;
    base = open.base;
  }
  const Work kept = base ? image_->work_of(*base) : Work();
  std::vector<std::string> lost;
  bool rewinder_has_saved = false;
  for (const Acknowledged& one : acknowledged_) {
    rewinder_has_saved = rewinder_has_saved || (rewound && one.order.session == rewound->session);
    const bool left_behind = rewound && one.order < *rewound && !holds(kept, one.item);
    if (!left_behind && !holds(found, one.item)) {
      lost.push_back("lost " + one.uid.text() + ": its work " + std::to_string(one.item) +
                     " was acknowledged, and is not in " + text_of(found));
    }
  }
  const bool may_not_count = rewound && (is_superseded(*rewound) || (base && image_->is_dropped(*base)));
  if (!lost.empty() && may_not_count && !rewinder_has_saved) {
    std::set<SessionOrder> without = without_rewinds;
    without.insert(*rewound);
    return lost_work(found, without);
  }
  return lost;
}

std::vector<std::string> World::try_to_go_on() const {
  auto after = std::make_shared<Image>(*image_);
  SteppedStore store(after, {});
  FaultySteps steps;
  Work work;
  OpenRequest request = request_of("55555555", steps);
  auto hold = open_work(store, request, work);
  if (!hold.ok()) return {"cannot open afterwards: " + hold.status().message()};
  std::vector<std::string> broken = lost_work(work);
  auto saved = save_work(**hold, work, 9);
  if (!saved.ok()) return {"cannot save afterwards: " + saved.status().message()};

  History history;
  if (Status read = history.refresh(store); !read.ok()) return {"cannot list afterwards: " + read.message()};
  auto choice = choose_base(history, {.program = "program"});
  if (!choice.ok() || !choice->version || choice->version->uid != saved->uid) {
    broken.push_back("the version saved afterwards is not the latest");
  }
  for (const auto* wrongs : {&after->wrongs(), &store.wrongs()})
    broken.insert(broken.end(), wrongs->begin(), wrongs->end());
  return broken;
}

std::vector<std::string> World::missing_bases() const {
  std::vector<std::string> missing;
  for (const auto& writer : writers_) {
    if (!writer->base || !writer->order || is_superseded(*writer->order)) continue;
    const auto payload = image_->find(payload_name({*writer->base, 0, 1}));
    if (!image_->find(entry_name(*writer->base, EntryKind::save)) || !payload || payload->empty()) {
      missing.push_back("writer " + writer->program.session.substr(0, 1) + " has lost its base " +
                        writer->base->text() + " before its first save");
    }
  }
  return missing;
}

std::vector<std::string> World::broken_promises(std::unordered_set<Fingerprint, FingerprintHash>& known_good) {
  std::vector<std::string> broken = wrongs_;
  for (const auto& writer : writers_) {
    broken.insert(broken.end(), writer->store->wrongs().begin(), writer->store->wrongs().end());
  }
  broken.insert(broken.end(), image_->wrongs().begin(), image_->wrongs().end());
  const auto missing = missing_bases();
  broken.insert(broken.end(), missing.begin(), missing.end());

  Fingerprint question = image_->fingerprint();
  Fingerprint told;
  for (const Acknowledged& one : acknowledged_) told.add(one.uid.text() + ' ' + std::to_string(one.item));
  for (const auto& writer : writers_) told.add(writer->program.session + (writer->open_failed ? " failed" : ""));
  question.then(told);
  if (!known_good.contains(question)) {
    const auto after = try_to_go_on();
    broken.insert(broken.end(), after.begin(), after.end());
    if (after.empty()) known_good.insert(question);
  }
  return broken;
}

}  // namespace holdfast::storage::model
